/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/cleanup.h"
#include "host/bag.h"

enum {
        FILES = 1200,
};

static int files[FILES];
static ino_t inodes[FILES];

static int make_files(void **state) {
        struct stat st;

        (void) state;
        for (unsigned i = 0; i < FILES; i++) {
                files[i] = memfd_create("test-bag", MFD_CLOEXEC);
                if (files[i] < 0 || fstat(files[i], &st) < 0)
                        return -1;
                inodes[i] = st.st_ino;
        }
        return 0;
}

static int close_files(void **state) {
        (void) state;
        for (unsigned i = 0; i < FILES; i++)
                close(files[i]);
        return 0;
}

/* Ids are far apart and high, so that all widths of offsets occur. */
static uint64_t id_of(unsigned i) {
        return i * UINT64_C(0x10000001) << (i % 3 == 2 ? 20 : 0) | (uint64_t) (i % 2) << 63;
}

typedef struct Found {
        Bag *bag;
        unsigned times[FILES];
        unsigned n, keep_every, fail_at;
} Found;

static int find(uint64_t id, int fd, void *userdata) {
        Found *found = userdata;
        struct stat st;
        unsigned i = 0;

        while (i < FILES && id_of(i) != id)
                i++;
        assert_true(i < FILES);
        assert_int_equal(fstat(fd, &st), 0);
        assert_int_equal(st.st_ino, inodes[i]);
        assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
        found->times[i]++;
        if (++found->n == found->fail_at)
                return -ESTALE;
        if (found->keep_every > 0 && i % found->keep_every == 0)
                assert_int_equal(bag_keep(found->bag, id, files[i]), 0);
        close(fd);
        return 0;
}

/* As the next process does: from duplicates, which is what the fd store gives. */
static Bag *reopen(const Bag *bag, bool other_order) {
        Bag *again;
        int ends[2];

        bag_ends(bag, ends);
        for (unsigned i = 0; i < 2; i++)
                ends[i] = fcntl(ends[i], F_DUPFD_CLOEXEC, 3);
        assert_int_equal(bag_open(ends[other_order], ends[!other_order], &again), 0);
        return again;
}

static void assert_has(const Bag *bag, unsigned from, unsigned to) {
        Found found = { .bag = reopen(bag, from % 2) };

        assert_int_equal(bag_read(found.bag, find, &found), 0);
        for (unsigned i = 0; i < FILES; i++)
                if (i >= from && i < to)
                        assert_int_equal(found.times[i], 1);
        bag_free(found.bag);
}

static void put(Bag *bag, unsigned from, unsigned to) {
        for (unsigned i = from; i < to; i++)
                assert_int_equal(bag_put(bag, id_of(i), files[i]), 0);
}

/* ---- tests ---- */

static void test_what_was_put_is_found_by_the_next_process(void **state) {
        Bag *bag;

        (void) state;
        assert_int_equal(bag_new(&bag), 0);
        assert_has(bag, 0, 0);
        for (unsigned i = 0; i < FILES; i++) {
                put(bag, i, i + 1);
                if (i < 3 || (i >= 250 && i < 256) || i % 200 == 0)
                        assert_has(bag, 0, i + 1);
        }
        assert_int_equal(bag_size(bag), FILES);
        assert_has(bag, 0, FILES);
        /* Reading takes nothing out. */
        assert_has(bag, 0, FILES);
        assert_null(bag_free(bag));
        assert_null(bag_free(NULL));
}

static void test_what_was_found_and_kept_lives_on(void **state) {
        Found found = { .keep_every = 3 };
        Bag *bag, *fresh;

        (void) state;
        assert_int_equal(bag_new(&bag), 0);
        /* Some are packed, some are young. */
        put(bag, 0, 400);
        found.bag = reopen(bag, false);
        bag_free(bag);
        assert_int_equal(bag_put(found.bag, id_of(500), files[500]), -EBUSY);
        assert_int_equal(bag_repack(found.bag, &fresh), -EBUSY);
        assert_int_equal(bag_read(found.bag, find, &found), 0);
        assert_int_equal(bag_read(found.bag, find, &found), -EALREADY);
        assert_int_equal(bag_keep(found.bag, id_of(1), files[1]), -EINVAL);
        assert_int_equal(bag_size(found.bag), 134);
        assert_int_equal(bag_put(found.bag, id_of(399), files[399]), -EEXIST);

        put(found.bag, 400, FILES);
        assert_int_equal(bag_repack(found.bag, &fresh), 0);
        bag_free(found.bag);
        found = (Found) { .bag = reopen(fresh, true) };
        assert_int_equal(bag_read(found.bag, find, &found), 0);
        for (unsigned i = 0; i < FILES; i++)
                assert_int_equal(found.times[i], i % 3 == 0 || i >= 400);
        bag_free(found.bag);
        bag_free(fresh);
}

