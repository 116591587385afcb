/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Who owns what, and how it comes and goes: the registry, an fd for each backing, a pidfd for each attached VMM, and
 * the front. host/ and front/ meet here and nowhere else. */

#include <systemd/sd-event.h>

#include "config.h"
#include "front/front.h"
#include "host/fd-store.h"

typedef struct Service Manager;

/* Takes what bag and ledger have of passed; ledger_directory: see keeper_open(). A negative errno, or KEEPER_E_…,
 * for which manager_explain() has words. */
int manager_new(sd_event *event, PassedFds *passed, const char *ledger_directory, Manager **ret);
const char *manager_explain(int r);
/* Closes all sockets and fds; what is kept is kept. Accepts NULL, returns NULL. */
Manager *manager_free(Manager *manager);

/* Puts the settings in force. A negative errno leaves some as they were. */
int manager_configure(Manager *manager, const Config *config);

Front *manager_front(Manager *manager);
