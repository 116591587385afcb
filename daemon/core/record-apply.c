/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdlib.h>
#include <string.h>

#include "core/cleanup.h"
#include "core/core-private.h"
#include "core/hand-over.h"
#include "core/range.h"
#include "core/record-private.h"

/* A VM or a backing under the id that the ledger has for it. What is gone keeps its place, so that nothing in the table
 * moves; ids are not given away twice. */
typedef struct Known {
        uint64_t id; /* 0: the place is free */
        VM *vm;
        Backing *backing;
} Known;

#define KNOWN_MIN 64U

/* Where the id is, or else the free place where it belongs. */
static Known *place_of(Known *table, size_t n, uint64_t id) {
        size_t at = (size_t) (id * UINT64_C(0x9e3779b97f4a7c15) >> 32) & (n - 1);

        while (table[at].id != 0 && table[at].id != id)
                at = (at + 1) & (n - 1);
        return &table[at];
}

static Known *find(RecordReader *reader, uint64_t id) {
        Known *known;

        if (id == 0 || reader->n_places == 0)
                return NULL;
        known = place_of(reader->known, reader->n_places, id);
        return known->vm || known->backing ? known : NULL;
}

static void forget(RecordReader *reader, uint64_t id) {
        Known *known = find(reader, id);

        if (known)
                known->vm = NULL, known->backing = NULL;
}

static int grow(RecordReader *reader) {
        size_t n = reader->n_places > 0 ? 2 * reader->n_places : KNOWN_MIN;
        Known *old = reader->known, *table;

        table = calloc(n, sizeof(*table));
        if (!table)
                return -ENOMEM;
        for (size_t i = 0; i < reader->n_places; i++)
                if (old[i].id != 0)
                        *place_of(table, n, old[i].id) = old[i];
        free(old);
        reader->known = table;
        reader->n_places = n;
        return 0;
}

static int remember(RecordReader *reader, uint64_t id, VM *vm, Backing *backing) {
        Known *known;
        int r;

        if (2 * (reader->n_known + 1) > reader->n_places) {
                r = grow(reader);
                if (r < 0)
                        return r;
        }
        known = place_of(reader->known, reader->n_places, id);
        reader->n_known += known->id == 0;
        *known = (Known) { .id = id, .vm = vm, .backing = backing };
        if (id > reader->registry->last_id)
                reader->registry->last_id = id;
        return 0;
}

void record_reader_done(RecordReader *reader) {
        free(reader->known);
        *reader = (RecordReader) { .registry = reader->registry };
}

static VM *find_vm(RecordReader *reader, uint64_t id) {
        const Known *known = find(reader, id);

        return known ? known->vm : NULL;
}

static Backing *find_backing(RecordReader *reader, uint64_t id) {
        const Known *known = find(reader, id);

        return known ? known->backing : NULL;
}

/* Of a body that is too short, as much as there is. */
static void take(void *ret, size_t ret_size, const void *body, size_t size) {
        memset(ret, 0, ret_size);
        memcpy(ret, body, size);
}

/* Mostly it has all fields, and then how much there is to copy is known when this is compiled. */
#define TAKE(type) \
        type b; \
        if (size >= sizeof(b)) \
                memcpy(&b, body, sizeof(b)); \
        else \
                take(&b, sizeof(b), body, size)

/* Where the tail of n pieces begins, or NULL if it does not lie in the body. */
static const uint8_t *tail_of(Tail tail, size_t piece, const uint8_t *body, size_t size) {
        return tail.at <= size && tail.n * piece <= size - tail.at ? body + tail.at : NULL;
}

static bool take_name(Tail tail, const uint8_t *body, size_t size, char ret[static NAME_LENGTH_MAX + 1]) {
        const uint8_t *at = tail_of(tail, 1, body, size);

        if (!at || tail.n > NAME_LENGTH_MAX)
                return false;
        memcpy(ret, at, tail.n);
        ret[tail.n] = '\0';
        return name_is_valid(ret) && strlen(ret) == tail.n;
}

static int apply_ids(RecordReader *reader, const uint8_t *body, size_t size) {
        TAKE(IdsBody);

        if (b.last < reader->registry->last_id)
                return RECORD_E_DAMAGED;
        reader->registry->last_id = b.last;
        reader->registry->was_damaged = b.was_damaged != 0;
        reader->registry->restarts = b.restarts;
        return 0;
}

