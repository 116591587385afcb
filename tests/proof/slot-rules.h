/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What must hold between two pages that slots show, told once more: page by page and from the slots alone. */

#include "slot-model.h"

/* One page that a slot shows, on one of its sides. */
typedef struct Shown {
        VM *vm;
        SlotSpec spec;
        bool private_side;
        uint64_t page;
} Shown;

static const Backing *backing_of(const Shown *x) {
        return x->private_side ? x->spec.guest_memfd : x->spec.backing;
}

static uint64_t byte_of(const Shown *x) {
        return (x->private_side ? x->spec.guest_memfd_offset : x->spec.offset) + x->page;
}

static uint64_t gpa_of(const Shown *x) {
        return x->spec.gpa + x->page;
}

static bool is_shown(const Shown *x) {
        return (x->page & (PAGE - 1)) == 0 && x->page < x->spec.size && (!x->private_side || x->spec.guest_memfd);
}

static bool is_same_slot(const Shown *x, const Shown *y) {
        return x->vm == y->vm && x->spec.as_id == y->spec.as_id && x->spec.id == y->spec.id;
}

static bool is_same_mapping(const Shown *x, const Shown *y) {
        return !x->private_side && !y->private_side && (x->vm == y->vm || one_vmm) &&
               x->spec.hva + x->page == y->spec.hva + y->page;
}

static bool is_same_byte(const Shown *x, const Shown *y) {
        return backing_of(x) && backing_of(x) == backing_of(y) && byte_of(x) == byte_of(y);
}

static bool is_in_smram(uint64_t gpa) {
        return gpa >= SMRAM && gpa < SMRAM + SMRAM_SIZE;
}

/* Both backings are the first VM's, which shares both with the other one, or neither. */
static bool is_declared(const Shown *x, const Shown *y) {
        return (backing_of(x) || backing_of(y)) && ram.n_shares > 0;
}

/* The table in docs/slots.md. All files here are guest RAM. */
static bool may_both_be(const Shown *x, const Shown *y) {
        bool same_vm = x->vm == y->vm, other_space = x->spec.as_id != y->spec.as_id;

        if (!is_same_mapping(x, y) && !is_same_byte(x, y))
                return true; /* nothing in common */
        if (is_same_slot(x, y) && x->page == y->page)
                return true; /* the guest frame itself */
        if (same_vm && other_space && gpa_of(x) == gpa_of(y))
                return true;
        if (backing_of(x) == &gmem || backing_of(y) == &gmem)
                return false;
        if (x->spec.flags & y->spec.flags & SLOT_READONLY)
                return true;
        if (same_vm && is_same_mapping(x, y) &&
            ((!backing_of(x) && !backing_of(y)) || other_space || is_in_smram(gpa_of(x)) || is_in_smram(gpa_of(y))))
                return true;
        return !same_vm && (one_vm || is_declared(x, y));
}

/* KVM's own, whatever the rules above say. */
static bool kvm_lets(const Shown *x, const Shown *y) {
        if (is_same_slot(x, y))
                return true;
        if (x->vm == y->vm && x->spec.as_id == y->spec.as_id && gpa_of(x) == gpa_of(y))
                return false;
        return !(x->private_side && y->private_side && byte_of(x) == byte_of(y));
}
