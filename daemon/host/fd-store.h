/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The fds that the service manager keeps for us while we are not running, and those that it gave us when we were
 * started: stored ones and listening sockets, told apart by name. */

#include <stddef.h>
#include <stdint.h>

/* What the service manager passed. An fd belongs to this list until it is taken. */
typedef struct PassedFds {
        size_t n;
        struct {
                char *name;
                int fd; /* -EBADF once it was taken */
        } *items;
} PassedFds;

/* How many fds the service manager keeps for us; 0 if there is none, if it keeps none, or before systemd 254. */
uint64_t fd_store_capacity(void);

/* Stores duplicates of the fds under one name, and watches none of them: what is no file to poll would be thrown out,
 * and what hangs up too. Done when a later fd_store_barrier() returns 0. -EINVAL: no name that the store takes;
 * -ENOTCONN: no service manager. */
int fd_store_put(const char *name, const int *fds, size_t n);
/* Drops everything of that name. */
int fd_store_drop(const char *name);
/* Waits until the service manager has read all that was sent before. -ETIMEDOUT, -ENOTCONN. */
int fd_store_barrier(uint64_t timeout_usec);

/* Takes over what was passed, all of it with O_CLOEXEC, and removes it from the environment; so it is called once,
 * early, and at one place. Nothing passed is an empty list. */
int fd_store_passed(PassedFds *ret);
/* The next fd of that name, which the caller owns, or -ENOENT. */
int fd_store_take(PassedFds *passed, const char *name);
/* Closes what is left. */
void fd_store_passed_done(PassedFds *passed);
