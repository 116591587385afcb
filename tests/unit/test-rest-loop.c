/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The event loop: timers in order, and watches that go away while others have their turn. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <cmocka.h>

#include "rest/loop.h"

#define TIMERS 500

typedef struct Alarm {
        LoopTimer timer;
        uint64_t usec;
        unsigned rung;
} Alarm;

static Loop *loop;
static Alarm alarms[TIMERS];
static unsigned n_rung;
static uint64_t last;

static int setup(void **state) {
        (void) state;
        n_rung = 0;
        last = 0;
        return loop_new(&loop);
}

static int teardown(void **state) {
        (void) state;
        loop = loop_free(loop);
        return 0;
}

static void on_alarm(void *userdata) {
        Alarm *one = userdata;

        assert_true(one->timer.at >= last);
        assert_true(one->timer.at <= loop_now(loop));
        last = one->timer.at;
        one->rung++;
        n_rung++;
        /* One that is set takes another with it. */
        if (one != alarms && one[-1].timer.place > 0 && n_rung % 7 == 0) {
                loop_timer_stop(loop, &one[-1].timer);
                one[-1].rung++;
                n_rung++;
        }
        if (n_rung == TIMERS)
                loop_stop(loop);
}

static void timers_ring_in_order(void **state) {
        (void) state;
        srandom(1);
        for (size_t i = 0; i < TIMERS; i++) {
                alarms[i] = (Alarm) { .timer = { .function = on_alarm, .userdata = &alarms[i] } };
                assert_int_equal(loop_timer_add(loop, &alarms[i].timer), 0);
        }
        /* Each is set several times; the last counts. */
        for (size_t i = 0; i < 3 * TIMERS; i++)
                loop_timer_set(loop, &alarms[i % TIMERS].timer, (uint64_t) random() % (50 * LOOP_MSEC));
        assert_int_equal(loop_run(loop), 0);
        for (size_t i = 0; i < TIMERS; i++) {
                assert_int_equal(alarms[i].rung, 1);
                loop_timer_remove(loop, &alarms[i].timer);
        }
}

static void on_never(void *userdata) {
        (void) userdata;
        fail();
}

static void stop_loop(void *userdata) {
        (void) userdata;
        loop_stop(loop);
}

static void timer_that_is_stopped(void **state) {
        LoopTimer never = { .function = on_never }, end = { .function = stop_loop };

        (void) state;
        assert_int_equal(loop_timer_add(loop, &never), 0);
        assert_int_equal(loop_timer_add(loop, &end), 0);
        loop_timer_set(loop, &never, LOOP_MSEC);
        loop_timer_set(loop, &end, 3 * LOOP_MSEC);
        loop_timer_stop(loop, &never);
        loop_timer_stop(loop, &never);
        loop_timer_set(loop, &never, LOOP_NEVER);
        assert_int_equal(loop_run(loop), 0);
        loop_timer_remove(loop, &never);
        loop_timer_remove(loop, &end);
}

typedef struct Pair {
        LoopWatch watch;
        struct Pair *other;
} Pair;

static unsigned n_called;

/* Both are ready at once; the first takes the other's turn away, and its memory. */
static void on_ready(uint32_t events, void *userdata) {
        Pair *one = userdata;

        assert_true(events & EPOLLIN);
        n_called++;
        loop_unwatch(loop, &one->other->watch);
        free(one->other);
        loop_unwatch(loop, &one->watch);
        free(one);
        loop_stop(loop);
}

static void watch_that_goes_in_the_same_turn(void **state) {
        Pair *one = calloc(1, sizeof(*one)), *other = calloc(1, sizeof(*other));
        int fds[2];

        (void) state;
        assert_true(one && other);
        assert_int_equal(pipe(fds), 0);
        assert_int_equal(write(fds[1], "x", 1), 1);
        *one = (Pair) { .watch = { .fd = fds[0], .function = on_ready, .userdata = one }, .other = other };
        *other = (Pair) { .watch = { .fd = dup(fds[0]), .function = on_ready, .userdata = other }, .other = one };
        assert_int_equal(loop_watch(loop, &one->watch, EPOLLIN), 0);
        assert_int_equal(loop_watch(loop, &one->watch, EPOLLIN), 0);
        assert_int_equal(loop_watch(loop, &other->watch, EPOLLIN), 0);
        n_called = 0;
        assert_int_equal(loop_run(loop), 0);
        assert_int_equal(n_called, 1);
        close(fds[0]);
        close(fds[1]);
}

static uint64_t on_turn(void *userdata) {
        if (++*(unsigned *) userdata == 3)
                loop_stop(loop);
        return LOOP_MSEC;
}

static void turns(void **state) {
        unsigned n = 0;
        LoopTurn turn = { .function = on_turn, .userdata = &n };

        (void) state;
        loop_turn_add(loop, &turn);
        assert_int_equal(loop_run(loop), 0);
        assert_int_equal(n, 3);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(timers_ring_in_order, setup, teardown),
                cmocka_unit_test_setup_teardown(timer_that_is_stopped, setup, teardown),
                cmocka_unit_test_setup_teardown(watch_that_goes_in_the_same_turn, setup, teardown),
                cmocka_unit_test_setup_teardown(turns, setup, teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