static void test_what_was_forgotten_goes_with_the_repacking(void **state) {
        Bag *bag, *fresh;
        Found found = {};

        (void) state;
        assert_int_equal(bag_new(&bag), 0);
        put(bag, 0, FILES);
        assert_false(bag_wants_repack(bag));
        for (unsigned i = 0; i < FILES; i++)
                if (i % 10 != 0)
                        bag_forget(bag, id_of(i));
        bag_forget(bag, id_of(1));
        assert_int_equal(bag_size(bag), FILES / 10);
        assert_true(bag_wants_repack(bag));
        assert_int_equal(bag_repack(bag, &fresh), 0);
        assert_false(bag_wants_repack(fresh));
        assert_int_equal(bag_size(fresh), FILES / 10);
        /* The old one is as it was. */
        assert_has(bag, 0, 900);

        found.bag = reopen(fresh, false);
        assert_int_equal(bag_read(found.bag, find, &found), 0);
        assert_int_equal(found.n, FILES / 10);
        bag_free(found.bag);
        bag_free(fresh);
        bag_free(bag);
}

static void test_who_comes_and_goes_needs_no_repack(void **state) {
        Bag *bag;

        (void) state;
        assert_int_equal(bag_new(&bag), 0);
        for (unsigned i = 0; i < 20000; i++) {
                assert_int_equal(bag_put(bag, i, files[i % FILES]), 0);
                bag_forget(bag, i);
                assert_false(bag_wants_repack(bag));
        }
        assert_int_equal(bag_size(bag), 0);
        bag_free(bag);
}

static void limit_buffers(const Bag *bag, int bytes) {
        int ends[2];

        bag_ends(bag, ends);
        for (unsigned i = 0; i < 2; i++)
                assert_int_equal(setsockopt(ends[i], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes)), 0);
}

static void test_a_full_bag_says_so_and_loses_nothing(void **state) {
        unsigned n = 0, more;
        Bag *bag, *fresh;
        int r = 0;

        (void) state;
        assert_int_equal(bag_new(&bag), 0);
        limit_buffers(bag, 4608);
        for (; n < FILES && r == 0; n++)
                r = bag_put(bag, id_of(n), files[n]);
        assert_int_equal(r, BAG_E_FULL);
        n--;
        assert_int_equal(bag_size(bag), n);
        assert_has(bag, 0, n);
        /* It stays so. */
        assert_int_equal(bag_put(bag, id_of(n), files[n]), BAG_E_FULL);
        assert_has(bag, 0, n);

        /* Full of dead ones, it asks for order. */
        for (unsigned i = 8; i < n; i++)
                bag_forget(bag, id_of(i));
        assert_int_equal(bag_put(bag, id_of(n), files[n]), 0);
        for (more = n + 1; more < FILES; more++) {
                r = bag_put(bag, id_of(more), files[more]);
                if (r != 0)
                        break;
                bag_forget(bag, id_of(more));
        }
        assert_int_equal(r, BAG_E_FULL);
        assert_true(bag_wants_repack(bag));
        assert_int_equal(bag_repack(bag, &fresh), 0);
        assert_has(fresh, 0, 8);
        assert_has(fresh, n, n + 1);
        bag_free(fresh);
        bag_free(bag);
}

static void test_messages_that_are_not_full_are_put_in_order(void **state) {
        Bag *bag, *fresh;
        unsigned i = 0;

        (void) state;
        assert_int_equal(bag_new(&bag), 0);
        limit_buffers(bag, 212992 / 2);
        /* One of a hundred stays, so each fold makes a message of two or three. */
        for (; i < 100000 && !bag_wants_repack(bag); i++) {
                assert_int_equal(bag_put(bag, i, files[i % FILES]), 0);
                if (i % 100 != 0)
                        bag_forget(bag, i);
        }
        assert_true(bag_wants_repack(bag));
        assert_int_equal(bag_repack(bag, &fresh), 0);
        assert_int_equal(bag_size(fresh), (i + 99) / 100);
        assert_false(bag_wants_repack(fresh));
        bag_free(bag);
        bag_free(fresh);
}

