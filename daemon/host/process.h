/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A VMM's process, held as a pidfd. Its number is looked up through the pidfd, and believed only while the process
 * is still there: a number alone may by now be another process. */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum {
        PROCESS_E_NOT_PIDFD = 1, /* the fd is not a pidfd */
        PROCESS_E_GONE,          /* the process has exited, or is in no pid namespace of ours */
};

typedef struct Process {
        int pidfd; /* owned */
        pid_t pid; /* in our pid namespace */
        uid_t uid; /* real uid when it was opened */
        /* Clock ticks from boot to its start, as field 22 of /proc/PID/stat has it. No two processes have both the number
         * and this in common, so the two together name the process to a privmemd that has no pidfd of it any more. */
        uint64_t start_time;
} Process;

/* Takes a duplicate of pidfd. */
int process_open(int pidfd, Process *ret);
void process_done(Process *process);
bool process_is_alive(const Process *process);

/* Whether the process maps the file. *ret_maps is true as well if its mappings cannot be read. */
int process_maps_file(const Process *process, dev_t dev, ino_t ino, bool *ret_maps);
