/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Objects of the core as objects of the wire. Each function makes *ret, which the caller unrefs, and returns 0 or a
 * negative errno. */

#include <systemd/sd-json.h>

#include "core/advice.h"
#include "core/claim.h"
#include "core/slot.h"
#include "core/vm.h"
#include "front/front.h"
#include "front/service.h"

/* A slot with names in place of backings. */
typedef struct SlotView {
        uint32_t id, as_id, flags;
        uint64_t gpa, size, hva, offset, guest_memfd_offset;
        const char *backing;     /* NULL: none */
        const char *backing_vm;  /* NULL: the slot's own VM */
        const char *guest_memfd; /* NULL: none */
} SlotView;

/* Borrows the names. */
SlotView slot_view(const VM *vm, const SlotSpec *spec);

int format_vm(Service *service, const VM *vm, sd_json_variant **ret);
/* For that uid: it sees no more shares than its own, unless it is the owner or root. */
int format_backing(Service *service, const Backing *backing, uid_t uid, sd_json_variant **ret);
int format_vm_metrics(Service *service, const VM *vm, sd_json_variant **ret);
int format_claim(const Claim *claim, sd_json_variant **ret);
/* CLOCK_REALTIME of a CLOCK_BOOTTIME, in microseconds, as the two stand now. */
uint64_t boot_to_real_time(uint64_t usec);
int format_slot(const SlotView *view, sd_json_variant **ret);
/* vm, spec: the slot that was asked for. At most max_conflicts of the conflicts are listed. facts: NULL for no advice. */
int format_verdict(const VM *vm, const SlotSpec *spec, const Verdict *verdict, size_t max_conflicts,
                   const AdviceFacts *facts, sd_json_variant **ret);
int format_host(const Front *front, Service *service, sd_json_variant **ret);
