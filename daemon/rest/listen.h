/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The sockets that clients connect to: those that the service manager passed, or those of --listen=. */

#include "rest/http.h"
#include "rest/loop.h"

typedef struct Listeners Listeners;

int listeners_new(Loop *loop, Http *http, gid_t group, Listeners **ret);
Listeners *listeners_free(Listeners *listeners);

/* Takes those of LISTEN_FDS; they are for this process if LISTEN_PID says so. Returns how many there were.
 * -EPROTONOSUPPORT: one is for TCP, and there is no TLS. */
int listeners_take_passed(Listeners *listeners);

/* unix:PATH, mode 0660, group if there is one; tls:ADDRESS:PORT. -EINVAL: not of that form. -EPROTONOSUPPORT: as above. */
int listeners_open(Listeners *listeners, const char *address);
