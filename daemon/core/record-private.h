/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The bodies of the records. Fields are added at the end of the fixed part only. */

#include <stdint.h>

#include "core/record.h"

/* What has no fixed size, a name, runs or ids, comes behind the fixed part, whose size the writer says. */
typedef struct Tail {
        uint16_t at; /* from the start of the body */
        uint16_t n;  /* characters of the name, runs, or ids */
} Tail;

typedef struct IdsBody {
        uint64_t last;
        uint8_t was_damaged, unused[7];
        uint64_t restarts;
} IdsBody;

typedef struct GoneBody {
        uint64_t id;
} GoneBody;

/* What a test adds. */
#ifndef VM_BODY_MORE
#define VM_BODY_MORE 0
#endif

typedef struct VMBody {
        uint64_t id;
        Tail name;
        uint32_t owner;
        uint8_t uuid[16];
        uint8_t has_uuid, exit_policy, alias_policy, type, state, retain_guest_memfd, unused[2];
        uint64_t retain_usec, retained_until_usec, last_vmm_serial;
        uint8_t more[VM_BODY_MORE];
} VMBody;

/* Of its VMM, its successor (vmm_serial, mm and outgoing are 0), or its second VMM. */
typedef struct VMMBody {
        uint64_t vm, id, mm;
        uint32_t pid, uid;
        uint64_t start_time, vmm_serial, outgoing;
} VMMBody;

typedef struct RetainedBody {
        uint64_t vm, until_usec;
} RetainedBody;

typedef struct BackingBody {
        uint64_t id, vm;
        Tail name;
        uint8_t kind, origin, numa_policy, is_orphan;
        uint64_t size, page_size, numa_nodes, dev, ino;
        uint32_t seals, unused;
        uint64_t vmm_serial;
} BackingBody;

typedef struct ShareBody {
        uint64_t backing, vm;
        uint8_t read_only, unused[7];
} ShareBody;

typedef struct SlotBody {
        uint64_t vm;
        uint32_t as_id, id;
        Tail runs;
        uint32_t flags;
        uint64_t gpa, size, hva;
        uint64_t backing, offset; /* backing 0: none */
        uint64_t guest_memfd, guest_memfd_offset;
} SlotBody;

typedef struct SlotGoneBody {
        uint64_t vm;
        uint32_t as_id, id;
} SlotGoneBody;

enum {
        RUN_PRIVATE = 1 << 0,     /* of a guest_memfd */
        RUN_WAS_AT_ZERO = 1 << 1, /* the file was once at guest address 0 */
};

typedef struct RunBody {
        uint64_t dev, ino, offset, size, at;
        uint64_t flags; /* RUN_… */
} RunBody;

typedef struct AttributesBody {
        uint64_t vm, gpa, size;
        uint8_t private, unused[7];
} AttributesBody;

typedef struct ClaimBody {
        uint64_t id, vm;
        Tail backings; /* their ids */
        uint8_t read_only, unused[3];
        uint64_t expires_usec;
        uint8_t digest[32]; /* SHA-256 */
} ClaimBody;

typedef struct ClaimGoneBody {
        uint64_t vm, id;
} ClaimGoneBody;

_Static_assert(sizeof(RecordHead) == 8 && sizeof(VMBody) == 64 + VM_BODY_MORE && sizeof(VMMBody) == 56 &&
                       sizeof(BackingBody) == 80 && sizeof(SlotBody) == 80 && sizeof(RunBody) == 48 &&
                       sizeof(AttributesBody) == 32 && sizeof(ClaimBody) == 64 &&
                       sizeof((ClaimBody) {}.digest) == SHA256_SIZE,
               "a body without holes");
_Static_assert(sizeof(RecordHead) + sizeof(BackingBody) + NAME_LENGTH_MAX + 8 <= RECORD_SIZE_MAX,
               "the greatest record of one object");
