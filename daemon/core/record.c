/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "core/record.h"

#include <string.h>

#include "core/core-private.h"
#include "core/record-private.h"

size_t record_slot_size(size_t n_runs) {
        return sizeof(RecordHead) + sizeof(SlotBody) + n_runs * sizeof(RunBody);
}

size_t record_claim_size(size_t n_backings) {
        return sizeof(RecordHead) + sizeof(ClaimBody) + n_backings * sizeof(uint64_t);
}

static int put(RecordBuffer *buffer, RecordType type, const void *body, size_t size) {
        return record_verbatim(buffer, (uint16_t) type, /* version= */ 1, body, size);
}

static int put_named(RecordBuffer *buffer, RecordType type, const void *body, size_t size, const char *name) {
        record_buffer_begin(buffer, (uint16_t) type, /* version= */ 1);
        record_buffer_put(buffer, body, size);
        record_buffer_put(buffer, name, strlen(name));
        return record_buffer_end(buffer);
}

static Tail tail(size_t at, size_t n) {
        return (Tail) { .at = (uint16_t) at, .n = (uint16_t) n };
}

int record_ids(RecordBuffer *buffer, const Registry *registry) {
        IdsBody body = {
                .last = registry->last_id,
                .was_damaged = registry->was_damaged,
                .restarts = registry->restarts,
        };

        return put(buffer, RECORD_IDS, &body, sizeof(body));
}

int record_vm(RecordBuffer *buffer, const VM *vm) {
        VMBody body = {
                .id = vm->id,
                .name = tail(sizeof(body), strlen(vm->name)),
                .owner = vm->owner,
                .has_uuid = vm->has_uuid,
                .exit_policy = (uint8_t) vm->exit_policy,
                .alias_policy = (uint8_t) vm->alias_policy,
                .type = (uint8_t) vm->type,
                .state = vm->state == VM_ATTACHED ? VM_REGISTERED : (uint8_t) vm->state,
                .retain_guest_memfd = vm->retain_guest_memfd,
                .retain_usec = vm->retain_usec,
                .retained_until_usec = vm->retained_until_usec,
                .last_vmm_serial = vm->last_vmm_serial,
        };

        memcpy(body.uuid, vm->uuid, sizeof(body.uuid));
        return put_named(buffer, RECORD_VM, &body, sizeof(body), vm->name);
}

static int put_gone(RecordBuffer *buffer, RecordType type, uint64_t id) {
        return put(buffer, type, &(GoneBody) { id }, sizeof(GoneBody));
}

int record_vm_gone(RecordBuffer *buffer, const VM *vm) {
        return put_gone(buffer, RECORD_VM_GONE, vm->id);
}

/* part: the VM, or its outgoing part. */
static int put_vmm(RecordBuffer *buffer, RecordType type, const VM *vm, const VM *part) {
        VMMBody body = {
                .vm = vm->id,
                .id = part->vmm.id,
                .mm = part->mm->id,
                .pid = (uint32_t) part->vmm.pid,
                .uid = part->vmm.uid,
                .start_time = part->vmm.start_time,
                .vmm_serial = part->vmm_serial,
                .outgoing = type == RECORD_HAND_OVER ? vm->outgoing->id : 0,
        };

        return put(buffer, type, &body, sizeof(body));
}

int record_vmm(RecordBuffer *buffer, const VM *vm) {
        return put_vmm(buffer, RECORD_VMM, vm, vm);
}

int record_hand_over(RecordBuffer *buffer, const VM *vm) {
        return put_vmm(buffer, RECORD_HAND_OVER, vm, vm);
}

int record_successor(RecordBuffer *buffer, const VM *vm) {
        VMMBody body = {
                .vm = vm->id,
                .id = vm->successor.id,
                .pid = (uint32_t) vm->successor.pid,
                .uid = vm->successor.uid,
                .start_time = vm->successor.start_time,
        };

        return put(buffer, RECORD_SUCCESSOR, &body, sizeof(body));
}

int record_retained(RecordBuffer *buffer, const VM *vm) {
        RetainedBody body = { .vm = vm->id, .until_usec = vm->retained_until_usec };

        return put(buffer, RECORD_RETAINED, &body, sizeof(body));
}

