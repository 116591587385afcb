/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* TLS of the gateway: whose handshake succeeds, what he may do, how often his chain is verified, and what a reload does.
 * Both ends of each session are here, on a pair of sockets. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

#include <cmocka.h>

#include <gnutls/crypto.h>
#include <gnutls/x509.h>

#include "core/cleanup.h"
#include "rest/lines.h"
#include "rest/tls.h"

#define DAY ((time_t) 86400)

typedef struct Identity {
        gnutls_x509_crt_t crt;
        gnutls_x509_privkey_t key;
} Identity;

typedef struct Fixture {
        char directory[32];
        char certificate[64], key[64], ca[64], crl[64], rights[64];
        TlsFiles files;
        Identity authority, stranger, server;
        Tls *tls;
        char *message;
        unsigned n_serial;
} Fixture;

/* ---- certificates ---- */

typedef struct Wanted {
        const char *cn, *uri, *dns;
        const char *purpose;
        time_t from, until;     /* from now */
        const Identity *issuer; /* NULL: itself, an authority */
} Wanted;

static Identity make(Fixture *f, const Wanted *w) {
        uint8_t serial[] = { 1, (uint8_t) ++f->n_serial };
        time_t now = time(NULL);
        Identity made;

        assert_int_equal(gnutls_x509_privkey_init(&made.key), 0);
        assert_int_equal(gnutls_x509_privkey_generate(made.key, GNUTLS_PK_ECDSA,
                                                      GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0),
                         0);
        assert_int_equal(gnutls_x509_crt_init(&made.crt), 0);
        assert_int_equal(gnutls_x509_crt_set_version(made.crt, 3), 0);
        assert_int_equal(gnutls_x509_crt_set_serial(made.crt, serial, sizeof(serial)), 0);
        assert_int_equal(gnutls_x509_crt_set_key(made.crt, made.key), 0);
        assert_int_equal(gnutls_x509_crt_set_dn_by_oid(made.crt, GNUTLS_OID_X520_COMMON_NAME, 0, w->cn,
                                                       (unsigned) strlen(w->cn)),
                         0);
        assert_int_equal(gnutls_x509_crt_set_activation_time(made.crt, now + w->from), 0);
        assert_int_equal(gnutls_x509_crt_set_expiration_time(made.crt, now + w->until), 0);
        assert_int_equal(gnutls_x509_crt_set_basic_constraints(made.crt, !w->issuer, -1), 0);
        if (!w->issuer)
                assert_int_equal(
                        gnutls_x509_crt_set_key_usage(made.crt, GNUTLS_KEY_KEY_CERT_SIGN | GNUTLS_KEY_CRL_SIGN), 0);
        if (w->uri)
                assert_int_equal(gnutls_x509_crt_set_subject_alt_name(made.crt, GNUTLS_SAN_URI, w->uri,
                                                                      (unsigned) strlen(w->uri), GNUTLS_FSAN_APPEND),
                                 0);
        if (w->dns)
                assert_int_equal(gnutls_x509_crt_set_subject_alt_name(made.crt, GNUTLS_SAN_DNSNAME, w->dns,
                                                                      (unsigned) strlen(w->dns), GNUTLS_FSAN_APPEND),
                                 0);
        if (w->purpose)
                assert_int_equal(gnutls_x509_crt_set_key_purpose_oid(made.crt, w->purpose, 0), 0);
        assert_int_equal(gnutls_x509_crt_sign2(made.crt, w->issuer ? w->issuer->crt : made.crt,
                                               w->issuer ? w->issuer->key : made.key, GNUTLS_DIG_SHA256, 0),
                         0);
        return made;
}

static Identity authority(Fixture *f, const char *cn) {
        return make(f, &(Wanted) { .cn = cn, .from = -DAY, .until = 100 * DAY });
}

static void identity_done(Identity *one) {
        gnutls_x509_crt_deinit(one->crt);
        gnutls_x509_privkey_deinit(one->key);
}

