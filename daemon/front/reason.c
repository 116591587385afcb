/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "front/reason.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "core/range.h"
#include "front/words.h"

#define RANGE "0x%" PRIx64 "+0x%" PRIx64

typedef struct Reason {
        FILE *out;
        const VM *vm;
        const SlotSpec *spec;
        const Verdict *verdict;
} Reason;

/* ---- what is wrong ---- */

static void say_slot_ids(const Reason *r) {
        const KVMRules *kvm = &r->vm->registry->kvm;
        uint32_t spaces = vm_type_has_private_memory(r->vm->type) ? 1 : kvm->address_spaces;

        fprintf(r->out, "it has slot ids 0 to %" PRIu32 " in ", kvm->slots_per_address_space - 1);
        if (spaces > 1)
                fprintf(r->out, "address spaces 0 to %" PRIu32, spaces - 1);
        else
                fprintf(r->out, "address space 0 only, for a VM of type %s", vm_type_word(r->vm->type));
}

static void say_flags(const Reason *r) {
        const char *separator = "";

        for (unsigned bit = 0; bit < SLOT_FLAGS; bit++)
                if (r->spec->flags & UINT32_C(1) << bit) {
                        fprintf(r->out, "%s%s", separator, slot_flag_word(bit));
                        separator = " and ";
                }
        fprintf(r->out, ", in a VM of type %s", vm_type_word(r->vm->type));
}

static void say_guest_addresses(const Reason *r) {
        uint64_t end = r->vm->registry->kvm.max_gpa;

        fprintf(r->out, "the page size is 0x%" PRIx64, r->vm->registry->page_size);
        if (end > 0)
                fprintf(r->out, ", and guest addresses end at 0x%" PRIx64, end);
        else
                fputs(", and guest addresses have 64 bits", r->out);
}

/* The range of the file that does not fit, which is the private side if KVM says so too, or would if it could count. */
static bool private_side_is_beyond(const SlotSpec *spec) {
        return spec->guest_memfd && !range_within(spec->guest_memfd_offset, spec->size, spec->guest_memfd->size);
}

static void say_beyond(const Reason *r) {
        const SlotSpec *spec = r->spec;
        bool private_side = private_side_is_beyond(spec);
        const Backing *file = private_side ? spec->guest_memfd : spec->backing;
        uint64_t offset = private_side ? spec->guest_memfd_offset : spec->offset;

        fprintf(r->out, RANGE " of %s of VM %s, which has 0x%" PRIx64 " bytes in pages of 0x%" PRIx64, offset,
                spec->size, file->name, file->vm->name, file->size, r->vm->registry->page_size);
}

static void say_guest_memfd(const Reason *r) {
        const Backing *file = r->spec->guest_memfd;

        if (file)
                fprintf(r->out, "%s of VM %s is a %s", file->name, file->vm->name, backing_kind_word(file->kind));
        else
                fputs("it names none", r->out);
}

static void say_foreign_guest_memfd(const Reason *r) {
        const Backing *file = r->spec->guest_memfd;

        fprintf(r->out, "%s is of %sVM %s", file->name, file->vm == vm_whole(r->vm) ? "another VMM of " : "",
                file->vm->name);
}

static void say_memory_size(const Reason *r) {
        fprintf(r->out, "it is 0x%" PRIx64 ", and the page size 0x%" PRIx64, r->spec->size,
                r->vm->registry->page_size);
}

static void say_userspace_addr(const Reason *r) {
        fprintf(r->out, "the range is " RANGE ", the page size 0x%" PRIx64 ", and user space ends at 0x%" PRIx64,
                r->spec->hva, r->spec->size, r->vm->registry->page_size, r->vm->registry->kvm.user_end);
}

static void say_guest_memfd_offset(const Reason *r) {
        fprintf(r->out, "the range is " RANGE ", and the page size 0x%" PRIx64, r->spec->guest_memfd_offset,
                r->spec->size, r->vm->registry->page_size);
}

static void say_share(const Reason *r) {
        const Backing *backing = r->spec->backing;

        if (backing)
                fprintf(r->out, "%s of VM %s", backing->name, backing->vm->name);
        else
                fprintf(r->out, "part of it is mapped in " RANGE, r->spec->hva, r->spec->size);
}

/* What the sentence of a rule without a conflict leaves open; NULL: nothing. */
static void (*const say_details[_RULE_MAX])(const Reason *r) = {
        [RULE_SLOT_ID] = say_slot_ids,
        [RULE_FLAGS] = say_flags,
        [RULE_MEMORY_SIZE] = say_memory_size,
        [RULE_GUEST_PHYS_ADDR] = say_guest_addresses,
        [RULE_USERSPACE_ADDR] = say_userspace_addr,
        [RULE_GUEST_MEMFD_OFFSET] = say_guest_memfd_offset,
        [RULE_NOT_GUEST_MEMFD] = say_guest_memfd,
        [RULE_FOREIGN_GUEST_MEMFD] = say_foreign_guest_memfd,
        [RULE_BEYOND_BACKING] = say_beyond,
        [RULE_SHARE_READ_ONLY] = say_share,
};

