/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <string.h>

#include "core/cleanup.h"
#include "front/tally.h"
#include "manager-private.h"

Front *manager_front(Manager *manager) {
        return manager->front;
}

Registry *service_registry(Service *service) {
        return service->registry;
}

int manager_configure(Manager *manager, const Config *config) {
        manager->registry->limits = config->limits;
        return front_configure(manager->front, &config->front);
}

int manager_new(sd_event *event, PassedFds *passed, const char *ledger_directory, Manager **ret) {
        Manager *manager;
        int r;

        manager = calloc(1, sizeof(*manager));
        if (!manager)
                return -ENOMEM;
        manager->event = sd_event_ref(event);
        manager->next_mm_id = 1;
        manager->keeper = KEEPER_INIT;
        manager->flight = (Flight) FLIGHT_INIT;
        TAILQ_INIT(&manager->attempts);
        kvm_host_probe(&manager->kvm);
        r = memory_host_probe(&manager->memory);
        if (r >= 0)
                r = flight_open(&manager->flight);
        if (r >= 0)
                r = registry_new((uint64_t) sysconf(_SC_PAGESIZE), &manager->kvm.rules, &manager->registry);
        if (r >= 0)
                manager->registry->last_generation = usec_of(CLOCK_REALTIME);
        if (r >= 0)
                r = manager_expiry_open(manager);
        if (r >= 0)
                r = holder_desk_new(event, &manager->holders);
        if (r >= 0)
                r = front_new(event, manager, &manager->front);
        if (r >= 0)
                r = manager_restore(manager, passed, ledger_directory);
        if (r != 0) {
                manager_free(manager);
                return r;
        }
        *ret = manager;
        return 0;
}

const char *manager_explain(int r) {
        switch (r) {
        case KEEPER_E_LOCKED:
                return "another privmemd uses the ledger; stop it, or give --ledger=DIRECTORY";
        case KEEPER_E_NEWER:
                return "the ledger was written by a newer privmemd that this one does not understand; all that it keeps "
                       "is still kept. Start the newer one";
        case KEEPER_E_UNSAFE:
                return "the ledger, or its directory, belongs to somebody else, or others may write to it";
        case KEEPER_E_TOO_MANY:
                return "RLIMIT_NOFILE is too low for the file descriptors that are kept; raise LimitNOFILE=. They are "
                       "still kept";
        case KEEPER_E_UNREADABLE:
                return "what the service manager kept cannot be read; it is still kept";
        case KEEPER_E_SMALL_STORE:
                return "FileDescriptorStoreMax= is too low to go on with what is kept; raise it to 6 at least. All of it is "
                       "still kept";
        case KEEPER_E_NO_SPACE:
                return "there is no space for the ledger";
        default:
                return strerror(-r);
        }
}

Manager *manager_free(Manager *manager) {
        Backing *backing;
        VM *vm;

        if (!manager)
                return NULL;
        attempts_end(manager, /* vm= */ NULL);
        /* Nobody is told any more. */
        manager->front = front_free(manager->front);
        manager->holders = holder_desk_free(manager->holders);
        if (manager->registry)
                TAILQ_FOREACH(vm, &manager->registry->vms, vms) {
                        TAILQ_FOREACH(backing, &vm->backings, backings)
                                custody_close(backing);
                        vmm_close(vm);
                }
        registry_free(manager->registry);
        keeper_done(&manager->keeper);
        flight_done(&manager->flight);
        sd_event_source_disable_unref(manager->expiry);
        sd_event_unref(manager->event);
        free(manager);
        return NULL;
}