static int apply_vm(RecordReader *reader, const uint8_t *body, size_t size) {
        char name[NAME_LENGTH_MAX + 1];
        uint64_t last_id;
        VMSpec spec;
        VM *vm;
        int r;
        TAKE(VMBody);

        if (!take_name(b.name, body, size, name) || b.id == 0 || find(reader, b.id) ||
            b.exit_policy >= _EXIT_POLICY_MAX || b.alias_policy >= _ALIAS_POLICY_MAX || b.type >= _VM_TYPE_MAX ||
            (b.state != VM_REGISTERED && b.state != VM_RETAINED) || b.retain_usec > RETAIN_USEC_MAX)
                return RECORD_E_DAMAGED;
        spec = (VMSpec) {
                .name = name,
                .has_uuid = b.has_uuid,
                .owner = b.owner,
                .exit_policy = (ExitPolicy) b.exit_policy,
                .alias_policy = (AliasPolicy) b.alias_policy,
                .type = (VMType) b.type,
                .retain_usec = b.retain_usec,
                .retain_guest_memfd = b.retain_guest_memfd,
        };
        memcpy(spec.uuid, b.uuid, sizeof(spec.uuid));
        last_id = reader->registry->last_id;
        r = vm_new(reader->registry, &spec, &vm);
        reader->registry->last_id = last_id; /* its id is an old one */
        if (r != 0)
                return r < 0 ? r : RECORD_E_DAMAGED;
        r = remember(reader, b.id, vm, NULL);
        if (r < 0) {
                vm_free(vm);
                return r;
        }
        vm->id = b.id;
        vm->state = (VMState) b.state;
        vm->last_vmm_serial = b.last_vmm_serial;
        if (vm->state == VM_RETAINED)
                vm_set_retained_until(vm, b.retained_until_usec);
        return 0;
}

static int apply_vm_gone(RecordReader *reader, const uint8_t *body, size_t size) {
        Backing *backing;
        VM *vm;
        TAKE(GoneBody);

        vm = find_vm(reader, b.id);
        if (!vm || vm->heir)
                return RECORD_E_DAMAGED;
        TAILQ_FOREACH(backing, &vm->backings, backings)
                forget(reader, backing->id);
        if (vm->outgoing)
                forget(reader, vm->outgoing->id);
        forget(reader, b.id);
        vm_free(vm);
        return 0;
}

static bool is_process(const VMMBody *b) {
        return b->id != 0 && b->pid > 0 && b->pid <= INT32_MAX;
}

static VMMIdentity identity_of(RecordReader *reader, const VMMBody *b) {
        if (b->id > reader->registry->last_id)
                reader->registry->last_id = b->id;
        return (VMMIdentity) { .id = b->id, .pid = (pid_t) b->pid, .uid = b->uid, .start_time = b->start_time };
}

static void take_serial(VM *vm, uint64_t serial) {
        vm->vmm_serial = serial;
        if (serial > vm->last_vmm_serial)
                vm->last_vmm_serial = serial;
}

static int apply_vmm(RecordReader *reader, const uint8_t *body, size_t size) {
        VM *vm;
        int r;
        TAKE(VMMBody);

        vm = find_vm(reader, b.vm);
        if (!vm || vm->heir || vm->state == VM_ATTACHED || b.mm == 0 || !is_process(&b))
                return RECORD_E_DAMAGED;
        r = vm_attach(vm, b.mm);
        if (r < 0)
                return r;
        vm->vmm = identity_of(reader, &b);
        take_serial(vm, b.vmm_serial);
        return 0;
}

/* What it made cannot be bound any more. */
static void orphan(VM *vm, uint64_t vmm_serial) {
        Backing *backing;

        TAILQ_FOREACH(backing, &vm->backings, backings)
                if (backing->kind == BACKING_GUEST_MEMFD && backing->vmm_serial == vmm_serial)
                        backing_orphan(backing);
}

static int apply_vmm_gone(RecordReader *reader, const uint8_t *body, size_t size) {
        VM *vm;
        TAKE(GoneBody);

        vm = find_vm(reader, b.id);
        if (!vm || vm->heir || vm->outgoing || vm->state != VM_ATTACHED)
                return RECORD_E_DAMAGED;
        vm->successor = (VMMIdentity) {};
        vm_detach(vm);
        orphan(vm, vm->vmm_serial);
        return 0;
}

static int apply_retained(RecordReader *reader, const uint8_t *body, size_t size) {
        VM *vm;
        TAKE(RetainedBody);

        vm = find_vm(reader, b.vm);
        if (!vm || vm->heir || vm->state != VM_RETAINED || b.until_usec > INT64_MAX)
                return RECORD_E_DAMAGED;
        vm_set_retained_until(vm, b.until_usec);
        return 0;
}

