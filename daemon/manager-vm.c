/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A VM from its registration to its end, and what becomes of its memory when its VMM exits. */

#include <linux/capability.h>

#include "core/hand-over.h"
#include "host/capability.h"
#include "manager-private.h"

bool service_can_own(uid_t uid) {
        return uid == geteuid() || capability_have(CAP_CHOWN);
}

int service_register(Service *service, const VMSpec *spec, VM **ret, bool *ret_created, Failure *f) {
        int r;

        r = keeper_reserve(&service->keeper, RECORD_SIZE_MAX, f);
        if (r != 0)
                return r;
        r = vm_new(service->registry, spec, ret);
        if (r == CORE_E_LIMIT)
                return fail_limit(f, "vmsPerUID", service->registry->limits.vms_per_uid);
        if (r < 0)
                return r;
        *ret_created = r != CORE_E_EXISTS;
        if (!*ret_created)
                return 0;
        (void) record_vm(keeper_records(&service->keeper), *ret);
        keeper_commit(&service->keeper);
        front_publish(service->front, &(Event) { .kind = EVENT_VM_REGISTERED, .vm = *ret });
        return 0;
}

int service_hand_over(Service *service, VM *vm, int pidfd, uid_t peer, Failure *f) {
        _cleanup_(process_done) Process process = { .pidfd = -EBADF };
        int r;

        if (vm->state != VM_ATTACHED)
                return fail_not_supported(f, "the VM has no VMM that could hand it over; attach the new one");
        if (vm->outgoing)
                return fail_hand_over_under_way(f, vm->name, service_vmm_pid(vm->outgoing));
        if (pidfd >= 0) {
                r = vmm_open_process(pidfd, vm, peer, &process, f);
                if (r != 0)
                        return r;
                if (process.pid == service_vmm_pid(vm))
                        return fail_not_supported(f, "a VMM cannot be its own successor");
                if (vmm_is_successor(vm, &process))
                        return 0;
        }
        if (pidfd < 0 && service_successor_pid(vm) == 0)
                return 0;
        r = vmm_set_successor(vm, pidfd >= 0 ? &process : NULL, f);
        if (r != 0)
                return r;
        front_publish(service->front,
                      &(Event) { .kind = EVENT_SUCCESSOR_NAMED, .vm = vm, .pid = service_successor_pid(vm) });
        return 0;
}

/* What other VMs share with this one, which is gone from the ledger with its shares. */
static void return_shares(Manager *manager, VM *peer) {
        Backing *backing;
        VM *vm;

        TAILQ_FOREACH(vm, &manager->registry->vms, vms)
                TAILQ_FOREACH(backing, &vm->backings, backings)
                        if (backing_is_shared_with(backing, peer))
                                custody_unshare(manager, backing, peer);
}

uint64_t manager_drop_vm(Manager *manager, VM *vm, EndReason reason) {
        uint64_t freed = 0;
        Backing *backing;

        attempts_end(manager, vm);
        (void) record_vm_gone(keeper_records(&manager->keeper), vm);
        keeper_commit(&manager->keeper);
        STEP("drop.ledger");
        vm_withdraw_slots(vm);
        while ((backing = TAILQ_FIRST(&vm->backings)))
                freed += custody_drop(manager, backing, reason);
        return_shares(manager, vm);
        front_publish(manager->front,
                      &(Event) { .kind = EVENT_VM_UNREGISTERED, .vm = vm, .freed = &freed, .reason = reason });
        vm_free(vm);
        return freed;
}

Backing *manager_shown_elsewhere(VM *vm, VM **ret_peer) {
        Backing *backing;

        TAILQ_FOREACH(backing, &vm->backings, backings) {
                *ret_peer = backing_shown_by_other(backing);
                if (*ret_peer)
                        return backing;
        }
        return NULL;
}

int service_unregister(Service *service, VM *vm, uint64_t *ret_freed, Failure *f) {
        Backing *shown;
        VM *peer;

        if (vm->state == VM_ATTACHED)
                return fail_vm_in_use(f, vm->name, service_vmm_pid(vm));
        shown = manager_shown_elsewhere(vm, &peer);
        if (shown)
                return fail_backing_in_use(f, shown, 0);
        *ret_freed = manager_drop_vm(service, vm, END_REQUESTED);
        return 0;
}

