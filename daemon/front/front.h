/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The callers' side: the varlink server, and what a call goes through before a handler changes anything. */

#include <systemd/sd-event.h>
#include <systemd/sd-varlink.h>

#include "front/event.h"
#include "front/listener.h"
#include "front/service.h"

/* One user may run all VMMs of a host, so the limit of one uid is generous. */
#define CONNECTIONS_MAX          4096U
#define CONNECTIONS_PER_UID_MAX  1024U
#define SUBSCRIBERS_PER_UID_MAX  64U
#define VMS_PER_SUBSCRIPTION_MAX 64U
#define HOLDER_LISTS_PER_UID_MAX 8U
#define LEDGER_LISTS_PER_UID_MAX 4U
#define SLOTS_PER_CALL_MAX       4096U

/* No group has it. */
#define GID_NONE ((gid_t) - 1)

/* What the administrator may change while we run. */
typedef struct FrontSettings {
        uint32_t connections;         /* at most CONNECTIONS_MAX */
        uint32_t connections_per_uid; /* at most CONNECTIONS_PER_UID_MAX */
        ExitPolicy exit_policy;       /* of VMs whose client does not say */
        AliasPolicy alias_policy;
        gid_t manager_gid; /* whose members manage all VMs, or GID_NONE */
} FrontSettings;

#define FRONT_SETTINGS_DEFAULT \
        (FrontSettings) { \
                .connections = CONNECTIONS_MAX, .connections_per_uid = CONNECTIONS_PER_UID_MAX, \
                .exit_policy = EXIT_POLICY_RELEASE, .alias_policy = ALIAS_POLICY_ENFORCE, .manager_gid = GID_NONE, \
        }

typedef struct Front Front;

/* With the settings that FRONT_SETTINGS_DEFAULT has. */
int front_new(sd_event *event, Service *service, Front **ret);
/* Connections above a new limit stay. */
int front_configure(Front *front, const FrontSettings *settings);
const FrontSettings *front_settings(const Front *front);
/* Listens on a socket that the service manager passed; takes it on success. -ENOTSOCK: it is no such socket. */
int front_listen_passed(Front *front, int fd);
/* Creates the socket; everybody who can reach it may connect, and is judged by uid. */
int front_listen(Front *front, const char *path, mode_t mode);
Front *front_free(Front *front);
/* The path of a socket that we listen on; false if there is none. */
bool front_socket_path(const Front *front, char ret[static LISTENER_PATH_SIZE]);

/* Records an event and wakes those who wait for it. */
void front_publish(Front *front, const Event *event);