static int apply_successor(RecordReader *reader, const uint8_t *body, size_t size) {
        VM *vm;
        TAKE(VMMBody);

        vm = find_vm(reader, b.vm);
        if (!vm || vm->heir || vm->outgoing || vm->state != VM_ATTACHED || (b.id != 0 && !is_process(&b)))
                return RECORD_E_DAMAGED;
        vm->successor = b.id != 0 ? identity_of(reader, &b) : (VMMIdentity) {};
        return 0;
}

static int apply_hand_over(RecordReader *reader, const uint8_t *body, size_t size) {
        uint64_t last_id = reader->registry->last_id, last_serial;
        VM *vm;
        int r;
        TAKE(VMMBody);

        vm = find_vm(reader, b.vm);
        if (!vm || vm->heir || vm->outgoing || vm->state != VM_ATTACHED || b.mm == 0 || b.mm == vm->mm->id ||
            !is_process(&b) || b.outgoing == 0 || find(reader, b.outgoing))
                return RECORD_E_DAMAGED;
        last_serial = vm->last_vmm_serial;
        r = vm_hand_over(vm, b.mm);
        reader->registry->last_id = last_id; /* its id is an old one */
        if (r >= 0) {
                r = remember(reader, b.outgoing, vm->outgoing, NULL);
                if (r < 0)
                        vm_take_back(vm);
        }
        if (r < 0)
                return r;
        vm->outgoing->id = b.outgoing;
        vm->vmm = identity_of(reader, &b);
        vm->last_vmm_serial = last_serial; /* so is its serial */
        take_serial(vm, b.vmm_serial);
        return 0;
}

static int apply_end_of_hand_over(RecordReader *reader, const uint8_t *body, size_t size, void (*end)(VM *vm),
                                  bool is_outgoing) {
        uint64_t serial;
        VM *vm;
        TAKE(GoneBody);

        vm = find_vm(reader, b.id);
        if (!vm || !vm->outgoing)
                return RECORD_E_DAMAGED;
        serial = is_outgoing ? vm->outgoing->vmm_serial : vm->vmm_serial;
        forget(reader, vm->outgoing->id);
        end(vm);
        orphan(vm, serial);
        return 0;
}

static int apply_outgoing_gone(RecordReader *reader, const uint8_t *body, size_t size) {
        return apply_end_of_hand_over(reader, body, size, vm_end_outgoing, /* is_outgoing= */ true);
}

static int apply_taken_back(RecordReader *reader, const uint8_t *body, size_t size) {
        return apply_end_of_hand_over(reader, body, size, vm_take_back, /* is_outgoing= */ false);
}

static int apply_backing(RecordReader *reader, const uint8_t *body, size_t size) {
        char name[NAME_LENGTH_MAX + 1];
        uint64_t last_id;
        Backing *backing;
        BackingSpec spec;
        VM *vm;
        int r;
        TAKE(BackingBody);

        vm = find_vm(reader, b.vm);
        if (!vm || vm->heir || !take_name(b.name, body, size, name) || b.id == 0 || find(reader, b.id) ||
            b.kind >= _BACKING_KIND_MAX || b.origin >= _BACKING_ORIGIN_MAX || b.numa_policy >= _NUMA_POLICY_MAX ||
            b.page_size == 0 || !is_aligned(b.page_size, b.page_size) || !range_within(0, b.size, INT64_MAX) ||
            !is_aligned(b.size, b.page_size))
                return RECORD_E_DAMAGED;
        spec = (BackingSpec) {
                .name = name,
                .kind = (BackingKind) b.kind,
                .origin = (BackingOrigin) b.origin,
                .size = b.size,
                .page_size = b.page_size,
                .numa_policy = (NumaPolicy) b.numa_policy,
                .numa_nodes = b.numa_nodes,
                .dev = b.dev,
                .ino = b.ino,
                .seals = b.seals,
        };
        last_id = reader->registry->last_id;
        r = backing_new(vm, &spec, &backing);
        reader->registry->last_id = last_id; /* its id is an old one */
        if (r != 0)
                return r < 0 ? r : RECORD_E_DAMAGED;
        r = remember(reader, b.id, NULL, backing);
        if (r < 0) {
                (void) backing_release(backing);
                return r;
        }
        backing->id = b.id;
        backing->vmm_serial = b.vmm_serial;
        if (b.is_orphan)
                backing_orphan(backing);
        return 0;
}

static int apply_backing_gone(RecordReader *reader, const uint8_t *body, size_t size) {
        Backing *backing;
        TAKE(GoneBody);

        backing = find_backing(reader, b.id);
        if (!backing || backing->n_slots > 0)
                return RECORD_E_DAMAGED;
        forget(reader, b.id);
        (void) backing_release(backing);
        return 0;
}

