/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The monitor of a QEMU, in its JSON protocol QMP: one command at a time, each waited for until the deadline.
 *
 * Functions that return int return 0; -errno if the conversation is over, such as -ETIMEDOUT, or -ECONNRESET if QEMU is
 * gone; or QMP_E_REFUSED. They print nothing; error says what was wrong. */

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <json-c/json.h>

enum {
        QMP_E_REFUSED = 1, /* QEMU answered with an error */
};

typedef struct Qmp {
        int fd;
        uint64_t deadline_usec;            /* by qmp_now() */
        const volatile sig_atomic_t *stop; /* if not NULL: -EINTR once this is set */
        uint64_t stopped_usec;             /* when the guest last stopped, by QEMU's clock; 0: never */
        uint64_t resumed_usec;
        uint64_t id; /* of the last command */
        char error[512];
        size_t size;
        char buffer[64 * 1024];
} Qmp;

/* CLOCK_MONOTONIC. */
uint64_t qmp_now(void);

/* Connects to the socket of a QEMU that listens there; *ret_pid is its process. */
int qmp_connect(Qmp *q, const char *path, pid_t *ret_pid);

/* Must come first: QEMU greets, and takes no other command before. */
int qmp_greet(Qmp *q);

/* arguments: consumed; NULL is none.  fd: sent along, unless negative; stays the caller's.  ret_value: may be NULL, else
 * the caller puts it. */
int qmp_call(Qmp *q, const char *command, json_object *arguments, int fd, json_object **ret_value);

/* The capability x-ignore-shared: a migration leaves out the RAM that is in shared files. It must not stay set, for an
 * ordinary migration to another host would then leave the RAM behind. */
int qmp_get_ignore_shared(Qmp *q, bool *ret_on);
int qmp_set_ignore_shared(Qmp *q, bool on);

/* A string of an answer, cut to size; "none" if it is not in it. False: there was no answer. */
bool qmp_string(Qmp *q, const char *command, const char *field, char *ret, size_t size);

void qmp_close(Qmp *q);
