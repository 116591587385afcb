/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The registry as records: each says what one object is from now on, or that it is gone. Who applies all of them in
 * their order to an empty registry has the registry again. That is what privmemd's ledger keeps; see docs/ledger.md.
 *
 * A record is a head and a body, in the byte order of the host, which neither outlives. Bodies may only grow at
 * their end: a reader takes what it knows and fills up with zeroes what is not there. Who changes what is there
 * raises LEDGER_OLDEST_READER, so that an older privmemd leaves the ledger alone. A type that a reader does not know is
 * kept by it as it is, for the next one.
 *
 * What is in a ledger was written by privmemd alone, but maybe not by this one, and maybe it is damaged: nothing in it
 * is trusted. */

#include "core/claim.h"
#include "core/record-buffer.h"
#include "core/slot.h"
#include "core/vm.h"

typedef enum RecordType {
        RECORD_IDS = 1, /* the greatest id given away, and how often privmemd was restarted */
        RECORD_VM,
        RECORD_VM_GONE,  /* and its backings, slots, shares and claims */
        RECORD_VMM,      /* a process runs the VM */
        RECORD_VMM_GONE, /* its slots and private ranges are gone too; the VM is retained */
        RECORD_BACKING,
        RECORD_BACKING_GONE, /* and its shares and the claims to it */
        RECORD_SHARE,
        RECORD_SHARE_GONE,
        RECORD_SLOT,
        RECORD_SLOT_GONE,
        RECORD_MEMORY_ATTRIBUTES,
        RECORD_RETAINED,      /* until when */
        RECORD_SUCCESSOR,     /* who may take over, or nobody */
        RECORD_HAND_OVER,     /* a second process runs the VM; what the first one has is its outgoing part */
        RECORD_OUTGOING_GONE, /* the first one has exited */
        RECORD_TAKEN_BACK,    /* the second one has exited */
        RECORD_CLAIM,
        RECORD_CLAIM_GONE, /* redeemed, expired or deleted */
        _RECORD_TYPE_MAX,
} RecordType;

/* No record of a VM, VMM, backing, share, range, deleted slot or claim that is gone takes more, its head included. */
#define RECORD_SIZE_MAX 256U
/* Nor does one of a slot that shows so many runs. */
size_t record_slot_size(size_t n_runs);
/* Nor does one of a claim to so many backings. */
size_t record_claim_size(size_t n_backings);

/* 0 or -ENOMEM: nothing added. */
int record_ids(RecordBuffer *buffer, const Registry *registry);
int record_vm(RecordBuffer *buffer, const VM *vm);
int record_vm_gone(RecordBuffer *buffer, const VM *vm);
/* The VM's VMM, which it must have. */
int record_vmm(RecordBuffer *buffer, const VM *vm);
int record_vmm_gone(RecordBuffer *buffer, const VM *vm);
int record_retained(RecordBuffer *buffer, const VM *vm);
int record_successor(RecordBuffer *buffer, const VM *vm);
/* Of a VM with an outgoing part. */
int record_hand_over(RecordBuffer *buffer, const VM *vm);
int record_outgoing_gone(RecordBuffer *buffer, const VM *vm);
int record_taken_back(RecordBuffer *buffer, const VM *vm);
int record_backing(RecordBuffer *buffer, const Backing *backing);
int record_backing_gone(RecordBuffer *buffer, const Backing *backing);
int record_claim(RecordBuffer *buffer, const Claim *claim);
int record_claim_gone(RecordBuffer *buffer, const Claim *claim);
int record_share(RecordBuffer *buffer, const Backing *backing, const Share *share);
int record_share_gone(RecordBuffer *buffer, const Backing *backing, const VM *peer);
/* What the slot of that id is now, or that there is none. */
int record_slot(RecordBuffer *buffer, VM *vm, uint32_t as_id, uint32_t id);
int record_memory_attributes(RecordBuffer *buffer, const VM *vm, uint64_t gpa, uint64_t size, bool private);
/* A body as it was found. */
int record_verbatim(RecordBuffer *buffer, uint16_t type, uint16_t version, const void *body, size_t size);

/* Everything: what an empty registry needs to become this one. */
int record_registry(RecordBuffer *buffer, Registry *registry);

enum {
        RECORD_E_UNKNOWN = 1, /* a type, or a version, of a newer privmemd */
        RECORD_E_DAMAGED,     /* it contradicts itself, or the registry: nothing changed */
};

/* Where applying records stands. All zero but the registry to begin with. */
typedef struct RecordReader {
        Registry *registry;

        /* private */
        struct Known *known; /* VMs and backings by id: a hash table */
        size_t n_known, n_places;
} RecordReader;

/* Slots are not judged: they were when they were set, and the audit looks at all of them. 0, RECORD_E_…, -ENOMEM. */
int record_apply(RecordReader *reader, uint16_t type, uint16_t version, const void *body, size_t size);
void record_reader_done(RecordReader *reader);