/* Each must be the VM's. */
static bool take_backings(RecordReader *reader, const VM *vm, const uint8_t *ids, size_t n, Backing **ret) {
        for (size_t i = 0; i < n; i++) {
                uint64_t id;

                memcpy(&id, ids + i * sizeof(id), sizeof(id));
                ret[i] = find_backing(reader, id);
                if (!ret[i] || ret[i]->vm != vm)
                        return false;
        }
        return n > 0;
}

static int apply_claim(RecordReader *reader, const uint8_t *body, size_t size) {
        Backing *backings[BACKINGS_PER_CLAIM_MAX];
        const uint8_t *ids;
        ClaimSpec spec;
        Claim *claim;
        VM *vm;
        int r;
        TAKE(ClaimBody);

        vm = find_vm(reader, b.vm);
        ids = tail_of(b.backings, sizeof(uint64_t), body, size);
        if (!vm || vm->heir || b.id == 0 || find(reader, b.id) || claim_find(vm, b.id) || !ids ||
            b.backings.n > BACKINGS_PER_CLAIM_MAX || b.expires_usec > INT64_MAX ||
            !take_backings(reader, vm, ids, b.backings.n, backings))
                return RECORD_E_DAMAGED;
        spec = (ClaimSpec) {
                .id = b.id,
                .read_only = b.read_only,
                .expires_usec = b.expires_usec,
                .backings = backings,
                .n_backings = b.backings.n,
        };
        memcpy(spec.digest, b.digest, sizeof(spec.digest));
        r = claim_new(vm, &spec, &claim);
        if (r != 0)
                return r < 0 ? r : RECORD_E_DAMAGED;
        if (b.id > reader->registry->last_id)
                reader->registry->last_id = b.id;
        return 0;
}

static int apply_claim_gone(RecordReader *reader, const uint8_t *body, size_t size) {
        Claim *claim;
        VM *vm;
        TAKE(ClaimGoneBody);

        vm = find_vm(reader, b.vm);
        claim = vm ? claim_find(vm, b.id) : NULL;
        if (!claim)
                return RECORD_E_DAMAGED;
        claim_free(claim);
        return 0;
}

static int apply_share(RecordReader *reader, const uint8_t *body, size_t size) {
        Backing *backing;
        VM *vm;
        int r;
        TAKE(ShareBody);

        backing = find_backing(reader, b.backing);
        vm = find_vm(reader, b.vm);
        if (!backing || !vm || vm->heir || backing->vm == vm)
                return RECORD_E_DAMAGED;
        r = b.read_only ? backing_share_read_only(backing, vm) : backing_share(backing, vm);
        return r > 0 ? RECORD_E_DAMAGED : r;
}

static int apply_share_gone(RecordReader *reader, const uint8_t *body, size_t size) {
        Backing *backing;
        VM *vm;
        TAKE(ShareBody);

        backing = find_backing(reader, b.backing);
        vm = find_vm(reader, b.vm);
        if (!backing || !vm || !backing_is_shared_with(backing, vm))
                return RECORD_E_DAMAGED;
        backing_unshare(backing, vm);
        return 0;
}

static void delete_slot(VM *vm, uint32_t as_id, uint32_t id) {
        slot_free(slot_find(vm, as_id, id));
}

/* Reads the runs into an array that the caller frees. */
static int take_runs(const SlotBody *b, const uint8_t *at, MappedRun **ret) {
        MappedRun *runs;
        uint64_t end = 0;

        runs = calloc(b->runs.n ?: 1, sizeof(*runs));
        if (!runs)
                return -ENOMEM;
        for (size_t i = 0; i < b->runs.n; i++) {
                RunBody r;

                memcpy(&r, at + i * sizeof(r), sizeof(r));
                if (!range_within(r.at, r.size, b->size) || r.at < end || !range_valid(r.offset, r.size)) {
                        free(runs);
                        return RECORD_E_DAMAGED;
                }
                end = r.at + r.size;
                runs[i] = (MappedRun) {
                        .kind = r.flags & RUN_PRIVATE ? MAPPED_GUEST_MEMFD : MAPPED_FILE,
                        .hva = b->hva + r.at,
                        .size = r.size,
                        .dev = r.dev,
                        .ino = r.ino,
                        .offset = r.offset,
                };
        }
        *ret = runs;
        return 0;
}

