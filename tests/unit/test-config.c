/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* privmemd.conf: what is taken, and that a mistake is named with its place. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "config.h"
#include "core/cleanup.h"

static char *message;

static int parse_bytes(const void *bytes, size_t size, Config *ret) {
        _cleanup_fclose_ FILE *file = NULL;

        free(message);
        message = NULL;
        file = fmemopen((void *) bytes, size, "r");
        assert_non_null(file);
        return config_parse(file, "x.conf", ret, &message);
}

/* fmemopen() takes no empty buffer. */
static int parse(const char *text, Config *ret) {
        return parse_bytes(text[0] ? text : "\n", strlen(text[0] ? text : "\n"), ret);
}

static int teardown(void **state) {
        (void) state;
        free(message);
        message = NULL;
        return 0;
}

static void expect_default(const Config *c) {
        assert_int_equal(c->limits.vms_per_uid, 1024);
        assert_int_equal(c->limits.backings_per_vm, 256);
        assert_int_equal(c->front.connections, 4096);
        assert_int_equal(c->front.connections_per_uid, 1024);
        assert_int_equal(c->front.exit_policy, EXIT_POLICY_RELEASE);
        assert_int_equal(c->front.alias_policy, ALIAS_POLICY_ENFORCE);
}

/* Nothing of a bad file is taken. */
static void expect_bad(const char *text, const char *wanted) {
        Config c = { .limits.vms_per_uid = 77 };

        assert_int_equal(parse(text, &c), CONFIG_E_BAD);
        assert_string_equal(message, wanted);
        assert_int_equal(c.limits.vms_per_uid, 77);
        assert_int_equal(c.front.connections, 0);
}

static void nothing_is_set(void **state) {
        const char *const empty[] = { "", "# a comment\n\n; another\n", "[Limits]\n[VM]\n", "\xEF\xBB\xBF[VM]\n" };

        (void) state;
        for (size_t i = 0; i < ELEMENTSOF(empty); i++) {
                Config c = {};

                assert_int_equal(parse(empty[i], &c), 0);
                expect_default(&c);
        }
}

static void everything_is_set(void **state) {
        Config c;

        (void) state;
        assert_int_equal(parse("[Limits]\n"
                               "VMsPerUID=1\n"
                               "BackingsPerVM = 2\r\n"
                               "Connections=4096\n"
                               "   ConnectionsPerUID=7   \n"
                               "[VM]\n"
                               "\tExitPolicy=retain\n"
                               "AliasPolicy=observe",
                               &c),
                         0);
        assert_int_equal(c.limits.vms_per_uid, 1);
        assert_int_equal(c.limits.backings_per_vm, 2);
        assert_int_equal(c.front.connections, 4096);
        assert_int_equal(c.front.connections_per_uid, 7);
        assert_int_equal(c.front.exit_policy, EXIT_POLICY_RETAIN);
        assert_int_equal(c.front.alias_policy, ALIAS_POLICY_OBSERVE);
}

/* libinih knows "#" at the start of a line only. */
static void comments_behind_a_value(void **state) {
        Config c;

        (void) state;
        assert_int_equal(parse("[VM]\nExitPolicy=retain ; for it is ours\n", &c), 0);
        assert_int_equal(c.front.exit_policy, EXIT_POLICY_RETAIN);
        expect_bad("[VM]\nExitPolicy=retain # it\n", "x.conf:2: ExitPolicy=retain # it: it must be release or retain");
}

static void what_is_not_set_has_its_default(void **state) {
        Config c = {};

        (void) state;
        assert_int_equal(parse("[VM]\nExitPolicy=retain\n", &c), 0);
        assert_int_equal(c.front.exit_policy, EXIT_POLICY_RETAIN);
        c.front.exit_policy = EXIT_POLICY_RELEASE;
        expect_default(&c);
}

