/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "core/record-fields.h"

#include <string.h>

#include "core/cleanup.h"
#include "core/record-private.h"

typedef struct Row {
        const char *name;
        size_t at, size;
        RecordFieldKind kind;
} Row;

#define ROW(body, field, what) { #field, offsetof(body, field), sizeof(((body *) NULL)->field), RECORD_FIELD_##what }

static const Row ids_rows[] = {
        ROW(IdsBody, last, NUMBER),
        ROW(IdsBody, was_damaged, BOOL),
        ROW(IdsBody, restarts, NUMBER),
};
static const Row vm_gone_rows[] = {
        ROW(GoneBody, id, VM),
};
static const Row backing_gone_rows[] = {
        ROW(GoneBody, id, BACKING),
};
static const Row vm_rows[] = {
        ROW(VMBody, id, VM),
        ROW(VMBody, name, TAIL_NAME),
        ROW(VMBody, owner, NUMBER),
        ROW(VMBody, uuid, BYTES),
        ROW(VMBody, has_uuid, BOOL),
        ROW(VMBody, exit_policy, EXIT_POLICY),
        ROW(VMBody, alias_policy, ALIAS_POLICY),
        ROW(VMBody, type, VM_TYPE),
        ROW(VMBody, state, VM_STATE),
        ROW(VMBody, retain_guest_memfd, BOOL),
        ROW(VMBody, retain_usec, NUMBER),
        ROW(VMBody, retained_until_usec, NUMBER),
        ROW(VMBody, last_vmm_serial, NUMBER),
};
static const Row vmm_rows[] = {
        ROW(VMMBody, vm, VM),
        ROW(VMMBody, id, NUMBER),
        ROW(VMMBody, mm, NUMBER),
        ROW(VMMBody, pid, NUMBER),
        ROW(VMMBody, uid, NUMBER),
        ROW(VMMBody, start_time, NUMBER),
        ROW(VMMBody, vmm_serial, NUMBER),
        ROW(VMMBody, outgoing, NUMBER),
};
static const Row retained_rows[] = {
        ROW(RetainedBody, vm, VM),
        ROW(RetainedBody, until_usec, NUMBER),
};
static const Row backing_rows[] = {
        ROW(BackingBody, id, BACKING),
        ROW(BackingBody, vm, VM),
        ROW(BackingBody, name, TAIL_NAME),
        ROW(BackingBody, kind, BACKING_KIND),
        ROW(BackingBody, origin, BACKING_ORIGIN),
        ROW(BackingBody, numa_policy, NUMA_POLICY),
        ROW(BackingBody, is_orphan, BOOL),
        ROW(BackingBody, size, NUMBER),
        ROW(BackingBody, page_size, NUMBER),
        ROW(BackingBody, numa_nodes, HEX),
        ROW(BackingBody, dev, DEVICE),
        ROW(BackingBody, ino, NUMBER),
        ROW(BackingBody, seals, HEX),
        ROW(BackingBody, vmm_serial, NUMBER),
};
/* The VM is the one that it is shared with. */
static const Row share_rows[] = {
        ROW(ShareBody, backing, BACKING),
        ROW(ShareBody, vm, NUMBER),
        ROW(ShareBody, read_only, BOOL),
};
static const Row slot_rows[] = {
        ROW(SlotBody, vm, VM),
        ROW(SlotBody, as_id, NUMBER),
        ROW(SlotBody, id, NUMBER),
        ROW(SlotBody, runs, TAIL_RUNS),
        ROW(SlotBody, flags, HEX),
        ROW(SlotBody, gpa, HEX),
        ROW(SlotBody, size, HEX),
        ROW(SlotBody, hva, HEX),
        ROW(SlotBody, backing, BACKING),
        ROW(SlotBody, offset, HEX),
        ROW(SlotBody, guest_memfd, NUMBER),
        ROW(SlotBody, guest_memfd_offset, HEX),
};
static const Row slot_gone_rows[] = {
        ROW(SlotGoneBody, vm, VM),
        ROW(SlotGoneBody, as_id, NUMBER),
        ROW(SlotGoneBody, id, NUMBER),
};
static const Row run_rows[] = {
        ROW(RunBody, dev, DEVICE), ROW(RunBody, ino, NUMBER), ROW(RunBody, offset, HEX),
        ROW(RunBody, size, HEX),   ROW(RunBody, at, HEX),     ROW(RunBody, flags, HEX),
};
static const Row attributes_rows[] = {
        ROW(AttributesBody, vm, VM),
        ROW(AttributesBody, gpa, HEX),
        ROW(AttributesBody, size, HEX),
        ROW(AttributesBody, private, BOOL),
};
static const Row claim_rows[] = {
        ROW(ClaimBody, id, NUMBER),           ROW(ClaimBody, vm, VM),
        ROW(ClaimBody, backings, TAIL_IDS),   ROW(ClaimBody, read_only, BOOL),
        ROW(ClaimBody, expires_usec, NUMBER), ROW(ClaimBody, digest, BYTES),
};
static const Row claim_gone_rows[] = {
        ROW(ClaimGoneBody, vm, VM),
        ROW(ClaimGoneBody, id, NUMBER),
};

