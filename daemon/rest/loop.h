/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The event loop: epoll and timers, one thread. Whoever is called may remove any watch or timer, its own as well. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LOOP_NEVER UINT64_MAX

#define LOOP_MSEC UINT64_C(1000)
#define LOOP_SEC  UINT64_C(1000000)

typedef struct Loop Loop;

typedef struct LoopWatch {
        int fd;
        void (*function)(uint32_t events, void *userdata);
        void *userdata;
        bool is_on; /* the loop's own, as all below */
        uint32_t events;
} LoopWatch;

typedef struct LoopTimer {
        void (*function)(void *userdata);
        void *userdata;
        uint64_t at;  /* CLOCK_MONOTONIC, microseconds; the loop's own, as place */
        size_t place; /* in the heap, from 1; 0: not set */
} LoopTimer;

/* Is called before each wait, for work that no file descriptor announces. Returns for how long it can wait, in
 * microseconds; LOOP_NEVER: as long as it likes. */
typedef struct LoopTurn {
        uint64_t (*function)(void *userdata);
        void *userdata;
        struct LoopTurn *next;
} LoopTurn;

int loop_new(Loop **ret);
Loop *loop_free(Loop *loop);

/* Until loop_stop(). */
int loop_run(Loop *loop);
void loop_stop(Loop *loop);

/* Of the current turn. */
uint64_t loop_now(const Loop *loop);

/* Watches the fd for these events of epoll, or for others than before. 0 is none but EPOLLERR and EPOLLHUP. */
int loop_watch(Loop *loop, LoopWatch *watch, uint32_t events);
void loop_unwatch(Loop *loop, LoopWatch *watch);

/* Makes room for one timer more, so that setting one cannot fail. Each add has its remove. */
int loop_timer_add(Loop *loop, LoopTimer *timer);
void loop_timer_remove(Loop *loop, LoopTimer *timer);

/* Once, that much from now, and no earlier one any more. */
void loop_timer_set(Loop *loop, LoopTimer *timer, uint64_t usec);
void loop_timer_stop(Loop *loop, LoopTimer *timer);

void loop_turn_add(Loop *loop, LoopTurn *turn);