/* The bytes of a conflict, as far as they have a name. */
static void say_memory(const Reason *r, const Conflict *c) {
        if (c->backing)
                fprintf(r->out, "range " RANGE " of %s of VM %s", c->offset, c->size, c->backing->name,
                        c->backing->vm->name);
        else if (c->ino != 0)
                fprintf(r->out, "range " RANGE " of a file that is no backing (device %u:%u, inode %" PRIu64 ")",
                        c->offset, c->size, major(c->dev), minor(c->dev), (uint64_t) c->ino);
        else
                fprintf(r->out, "0x%" PRIx64 " bytes", c->size);
}

static void say_mismatch(const Reason *r, const Conflict *c) {
        static const struct {
                const char *before, *after;
        } words[] = {
                [MAPPED_MEMORY] = { "", " of memory that is in no file" },
                [MAPPED_COPY] = { "a private copy of ", ", so that writes do not reach the file" },
                [MAPPED_FILE] = { "", "" },
                [MAPPED_GUEST_MEMFD] = { "", ", which is a guest_memfd" },
        };
        const SlotSpec *spec = r->spec;
        uint64_t at = c->gpa - spec->gpa;

        fprintf(r->out, "at userspaceAddr 0x%" PRIx64 " there is %s", spec->hva + at, words[c->mapped].before);
        say_memory(r, c);
        fprintf(r->out, "%s, where range " RANGE " of %s of VM %s was declared", words[c->mapped].after,
                spec->offset + at, c->size, spec->backing->name, spec->backing->vm->name);
}

static void say_conflict(const Reason *r, const Conflict *c) {
        if (c->rule == RULE_MAPPING_MISMATCH) {
                say_mismatch(r, c);
                return;
        }
        if (c->rule == RULE_GFN_OVERLAP)
                fprintf(r->out, "guest address " RANGE " is", c->gpa, c->size);
        else {
                say_memory(r, c);
                fprintf(r->out, " that it would show at 0x%" PRIx64 " is already at guest address 0x%" PRIx64,
                        c->requested_gpa, c->gpa);
        }
        fprintf(r->out, " in slot %" PRIu32 " of %sVM %s%s", c->id, c->vm->heir ? "the outgoing VMM of " : "",
                c->vm->name, r->verdict->n_conflicts > 1 ? ", and more" : "");
}

/* ---- what KVM says, and what to do ---- */

static void say_what_kvm_says(const Reason *r) {
        const Verdict *v = r->verdict;

        if (v->kernel_errno != 0)
                fprintf(r->out, " KVM answers %s.", strerrorname_np(v->kernel_errno) ?: "an error");
        else if (v->rule == RULE_BEYOND_BACKING && private_side_is_beyond(r->spec))
                fputs(" This kernel would take it by mistake.", r->out);
        else
                fputs(" KVM alone would accept it.", r->out);
}

static void say_remedy(const Reason *r) {
        const Conflict *c = r->verdict->n_conflicts > 0 ? &r->verdict->conflicts[0] : NULL;

        if (slot_rule_remedy(r->verdict->rule))
                fprintf(r->out, " %s", slot_rule_remedy(r->verdict->rule));
        if (r->verdict->rule != RULE_UNDECLARED_ALIAS || !c || c->vm == r->vm)
                return;
        if (c->backing)
                fprintf(r->out,
                        " If both VMs are meant to show it, share %s of VM %s with the other one: ShareBacking.",
                        c->backing->name, c->backing->vm->name);
        else if (c->ino != 0)
                fputs(" If both VMs are meant to show it, adopt the file and share it: AdoptBacking, ShareBacking.",
                      r->out);
}

char *reason_of(const VM *vm, const SlotSpec *spec, const Verdict *verdict) {
        Reason r = { .vm = vm, .spec = spec, .verdict = verdict };
        char *text = NULL;
        size_t size;

        r.out = open_memstream(&text, &size);
        if (!r.out)
                return NULL;
        fprintf(r.out, "Slot %" PRIu32, spec->id);
        if (spec->as_id != 0)
                fprintf(r.out, " in address space %" PRIu32, spec->as_id);
        fprintf(r.out, " of VM %s at guest address " RANGE ": %s", vm->name, spec->gpa, spec->size,
                slot_rule_sentence(verdict->rule));
        if (verdict->n_conflicts > 0) {
                fputs(": ", r.out);
                say_conflict(&r, &verdict->conflicts[0]);
        } else if (say_details[verdict->rule]) {
                fputs(": ", r.out);
                say_details[verdict->rule](&r);
        }
        fputs(".", r.out);
        if (verdict->outcome == OUTCOME_REFUSED) {
                say_what_kvm_says(&r);
                say_remedy(&r);
        }
        if (fclose(r.out) != 0) {
                free(text);
                return NULL;
        }
        return text;
}