#define TYPE(word, rows) [RECORD_##word] = { #word, rows, ELEMENTSOF(rows) }

static const struct {
        const char *name;
        const Row *rows;
        size_t n_rows;
} types[] = {
        TYPE(IDS, ids_rows),
        TYPE(VM, vm_rows),
        TYPE(VM_GONE, vm_gone_rows),
        TYPE(VMM, vmm_rows),
        TYPE(VMM_GONE, vm_gone_rows),
        TYPE(BACKING, backing_rows),
        TYPE(BACKING_GONE, backing_gone_rows),
        TYPE(SHARE, share_rows),
        TYPE(SHARE_GONE, share_rows),
        TYPE(SLOT, slot_rows),
        TYPE(SLOT_GONE, slot_gone_rows),
        TYPE(MEMORY_ATTRIBUTES, attributes_rows),
        TYPE(RETAINED, retained_rows),
        TYPE(SUCCESSOR, vmm_rows),
        TYPE(HAND_OVER, vmm_rows),
        TYPE(OUTGOING_GONE, vm_gone_rows),
        TYPE(TAKEN_BACK, vm_gone_rows),
        TYPE(CLAIM, claim_rows),
        TYPE(CLAIM_GONE, claim_gone_rows),
};

_Static_assert(ELEMENTSOF(types) == _RECORD_TYPE_MAX, "a record has no fields to show");

const char *record_type_name(uint16_t type, uint16_t version) {
        return version == 1 && type < ELEMENTSOF(types) ? types[type].name : NULL;
}

static bool is_tail(const Row *row) {
        return row->kind == RECORD_FIELD_TAIL_NAME || row->kind == RECORD_FIELD_TAIL_RUNS ||
               row->kind == RECORD_FIELD_TAIL_IDS;
}

static uint64_t number_at(const uint8_t *at, size_t size) {
        uint64_t eight;
        uint32_t four;

        switch (size) {
        case sizeof(uint8_t):
                return *at;
        case sizeof(four):
                memcpy(&four, at, sizeof(four));
                return four;
        default:
                memcpy(&eight, at, sizeof(eight));
                return eight;
        }
}

/* list: what body is the element of that number of, or NULL. */
static int show_row(const Row *row, const char *list, unsigned index, const uint8_t *body, RecordShow show,
                    void *userdata) {
        RecordField field = { .name = row->name, .list = list, .index = index, .kind = row->kind };

        if (row->kind == RECORD_FIELD_BYTES) {
                field.bytes = body + row->at;
                field.size = row->size;
        } else
                field.value = number_at(body + row->at, row->size);
        return show(&field, userdata);
}

static int show_run(const Row *list, unsigned index, const uint8_t *run, RecordShow show, void *userdata) {
        int r = 0;

        for (size_t i = 0; r == 0 && i < ELEMENTSOF(run_rows); i++)
                r = show_row(&run_rows[i], list->name, index, run, show, userdata);
        return r;
}

static int show_id(const Row *list, unsigned index, const uint8_t *id, RecordShow show, void *userdata) {
        RecordField field = { .list = list->name, .index = index, .value = number_at(id, sizeof(uint64_t)) };

        return show(&field, userdata);
}

/* What comes behind the fields. Of what does not lie in the body, nothing is shown. */
static int show_tail(const Row *row, Tail tail, const uint8_t *body, size_t size, RecordShow show, void *userdata) {
        size_t piece = row->kind == RECORD_FIELD_TAIL_RUNS ? sizeof(RunBody) :
                       row->kind == RECORD_FIELD_TAIL_IDS  ? sizeof(uint64_t) :
                                                             1;
        RecordField field = { .name = row->name, .value = tail.n };
        int r;

        if (tail.at > size || tail.n * piece > size - tail.at)
                return 0;
        if (row->kind == RECORD_FIELD_TAIL_NAME) {
                field.kind = RECORD_FIELD_NAME;
                field.bytes = body + tail.at;
                field.size = tail.n;
        }
        r = show(&field, userdata);
        for (unsigned i = 0; r == 0 && row->kind != RECORD_FIELD_TAIL_NAME && i < tail.n; i++)
                r = (row->kind == RECORD_FIELD_TAIL_RUNS ? show_run : show_id)(row, i, body + tail.at + i * piece,
                                                                               show, userdata);
        return r;
}

int record_show(uint16_t type, uint16_t version, const void *body, size_t size, RecordShow show, void *userdata) {
        size_t n_rows = record_type_name(type, version) ? types[type].n_rows : 0;
        int r = 0;

        for (size_t i = 0; r == 0 && i < n_rows; i++) {
                const Row *row = &types[type].rows[i];
                Tail tail;

                if (row->at + row->size > size)
                        continue;
                if (!is_tail(row)) {
                        r = show_row(row, /* list= */ NULL, 0, body, show, userdata);
                        continue;
                }
                memcpy(&tail, (const uint8_t *) body + row->at, sizeof(tail));
                r = show_tail(row, tail, body, size, show, userdata);
        }
        return r;
}