static void write_data(const char *path, gnutls_datum_t *data) {
        FILE *file = fopen(path, "we");

        assert_non_null(file);
        assert_int_equal(fwrite(data->data, 1, data->size, file), data->size);
        assert_int_equal(fclose(file), 0);
        gnutls_free(data->data);
}

static void write_text(const char *path, const char *text) {
        gnutls_datum_t data = { gnutls_malloc(strlen(text) + 1), (unsigned) strlen(text) };

        assert_non_null(data.data);
        strcpy((char *) data.data, text);
        write_data(path, &data);
}

static void write_identity(const Identity *one, const char *certificate, const char *key) {
        gnutls_datum_t data;

        assert_int_equal(gnutls_x509_crt_export2(one->crt, GNUTLS_X509_FMT_PEM, &data), 0);
        write_data(certificate, &data);
        if (!key)
                return;
        assert_int_equal(gnutls_x509_privkey_export2(one->key, GNUTLS_X509_FMT_PEM, &data), 0);
        write_data(key, &data);
        assert_int_equal(chmod(key, 0600), 0);
}

/* The list of revoked certificates, signed by issuer: with one, or empty. */
static void write_crl(Fixture *f, const Identity *issuer, const Identity *revoked, time_t until) {
        time_t now = time(NULL);
        gnutls_x509_crl_t crl;
        gnutls_datum_t data;

        assert_int_equal(gnutls_x509_crl_init(&crl), 0);
        assert_int_equal(gnutls_x509_crl_set_version(crl, 2), 0);
        assert_int_equal(gnutls_x509_crl_set_this_update(crl, now - DAY), 0);
        assert_int_equal(gnutls_x509_crl_set_next_update(crl, now + until), 0);
        assert_int_equal(gnutls_x509_crl_set_number(crl, "\1", 1), 0);
        if (revoked)
                assert_int_equal(gnutls_x509_crl_set_crt(crl, revoked->crt, now - 1), 0);
        assert_int_equal(gnutls_x509_crl_sign2(crl, issuer->crt, issuer->key, GNUTLS_DIG_SHA256, 0), 0);
        assert_int_equal(gnutls_x509_crl_export2(crl, GNUTLS_X509_FMT_PEM, &data), 0);
        write_data(f->crl, &data);
        gnutls_x509_crl_deinit(crl);
}

/* ---- the fixture ---- */

static int setup(void **state) {
        Fixture *f = calloc(1, sizeof(*f));

        assert_non_null(f);
        strcpy(f->directory, "/tmp/privmemd-test-XXXXXX");
        assert_non_null(mkdtemp(f->directory));
        snprintf(f->certificate, sizeof(f->certificate), "%s/server.crt", f->directory);
        snprintf(f->key, sizeof(f->key), "%s/server.key", f->directory);
        snprintf(f->ca, sizeof(f->ca), "%s/ca.crt", f->directory);
        snprintf(f->crl, sizeof(f->crl), "%s/ca.crl", f->directory);
        snprintf(f->rights, sizeof(f->rights), "%s/rights", f->directory);
        f->files = (TlsFiles) {
                .certificate = f->certificate, .key = f->key, .client_ca = f->ca, .crl = f->crl, .rights = f->rights
        };
        f->authority = authority(f, "authority");
        f->stranger = authority(f, "authority"); /* by its name it is the same one */
        f->server = make(f, &(Wanted) { .cn = "server", .from = -DAY, .until = DAY, .issuer = &f->authority });
        write_identity(&f->server, f->certificate, f->key);
        write_identity(&f->authority, f->ca, NULL);
        write_crl(f, &f->authority, NULL, DAY);
        write_text(f->rights,
                   "URI spiffe://example/one?a=b = manage\nDNS Watch.example = inspect\nCN watcher = inspect\n");
        *state = f;
        return 0;
}

