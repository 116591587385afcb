/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Who owns what, and how it comes and goes: the registry, an fd for each backing, a pidfd for each attached VMM, and the front. host/ and
 * front/ meet here and nowhere else. */

#include <systemd/sd-event.h>

#include "config.h"
#include "front/front.h"

typedef struct Service Manager;

int manager_new(sd_event *event, Manager **ret);
/* Closes all sockets, then gives all memory back. Accepts NULL, returns NULL. */
Manager *manager_free(Manager *manager);

/* Puts the settings in force. A negative errno leaves some as they were. */
int manager_configure(Manager *manager, const Config *config);

Front *manager_front(Manager *manager);
