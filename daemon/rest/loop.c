/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "rest/loop.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#define EVENTS_MAX 64

struct Loop {
        int epoll;
        bool stopped;
        uint64_t now;

        /* What epoll_wait(2) gave; a watch that is removed meanwhile leaves it. */
        struct epoll_event events[EVENTS_MAX];
        int n_events;

        /* A binary heap; the root is at 1. */
        LoopTimer **heap;
        size_t n_heap, n_timers, capacity;

        LoopTurn *turns;
};

static uint64_t monotonic(void) {
        struct timespec now;

        clock_gettime(CLOCK_MONOTONIC, &now);
        return (uint64_t) now.tv_sec * LOOP_SEC + (uint64_t) now.tv_nsec / 1000;
}

int loop_new(Loop **ret) {
        Loop *loop = calloc(1, sizeof(*loop));

        if (!loop)
                return -ENOMEM;
        loop->epoll = epoll_create1(EPOLL_CLOEXEC);
        if (loop->epoll < 0) {
                int r = -errno;

                free(loop);
                return r;
        }
        loop->now = monotonic();
        *ret = loop;
        return 0;
}

Loop *loop_free(Loop *loop) {
        if (!loop)
                return NULL;
        close(loop->epoll);
        free(loop->heap);
        free(loop);
        return NULL;
}

uint64_t loop_now(const Loop *loop) {
        return loop->now;
}

void loop_stop(Loop *loop) {
        loop->stopped = true;
}

/* ---- watches ---- */

int loop_watch(Loop *loop, LoopWatch *watch, uint32_t events) {
        struct epoll_event event = { .events = events, .data.ptr = watch };

        if (watch->is_on && watch->events == events)
                return 0;
        if (epoll_ctl(loop->epoll, watch->is_on ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, watch->fd, &event) < 0)
                return -errno;
        watch->is_on = true;
        watch->events = events;
        return 0;
}

void loop_unwatch(Loop *loop, LoopWatch *watch) {
        if (!watch->is_on)
                return;
        (void) epoll_ctl(loop->epoll, EPOLL_CTL_DEL, watch->fd, NULL);
        watch->is_on = false;
        for (int i = 0; i < loop->n_events; i++)
                if (loop->events[i].data.ptr == watch)
                        loop->events[i].data.ptr = NULL;
}

/* ---- timers ---- */

int loop_timer_add(Loop *loop, LoopTimer *timer) {
        timer->place = 0;
        if (loop->n_timers + 1 >= loop->capacity) {
                size_t capacity = loop->capacity ? loop->capacity * 2 : 64;
                LoopTimer **heap = reallocarray(loop->heap, capacity, sizeof(*heap));

                if (!heap)
                        return -ENOMEM;
                loop->heap = heap;
                loop->capacity = capacity;
        }
        loop->n_timers++;
        return 0;
}

void loop_timer_remove(Loop *loop, LoopTimer *timer) {
        loop_timer_stop(loop, timer);
        loop->n_timers--;
}

static void put(Loop *loop, size_t place, LoopTimer *timer) {
        loop->heap[place] = timer;
        timer->place = place;
}

static void sift_up(Loop *loop, size_t place, LoopTimer *timer) {
        for (; place > 1 && loop->heap[place / 2]->at > timer->at; place /= 2)
                put(loop, place, loop->heap[place / 2]);
        put(loop, place, timer);
}

static void sift_down(Loop *loop, size_t place, LoopTimer *timer) {
        for (size_t child = place * 2; child <= loop->n_heap; child = place * 2) {
                if (child < loop->n_heap && loop->heap[child + 1]->at < loop->heap[child]->at)
                        child++;
                if (loop->heap[child]->at >= timer->at)
                        break;
                put(loop, place, loop->heap[child]);
                place = child;
        }
        put(loop, place, timer);
}

void loop_timer_stop(Loop *loop, LoopTimer *timer) {
        size_t place = timer->place;
        LoopTimer *last;

        if (place == 0)
                return;
        timer->place = 0;
        last = loop->heap[loop->n_heap--];
        if (last == timer)
                return;
        if (place > 1 && loop->heap[place / 2]->at > last->at)
                sift_up(loop, place, last);
        else
                sift_down(loop, place, last);
}

void loop_timer_set(Loop *loop, LoopTimer *timer, uint64_t usec) {
        loop_timer_stop(loop, timer);
        if (usec == LOOP_NEVER)
                return;
        timer->at = loop->now + usec;
        sift_up(loop, ++loop->n_heap, timer);
}

static void run_timers(Loop *loop) {
        while (loop->n_heap > 0 && loop->heap[1]->at <= loop->now) {
                LoopTimer *timer = loop->heap[1];

                loop_timer_stop(loop, timer);
                timer->function(timer->userdata);
        }
}

/* ---- turns ---- */

void loop_turn_add(Loop *loop, LoopTurn *turn) {
        turn->next = loop->turns;
        loop->turns = turn;
}

/* In milliseconds, for epoll_wait(2). */
static int time_to_wait(Loop *loop) {
        uint64_t usec = LOOP_NEVER;

        for (LoopTurn *turn = loop->turns; turn; turn = turn->next) {
                uint64_t asked = turn->function(turn->userdata);

                usec = asked < usec ? asked : usec;
        }
        if (loop->stopped)
                return 0;
        if (loop->n_heap > 0) {
                uint64_t at = loop->heap[1]->at, left = at > loop->now ? at - loop->now : 0;

                usec = left < usec ? left : usec;
        }
        if (usec == LOOP_NEVER)
                return -1;
        /* Rounded up: a timer that is woken too early is waited for again. */
        return usec > 3600 * LOOP_SEC ? 3600 * 1000 : (int) ((usec + LOOP_MSEC - 1) / LOOP_MSEC);
}

int loop_run(Loop *loop) {
        while (!loop->stopped) {
                int n;

                n = epoll_wait(loop->epoll, loop->events, EVENTS_MAX, time_to_wait(loop));
                if (n < 0 && errno != EINTR)
                        return -errno;
                loop->now = monotonic();
                loop->n_events = n < 0 ? 0 : n;
                for (int i = 0; i < loop->n_events; i++) {
                        LoopWatch *watch = loop->events[i].data.ptr;

                        if (watch)
                                watch->function(loop->events[i].events, watch->userdata);
                }
                loop->n_events = 0;
                run_timers(loop);
        }
        return 0;
}