static int teardown(void **state) {
        Fixture *f = *state;

        tls_free(f->tls);
        identity_done(&f->authority);
        identity_done(&f->stranger);
        identity_done(&f->server);
        unlink(f->certificate);
        unlink(f->key);
        unlink(f->ca);
        unlink(f->crl);
        unlink(f->rights);
        rmdir(f->directory);
        free(f->message);
        free(f);
        return 0;
}

static void start(Fixture *f, bool is_certificate_required) {
        assert_int_equal(tls_new(&f->files, is_certificate_required, &f->tls, &f->message), 0);
}

static Identity client(Fixture *f, const Wanted *w) {
        Wanted wanted = *w;

        wanted.issuer = wanted.issuer ?: &f->authority;
        wanted.from = wanted.from ?: -DAY;
        wanted.until = wanted.until ?: DAY;
        wanted.cn = wanted.cn ?: "nobody";
        return make(f, &wanted);
}

/* ---- sessions ---- */

typedef struct Session {
        int fds[2];
        gnutls_session_t server, client;
        gnutls_certificate_credentials_t credentials; /* the client's */
        gnutls_priority_t priorities;
        TlsPeer *peer;
        int result; /* of the server's handshake */
} Session;

static int step(gnutls_session_t session, int result) {
        if (result != GNUTLS_E_AGAIN)
                return result;
        do
                result = gnutls_handshake(session);
        while (result == GNUTLS_E_INTERRUPTED ||
               (result < 0 && result != GNUTLS_E_AGAIN && !gnutls_error_is_fatal(result)));
        return result;
}

static void shake(Session *s) {
        int mine = GNUTLS_E_AGAIN;

        s->result = GNUTLS_E_AGAIN;
        for (unsigned i = 0; i < 100 && s->result == GNUTLS_E_AGAIN; i++) {
                mine = step(s->client, mine);
                if (mine < 0 && mine != GNUTLS_E_AGAIN)
                        shutdown(s->fds[1], SHUT_WR);
                s->result = step(s->server, s->result);
        }
}

static void connect_session(Fixture *f, const Identity *identity, const char *priorities, Session *s) {
        *s = (Session) {};
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, s->fds), 0);
        assert_int_equal(gnutls_init(&s->server, GNUTLS_SERVER | GNUTLS_NONBLOCK), 0);
        assert_int_equal(gnutls_priority_init(&s->priorities, TLS_PRIORITIES, NULL), 0);
        assert_int_equal(gnutls_priority_set(s->server, s->priorities), 0);
        gnutls_transport_set_int(s->server, s->fds[0]);
        assert_int_equal(tls_peer_new(f->tls, s->server, &s->peer), 0);

        assert_int_equal(gnutls_init(&s->client, GNUTLS_CLIENT | GNUTLS_NONBLOCK | GNUTLS_FORCE_CLIENT_CERT), 0);
        assert_int_equal(gnutls_priority_set_direct(s->client, priorities, NULL), 0);
        assert_int_equal(gnutls_certificate_allocate_credentials(&s->credentials), 0);
        if (identity)
                assert_int_equal(gnutls_certificate_set_x509_key(
                                         s->credentials, &(gnutls_x509_crt_t) { identity->crt }, 1, identity->key),
                                 0);
        assert_int_equal(gnutls_credentials_set(s->client, GNUTLS_CRD_CERTIFICATE, s->credentials), 0);
        gnutls_transport_set_int(s->client, s->fds[1]);
        shake(s);
}

static void session_done(Session *s) {
        s->peer = tls_peer_free(s->peer);
        gnutls_deinit(s->server);
        gnutls_deinit(s->client);
        gnutls_certificate_free_credentials(s->credentials);
        gnutls_priority_deinit(s->priorities);
        close(s->fds[0]);
        close(s->fds[1]);
}

static void expect_right(Session *s, Right right, const char *name) {
        const char *found;

        assert_int_equal(s->result, 0);
        assert_int_equal(tls_peer_right(s->peer, time(NULL), &found), right);
        assert_string_equal(found, name);
}

