/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Tokens, and rights of names in certificates: what a file may say, and who is found. */

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "core/cleanup.h"
#include "rest/lines.h"
#include "rest/rights.h"
#include "rest/token.h"

/* The SHA-256 of "abc" and of "abd". */
#define HASH_ABC "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
#define HASH_ABD "a52d159f262b2c6ddb724a61840befc36eb30c88877a4030b65cbe86298449c9"

#define TIME_2030 1893456000

typedef struct Fixture {
        char path[32];
        char *message;
} Fixture;

static int setup(void **state) {
        Fixture *f;
        int fd;

        f = calloc(1, sizeof(*f));
        assert_non_null(f);
        strcpy(f->path, "/tmp/privmemd-test-XXXXXX");
        fd = mkostemp(f->path, O_CLOEXEC);
        assert_true(fd >= 0);
        close(fd);
        *state = f;
        return 0;
}

static int teardown(void **state) {
        Fixture *f = *state;

        unlink(f->path);
        free(f->message);
        free(f);
        return 0;
}

static void write_file(Fixture *f, const char *text, size_t size) {
        FILE *file = fopen(f->path, "we");

        assert_non_null(file);
        assert_int_equal(fwrite(text, 1, size, file), size);
        assert_int_equal(fclose(file), 0);
}

static int read_tokens(Fixture *f, const char *text, Tokens **ret) {
        free(TAKE_PTR(f->message));
        write_file(f, text, strlen(text));
        return tokens_read(f->path, ret, &f->message);
}

/* The message is behind the path. */
static void expect_message(Fixture *f, const char *wanted) {
        assert_non_null(f->message);
        assert_memory_equal(f->message, f->path, strlen(f->path));
        assert_string_equal(f->message + strlen(f->path), wanted);
}

static void expect_bad(Fixture *f, const char *text, const char *wanted) {
        Tokens *tokens = NULL;

        assert_int_equal(read_tokens(f, text, &tokens), LINES_E_BAD);
        assert_null(tokens);
        expect_message(f, wanted);
}

static void a_token_is_found_until_it_expires(void **state) {
        Fixture *f = *state;
        _cleanup_free_ Tokens *tokens = NULL;
        const Token *found;

        assert_int_equal(read_tokens(f,
                                     "# name right expires hash\n\n"
                                     "prometheus inspect 2030-01-01T00:00:00Z " HASH_ABC "\n"
                                     "  orchestrator\tmanage 2030-01-01T00:00:01Z  " HASH_ABD "\r\n",
                                     &tokens),
                         0);
        found = tokens_find(tokens, "abc", 3, TIME_2030 - 1);
        assert_non_null(found);
        assert_string_equal(found->name, "prometheus");
        assert_int_equal(found->right, RIGHT_INSPECT);
        assert_null(tokens_find(tokens, "abc", 3, TIME_2030));
        found = tokens_find(tokens, "abd", 3, TIME_2030);
        assert_non_null(found);
        assert_int_equal(found->right, RIGHT_MANAGE);
        assert_null(tokens_find(tokens, "abe", 3, 0));
        assert_null(tokens_find(tokens, "ab", 2, 0));
        assert_null(tokens_find(tokens, "", 0, 0));
        assert_null(tokens_find(tokens, HASH_ABC, strlen(HASH_ABC), 0));
}

static void no_token_is_found_in_an_empty_file(void **state) {
        Fixture *f = *state;
        _cleanup_free_ Tokens *tokens = NULL;

        assert_int_equal(read_tokens(f, "# none\n", &tokens), 0);
        assert_null(tokens_find(tokens, "abc", 3, 0));
}