static void bad_numbers(void **state) {
        const char *const bad[] = { "0", "1025", "-1", "+1", "1k", "", "0x10", "1 2", "18446744073709551617", "ten" };

        (void) state;
        for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
                char text[64], wanted[128];

                snprintf(text, sizeof(text), "[Limits]\n\nVMsPerUID=%s\n", bad[i]);
                snprintf(wanted, sizeof(wanted), "x.conf:3: VMsPerUID=%s: it must be a number from 1 to 1024", bad[i]);
                expect_bad(text, wanted);
        }
        expect_bad("[Limits]\nBackingsPerVM=257", "x.conf:2: BackingsPerVM=257: it must be a number from 1 to 256");
        expect_bad("[Limits]\nConnections=4097", "x.conf:2: Connections=4097: it must be a number from 1 to 4096");
        expect_bad("[Limits]\nConnectionsPerUID=1025",
                   "x.conf:2: ConnectionsPerUID=1025: it must be a number from 1 to 1024");
}

static void bad_words(void **state) {
        (void) state;
        expect_bad("[VM]\nExitPolicy=keep\n", "x.conf:2: ExitPolicy=keep: it must be release or retain");
        expect_bad("[VM]\nExitPolicy=\n", "x.conf:2: ExitPolicy=: it must be release or retain");
        expect_bad("[VM]\nAliasPolicy=Enforce\n", "x.conf:2: AliasPolicy=Enforce: it must be enforce or observe");
}

static void group_of_managers(void **state) {
        const struct {
                const char *value;
                gid_t gid;
        } groups[] = { { "root", 0 }, { "60321", 60321 }, { "4294967294", 4294967294 }, { "", GID_NONE } };

        (void) state;
        for (size_t i = 0; i < ELEMENTSOF(groups); i++) {
                Config c = {};
                char text[64];

                snprintf(text, sizeof(text), "[Access]\nManagerGroup=%s\n", groups[i].value);
                assert_int_equal(parse(text, &c), 0);
                assert_int_equal(c.front.manager_gid, groups[i].gid);
        }
        expect_bad("[Access]\nManagerGroup=no-such-group\n",
                   "x.conf:2: ManagerGroup=no-such-group: there is no such group");
        expect_bad("[Access]\nManagerGroup=4294967295\n", "x.conf:2: ManagerGroup=4294967295: there is no such group");
        expect_bad("[Access]\nManagerGroup=-1\n", "x.conf:2: ManagerGroup=-1: there is no such group");
        expect_bad("[Access]\nManagers=root\n", "x.conf:2: there is no Managers= in [Access]; it has ManagerGroup=");
}

static void unknown_names(void **state) {
        (void) state;
        expect_bad("VMsPerUID=1\n",
                   "x.conf:1: VMsPerUID= is in no section; it must stand below [Limits], [VM] or [Access]");
        expect_bad("[limits]\nVMsPerUID=1\n",
                   "x.conf:2: there is no section [limits]; it must be [Limits], [VM] or [Access]");
        expect_bad("[VM]\nVMsPerUID=1\n",
                   "x.conf:2: there is no VMsPerUID= in [VM]; it has ExitPolicy=, AliasPolicy=");
        expect_bad("[Limits]\nBytes=1\n",
                   "x.conf:2: there is no Bytes= in [Limits]; it has VMsPerUID=, BackingsPerVM=, Connections=, "
                   "ConnectionsPerUID=");
}

static void what_is_no_assignment(void **state) {
        const char *const bad[] = { "VMsPerUID", "[Limits", "word word" };

        (void) state;
        for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
                char text[64];

                snprintf(text, sizeof(text), "[VM]\n%s\nExitPolicy=retain\n", bad[i]);
                expect_bad(text, "x.conf:2: it must be [Section], Key=Value, or a comment that starts with #");
        }
}

/* An indented line is none that goes on with the one before. */
static void indented_line_stands_for_itself(void **state) {
        Config c;

        (void) state;
        assert_int_equal(parse("[Limits]\nVMsPerUID=1\n  BackingsPerVM=3\n", &c), 0);
        assert_int_equal(c.limits.backings_per_vm, 3);
        expect_bad("[Limits]\nVMsPerUID=1\n  2\n",
                   "x.conf:3: it must be [Section], Key=Value, or a comment that starts with #");
}

static void twice(void **state) {
        (void) state;
        expect_bad("[VM]\nExitPolicy=retain\n\n[Limits]\n[VM]\nExitPolicy=retain\n",
                   "x.conf:6: ExitPolicy= is set a second time; line 2 has it already");
}

