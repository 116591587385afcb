/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* VMs that are retained for a time, and claims. The time is in the object itself, by the clock that nobody sets; here is
 * one timer, for the first of them. */

#include <string.h>
#include <time.h>

#include "manager-private.h"

uint64_t manager_now_usec(void) {
        struct timespec now;

        clock_gettime(CLOCK_BOOTTIME, &now);
        return (uint64_t) now.tv_sec * 1000000 + (uint64_t) now.tv_nsec / 1000;
}

/* One whose memory another VM shows is kept for it, as when its VMM exits; it has no end any more, and the event says
 * because of whom. */
static void expire(Manager *manager, VM *vm) {
        VM *peer = NULL;

        (void) manager_shown_elsewhere(vm, &peer);
        vm_set_retained_until(vm, 0);
        if (peer) {
                (void) record_retained(keeper_records(&manager->keeper), vm);
                keeper_commit(&manager->keeper);
        }
        front_publish(manager->front, &(Event) { .kind = EVENT_VM_EXPIRED, .vm = vm, .peer_vm = peer });
        /* Until the ledger has it that the VM is gone, a restart sees its end again. */
        if (!peer)
                (void) manager_drop_vm(manager, vm, END_EXPIRED);
}

static int on_expiry(sd_event_source *source, uint64_t usec, void *userdata) {
        Manager *manager = userdata;
        uint64_t now = manager_now_usec();
        Claim *claim;
        VM *vm;

        (void) source;
        (void) usec;
        while ((claim = registry_first_claim_to_expire(manager->registry)) && claim->expires_usec <= now)
                claim_expire(manager, claim);
        while ((vm = registry_first_to_expire(manager->registry)) && vm->retained_until_usec <= now)
                expire(manager, vm);
        manager_watch_expiry(manager);
        return 0;
}

int manager_expiry_open(Manager *manager) {
        int r;

        r = sd_event_add_time(manager->event, &manager->expiry, CLOCK_BOOTTIME, UINT64_MAX, /* accuracy= */ 0,
                              on_expiry, manager);
        return r < 0 ? r : sd_event_source_set_enabled(manager->expiry, SD_EVENT_OFF);
}

void manager_watch_expiry(Manager *manager) {
        const VM *vm = registry_first_to_expire(manager->registry);
        const Claim *claim = registry_first_claim_to_expire(manager->registry);
        uint64_t first = UINT64_MAX;
        int r;

        if (vm)
                first = vm->retained_until_usec;
        if (claim && claim->expires_usec < first)
                first = claim->expires_usec;
        if (first == UINT64_MAX)
                return;
        r = sd_event_source_set_time(manager->expiry, first);
        if (r >= 0)
                r = sd_event_source_set_enabled(manager->expiry, SD_EVENT_ONESHOT);
        if (r < 0)
                fprintf(stderr, "privmemd: no timer for what is kept for a time, and stays longer: %s\n",
                        strerror(-r));
}

void manager_retain(Manager *manager, VM *vm) {
        if (vm->retain_usec == 0)
                return;
        vm_set_retained_until(vm, manager_now_usec() + vm->retain_usec);
        (void) record_retained(keeper_records(&manager->keeper), vm);
        manager_watch_expiry(manager);
}