/* Whether the handshake of one with this certificate succeeds. */
static void expect_refused(Fixture *f, const Wanted *w) {
        Identity identity = client(f, w);
        const char *name;
        Session s;

        connect_session(f, &identity, "NORMAL", &s);
        assert_int_equal(s.result, GNUTLS_E_CERTIFICATE_ERROR);
        assert_int_equal(tls_peer_right(s.peer, time(NULL), &name), RIGHT_NONE);
        session_done(&s);
        identity_done(&identity);
}

static void expect_accepted(Fixture *f, const Wanted *w, Right right, const char *name) {
        Identity identity = client(f, w);
        Session s;

        connect_session(f, &identity, "NORMAL", &s);
        expect_right(&s, right, name);
        session_done(&s);
        identity_done(&identity);
}

/* ---- tests ---- */

static void names_have_rights(void **state) {
        Fixture *f = *state;

        start(f, true);
        expect_accepted(f, &(Wanted) { .uri = "spiffe://example/one?a=b" }, RIGHT_MANAGE,
                        "URI spiffe://example/one?a=b");
        expect_accepted(f, &(Wanted) { .dns = "watch.EXAMPLE" }, RIGHT_INSPECT, "DNS Watch.example");
        expect_accepted(f, &(Wanted) { .cn = "watcher" }, RIGHT_INSPECT, "CN watcher");
        expect_accepted(f, &(Wanted) { .cn = "watcher", .uri = "spiffe://example/one?a=b" }, RIGHT_MANAGE,
                        "URI spiffe://example/one?a=b");
        expect_accepted(f, &(Wanted) { .cn = "watcher", .purpose = GNUTLS_KP_TLS_WWW_CLIENT }, RIGHT_INSPECT,
                        "CN watcher");
}

static void other_names_have_none(void **state) {
        Fixture *f = *state;

        start(f, true);
        for (const Wanted *w = (const Wanted[]) { { .cn = "other" },
                                                  { .cn = "Watcher" },
                                                  { .cn = "watcher2" },
                                                  { .dns = "a.watch.example" },
                                                  { .dns = "watcher" },
                                                  { .cn = "watch.example" },
                                                  { .uri = "spiffe://example/one" },
                                                  { .uri = "SPIFFE://example/one?a=b" },
                                                  {} };
             w->cn || w->dns || w->uri; w++)
                expect_accepted(f, w, RIGHT_NONE, "");
}

static void bad_certificates(void **state) {
        Fixture *f = *state;

        for (int is_required = 0; is_required <= 1; is_required++) {
                start(f, is_required);
                expect_refused(f, &(Wanted) { .cn = "watcher", .issuer = &f->stranger });
                expect_refused(f, &(Wanted) { .cn = "watcher", .until = -60 });
                expect_refused(f, &(Wanted) { .cn = "watcher", .from = 60 });
                expect_refused(f, &(Wanted) { .cn = "watcher", .purpose = GNUTLS_KP_TLS_WWW_SERVER });
                f->tls = tls_free(f->tls);
        }
}

static void without_a_certificate(void **state) {
        Fixture *f = *state;
        Session s;

        start(f, true);
        connect_session(f, NULL, "NORMAL", &s);
        assert_int_equal(s.result, GNUTLS_E_CERTIFICATE_REQUIRED);
        session_done(&s);
        assert_int_equal(tls_reload(f->tls, /* is_certificate_required= */ false, &f->message), 0);
        connect_session(f, NULL, "NORMAL", &s);
        expect_right(&s, RIGHT_NONE, "");
        session_done(&s);
        assert_int_equal(tls_verifications(f->tls), 0);
}

static void older_versions(void **state) {
        static const char *const old[] = { "NORMAL:-VERS-ALL:+VERS-TLS1.2",
                                           "NORMAL:-VERS-ALL:+VERS-TLS1.0:+VERS-TLS1.1" };
        Fixture *f = *state;
        Session s;

        start(f, false);
        for (size_t i = 0; i < ELEMENTSOF(old); i++) {
                connect_session(f, NULL, old[i], &s);
                assert_true(s.result == GNUTLS_E_UNSUPPORTED_VERSION_PACKET || s.result == GNUTLS_E_NO_CIPHER_SUITES);
                session_done(&s);
        }
}

