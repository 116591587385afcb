/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What a record says, field by field, for whoever prints it. tests/check/records.py compares the tables with the
 * bodies in record-private.h: a type or a field that is not in them fails. */

#include "core/record.h"

typedef enum RecordFieldKind {
        RECORD_FIELD_NUMBER,
        RECORD_FIELD_HEX, /* an address, an offset or bits */
        RECORD_FIELD_BOOL,
        RECORD_FIELD_DEVICE,  /* st_dev */
        RECORD_FIELD_VM,      /* the id of the VM that the record is about */
        RECORD_FIELD_BACKING, /* the same of the backing; 0: none */
        RECORD_FIELD_BYTES,   /* such as a UUID */
        RECORD_FIELD_NAME,    /* bytes: characters, of which nothing is known */
        RECORD_FIELD_EXIT_POLICY,
        RECORD_FIELD_ALIAS_POLICY,
        RECORD_FIELD_VM_TYPE,
        RECORD_FIELD_VM_STATE,
        RECORD_FIELD_BACKING_KIND,
        RECORD_FIELD_BACKING_ORIGIN,
        RECORD_FIELD_NUMA_POLICY,

        /* of the tables, never shown */
        RECORD_FIELD_TAIL_NAME,
        RECORD_FIELD_TAIL_RUNS,
        RECORD_FIELD_TAIL_IDS,
} RecordFieldKind;

typedef struct RecordField {
        const char *name; /* as docs/ledger.md has it; NULL: of a list of numbers */
        const char *list; /* that it is an element of, or a field of one; NULL: none */
        unsigned index;   /* in the list */
        RecordFieldKind kind;
        uint64_t value;
        const uint8_t *bytes; /* borrowed from the body */
        size_t size;          /* of them */
} RecordField;

/* "VM"; NULL of a type or version that is not known. */
const char *record_type_name(uint16_t type, uint16_t version);

/* What show() returns ends it unless it is 0, and is returned. A field that the body is too short for is not shown. Of a
 * type or version that is not known, there are none. */
typedef int (*RecordShow)(const RecordField *field, void *userdata);
int record_show(uint16_t type, uint16_t version, const void *body, size_t size, RecordShow show, void *userdata);
