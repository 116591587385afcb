/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Slots and private ranges: changed in the core, and written down. */

#include "core/range.h"
#include "manager-private.h"

int service_set_slots(Service *service, VM *vm, const SlotSpec *specs, size_t n, Verdict *verdicts, bool *changed,
                      bool *ret_accepted, Failure *f) {
        size_t room = 0;
        int r;

        for (size_t i = 0; i < n; i++)
                room += record_slot_size(specs[i].mapping ? specs[i].mapping->n_runs : 0);
        r = keeper_reserve(&service->keeper, room, f);
        if (r == 0)
                r = slot_set_many(vm, specs, n, /* apply_all= */ true, verdicts, changed, ret_accepted);
        if (r != 0)
                return r;
        for (size_t i = 0; i < n; i++)
                if (changed[i])
                        (void) record_slot(keeper_records(&service->keeper), vm, specs[i].as_id, specs[i].id);
        keeper_commit(&service->keeper);
        STEP("slots.ledger");
        return 0;
}

static int fail_range(uint64_t page_size, uint64_t gpa, uint64_t size, Failure *f) {
        if (!is_aligned(gpa, page_size))
                return fail_invalid_value(f, "guestPhysAddr", gpa, 0, UINT64_MAX & ~(page_size - 1), page_size);
        return fail_invalid_value(f, "memorySize", size, page_size, (UINT64_MAX - gpa) & ~(page_size - 1), page_size);
}

int service_set_attributes(Service *service, VM *vm, uint64_t gpa, uint64_t size, bool private, Failure *f) {
        int r;

        r = keeper_reserve(&service->keeper, RECORD_SIZE_MAX, f);
        if (r != 0)
                return r;
        r = attributes_set(&vm->private_ranges, vm->registry->page_size, gpa, size, private);
        if (r == ATTRIBUTES_E_RANGE)
                return fail_range(vm->registry->page_size, gpa, size, f);
        if (r == ATTRIBUTES_E_LIMIT)
                return fail_limit(f, "privateRangesPerVM", PRIVATE_RANGES_MAX);
        if (r < 0)
                return r;
        (void) record_memory_attributes(keeper_records(&service->keeper), vm, gpa, size, private);
        keeper_commit(&service->keeper);
        return 0;
}
