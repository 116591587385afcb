/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* privmem-rest.conf: what is taken, and that a mistake is named with its place. And what counts as one peer. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <arpa/inet.h>

#include "core/cleanup.h"
#include "rest/address.h"
#include "rest/budget.h"
#include "rest/lines.h"
#include "rest/settings.h"

static char *message;

static int parse_bytes(const void *bytes, size_t size, Settings *ret) {
        _cleanup_fclose_ FILE *file = NULL;

        free(TAKE_PTR(message));
        file = fmemopen((void *) bytes, size, "r");
        assert_non_null(file);
        return settings_parse(file, "x.conf", ret, &message);
}

/* fmemopen() takes no empty buffer. */
static int parse(const char *text, Settings *ret) {
        return parse_bytes(text[0] ? text : "\n", strlen(text[0] ? text : "\n"), ret);
}

static int teardown(void **state) {
        (void) state;
        free(TAKE_PTR(message));
        return 0;
}

static void expect_default(const Settings *s) {
        assert_int_equal(s->http.connections, 4096);
        assert_int_equal(s->http.connections_per_peer, 2048);
        assert_int_equal(s->http.connections_per_address, 256);
        assert_int_equal(s->http.handshakes_per_second, 50);
        assert_int_equal(s->http.body_max, 4194304);
        assert_int_equal(s->http.header_usec, 15 * LOOP_SEC);
        assert_int_equal(s->http.body_usec, 30 * LOOP_SEC);
        assert_int_equal(s->http.idle_usec, 60 * LOOP_SEC);
        assert_int_equal(s->subscribers, 2048);
        assert_int_equal(s->subscribers_per_caller, 1024);
        assert_null(s->certificate);
        assert_null(s->key);
        assert_null(s->client_ca);
        assert_null(s->crl);
        assert_null(s->rights);
        assert_null(s->tokens);
}

/* Nothing of a bad file is taken. */
static void expect_bad(const char *text, const char *wanted) {
        Settings s = { .http.handshakes_per_second = 77 };

        assert_int_equal(parse(text, &s), LINES_E_BAD);
        assert_string_equal(message, wanted);
        assert_int_equal(s.http.handshakes_per_second, 77);
        assert_null(s.certificate);
}

static void nothing_is_set(void **state) {
        const char *const empty[] = { "", "# a comment\n\n; another\n", "[Limits]\n[TLS]\n" };

        (void) state;
        for (size_t i = 0; i < ELEMENTSOF(empty); i++) {
                Settings s;

                assert_int_equal(parse(empty[i], &s), 0);
                expect_default(&s);
        }
}

static void everything_is_set(void **state) {
        Settings s;

        (void) state;
        assert_int_equal(
                parse("[Limits]\nConnections=8192\nConnectionsPerUID=1\nConnectionsPerAddress=2\n"
                      "HandshakesPerSecond=3\nBodyBytes=4\nHeaderSec=5\nBodySec=6\n  IdleSec=7\n"
                      "[TLS]\nCertificate=/c\nKey=/k\nClientCA=/a\nClientCRL=/r\nClientRights=/n\nTokens=/t\n",
                      &s),
                0);
        assert_int_equal(s.http.connections, 8192);
        assert_int_equal(s.http.connections_per_peer, 1);
        assert_int_equal(s.http.connections_per_address, 2);
        assert_int_equal(s.http.handshakes_per_second, 3);
        assert_int_equal(s.http.body_max, 4);
        assert_int_equal(s.http.header_usec, 5 * LOOP_SEC);
        assert_int_equal(s.http.body_usec, 6 * LOOP_SEC);
        assert_int_equal(s.http.idle_usec, 7 * LOOP_SEC);
        assert_string_equal(s.certificate, "/c");
        assert_string_equal(s.key, "/k");
        assert_string_equal(s.client_ca, "/a");
        assert_string_equal(s.crl, "/r");
        assert_string_equal(s.rights, "/n");
        assert_string_equal(s.tokens, "/t");
        settings_done(&s);
        assert_null(s.certificate);
}

static void mistakes(void **state) {
        (void) state;
        expect_bad("[Limits]\nConnections=0\n", "x.conf:2: Connections=0: it must be a number from 1 to 8192");
        expect_bad("[Limits]\nHeaderSec=15s\n", "x.conf:2: HeaderSec=15s: it must be a number from 1 to 3600");
        expect_bad("[Limits]\nBodyBytes=16777217\n",
                   "x.conf:2: BodyBytes=16777217: it must be a number from 1 to 16777216");
        expect_bad("[TLS]\nCertificate=c\n", "x.conf:2: Certificate=c: it must be an absolute path");
        expect_bad("[TLS]\nCertificate=\n", "x.conf:2: Certificate=: it must be an absolute path");
        expect_bad("[TLS]\nCertificate=/c\nCertificate=/c\n",
                   "x.conf:3: Certificate= is set a second time; line 2 has it already");
        expect_bad("Key=/k\n", "x.conf:1: Key= is in no section; it must stand below [Limits] or [TLS]");
        expect_bad("[Tls]\nKey=/k\n", "x.conf:2: there is no section [Tls]; it must be [Limits] or [TLS]");
        expect_bad("[TLS]\nCA=/k\n",
                   "x.conf:2: there is no CA= in [TLS]; it has Certificate=, Key=, ClientCA=, ClientCRL=, "
                   "ClientRights=, Tokens=");
        expect_bad("[TLS]\nnothing\n", "x.conf:2: it must be [Section], Key=Value, or a comment that starts with #");
}

