/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Which events a backing outlives, and why or why not. It follows from what the backing is, what its VM wants, and where
 * privmemd keeps file descriptors while it does not run. */

#include "core/backing.h"
#include "core/vm.h"

/* Where our file descriptors are while we do not run. */
typedef enum Custody {
        CUSTODY_NONE,         /* nowhere */
        CUSTODY_RUNTIME_FILE, /* nowhere, but a file says where living VMMs have theirs */
        CUSTODY_FD_STORE,     /* with the service manager */
        _CUSTODY_MAX,
} Custody;

typedef enum SurvivalEvent {
        SURVIVAL_VMM_CRASH,
        SURVIVAL_VMM_UPGRADE,    /* a new VMM takes over from the old one while both live */
        SURVIVAL_DAEMON_RESTART, /* of privmemd, whether it crashed or was stopped */
        SURVIVAL_HOST_KEXEC,     /* into a new kernel, by its live update */
        _SURVIVAL_EVENT_MAX,
} SurvivalEvent;

typedef enum SurvivalReason {
        /* It survives. */
        SURVIVAL_RETAINED,
        SURVIVAL_SHARED_FILE,
        SURVIVAL_IN_FD_STORE,
        SURVIVAL_FOUND_IN_VMM,
        /* It does not. */
        SURVIVAL_RELEASED,
        SURVIVAL_BOUND_TO_ONE_VM,
        SURVIVAL_NOT_KEPT,
        SURVIVAL_NO_LIVING_VMM,
        SURVIVAL_KIND_NOT_PRESERVED,
        SURVIVAL_NOT_HANDED_TO_KERNEL,
        _SURVIVAL_REASON_MAX,
} SurvivalReason;

SurvivalReason survival_of(const Backing *backing, SurvivalEvent event, Custody custody);
bool survival_is_good(SurvivalReason reason);
