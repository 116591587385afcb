/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Whether a reply can carry a file descriptor. Linux counts by user what lies in the queues of sockets, and once that is
 * more than RLIMIT_NOFILE it refuses every message with fds, of any process of that user that has neither
 * CAP_SYS_RESOURCE nor CAP_SYS_ADMIN (net/unix/af_unix.c too_many_unix_fds()). A reply that cannot be sent ends the
 * connection, after the call has done its work; so a fd is sent to ourselves first. */

enum {
        FLIGHT_E_FULL = 1, /* no fd can be sent now */
};

typedef struct Flight {
        int ends[2]; /* negative: there is no limit for us */
        int token;   /* the fd that is sent */
} Flight;

#define FLIGHT_INIT { .ends = { -EBADF, -EBADF }, .token = -EBADF }

int flight_open(Flight *flight);
void flight_done(Flight *flight);

/* Takes the place of the fd of a reply, until flight_drop(). FLIGHT_E_FULL. */
int flight_hold(Flight *flight);
void flight_drop(Flight *flight);