/* The first mistake is the one that is told, whoever finds it. */
static void several_mistakes(void **state) {
        (void) state;
        expect_bad("[VM]\nword\nExitPolicy=keep\n",
                   "x.conf:2: it must be [Section], Key=Value, or a comment that starts with #");
        expect_bad("[VM]\nExitPolicy=keep\nword\n", "x.conf:2: ExitPolicy=keep: it must be release or retain");
        expect_bad("[VM]\nExitPolicy=keep\nAliasPolicy=keep\n",
                   "x.conf:2: ExitPolicy=keep: it must be release or retain");
}

static void long_lines(void **state) {
        char text[1024];
        Config c;

        (void) state;
        memset(text, '#', sizeof(text));
        strcpy(text + CONFIG_LINE_MAX - 2, "\n[VM]\nExitPolicy=retain\n");
        assert_int_equal(parse(text, &c), 0);
        assert_int_equal(c.front.exit_policy, EXIT_POLICY_RETAIN);

        memset(text, '#', sizeof(text));
        strcpy(text + CONFIG_LINE_MAX - 1, "\n");
        expect_bad(text, "x.conf:1: the line is too long; it must have less than 190 characters");
        memset(text, 'x', sizeof(text));
        text[sizeof(text) - 1] = 0;
        expect_bad(text, "x.conf:1: the line is too long; it must have less than 190 characters");
}

static void bytes_that_are_no_text(void **state) {
        static const char text[] = "[VM]\n# \0\nExitPolicy=retain\n";
        Config c;

        (void) state;
        assert_int_equal(parse_bytes(text, sizeof(text) - 1, &c), CONFIG_E_BAD);
        assert_string_equal(message, "x.conf:2: the line has a NUL byte; it must be text");
}

static void files(void **state) {
        _cleanup_close_ int fd = memfd_create("config", MFD_CLOEXEC);
        char path[64];
        Config c;

        (void) state;
        assert_true(fd >= 0);
        assert_int_equal(write(fd, "[Limits]\nConnections=9\n", 23), 23);
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        assert_int_equal(config_read(path, &c, &message), 0);
        assert_int_equal(c.front.connections, 9);

        assert_int_equal(config_read("/nonexistent/privmemd.conf", &c, &message), -ENOENT);
        assert_int_equal(config_read("/", &c, &message), -EISDIR);
        assert_int_equal(config_read("/dev/null", &c, &message), 0);
        expect_default(&c);
}

/* The file that is installed sets nothing, and says everything with its default. */
static void installed_file(void **state) {
        const char *path = getenv("PRIVMEMD_CONF");
        char line[256], all[8192] = "";
        FILE *file;
        Config c;

        (void) state;
        assert_non_null(path);
        assert_int_equal(config_read(path, &c, &message), 0);
        expect_default(&c);

        file = fopen(path, "re");
        assert_non_null(file);
        while (fgets(line, sizeof(line), file))
                if (line[0] == '[' || (line[0] == '#' && line[1] != ' ' && strchr(line, '=')))
                        strcat(all, line + (line[0] == '#'));
        fclose(file);
        assert_string_equal(all, "[Limits]\n"
                                 "VMsPerUID=1024\n"
                                 "BackingsPerVM=256\n"
                                 "Connections=4096\n"
                                 "ConnectionsPerUID=1024\n"
                                 "[VM]\n"
                                 "ExitPolicy=release\n"
                                 "AliasPolicy=enforce\n"
                                 "[Access]\n"
                                 "ManagerGroup=privmem\n");
        /* A group that is named must exist. */
        *strstr(all, "[Access]") = 0;
        assert_int_equal(parse(all, &c), 0);
        expect_default(&c);
}

#define TEST(name) cmocka_unit_test_teardown(name, teardown)

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(nothing_is_set),
                TEST(everything_is_set),
                TEST(comments_behind_a_value),
                TEST(what_is_not_set_has_its_default),
                TEST(bad_numbers),
                TEST(bad_words),
                TEST(group_of_managers),
                TEST(unknown_names),
                TEST(what_is_no_assignment),
                TEST(indented_line_stands_for_itself),
                TEST(twice),
                TEST(several_mistakes),
                TEST(long_lines),
                TEST(bytes_that_are_no_text),
                TEST(files),
                TEST(installed_file),
        };

        return cmocka_run_group_tests_name("config", tests, NULL, NULL);
}