/* No kernel can bind a guest_memfd to another KVM VM, and its own has gone with the VMM. What holds it keeps its memory
 * and all of that VM in the kernel, for no use but reading. One that a slot still shows is let go of by whoever asks. */
static bool is_to_part(const Backing *backing, uint64_t vmm_serial) {
        return backing->kind == BACKING_GUEST_MEMFD && backing->vmm_serial == vmm_serial &&
               !backing->vm->retain_guest_memfd && backing->n_slots == 0;
}

/* In the same commit as the exit, which a restart does not see a second time. */
static void record_parting(Manager *manager, const VM *vm, uint64_t vmm_serial) {
        Backing *backing;

        TAILQ_FOREACH(backing, &vm->backings, backings) {
                if (backing->kind == BACKING_GUEST_MEMFD && backing->vmm_serial == vmm_serial)
                        backing_orphan(backing);
                if (is_to_part(backing, vmm_serial))
                        (void) record_backing_gone(keeper_records(&manager->keeper), backing);
        }
}

static void part_with_guest_memfds(Manager *manager, VM *vm, uint64_t vmm_serial) {
        Backing *backing, *next;

        for (backing = TAILQ_FIRST(&vm->backings); backing; backing = next) {
                next = TAILQ_NEXT(backing, backings);
                if (is_to_part(backing, vmm_serial))
                        (void) custody_drop(manager, backing, END_CANNOT_BE_BOUND);
        }
}

/* Either VMM of a hand-over has exited; the other one goes on. */
static void end_hand_over(Manager *manager, VM *vm, bool is_outgoing, pid_t pid) {
        uint64_t vmm_serial = is_outgoing ? vm->outgoing->vmm_serial : vm->vmm_serial;

        if (is_outgoing) {
                (void) record_outgoing_gone(keeper_records(&manager->keeper), vm);
                vm_end_outgoing(vm);
        } else {
                (void) record_taken_back(keeper_records(&manager->keeper), vm);
                vm_take_back(vm);
                vmm_follow(vm);
        }
        record_parting(manager, vm, vmm_serial);
        keeper_commit(&manager->keeper);
        STEP("hand-over.ended");
        front_publish(manager->front, &(Event) { .kind = EVENT_VMM_EXITED, .vm = vm, .pid = pid });
        part_with_guest_memfds(manager, vm, vmm_serial);
        if (!is_outgoing)
                front_publish(manager->front,
                              &(Event) { .kind = EVENT_VM_ATTACHED, .vm = vm, .pid = service_vmm_pid(vm) });
}

/* The VM stays, for a time or without end. All of it is one commit, since a restart does not see the exit again. */
static void outlive_vmm(Manager *manager, VM *vm, pid_t pid) {
        (void) record_vmm_gone(keeper_records(&manager->keeper), vm);
        record_parting(manager, vm, vm->vmm_serial);
        manager_retain(manager, vm);
        keeper_commit(&manager->keeper);
        STEP("exit.ledger");
        front_publish(manager->front, &(Event) { .kind = EVENT_VMM_EXITED, .vm = vm, .pid = pid });
        part_with_guest_memfds(manager, vm, vm->vmm_serial);
}

/* A VM whose memory another VM shows is kept whatever its policy says. */
void manager_vmm_exited(Manager *manager, VM *vm, pid_t pid) {
        VM *peer;

        keeper_forget_fd(&manager->keeper, vm->vmm.id);
        keeper_forget_fd(&manager->keeper, vm->successor.id);
        vm->successor = (VMMIdentity) {};
        if (vm->heir || vm->outgoing) {
                end_hand_over(manager, vm_whole(vm), vm->heir != NULL, pid);
                return;
        }
        vm_detach(vm);
        if (vm->exit_policy == EXIT_POLICY_RETAIN || manager_shown_elsewhere(vm, &peer)) {
                outlive_vmm(manager, vm, pid);
                return;
        }
        /* Of the VM the ledger learns only that it is gone: until then a restart sees the exit again. */
        front_publish(manager->front, &(Event) { .kind = EVENT_VMM_EXITED, .vm = vm, .pid = pid });
        (void) manager_drop_vm(manager, vm, END_VMM_EXITED);
}
