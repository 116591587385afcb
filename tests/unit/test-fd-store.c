/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/cleanup.h"
#include "host/fd-store.h"

/* The socket of a service manager that is not there. */
static int manager = -EBADF;

static int set_manager(void **state) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        char name[64];
        int n;

        (void) state;
        manager = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        n = snprintf(name, sizeof(name), "@test-fd-store-%d", getpid());
        memcpy(address.sun_path + 1, name + 1, (size_t) n - 1);
        if (manager < 0 || bind(manager, (struct sockaddr *) &address,
                                (socklen_t) (offsetof(struct sockaddr_un, sun_path) + (size_t) n)) < 0)
                return -1;
        return setenv("NOTIFY_SOCKET", name, true);
}

static int unset_manager(void **state) {
        (void) state;
        manager = safe_close(manager);
        unsetenv("FDSTORE");
        return unsetenv("NOTIFY_SOCKET");
}

/* What the service manager was told; returns how many fds came with it. */
static size_t receive(char text[static 512], int fds[static 8]) {
        union {
                char bytes[CMSG_SPACE(8 * sizeof(int)) + CMSG_SPACE(sizeof(struct ucred))];
                struct cmsghdr aligned;
        } control;
        struct iovec io = { .iov_base = text, .iov_len = 511 };
        struct msghdr header = {
                .msg_iov = &io,
                .msg_iovlen = 1,
                .msg_control = &control,
                .msg_controllen = sizeof(control),
        };
        size_t n = 0;
        ssize_t size;

        size = recvmsg(manager, &header, MSG_CMSG_CLOEXEC);
        if (size < 0)
                return SIZE_MAX;
        text[size] = '\0';
        for (struct cmsghdr *c = CMSG_FIRSTHDR(&header); c; c = CMSG_NXTHDR(&header, c))
                if (c->cmsg_type == SCM_RIGHTS) {
                        n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
                        memcpy(fds, CMSG_DATA(c), n * sizeof(int));
                }
        return n;
}

