/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Who is at the other end of a connection, and what that may do. */

#include <stdbool.h>
#include <sys/types.h>

typedef enum Right {
        RIGHT_NONE,
        RIGHT_INSPECT, /* GET */
        RIGHT_MANAGE,  /* everything */
} Right;

#define CALLER_NAME_MAX 64U

/* Over TLS: by what it says who it is. */
typedef enum CallerShowed {
        CALLER_SHOWED_NOTHING, /* or a certificate that nobody knows */
        CALLER_SHOWED_CERTIFICATE,
        CALLER_SHOWED_TOKEN,
        CALLER_SHOWED_BAD_TOKEN,
} CallerShowed;

typedef struct Caller {
        Right right;
        bool is_remote; /* over TLS, and thus without uid */
        CallerShowed showed;
        bool has_uid;
        uid_t uid;
        char name[CALLER_NAME_MAX + 1]; /* for the log */
} Caller;

/* Of a unix socket that was accepted: root, this process's own uid and the members of the group manage; others may do
 * nothing. Negative: the kernel does not say. */
int caller_of_unix(int fd, gid_t group, Caller *ret);
