/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The callers' side: the varlink server, and what a call goes through before a handler changes anything. */

#include <systemd/sd-event.h>
#include <systemd/sd-varlink.h>

#include "front/event.h"
#include "front/service.h"

/* One user may run all VMMs of a host, so the limit of one uid is generous. */
#define CONNECTIONS_MAX         4096U
#define CONNECTIONS_PER_UID_MAX 1024U
#define SUBSCRIBERS_PER_UID_MAX 64U
#define SLOTS_PER_CALL_MAX      4096U

typedef struct Front Front;

int front_new(sd_event *event, Service *service, Front **ret);
/* Listens on the sockets named "varlink" that the service manager passed. Returns their number, 0 if there is none. */
int front_listen_passed(Front *front);
/* Creates the socket; everybody who can reach it may connect, and is judged by uid. */
int front_listen(Front *front, const char *path, mode_t mode);
Front *front_free(Front *front);

/* Records an event and wakes those who wait for it. */
void front_publish(Front *front, const Event *event);
