/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What is read of a process through its pidfd. */

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/cleanup.h"
#include "host/process.h"

static int open_pid(pid_t pid) {
        return (int) syscall(SYS_pidfd_open, pid, 0);
}

/* A child of that name, which lives until it is killed. */
static pid_t start(const char *name) {
        pid_t pid;

        assert_int_equal(prctl(PR_SET_NAME, name), 0); /* which it inherits */
        pid = fork();
        assert_true(pid >= 0);
        if (pid > 0)
                return pid;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;)
                pause();
}

static void end(pid_t pid) {
        assert_int_equal(kill(pid, SIGKILL), 0);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
}

/* Clock ticks since boot. */
static uint64_t ticks(void) {
        uint64_t hz = (uint64_t) sysconf(_SC_CLK_TCK);
        struct timespec now;

        clock_gettime(CLOCK_BOOTTIME, &now);
        return (uint64_t) now.tv_sec * hz + (uint64_t) now.tv_nsec * hz / 1000000000;
}

static void own_process(void **state) {
        _cleanup_close_ int pidfd = open_pid(getpid());
        Process process;

        (void) state;
        assert_int_equal(process_open(pidfd, &process), 0);
        assert_int_equal(process.pid, getpid());
        assert_int_equal(process.uid, getuid());
        process_done(&process);
}

static void started_between_two_looks_at_the_clock(void **state) {
        /* The name is in front of the number. */
        static const char *const names[] = { "vmm", "a) S 1 2 3", "((", "a b" };

        (void) state;
        for (size_t i = 0; i < ELEMENTSOF(names); i++) {
                uint64_t before = ticks();
                pid_t pid = start(names[i]);
                _cleanup_close_ int pidfd = open_pid(pid);
                uint64_t after = ticks();
                Process process;

                assert_int_equal(process_open(pidfd, &process), 0);
                assert_in_range(process.start_time, before, after);
                process_done(&process);
                end(pid);
        }
}

static void one_that_has_exited(void **state) {
        pid_t pid = start("vmm");
        _cleanup_close_ int pidfd = open_pid(pid);
        Process process;

        (void) state;
        end(pid);
        assert_int_equal(process_open(pidfd, &process), PROCESS_E_GONE);
}

static void what_is_no_pidfd(void **state) {
        Process process;

        (void) state;
        assert_int_equal(process_open(STDIN_FILENO, &process), PROCESS_E_NOT_PIDFD);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(own_process),
                cmocka_unit_test(started_between_two_looks_at_the_clock),
                cmocka_unit_test(one_that_has_exited),
                cmocka_unit_test(what_is_no_pidfd),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
