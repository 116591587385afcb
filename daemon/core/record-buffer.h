/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Records one after the other, as a commit of the ledger takes them: a head, then the bytes, then zeros up to a
 * multiple of 8. Numbers have the byte order of the host, which a ledger never leaves. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RECORD_ALIGNMENT 8U

typedef struct RecordHead {
        uint16_t type, version;
        uint32_t size; /* of the bytes behind it, without the zeros */
} RecordHead;

/* All zero is the empty buffer. */
typedef struct RecordBuffer {
        uint8_t *bytes;
        size_t size;

        /* private */
        size_t allocated, head;
        bool open, failed;
} RecordBuffer;

/* Between them, record_buffer_put() any number of times. What goes wrong is kept until record_buffer_end(): -ENOMEM,
 * or -E2BIG for more than 4 GiB. The record is not in the buffer then. */
void record_buffer_begin(RecordBuffer *buffer, uint16_t type, uint16_t version);
void record_buffer_put(RecordBuffer *buffer, const void *bytes, size_t size);
int record_buffer_end(RecordBuffer *buffer);

/* Room for so many bytes more, so that records that take no more cannot fail. */
int record_buffer_reserve(RecordBuffer *buffer, size_t size);

/* Empty, with its memory kept for the next commit. */
void record_buffer_clear(RecordBuffer *buffer);
void record_buffer_done(RecordBuffer *buffer);

/* The record at *offset, which is moved behind it. 1: there is one; 0: that was the last; -EBADMSG: not a record. */
int record_next(const void *records, size_t size, size_t *offset, RecordHead *ret, const void **ret_data);
