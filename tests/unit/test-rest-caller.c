/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Who is at the other end of a unix socket, and what it may do: by the uid and the groups that it had when it connected. */

#include <grp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "rest/caller.h"

#define ALICE ((uid_t) 12345)
#define GROUP ((gid_t) 4242)

/* More than caller.c has room for at first. */
#define GROUPS_MANY 200U

typedef struct Who {
        uid_t uid;
        gid_t gid;
        unsigned n_groups; /* ids from 1000 on, and the last of them GROUP if is_member */
        bool is_member;
        bool leaves; /* gives its groups up, once it is connected */
} Who;

static int become(const Who *who) {
        gid_t groups[GROUPS_MANY];

        for (unsigned i = 0; i < who->n_groups; i++)
                groups[i] = 10000 + i;
        if (who->is_member)
                groups[who->n_groups - 1] = GROUP;
        if (setgroups(who->n_groups, groups) < 0 || setresgid(who->gid, who->gid, who->gid) < 0)
                return -1;
        return setresuid(who->uid, who->uid, who->leaves ? 0 : who->uid);
}

/* What a process is that connects as who. */
static Caller caller(const Who *who, gid_t group) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        socklen_t size = sizeof(address);
        int listening, accepted, status;
        Caller found;
        pid_t pid;

        listening = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_true(listening >= 0);
        /* The kernel chooses an abstract name. */
        assert_int_equal(bind(listening, (struct sockaddr *) &address, sizeof(sa_family_t)), 0);
        assert_int_equal(getsockname(listening, (struct sockaddr *) &address, &size), 0);
        assert_int_equal(listen(listening, 1), 0);
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
                int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
                char byte;

                if (become(who) < 0 || connect(fd, (struct sockaddr *) &address, size) < 0)
                        _exit(1);
                if (who->leaves &&
                    (seteuid(0) < 0 || setgroups(0, NULL) < 0 || setresuid(who->uid, who->uid, who->uid) < 0))
                        _exit(1);
                _exit(write(fd, "x", 1) == 1 && read(fd, &byte, 1) == 0 ? 0 : 1);
        }
        accepted = accept(listening, NULL, NULL);
        assert_true(accepted >= 0);
        assert_int_equal(read(accepted, &(char) { 0 }, 1), 1);
        assert_int_equal(caller_of_unix(accepted, group, &found), 0);
        close(accepted);
        close(listening);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
        assert_false(found.is_remote);
        assert_true(found.has_uid);
        return found;
}

static void need_root(void) {
        if (geteuid() != 0) {
                print_message("# must be root to act as several users\n");
                skip();
        }
}

static void root_and_oneself_manage(void **state) {
        Caller found;

        (void) state;
        need_root();
        found = caller(&(Who) { .uid = 0 }, GROUP);
        assert_int_equal(found.right, RIGHT_MANAGE);
        assert_int_equal(found.uid, 0);
        assert_string_equal(found.name, "uid 0");
}

static void members_of_the_group_manage(void **state) {
        (void) state;
        need_root();
        assert_int_equal(caller(&(Who) { .uid = ALICE, .gid = GROUP }, GROUP).right, RIGHT_MANAGE);
        for (const unsigned *n = (const unsigned[]) { 1, 63, 64, 65, GROUPS_MANY, 0 }; *n > 0; n++)
                assert_int_equal(
                        caller(&(Who) { .uid = ALICE, .gid = 1, .n_groups = *n, .is_member = true }, GROUP).right,
                        RIGHT_MANAGE);
        assert_int_equal(caller(&(Who) { .uid = ALICE, .gid = 1, .n_groups = 2, .is_member = true }, GROUP).uid,
                         ALICE);
}

static void others_have_no_right(void **state) {
        (void) state;
        need_root();
        assert_int_equal(caller(&(Who) { .uid = ALICE, .gid = ALICE }, GROUP).right, RIGHT_NONE);
        assert_int_equal(caller(&(Who) { .uid = ALICE, .gid = ALICE, .n_groups = GROUPS_MANY }, GROUP).right,
                         RIGHT_NONE);
        /* Where there is no such group, nobody is its member. */
        assert_int_equal(
                caller(&(Who) { .uid = ALICE, .gid = GROUP, .n_groups = 1, .is_member = true }, (gid_t) -1).right,
                RIGHT_NONE);
}

/* What counts is what connect(2) noted; whoever has the socket now may be somebody else. */
static void groups_that_were_given_up(void **state) {
        (void) state;
        need_root();
        assert_int_equal(
                caller(&(Who) { .uid = ALICE, .gid = 1, .n_groups = 3, .is_member = true, .leaves = true }, GROUP)
                        .right,
                RIGHT_MANAGE);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(root_and_oneself_manage),
                cmocka_unit_test(members_of_the_group_manage),
                cmocka_unit_test(others_have_no_right),
                cmocka_unit_test(groups_that_were_given_up),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