static bool is_same_file(int a, int b) {
        struct stat x, y;

        return fstat(a, &x) >= 0 && fstat(b, &y) >= 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

/* ---- tests ---- */

static void test_the_store_is_as_large_as_the_manager_says(void **state) {
        (void) state;
        assert_int_equal(fd_store_capacity(), 0);
        setenv("FDSTORE", "16", true);
        assert_int_equal(fd_store_capacity(), 16);
        setenv("FDSTORE", "0", true);
        assert_int_equal(fd_store_capacity(), 0);
        for (unsigned i = 0; i < 5; i++) {
                setenv("FDSTORE", (const char *[]) { "", "-1", "16x", " 16", "99999999999999999999" }[i], true);
                assert_int_equal(fd_store_capacity(), 0);
        }
        setenv("FDSTORE", "16", true);
        unsetenv("NOTIFY_SOCKET");
        assert_int_equal(fd_store_capacity(), 0);
}

static void test_without_a_manager_nothing_is_stored(void **state) {
        int fd = 0;

        (void) state;
        unsetenv("NOTIFY_SOCKET");
        assert_int_equal(fd_store_put("bag", &fd, 1), -ENOTCONN);
        assert_int_equal(fd_store_drop("bag"), -ENOTCONN);
        assert_int_equal(fd_store_barrier(1000), -ENOTCONN);
}

static void test_fds_are_stored_and_dropped_by_name(void **state) {
        int files[2], fds[8];
        char text[512];

        (void) state;
        for (unsigned i = 0; i < 2; i++)
                files[i] = memfd_create("test-fd-store", MFD_CLOEXEC);
        assert_int_equal(fd_store_put("bag-7", files, 2), 0);
        assert_int_equal(receive(text, fds), 2);
        assert_string_equal(text, "FDSTORE=1\nFDNAME=bag-7\nFDPOLL=0");
        for (unsigned i = 0; i < 2; i++) {
                assert_true(is_same_file(files[i], fds[i]));
                close(fds[i]);
                close(files[i]);
        }
        assert_int_equal(fd_store_drop("bag-7"), 0);
        assert_int_equal(receive(text, fds), 0);
        assert_string_equal(text, "FDSTOREREMOVE=1\nFDNAME=bag-7");
}

static void test_a_name_that_the_store_would_change_is_refused(void **state) {
        char longest[257];
        int fd = 0;

        (void) state;
        memset(longest, 'a', 256);
        longest[256] = '\0';
        assert_int_equal(fd_store_put(longest, &fd, 1), -EINVAL);
        assert_int_equal(fd_store_put("", &fd, 1), -EINVAL);
        assert_int_equal(fd_store_put("a:b", &fd, 1), -EINVAL);
        assert_int_equal(fd_store_put("a\nFDPOLL=1", &fd, 1), -EINVAL);
        assert_int_equal(fd_store_put("\xc3\xa4", &fd, 1), -EINVAL);
        assert_int_equal(fd_store_drop("a\nREADY=1"), -EINVAL);
        assert_int_equal(fd_store_put("a", &fd, 0), -EINVAL);
        assert_int_equal(fd_store_put("a", &fd, 254), -E2BIG);
        longest[255] = '\0';
        assert_int_equal(fd_store_put(longest, &fd, 1), 0);
}

static void *answer_barrier(void *text) {
        int fds[8];
        size_t n = receive(text, fds);

        for (size_t i = 0; n != SIZE_MAX && i < n; i++)
                close(fds[i]);
        return NULL;
}

static void test_the_barrier_waits_for_the_manager(void **state) {
        char text[512] = "";
        pthread_t thread;
        int fds[8];

        (void) state;
        assert_int_equal(fd_store_barrier(20000), -ETIMEDOUT);
        assert_int_equal(receive(text, fds), 1);
        close(fds[0]);
        assert_int_equal(pthread_create(&thread, NULL, answer_barrier, text), 0);
        assert_int_equal(fd_store_barrier(60000000), 0);
        pthread_join(thread, NULL);
        assert_string_equal(text, "BARRIER=1");
}

#define CHECK(condition) \
        do { \
                if (!(condition)) \
                        _exit(__LINE__ % 255 + 1); \
        } while (0)

static void take_over(const int files[static 4]) {
        PassedFds passed, again;
        char pid[32];
        int fd;

        /* Out of the way of the numbers that they will have. */
        for (int i = 0; i < 4; i++)
                CHECK(fcntl(files[i], F_DUPFD, 100 + i) == 100 + i);
        for (int i = 0; i < 4; i++)
                CHECK(dup2(100 + i, 3 + i) == 3 + i);
        snprintf(pid, sizeof(pid), "%d", getpid());
        setenv("LISTEN_PID", pid, true);
        setenv("LISTEN_FDS", "4", true);
        setenv("LISTEN_FDNAMES", "bag:varlink:bag:other", true);

        CHECK(fd_store_passed(&passed) == 0);
        CHECK(passed.n == 4);
        CHECK(!getenv("LISTEN_FDS") && !getenv("LISTEN_FDNAMES") && !getenv("LISTEN_PID"));
        CHECK(fd_store_passed(&again) == 0 && again.n == 0);
        fd_store_passed_done(&again);
        CHECK(fd_store_take(&passed, "ledger") == -ENOENT);
        CHECK((fd = fd_store_take(&passed, "bag")) == 3 && is_same_file(fd, 100));
        CHECK(fcntl(fd, F_GETFD) == FD_CLOEXEC);
        CHECK((fd = fd_store_take(&passed, "bag")) == 5 && is_same_file(fd, 102));
        CHECK(fd_store_take(&passed, "bag") == -ENOENT);
        CHECK(fd_store_take(&passed, "varlink") == 4);
        /* What nobody took is closed, and nothing else. */
        fd_store_passed_done(&passed);
        CHECK(passed.n == 0);
        CHECK(fcntl(6, F_GETFD) < 0 && fcntl(3, F_GETFD) >= 0 && fcntl(4, F_GETFD) >= 0 && fcntl(5, F_GETFD) >= 0);
        _exit(0);
}

static void test_what_was_passed_is_handed_out_by_name(void **state) {
        int files[4], status;
        pid_t pid;

        (void) state;
        for (unsigned i = 0; i < 4; i++)
                files[i] = memfd_create("test-fd-store", MFD_CLOEXEC);
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0)
                take_over(files);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
        for (unsigned i = 0; i < 4; i++)
                close(files[i]);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_manager, unset_manager)

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(test_the_store_is_as_large_as_the_manager_says),
                TEST(test_without_a_manager_nothing_is_stored),
                TEST(test_fds_are_stored_and_dropped_by_name),
                TEST(test_a_name_that_the_store_would_change_is_refused),
                TEST(test_the_barrier_waits_for_the_manager),
                TEST(test_what_was_passed_is_handed_out_by_name),
        };

        return cmocka_run_group_tests_name("fd-store", tests, NULL, NULL);
}