static void one_verification_for_each_connection(void **state) {
        Fixture *f = *state;
        Identity identity;
        const char *name;
        Session s;

        start(f, true);
        identity = client(f, &(Wanted) { .cn = "watcher" });
        connect_session(f, &identity, "NORMAL", &s);
        for (unsigned i = 0; i < 100; i++)
                assert_int_equal(tls_peer_right(s.peer, time(NULL), &name), RIGHT_INSPECT);
        assert_int_equal(tls_verifications(f->tls), 1);
        session_done(&s);
        connect_session(f, &identity, "NORMAL", &s);
        assert_int_equal(tls_verifications(f->tls), 2);
        session_done(&s);
        identity_done(&identity);
}

static void what_expires_in_a_connection(void **state) {
        Fixture *f = *state;
        Identity identity;
        const char *name;
        Session s;

        start(f, true);
        identity = client(f, &(Wanted) { .cn = "watcher", .until = 3600 });
        connect_session(f, &identity, "NORMAL", &s);
        expect_right(&s, RIGHT_INSPECT, "CN watcher");
        assert_int_equal(tls_peer_right(s.peer, time(NULL) + 3700, &name), RIGHT_NONE);
        assert_string_equal(name, "");
        assert_int_equal(tls_peer_right(s.peer, time(NULL) + 3800, &name), RIGHT_NONE);
        assert_int_equal(tls_verifications(f->tls), 2);
        session_done(&s);
        identity_done(&identity);

        /* What the list of revoked certificates says is of no use after a day. */
        identity = client(f, &(Wanted) { .cn = "watcher", .until = 9 * DAY });
        connect_session(f, &identity, "NORMAL", &s);
        expect_right(&s, RIGHT_INSPECT, "CN watcher");
        assert_int_equal(tls_peer_right(s.peer, time(NULL) + DAY + 60, &name), RIGHT_NONE);
        session_done(&s);
        identity_done(&identity);
}

static void revoked_by_a_reload(void **state) {
        Fixture *f = *state;
        Identity revoked, other;
        Session one, two, late;

        start(f, true);
        revoked = client(f, &(Wanted) { .cn = "watcher" });
        other = client(f, &(Wanted) { .uri = "spiffe://example/one?a=b" });
        connect_session(f, &revoked, "NORMAL", &one);
        connect_session(f, &other, "NORMAL", &two);
        expect_right(&one, RIGHT_INSPECT, "CN watcher");

        write_crl(f, &f->authority, &revoked, DAY);
        expect_right(&one, RIGHT_INSPECT, "CN watcher");
        assert_int_equal(tls_reload(f->tls, true, &f->message), 0);
        expect_right(&one, RIGHT_NONE, "");
        expect_right(&two, RIGHT_MANAGE, "URI spiffe://example/one?a=b");
        connect_session(f, &revoked, "NORMAL", &late);
        assert_int_equal(late.result, GNUTLS_E_CERTIFICATE_ERROR);
        session_done(&late);

        write_text(f->rights, "URI spiffe://example/one?a=b = inspect\n");
        assert_int_equal(tls_reload(f->tls, true, &f->message), 0);
        expect_right(&two, RIGHT_INSPECT, "URI spiffe://example/one?a=b");
        session_done(&one);
        session_done(&two);
        identity_done(&revoked);
        identity_done(&other);
}

static void expect_bad_reload(Fixture *f, const char *wanted) {
        free(TAKE_PTR(f->message));
        assert_int_equal(tls_reload(f->tls, true, &f->message), LINES_E_BAD);
        assert_non_null(strstr(f->message, wanted));
        expect_accepted(f, &(Wanted) { .cn = "watcher" }, RIGHT_INSPECT, "CN watcher");
}

