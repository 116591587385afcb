/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "core/survival.h"

/* KVM binds a guest_memfd to the VM that it was made for, and that ends with the VMM: what is left can be bound to no
 * other, in no released kernel. */
static SurvivalReason after_crash(const Backing *backing) {
        if (backing->kind == BACKING_GUEST_MEMFD)
                return SURVIVAL_BOUND_TO_ONE_VM;
        return backing->vm->exit_policy == EXIT_POLICY_RETAIN ? SURVIVAL_RETAINED : SURVIVAL_RELEASED;
}

static SurvivalReason after_restart(const Backing *backing, Custody custody) {
        switch (custody) {
        case CUSTODY_FD_STORE:
                return SURVIVAL_IN_FD_STORE;
        case CUSTODY_RUNTIME_FILE:
                return backing->vm->state == VM_ATTACHED ? SURVIVAL_FOUND_IN_VMM : SURVIVAL_NO_LIVING_VMM;
        default:
                return SURVIVAL_NOT_KEPT;
        }
}

/* The kernel's live update (Linux 6.19) takes memfds of ordinary pages alone, and from the service manager those that
 * lie in its fd store by themselves: ours lie in the queue of a socket there. */
static SurvivalReason after_kexec(const Backing *backing, Custody custody) {
        if (backing->kind != BACKING_MEMFD)
                return SURVIVAL_KIND_NOT_PRESERVED;
        return custody == CUSTODY_FD_STORE ? SURVIVAL_NOT_HANDED_TO_KERNEL : SURVIVAL_NOT_KEPT;
}

SurvivalReason survival_of(const Backing *backing, SurvivalEvent event, Custody custody) {
        switch (event) {
        case SURVIVAL_VMM_CRASH:
                return after_crash(backing);
        case SURVIVAL_VMM_UPGRADE:
                return backing->kind == BACKING_GUEST_MEMFD ? SURVIVAL_BOUND_TO_ONE_VM : SURVIVAL_SHARED_FILE;
        case SURVIVAL_DAEMON_RESTART:
                return after_restart(backing, custody);
        default:
                return after_kexec(backing, custody);
        }
}

bool survival_is_good(SurvivalReason reason) {
        return reason < SURVIVAL_RELEASED;
}