static void bad_lines_of_tokens(void **state) {
        Fixture *f = *state;

        expect_bad(f, "a/b inspect 2030-01-01T00:00:00Z " HASH_ABC,
                   ":1: a/b: a name must have 1 to 64 letters, digits, \"-\", \".\" and \"_\"");
        expect_bad(f, "\na root 2030-01-01T00:00:00Z " HASH_ABC,
                   ":2: a: the right \"root\" must be inspect or manage");
        expect_bad(f, "a none 2030-01-01T00:00:00Z " HASH_ABC, ":1: a: the right \"none\" must be inspect or manage");
        for (const char *const *bad = (const char *const[]) { "never", "2030-02-30T00:00:00Z", "2030-01-01",
                                                              "30-1-1T0:0:0Z", "2030-01-01T00:00:00Z,", NULL };
             *bad; bad++) {
                char text[256], wanted[256];

                snprintf(text, sizeof(text), "a manage %s " HASH_ABC, *bad);
                snprintf(wanted, sizeof(wanted), ":1: a: the expiry \"%s\" must be a time as 2026-01-31T00:00:00Z",
                         *bad);
                expect_bad(f, text, wanted);
        }
        for (const char *const *bad =
                     (const char *const[]) { "", "abc", HASH_ABC "0", HASH_ABC " more", "x" HASH_ABC, NULL };
             *bad; bad++) {
                char text[256];

                snprintf(text, sizeof(text), "a manage 2030-01-01T00:00:00Z %s", *bad);
                expect_bad(f, text, ":1: a: the line must end with the token's SHA-256, 64 hexadecimal digits");
        }
        expect_bad(f, "a inspect 2030-01-01T00:00:00Z " HASH_ABC "\na inspect 2030-01-01T00:00:00Z " HASH_ABD,
                   ":2: a: there is a token of this name already");
}

static void who_may_read_the_file(void **state) {
        static const mode_t bad[] = { 0604, 0602, 0620, 0644, 0666, 0601 }, good[] = { 0600, 0640, 0400, 0440 };
        Fixture *f = *state;
        Tokens *tokens = NULL;

        assert_int_equal(read_tokens(f, "", &tokens), 0);
        free(TAKE_PTR(tokens));
        for (size_t i = 0; i < ELEMENTSOF(good); i++) {
                assert_int_equal(chmod(f->path, good[i]), 0);
                assert_int_equal(tokens_read(f->path, &tokens, &f->message), 0);
                free(TAKE_PTR(tokens));
        }
        for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
                char wanted[128];

                assert_int_equal(chmod(f->path, bad[i]), 0);
                assert_int_equal(tokens_read(f->path, &tokens, &f->message), LINES_E_BAD);
                snprintf(wanted, sizeof(wanted), ": others may read or change it (mode %04o); it must be 0640 or less",
                         bad[i]);
                expect_message(f, wanted);
                free(TAKE_PTR(f->message));
        }
        if (geteuid() != 0)
                return;
        assert_int_equal(chmod(f->path, 0600), 0);
        assert_int_equal(chown(f->path, 12345, 0), 0);
        assert_int_equal(tokens_read(f->path, &tokens, &f->message), LINES_E_BAD);
        expect_message(f, ": it must belong to root or to the user that runs this");
}

static void what_is_no_file(void **state) {
        Fixture *f = *state;
        Tokens *tokens = NULL;

        write_file(f, "a\0b", 3);
        assert_int_equal(tokens_read(f->path, &tokens, &f->message), LINES_E_BAD);
        expect_message(f, ": there is a NUL byte in it; it must be text");
        free(TAKE_PTR(f->message));
        assert_int_equal(tokens_read("/dev/null", &tokens, &f->message), LINES_E_BAD);
        assert_string_equal(f->message, "/dev/null: it must be a regular file");
        free(TAKE_PTR(f->message));
        assert_int_equal(tokens_read("/nowhere/tokens", &tokens, &f->message), LINES_E_BAD);
        assert_string_equal(f->message, "/nowhere/tokens: No such file or directory");
}

static void headers(void **state) {
        static const char *const good[] = { "Bearer abc", "bearer abc", "BEARER   abc", "Bearer abc  " },
                                 *const bad[] = {
                                         "",         "Bearer",         "Bearer ",    "Basic abc",    "Bearerabc",
                                         "Bearer =", "Bearer abc def", "Bearer a,b", "Bearer \"a\"", "Bearer a=b"
                                 };
        const char *token;
        size_t size;

        (void) state;
        for (size_t i = 0; i < ELEMENTSOF(good); i++) {
                token = token_of_header(good[i], &size);
                assert_non_null(token);
                assert_int_equal(size, 3);
                assert_memory_equal(token, "abc", 3);
        }
        assert_non_null(token_of_header("Bearer a-._~+/Z9==", &size));
        assert_int_equal(size, 11);
        for (size_t i = 0; i < ELEMENTSOF(bad); i++)
                assert_null(token_of_header(bad[i], &size));
}

/* What token_print_new() prints, in a process of its own. */
static int print_new(const char *description, int64_t now, char *ret_text, size_t size, char *ret_message) {
        int fds[2], status;
        ssize_t n;
        pid_t pid;

        assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
        fflush(NULL);
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
                char *message = NULL;
                int r;

                dup2(fds[1], STDOUT_FILENO);
                r = token_print_new(description, now, &message);
                if (message)
                        dprintf(STDOUT_FILENO, "%s", message);
                _exit(r == 0 ? 0 : r == LINES_E_BAD ? 1 : 2);
        }
        close(fds[1]);
        n = read(fds[0], ret_text, size - 1);
        assert_true(n >= 0);
        ret_text[n] = 0;
        close(fds[0]);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        strcpy(ret_message, ret_text);
        return WEXITSTATUS(status);
}

