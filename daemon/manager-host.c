/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What the host has, in numbers. */

#include "core/cleanup.h"
#include "host/hugepages.h"
#include "manager-private.h"

int service_host_report(Service *service, HostReport *ret) {
        _cleanup_free_ HugePagePool *pools = NULL;
        HostReport report = {
                .kvm = service->kvm.present,
                .guest_memfd = service->kvm.guest_memfd,
                .guest_memfd_flags = service->kvm.guest_memfd_flags,
                .cachestat = service->memory.cachestat,
                .noexec_seal = service->memory.noexec_seal,
        };
        int r;

        r = hugepages_list(&pools, &report.n_pools);
        if (r < 0)
                return r;
        report.pools = calloc(report.n_pools ?: 1, sizeof(*report.pools));
        if (!report.pools)
                return -ENOMEM;
        for (size_t i = 0; i < report.n_pools; i++)
                report.pools[i] = (PoolReport) {
                        .page_size = pools[i].page_size,
                        .node = pools[i].node,
                        .total = pools[i].total,
                        .free = pools[i].free,
                        .reserved = pools[i].reserved,
                };
        *ret = report;
        return 0;
}

/* The administrator may change it while we run, which neither inotify(7) nor poll(2) tells. A look for each call would
 * make the call slower, and a timer would wake an idle host. */
#define ADVICE_VALID_USEC UINT64_C(10000000)

const AdviceFacts *service_advice_facts(Service *service) {
        uint64_t now = 0;

        (void) sd_event_now(service->event, CLOCK_MONOTONIC, &now);
        if (service->advice_looked_up == 0 || now - service->advice_looked_up > ADVICE_VALID_USEC) {
                service->advice.page_size = (uint64_t) sysconf(_SC_PAGESIZE);
                service->advice.memfd_page_size = hugepages_of_memfd() ?: service->advice.page_size;
                service->advice_looked_up = now;
        }
        return &service->advice;
}

Custody service_custody(Service *service) {
        return service->keeper.mode;
}