static void test_what_is_no_bag_is_refused(void **state) {
        int pair[2], ends[2], other_ends[2], streams[2];
        Bag *bag, *other, *wrong;

        (void) state;
        assert_int_equal(bag_new(&bag), 0);
        assert_int_equal(bag_new(&other), 0);
        bag_ends(bag, ends);
        bag_ends(other, other_ends);
        assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, streams), 0);

        assert_int_equal(bag_open(pair[0], pair[1], &wrong), BAG_E_NOT_A_BAG);
        assert_int_equal(bag_open(streams[0], streams[1], &wrong), BAG_E_NOT_A_BAG);
        assert_int_equal(bag_open(files[0], files[1], &wrong), BAG_E_NOT_A_BAG);
        assert_int_equal(bag_open(ends[0], ends[0], &wrong), BAG_E_NOT_A_BAG);
        assert_int_equal(bag_open(ends[0], pair[1], &wrong), BAG_E_NOT_A_BAG);
        for (unsigned i = 0; i < 4; i++)
                assert_int_equal(bag_open(ends[i % 2], other_ends[i / 2], &wrong), BAG_E_NOT_A_BAG);
        put(bag, 0, 1);
        put(other, 0, 1);
        for (unsigned i = 0; i < 4; i++)
                assert_int_equal(bag_open(ends[i % 2], other_ends[i / 2], &wrong), BAG_E_NOT_A_BAG);
        assert_has(bag, 0, 1);
        assert_has(other, 0, 1);

        assert_int_equal(send(pair[0], "hello, this is not a bag", 24, 0), 24);
        assert_int_equal(bag_open(pair[0], pair[1], &wrong), BAG_E_NOT_A_BAG);
        close(pair[0]);
        assert_int_equal(bag_open(pair[1], pair[1], &wrong), BAG_E_NOT_A_BAG);
        close(pair[1]);
        close(streams[0]);
        close(streams[1]);
        bag_free(other);
        bag_free(bag);
}

static void test_a_foreign_message_in_the_bag_is_told(void **state) {
        int ends[2];
        Found found = {};
        Bag *bag;

        (void) state;
        assert_int_equal(bag_new(&bag), 0);
        put(bag, 0, 2);
        bag_ends(bag, ends);
        assert_int_equal(send(ends[0], "short", 5, 0), 5);
        found.bag = reopen(bag, false);
        assert_int_equal(bag_read(found.bag, find, &found), BAG_E_NOT_A_BAG);
        bag_free(found.bag);
        bag_free(bag);
}

static unsigned open_fds(void) {
        unsigned n = 0;

        for (int fd = 0; fd < 4096; fd++)
                n += fcntl(fd, F_GETFD) >= 0;
        return n;
}

static void test_reading_that_is_broken_off_leaks_nothing(void **state) {
        Found found = { .fail_at = 100 };
        unsigned before;
        Bag *bag;

        (void) state;
        assert_int_equal(bag_new(&bag), 0);
        put(bag, 0, 600);
        before = open_fds();
        found.bag = reopen(bag, true);
        assert_int_equal(bag_read(found.bag, find, &found), -ESTALE);
        /* What it handed out is the user's, but for the last one. */
        bag_free(found.bag);
        assert_int_equal(open_fds(), before);
        assert_has(bag, 0, 600);
        bag_free(bag);
}

static void test_too_few_fds_is_no_silent_loss(void **state) {
        struct rlimit limit, before;
        Found found = {};
        unsigned n_before;
        int highest;
        Bag *bag;

        (void) state;
        assert_int_equal(bag_new(&bag), 0);
        put(bag, 0, 600);
        found.bag = reopen(bag, true);
        highest = dup(0);
        close(highest);
        n_before = open_fds();
        assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
        limit = before;
        limit.rlim_cur = (rlim_t) highest + 100;
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
        assert_int_equal(bag_read(found.bag, find, &found), BAG_E_TOO_MANY);
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
        assert_int_equal(open_fds(), n_before);
        bag_free(found.bag);
        assert_has(bag, 0, 600);
        bag_free(bag);
}

/* The kernel counts by user; root is not bound. */
static void put_in_flight(void) {
        struct rlimit limit = { .rlim_cur = FILES + 64, .rlim_max = FILES + 64 };
        Bag *bag;
        int r = 0;

        if (setresuid(65534, 65534, 65534) < 0 || setrlimit(RLIMIT_NOFILE, &limit) < 0 || bag_new(&bag) != 0)
                _exit(10);
        for (unsigned i = 0; i < 2 * FILES && r == 0; i++)
                r = bag_put(bag, i, files[i % FILES]);
        _exit(r == BAG_E_IN_FLIGHT && bag_repack(bag, &bag) == BAG_E_IN_FLIGHT ? 0 : 11);
}

static void test_too_many_in_flight_is_told(void **state) {
        int status;
        pid_t pid;

        (void) state;
        if (geteuid() != 0)
                skip();
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0)
                put_in_flight();
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_what_was_put_is_found_by_the_next_process),
                cmocka_unit_test(test_what_was_found_and_kept_lives_on),
                cmocka_unit_test(test_what_was_forgotten_goes_with_the_repacking),
                cmocka_unit_test(test_who_comes_and_goes_needs_no_repack),
                cmocka_unit_test(test_a_full_bag_says_so_and_loses_nothing),
                cmocka_unit_test(test_messages_that_are_not_full_are_put_in_order),
                cmocka_unit_test(test_what_is_no_bag_is_refused),
                cmocka_unit_test(test_a_foreign_message_in_the_bag_is_told),
                cmocka_unit_test(test_reading_that_is_broken_off_leaks_nothing),
                cmocka_unit_test(test_too_few_fds_is_no_silent_loss),
                cmocka_unit_test(test_too_many_in_flight_is_told),
        };

        return cmocka_run_group_tests_name("bag", tests, make_files, close_files);
}