static void a_bad_file_leaves_all_as_it_was(void **state) {
        Fixture *f = *state;

        start(f, true);
        write_text(f->certificate, "nothing\n");
        expect_bad_reload(f, "no certificate with its key");
        write_identity(&f->stranger, f->certificate, NULL);
        expect_bad_reload(f, "no certificate with its key");
        write_identity(&f->server, f->certificate, f->key);
        assert_int_equal(chmod(f->key, 0644), 0);
        expect_bad_reload(f, "server.key: others may read or change it (mode 0644)");
        assert_int_equal(chmod(f->key, 0600), 0);
        write_text(f->ca, "nothing\n");
        expect_bad_reload(f, "ca.crt: no certificate of an authority");
        write_identity(&f->authority, f->ca, NULL);
        write_crl(f, &f->stranger, NULL, DAY);
        expect_bad_reload(f, "ca.crl: a list of revoked certificates is not signed by an authority in ");
        write_crl(f, &f->authority, NULL, -60);
        expect_bad_reload(f, "ca.crl: the list of revoked certificates is outdated");
        write_text(f->crl, "");
        expect_bad_reload(f, "ca.crl: no list of revoked certificates");
        write_crl(f, &f->authority, NULL, DAY);
        write_text(f->rights, "CN watcher = own\n");
        expect_bad_reload(f, "rights:1: the right \"own\" must be inspect or manage");
        unlink(f->rights);
        expect_bad_reload(f, "rights: No such file or directory");
        write_text(f->rights, "CN watcher = manage\n");
        assert_int_equal(tls_reload(f->tls, true, &f->message), 0);
        expect_accepted(f, &(Wanted) { .cn = "watcher" }, RIGHT_MANAGE, "CN watcher");
}

static void the_new_certificate_is_shown(void **state) {
        Fixture *f = *state;
        gnutls_datum_t before, after;
        Identity renewed;
        Session one, two;
        unsigned n;

        start(f, false);
        connect_session(f, NULL, "NORMAL", &one);
        before = gnutls_certificate_get_peers(one.client, &n)[0];
        renewed = make(f, &(Wanted) { .cn = "server", .from = -DAY, .until = 9 * DAY, .issuer = &f->authority });
        write_identity(&renewed, f->certificate, f->key);
        assert_int_equal(tls_reload(f->tls, false, &f->message), 0);
        connect_session(f, NULL, "NORMAL", &two);
        after = gnutls_certificate_get_peers(two.client, &n)[0];
        assert_true(before.size != after.size || memcmp(before.data, after.data, before.size) != 0);
        session_done(&one);
        session_done(&two);
        identity_done(&renewed);
}

static void nobody_is_asked_for_a_certificate(void **state) {
        Fixture *f = *state;
        Identity identity;
        Session s;

        f->files.client_ca = f->files.crl = f->files.rights = NULL;
        start(f, false);
        identity = client(f, &(Wanted) { .cn = "watcher" });
        connect_session(f, &identity, "NORMAL", &s);
        expect_right(&s, RIGHT_NONE, "");
        session_done(&s);
        identity_done(&identity);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(names_have_rights, setup, teardown),
                cmocka_unit_test_setup_teardown(other_names_have_none, setup, teardown),
                cmocka_unit_test_setup_teardown(bad_certificates, setup, teardown),
                cmocka_unit_test_setup_teardown(without_a_certificate, setup, teardown),
                cmocka_unit_test_setup_teardown(older_versions, setup, teardown),
                cmocka_unit_test_setup_teardown(one_verification_for_each_connection, setup, teardown),
                cmocka_unit_test_setup_teardown(what_expires_in_a_connection, setup, teardown),
                cmocka_unit_test_setup_teardown(revoked_by_a_reload, setup, teardown),
                cmocka_unit_test_setup_teardown(a_bad_file_leaves_all_as_it_was, setup, teardown),
                cmocka_unit_test_setup_teardown(the_new_certificate_is_shown, setup, teardown),
                cmocka_unit_test_setup_teardown(nobody_is_asked_for_a_certificate, setup, teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