static void remember_files(const Slot *slot, const SlotBody *b, const uint8_t *runs) {
        for (size_t i = 0; i < b->runs.n && i < slot->spec.n_runs; i++) {
                RunBody r;

                memcpy(&r, runs + i * sizeof(r), sizeof(r));
                slot->runs[i].file->was_at_zero |= (r.flags & RUN_WAS_AT_ZERO) != 0;
        }
}

static int restore_slot(VM *vm, SlotSpec *spec, const SlotBody *b, const uint8_t *tail) {
        _cleanup_free_ MappedRun *runs = NULL;
        Mapping mapping;
        int r;

        if (b->runs.n > 0) {
                r = take_runs(b, tail, &runs);
                if (r != 0)
                        return r;
                mapping = (Mapping) { .n_runs = b->runs.n, .runs = runs };
                spec->mapping = &mapping;
        }
        delete_slot(vm, spec->as_id, spec->id);
        r = slot_restore(vm, spec);
        if (r == 0 && b->runs.n > 0)
                remember_files(slot_find(vm, spec->as_id, spec->id), b, tail);
        return r;
}

static int apply_slot(RecordReader *reader, const uint8_t *body, size_t size) {
        const uint8_t *tail;
        SlotSpec spec;
        VM *vm;
        int r;
        TAKE(SlotBody);

        vm = find_vm(reader, b.vm);
        tail = tail_of(b.runs, sizeof(RunBody), body, size);
        if (!vm || !tail || (b.runs.n > 0 && b.backing != 0))
                return RECORD_E_DAMAGED;
        spec = (SlotSpec) {
                .id = b.id,
                .as_id = b.as_id,
                .flags = b.flags,
                .gpa = b.gpa,
                .size = b.size,
                .hva = b.hva,
                .backing = find_backing(reader, b.backing),
                .offset = b.offset,
                .guest_memfd = find_backing(reader, b.guest_memfd),
                .guest_memfd_offset = b.guest_memfd_offset,
        };
        if (!spec.backing != (b.backing == 0) || !spec.guest_memfd != (b.guest_memfd == 0))
                return RECORD_E_DAMAGED;
        r = restore_slot(vm, &spec, &b, tail);
        return r == -EINVAL ? RECORD_E_DAMAGED : r;
}

static int apply_slot_gone(RecordReader *reader, const uint8_t *body, size_t size) {
        VM *vm;
        TAKE(SlotGoneBody);

        vm = find_vm(reader, b.vm);
        if (!vm)
                return RECORD_E_DAMAGED;
        /* Of a batch only the end is recorded: it may have made and deleted the slot. */
        delete_slot(vm, b.as_id, b.id);
        return 0;
}

static int apply_attributes(RecordReader *reader, const uint8_t *body, size_t size) {
        VM *vm;
        int r;
        TAKE(AttributesBody);

        vm = find_vm(reader, b.vm);
        if (!vm)
                return RECORD_E_DAMAGED;
        r = attributes_set(&vm->private_ranges, reader->registry->page_size, b.gpa, b.size, b.private);
        return r > 0 ? RECORD_E_DAMAGED : r;
}

int record_apply(RecordReader *reader, uint16_t type, uint16_t version, const void *body, size_t size) {
        static int (*const apply[_RECORD_TYPE_MAX])(RecordReader *reader, const uint8_t *body, size_t size) = {
                [RECORD_IDS] = apply_ids,
                [RECORD_VM] = apply_vm,
                [RECORD_VM_GONE] = apply_vm_gone,
                [RECORD_VMM] = apply_vmm,
                [RECORD_VMM_GONE] = apply_vmm_gone,
                [RECORD_BACKING] = apply_backing,
                [RECORD_BACKING_GONE] = apply_backing_gone,
                [RECORD_SHARE] = apply_share,
                [RECORD_SHARE_GONE] = apply_share_gone,
                [RECORD_SLOT] = apply_slot,
                [RECORD_SLOT_GONE] = apply_slot_gone,
                [RECORD_MEMORY_ATTRIBUTES] = apply_attributes,
                [RECORD_RETAINED] = apply_retained,
                [RECORD_SUCCESSOR] = apply_successor,
                [RECORD_HAND_OVER] = apply_hand_over,
                [RECORD_OUTGOING_GONE] = apply_outgoing_gone,
                [RECORD_TAKEN_BACK] = apply_taken_back,
                [RECORD_CLAIM] = apply_claim,
                [RECORD_CLAIM_GONE] = apply_claim_gone,
        };

        if (version != 1 || type >= _RECORD_TYPE_MAX || !apply[type])
                return RECORD_E_UNKNOWN;
        return apply[type](reader, body, size);
}
