/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What KVM_SET_USER_MEMORY_REGION2 answers, in the order of virt/kvm/kvm_main.c: kvm_vm_ioctl_set_memory_region(),
 * check_memory_region_flags(), kvm_set_memory_region(), then kvm_gmem_bind() and kvm_arch_prepare_memory_region(), on
 * x86. Where KVMs differ, struct KVMRules says which one it is.
 *
 * Two things are refused on every kernel though some accept them, for each was a defect: a guest_memfd range that ends
 * outside its file near INT64_MAX (up to 7.1), and taking the guest_memfd from a live slot (before the fix of 6.19,
 * which 6.12 and 6.18 have too; it left a freed slot in KVM's books).
 *
 * One check of KVM's has no place here: the number of pages of all slots of a VM cannot overflow 64 bits. */

#include <assert.h>

#include "core/core-private.h"
#include "core/range.h"

KVMRules kvm_rules_of(KVMGeneration generation) {
        return (KVMRules) {
                .slots_per_address_space = SLOTS_PER_ADDRESS_SPACE_MAX,
                .address_spaces = ADDRESS_SPACES_MAX,
                .readonly = true,
                .guest_memfd = generation < KVM_GENERATION_6_18 ? KVM_GUEST_MEMFD_PRIVATE_VM : KVM_GUEST_MEMFD_ANY_VM,
                .binding_errno = generation < KVM_GENERATION_7_2 ? EINVAL : EEXIST,
                .binding_after_arch = generation >= KVM_GENERATION_7_3,
                .user_end = (UINT64_C(1) << 47) - 4096, /* TASK_SIZE_MAX */
        };
}

static bool refuse(Verdict *verdict, SlotRule rule, int kernel_errno) {
        verdict_note(verdict, OUTCOME_REFUSED, rule, kernel_errno);
        return false;
}

/* kvm_arch_nr_memslot_as_ids() */
static uint32_t address_spaces(const VM *vm) {
        return vm_type_has_private_memory(vm->type) ? 1 : vm->registry->kvm.address_spaces;
}

static bool may_bind(const VM *vm) {
        switch (vm->registry->kvm.guest_memfd) {
        case KVM_GUEST_MEMFD_NONE:
                return false;
        case KVM_GUEST_MEMFD_PRIVATE_VM:
                return vm->type == VM_TYPE_UNDECLARED || vm_type_has_private_memory(vm->type);
        case KVM_GUEST_MEMFD_ANY_VM:
                break;
        }
        return true;
}

static bool flags_are_legal(const VM *vm, uint32_t flags) {
        uint32_t legal = SLOT_LOG_DIRTY_PAGES;

        if (flags & SLOT_GUEST_MEMFD)
                return flags == SLOT_GUEST_MEMFD && may_bind(vm);
        if (vm->registry->kvm.readonly && !vm_type_has_protected_state(vm->type))
                legal |= SLOT_READONLY;

        return (flags & ~legal) == 0;
}

static bool hva_is_legal(const VM *vm, uint64_t hva, uint64_t size) {
        uint64_t end = vm->registry->kvm.user_end;

        return is_aligned(hva, vm->registry->page_size) && hva <= end && size <= end - hva;
}

/* An empty range is one of the cases: it deletes. */
static bool sum_wraps(uint64_t start, uint64_t size) {
        uint64_t end;

        return __builtin_add_overflow(start, size, &end);
}

/* What needs no look at the table. */
static bool numbers_accept(const VM *vm, const SlotSpec *spec, Verdict *verdict) {
        uint64_t page_size = vm->registry->page_size;

        if (spec->id >= vm->registry->kvm.slots_per_address_space)
                return refuse(verdict, RULE_SLOT_ID, EINVAL);
        if (!flags_are_legal(vm, spec->flags))
                return refuse(verdict, RULE_FLAGS, EINVAL);
        if (!is_aligned(spec->size, page_size))
                return refuse(verdict, RULE_MEMORY_SIZE, EINVAL);
        if (!is_aligned(spec->gpa, page_size))
                return refuse(verdict, RULE_GUEST_PHYS_ADDR, EINVAL);
        if (!hva_is_legal(vm, spec->hva, spec->size))
                return refuse(verdict, RULE_USERSPACE_ADDR, EINVAL);
        if ((spec->flags & SLOT_GUEST_MEMFD) &&
            (!is_aligned(spec->guest_memfd_offset, page_size) || sum_wraps(spec->guest_memfd_offset, spec->size)))
                return refuse(verdict, RULE_GUEST_MEMFD_OFFSET, EINVAL);
        if (spec->as_id >= address_spaces(vm))
                return refuse(verdict, RULE_SLOT_ID, EINVAL);
        if (sum_wraps(spec->gpa, spec->size))
                return refuse(verdict, RULE_GUEST_PHYS_ADDR, EINVAL);
        if (spec->size / page_size > SLOT_PAGES_MAX)
                return refuse(verdict, RULE_MEMORY_SIZE, EINVAL);

        return true;
}

static bool modify_accepts(const Slot *slot, const SlotSpec *spec, Verdict *verdict) {
        uint32_t toggled = spec->flags ^ slot->spec.flags;

        if (slot->spec.flags & SLOT_GUEST_MEMFD)
                return refuse(verdict, RULE_GUEST_MEMFD_IMMUTABLE, EINVAL);
        if (spec->hva != slot->spec.hva || spec->size != slot->spec.size ||
            (toggled & (SLOT_READONLY | SLOT_GUEST_MEMFD)))
                return refuse(verdict, RULE_SLOT_IMMUTABLE, EINVAL);

        return true;
}

/* The outcome is certain with the first conflict; the others are for the caller to see. */
static bool has_room(const Verdict *verdict) {
        return verdict->n_conflicts < VERDICT_CONFLICTS_MAX;
}

static int judge_gfns(VM *vm, const SlotSpec *spec, const Slot *self, Verdict *verdict) {
        IntervalCursor cursor;
        Slot *slot;
        int r;

        for (slot = slot_first_at_gpa(vm, spec->as_id, spec->gpa, spec->size, &cursor); slot && has_room(verdict);
             slot = slot_next_at_gpa(&cursor)) {
                Conflict conflict = { .rule = RULE_GFN_OVERLAP, .vm = vm };

                if (slot == self)
                        continue;

                refuse(verdict, RULE_GFN_OVERLAP, EEXIST);
                conflict.id = slot->spec.id;
                conflict.as_id = slot->spec.as_id;
                conflict.gpa = range_common(spec->gpa, spec->size, slot->spec.gpa, slot->spec.size, &conflict.size);
                conflict.requested_gpa = conflict.gpa;
                r = verdict_add_conflict(verdict, &conflict);
                if (r < 0)
                        return r;
        }

        return 0;
}

/* True if a kernel that adds offset and size as signed numbers takes the range for one inside the file. */
static bool fools_signed_sum(uint64_t offset, uint64_t size) {
        return offset <= INT64_MAX && size > INT64_MAX - offset;
}

/* The range is not empty and does not wrap. */
static bool arch_accepts(const VM *vm, const SlotSpec *spec, Verdict *verdict) {
        uint64_t max_gpa = vm->registry->kvm.max_gpa;

        if (max_gpa > 0 && !range_within(spec->gpa, spec->size, max_gpa))
                return refuse(verdict, RULE_GUEST_PHYS_ADDR, EINVAL);

        return true;
}

static bool guest_memfd_accepts(const VM *vm, const SlotSpec *spec, Verdict *verdict) {
        const Backing *file = spec->guest_memfd;

        if (!file)
                return refuse(verdict, RULE_NOT_GUEST_MEMFD, EBADF);
        if (file->kind != BACKING_GUEST_MEMFD)
                return refuse(verdict, RULE_NOT_GUEST_MEMFD, EINVAL);
        if (file->vm != vm_whole(vm) || file->vmm_serial != vm->vmm_serial || file->is_orphan)
                return refuse(verdict, RULE_FOREIGN_GUEST_MEMFD, EINVAL);
        if (range_within(spec->guest_memfd_offset, spec->size, file->size))
                return true;
        if (!vm->registry->kvm.signed_offsets || !fools_signed_sum(spec->guest_memfd_offset, spec->size))
                return refuse(verdict, RULE_BEYOND_BACKING, EINVAL);

        return arch_accepts(vm, spec, verdict) && refuse(verdict, RULE_BEYOND_BACKING, /* kernel_errno= */ 0);
}

static int judge_bindings(const SlotSpec *spec, Verdict *verdict) {
        const Backing *file = spec->guest_memfd;
        uint64_t start = spec->guest_memfd_offset;
        IntervalCursor cursor;
        SlotShowing showing;
        int r;

        for (showing = showing_first(file, start, spec->size, &cursor); showing.slot && has_room(verdict);
             showing = showing_next(&cursor)) {
                const SlotRecord *other = &showing.slot->spec;
                Conflict conflict = { .rule = RULE_BINDING_OVERLAP, .vm = showing.slot->vm };

                if (!showing.private_side)
                        continue;

                refuse(verdict, RULE_BINDING_OVERLAP, spec->guest_memfd->vm->registry->kvm.binding_errno);
                conflict.id = other->id;
                conflict.as_id = other->as_id;
                conflict.backing = spec->guest_memfd;
                conflict.offset = range_common(start, spec->size, showing.offset, showing.size, &conflict.size);
                conflict.gpa = other->gpa + (conflict.offset - showing.offset);
                conflict.requested_gpa = spec->gpa + (conflict.offset - start);
                r = verdict_add_conflict(verdict, &conflict);
                if (r < 0)
                        return r;
        }

        return 0;
}

static int judge_binding(VM *vm, const SlotSpec *spec, Verdict *verdict) {
        if (!guest_memfd_accepts(vm, spec, verdict))
                return 0;
        if (vm->registry->kvm.binding_after_arch && !arch_accepts(vm, spec, verdict))
                return 0;
        return judge_bindings(spec, verdict);
}

int kvm_rules_judge(VM *vm, const SlotSpec *spec, Verdict *verdict) {
        const Slot *self;
        int r;

        if (!numbers_accept(vm, spec, verdict))
                return 0;

        self = slot_find(vm, spec->as_id, spec->id);
        if (spec->size == 0) {
                if (!self)
                        refuse(verdict, RULE_NO_SUCH_SLOT, EINVAL);
                return 0;
        }
        if (self && !modify_accepts(self, spec, verdict))
                return 0;
        if (self && self->spec.gpa == spec->gpa)
                return 0; /* flags only, or nothing at all */

        r = judge_gfns(vm, spec, self, verdict);
        if (r < 0 || verdict->outcome == OUTCOME_REFUSED)
                return r;

        if (spec->flags & SLOT_GUEST_MEMFD) {
                r = judge_binding(vm, spec, verdict);
                if (r < 0 || verdict->outcome == OUTCOME_REFUSED)
                        return r;
        }

        arch_accepts(vm, spec, verdict);
        return 0;
}

bool kvm_rules_accept(VM *vm, const SlotSpec *spec, Verdict *verdict) {
        /* Out of memory costs entries of the list of conflicts, not the refusal: it is noted first. */
        (void) kvm_rules_judge(vm, spec, verdict);
        return verdict->outcome != OUTCOME_REFUSED;
}
