/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "core/cleanup.h"
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

int manager_new(sd_event *event, Manager **ret) {
        Manager *manager;
        int r;

        manager = calloc(1, sizeof(*manager));
        if (!manager)
                return -ENOMEM;
        manager->event = sd_event_ref(event);
        manager->next_mm_id = 1;
        TAILQ_INIT(&manager->attempts);
        kvm_host_probe(&manager->kvm);
        r = memory_host_probe(&manager->memory);
        if (r >= 0)
                r = registry_new((uint64_t) sysconf(_SC_PAGESIZE), &manager->kvm.rules, &manager->registry);
        if (r >= 0)
                r = manager_expiry_open(manager);
        if (r >= 0)
                r = holder_desk_new(event, &manager->holders);
        if (r >= 0)
                r = front_new(event, manager, &manager->front);
        if (r < 0) {
                manager_free(manager);
                return r;
        }
        *ret = manager;
        return 0;
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
        sd_event_source_disable_unref(manager->expiry);
        sd_event_unref(manager->event);
        free(manager);
        return NULL;
}