static void what_belongs_together(void **state) {
        (void) state;
        expect_bad("[TLS]\nCertificate=/c\n", "x.conf: Certificate= and Key= must be set together");
        expect_bad("[TLS]\nKey=/k\n", "x.conf: Certificate= and Key= must be set together");
        expect_bad("[TLS]\nCertificate=/c\nKey=/k\nClientCA=/a\n",
                   "x.conf: ClientCA= and ClientRights= must be set together");
        expect_bad("[TLS]\nCertificate=/c\nKey=/k\nTokens=/t\nClientCRL=/r\n",
                   "x.conf: ClientCRL= is of no use without ClientCA=");
        expect_bad("[TLS]\nTokens=/t\n", "x.conf: ClientCA= and Tokens= are of no use without Certificate=");
        expect_bad("[TLS]\nCertificate=/c\nKey=/k\n",
                   "x.conf: with Certificate=, ClientCA= or Tokens= must be set, or nobody could do anything");
}

/* What the administrator is shown as default is the default; a path has none. */
static void the_installed_file(void **state) {
        const char *path = getenv("PRIVMEM_REST_CONF");
        char uncommented[8192] = "", line[256];
        _cleanup_fclose_ FILE *file = NULL;
        unsigned n = 0;
        Settings s;

        (void) state;
        assert_non_null(path);
        assert_int_equal(settings_read(path, &s, &message), 0);
        expect_default(&s);
        file = fopen(path, "re");
        assert_non_null(file);
        while (fgets(line, sizeof(line), file)) {
                bool is_setting = line[0] == '#' && strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZ", line[1]) && strchr(line, '=');
                bool is_path = is_setting && strcmp(strchr(line, '='), "=\n") == 0;

                n += is_setting;
                if (!is_path)
                        strcat(uncommented, is_setting ? line + 1 : line);
        }
        assert_int_equal(n, 16);
        assert_int_equal(parse(uncommented, &s), 0);
        expect_default(&s);
        assert_int_equal(settings_read("/nowhere/x.conf", &s, &message), -ENOENT);
}

/* ---- addresses ---- */

static AddressKey key_of(const char *text) {
        struct sockaddr_storage address;
        socklen_t size;

        assert_true(address_parse(text, &address, &size));
        return address_key((struct sockaddr *) &address);
}

static bool is_one_peer(const char *a, const char *b) {
        AddressKey one = key_of(a), two = key_of(b);

        return memcmp(&one, &two, sizeof(one)) == 0;
}

static void addresses(void **state) {
        const char *const bad[] = { "",
                                    ":",
                                    "127.0.0.1",
                                    "127.0.0.1:",
                                    ":8443",
                                    "::1:8443",
                                    "[::1]",
                                    "[::1:8443",
                                    "localhost:8443",
                                    "127.0.0.1:http",
                                    "127.0.0.1:-1",
                                    "[]:1",
                                    "127.0.0.1:99999x" };
        struct sockaddr_storage address;
        char text[ADDRESS_TEXT_MAX];
        socklen_t size;

        (void) state;
        for (size_t i = 0; i < ELEMENTSOF(bad); i++)
                assert_false(address_parse(bad[i], &address, &size));
        assert_true(address_parse("127.0.0.1:8443", &address, &size));
        assert_int_equal(((struct sockaddr_in *) &address)->sin_port, htons(8443));
        address_print((struct sockaddr *) &address, text);
        assert_string_equal(text, "127.0.0.1");
        assert_true(address_parse("[fe80::1]:1", &address, &size));
        assert_int_equal(size, sizeof(struct sockaddr_in6));
        address_print((struct sockaddr *) &address, text);
        assert_string_equal(text, "fe80::1");
}

static void one_peer(void **state) {
        (void) state;
        assert_true(is_one_peer("10.0.0.1:1", "10.0.0.1:2"));
        assert_false(is_one_peer("10.0.0.1:1", "10.0.0.2:1"));
        assert_true(is_one_peer("10.0.0.1:1", "[::ffff:10.0.0.1]:2"));
        assert_true(is_one_peer("[2001:db8::1]:1", "[2001:db8::ffff:0:1]:1"));
        assert_false(is_one_peer("[2001:db8::1]:1", "[2001:db8:0:1::1]:1"));
}

static unsigned taken(Budget *budget, const char *address, uint64_t now, unsigned tries) {
        unsigned n = 0;

        for (unsigned i = 0; i < tries; i++)
                n += budget_take(budget, key_of(address), now);
        return n;
}

static void a_budget(void **state) {
        uint64_t now = 1000 * LOOP_SEC;
        Budget *budget;

        (void) state;
        assert_int_equal(budget_new(10, &budget), 0);
        budget->seed = 1; /* so that the two fall on places of their own */
        assert_int_equal(taken(budget, "10.0.0.1:1", now, 100), 20);
        assert_int_equal(taken(budget, "10.0.0.2:1", now, 100), 20);
        assert_int_equal(taken(budget, "10.0.0.1:1", now + LOOP_SEC / 2, 100), 5);
        assert_int_equal(taken(budget, "10.0.0.1:1", now + LOOP_SEC / 2, 100), 0);
        assert_int_equal(taken(budget, "10.0.0.1:1", now + 60 * LOOP_SEC, 100), 20);
        budget_free(budget);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_teardown(nothing_is_set, teardown),
                cmocka_unit_test_teardown(everything_is_set, teardown),
                cmocka_unit_test_teardown(mistakes, teardown),
                cmocka_unit_test_teardown(what_belongs_together, teardown),
                cmocka_unit_test_teardown(the_installed_file, teardown),
                cmocka_unit_test(addresses),
                cmocka_unit_test(one_peer),
                cmocka_unit_test(a_budget),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