static void a_new_token_is_found_by_its_line(void **state) {
        Fixture *f = *state;
        char first[512], second[512], message[512], *line;
        _cleanup_free_ Tokens *tokens = NULL;
        const Token *found;

        assert_int_equal(print_new("ci.2,manage,90d", TIME_2030, first, sizeof(first), message), 0);
        assert_int_equal(print_new("ci.2,manage,90d", TIME_2030, second, sizeof(second), message), 0);
        assert_string_not_equal(first, second);
        line = strchr(first, '\n');
        assert_non_null(line);
        assert_int_equal(line - first, 64);
        assert_int_equal(read_tokens(f, line, &tokens), 0);
        found = tokens_find(tokens, first, 64, TIME_2030);
        assert_non_null(found);
        assert_string_equal(found->name, "ci.2");
        assert_int_equal(found->right, RIGHT_MANAGE);
        assert_int_equal(found->expires, TIME_2030 + 90 * 86400);
        assert_null(strstr(line, first));
}

static void bad_descriptions_of_a_new_token(void **state) {
        static const char duration[] = "the duration must be a number with s, min, h, d or w, and ten years at most";
        static const struct {
                const char *description, *message;
        } bad[] = {
                { "", "the name must have 1 to 64 letters, digits, \"-\", \".\" and \"_\"" },
                { "a b,manage,1d", "the name must have 1 to 64 letters, digits, \"-\", \".\" and \"_\"" },
                { "a", "the right \"\" must be inspect or manage" },
                { "a,all,1d", "the right \"all\" must be inspect or manage" },
                { "a,manage", duration },
                { "a,manage,", duration },
                { "a,manage,0d", duration },
                { "a,manage,-1d", duration },
                { "a,manage,1", duration },
                { "a,manage,1y", duration },
                { "a,manage,99999d", duration },
                { "a,manage,99999999999999999999s", duration },
                { "a,manage,1d,more", duration },
        };
        char text[512], message[512];

        (void) state;
        for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
                assert_int_equal(print_new(bad[i].description, 0, text, sizeof(text), message), 1);
                assert_string_equal(message, bad[i].message);
        }
}

static void expect_bad_rights(Fixture *f, const char *text, const char *wanted) {
        Rights *rights = NULL;

        free(TAKE_PTR(f->message));
        write_file(f, text, strlen(text));
        assert_int_equal(rights_read(f->path, &rights, &f->message), LINES_E_BAD);
        assert_null(rights);
        expect_message(f, wanted);
}

static void bad_lines_of_rights(void **state) {
        Fixture *f = *state;

        expect_bad_rights(f, "URI a", ":1: the line must be \"URI|DNS|CN name = inspect|manage\"");
        expect_bad_rights(f, "IP 127.0.0.1 = manage", ":1: \"IP\" must be URI, DNS or CN");
        expect_bad_rights(f, "CN one = own", ":1: the right \"own\" must be inspect or manage");
        expect_bad_rights(f, "CN one = ", ":1: the right \"\" must be inspect or manage");
        expect_bad_rights(f, "CN = manage", ":1: the name must have 1 to 251 characters");
        expect_bad_rights(f, "CN= manage", ":1: the name must have 1 to 251 characters");
        expect_bad_rights(f, "# names\nDNS a.example = manage\nDNS A.example = inspect\n",
                          ":3: DNS A.example has a right already");
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(a_token_is_found_until_it_expires, setup, teardown),
                cmocka_unit_test_setup_teardown(no_token_is_found_in_an_empty_file, setup, teardown),
                cmocka_unit_test_setup_teardown(bad_lines_of_tokens, setup, teardown),
                cmocka_unit_test_setup_teardown(who_may_read_the_file, setup, teardown),
                cmocka_unit_test_setup_teardown(what_is_no_file, setup, teardown),
                cmocka_unit_test(headers),
                cmocka_unit_test_setup_teardown(a_new_token_is_found_by_its_line, setup, teardown),
                cmocka_unit_test(bad_descriptions_of_a_new_token),
                cmocka_unit_test_setup_teardown(bad_lines_of_rights, setup, teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