int record_outgoing_gone(RecordBuffer *buffer, const VM *vm) {
        return put_gone(buffer, RECORD_OUTGOING_GONE, vm->id);
}

int record_taken_back(RecordBuffer *buffer, const VM *vm) {
        return put_gone(buffer, RECORD_TAKEN_BACK, vm->id);
}

int record_vmm_gone(RecordBuffer *buffer, const VM *vm) {
        return put_gone(buffer, RECORD_VMM_GONE, vm->id);
}

int record_backing(RecordBuffer *buffer, const Backing *backing) {
        BackingBody body = {
                .id = backing->id,
                .vm = backing->vm->id,
                .name = tail(sizeof(body), strlen(backing->name)),
                .kind = (uint8_t) backing->kind,
                .origin = (uint8_t) backing->origin,
                .numa_policy = (uint8_t) backing->numa_policy,
                .size = backing->size,
                .page_size = backing->page_size,
                .numa_nodes = backing->numa_nodes,
                .dev = backing->dev,
                .ino = backing->ino,
                .seals = backing->seals,
                .vmm_serial = backing->vmm_serial,
                .is_orphan = backing->is_orphan,
        };

        return put_named(buffer, RECORD_BACKING, &body, sizeof(body), backing->name);
}

int record_backing_gone(RecordBuffer *buffer, const Backing *backing) {
        return put_gone(buffer, RECORD_BACKING_GONE, backing->id);
}

int record_claim(RecordBuffer *buffer, const Claim *claim) {
        ClaimBody body = {
                .id = claim->id,
                .vm = claim->vm->id,
                .backings = tail(sizeof(body), claim->n_backings),
                .read_only = claim->read_only,
                .expires_usec = claim->expires_usec,
        };

        memcpy(body.digest, claim->digest, sizeof(body.digest));
        record_buffer_begin(buffer, RECORD_CLAIM, /* version= */ 1);
        record_buffer_put(buffer, &body, sizeof(body));
        for (size_t i = 0; i < claim->n_backings; i++)
                record_buffer_put(buffer, &claim->backings[i]->id, sizeof(uint64_t));
        return record_buffer_end(buffer);
}

int record_claim_gone(RecordBuffer *buffer, const Claim *claim) {
        ClaimGoneBody body = { .vm = claim->vm->id, .id = claim->id };

        return put(buffer, RECORD_CLAIM_GONE, &body, sizeof(body));
}

int record_share(RecordBuffer *buffer, const Backing *backing, const Share *share) {
        ShareBody body = { .backing = backing->id, .vm = share->vm->id, .read_only = share->read_only };

        return put(buffer, RECORD_SHARE, &body, sizeof(body));
}

int record_share_gone(RecordBuffer *buffer, const Backing *backing, const VM *peer) {
        ShareBody body = { .backing = backing->id, .vm = peer->id };

        return put(buffer, RECORD_SHARE_GONE, &body, sizeof(body));
}

/* vm: the id of the VM that has it then. */
static int put_slot(RecordBuffer *buffer, uint64_t vm, const Slot *slot) {
        SlotSpec spec = slot_spec(slot);
        /* One run that is all of the slot may have become a backing since. */
        const Backing *backing = spec.backing;
        size_t n_runs = backing ? 0 : slot->spec.n_runs;
        SlotBody body = {
                .vm = vm,
                .as_id = spec.as_id,
                .id = spec.id,
                .runs = tail(sizeof(body), n_runs),
                .flags = spec.flags,
                .gpa = spec.gpa,
                .size = spec.size,
                .hva = spec.hva,
                .backing = backing ? backing->id : 0,
                .offset = backing ? spec.offset : 0,
                .guest_memfd = spec.guest_memfd ? spec.guest_memfd->id : 0,
                .guest_memfd_offset = spec.guest_memfd_offset,
        };

        record_buffer_begin(buffer, RECORD_SLOT, /* version= */ 1);
        record_buffer_put(buffer, &body, sizeof(body));
        for (size_t i = 0; i < n_runs; i++) {
                const SlotRun *run = &slot->runs[i];
                RunBody r = {
                        .dev = run->file->dev,
                        .ino = run->file->ino,
                        .offset = run->offset,
                        .size = run->size,
                        .at = run->at,
                        .flags = (file_is_private(run->file) ? RUN_PRIVATE : 0) |
                                 (run->file->was_at_zero ? RUN_WAS_AT_ZERO : 0),
                };

                record_buffer_put(buffer, &r, sizeof(r));
        }
        return record_buffer_end(buffer);
}

int record_slot(RecordBuffer *buffer, VM *vm, uint32_t as_id, uint32_t id) {
        const Slot *slot = slot_find(vm, as_id, id);
        SlotGoneBody gone = { .vm = vm->id, .as_id = as_id, .id = id };

        return slot ? put_slot(buffer, vm->id, slot) : put(buffer, RECORD_SLOT_GONE, &gone, sizeof(gone));
}

int record_memory_attributes(RecordBuffer *buffer, const VM *vm, uint64_t gpa, uint64_t size, bool private) {
        AttributesBody body = { .vm = vm->id, .gpa = gpa, .size = size, .private = private };

        return put(buffer, RECORD_MEMORY_ATTRIBUTES, &body, sizeof(body));
}

int record_verbatim(RecordBuffer *buffer, uint16_t type, uint16_t version, const void *body, size_t size) {
        record_buffer_begin(buffer, type, version);
        record_buffer_put(buffer, body, size);
        return record_buffer_end(buffer);
}

/* Everything but slots, of which some show backings of VMs that come later. */
static int put_vm(RecordBuffer *buffer, VM *vm) {
        Backing *backing;
        int r;

        r = record_vm(buffer, vm);
        if (r >= 0 && vm->state == VM_ATTACHED)
                r = put_vmm(buffer, RECORD_VMM, vm, vm->outgoing ?: vm);
        if (r < 0)
                return r;
        TAILQ_FOREACH(backing, &vm->backings, backings) {
                r = record_backing(buffer, backing);
                if (r < 0)
                        return r;
        }
        for (const Claim *claim = claim_next(vm, 0); claim && r >= 0; claim = claim_next(vm, claim->id))
                r = record_claim(buffer, claim);
        return r;
}

static int put_shares(RecordBuffer *buffer, VM *vm) {
        Backing *backing;
        int r;

        TAILQ_FOREACH(backing, &vm->backings, backings)
                for (size_t i = 0; i < backing->n_shares; i++) {
                        r = record_share(buffer, backing, &backing->shares[i]);
                        if (r < 0)
                                return r;
                }
        return 0;
}

/* part: the VM, or its outgoing part; it is the VM's when it is read. */
static int put_slots(RecordBuffer *buffer, const VM *vm, VM *part) {
        uint64_t at = 0, size, start;
        int r = 0;

        for (const Slot *slot = slot_first(part); slot && r >= 0;
             slot = slot_next(part, slot->spec.as_id, slot->spec.id))
                r = put_slot(buffer, vm->id, slot);
        while (r >= 0 && at < UINT64_MAX &&
               attributes_next_private(&part->private_ranges, at, UINT64_MAX - at, &start, &size)) {
                r = record_memory_attributes(buffer, vm, start, size, /* private= */ true);
                at = start + size;
        }
        return r;
}

static int put_parts(RecordBuffer *buffer, VM *vm) {
        int r = 0;

        if (vm->outgoing) {
                r = put_slots(buffer, vm, vm->outgoing);
                if (r >= 0)
                        r = record_hand_over(buffer, vm);
        }
        if (r >= 0)
                r = put_slots(buffer, vm, vm);
        if (r >= 0 && vm->successor.id != 0)
                r = record_successor(buffer, vm);
        return r;
}

int record_registry(RecordBuffer *buffer, Registry *registry) {
        VM *vm;
        int r;

        r = record_ids(buffer, registry);
        if (r < 0)
                return r;
        TAILQ_FOREACH(vm, &registry->vms, vms) {
                r = put_vm(buffer, vm);
                if (r < 0)
                        return r;
        }
        TAILQ_FOREACH(vm, &registry->vms, vms) {
                r = put_shares(buffer, vm);
                if (r >= 0)
                        r = put_parts(buffer, vm);
                if (r < 0)
                        return r;
        }
        return 0;
}
