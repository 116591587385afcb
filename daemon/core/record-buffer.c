/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "core/record-buffer.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static_assert(sizeof(RecordHead) == RECORD_ALIGNMENT, "a record's bytes are aligned as its head is");

static uint64_t padded(uint64_t size) {
        return (size + RECORD_ALIGNMENT - 1) & ~(uint64_t) (RECORD_ALIGNMENT - 1);
}

/* Room for size more bytes, or NULL with failed set. */
static uint8_t *grow(RecordBuffer *buffer, size_t size) {
        size_t needed, allocated = buffer->allocated ?: 512;
        uint8_t *bytes;

        if (buffer->failed || __builtin_add_overflow(buffer->size, size, &needed))
                goto failed;
        while (allocated < needed)
                if (__builtin_mul_overflow(allocated, 2, &allocated))
                        goto failed;
        if (allocated > buffer->allocated) {
                bytes = realloc(buffer->bytes, allocated);
                if (!bytes)
                        goto failed;
                buffer->bytes = bytes;
                buffer->allocated = allocated;
        }
        buffer->size = needed;
        return buffer->bytes + needed - size;

failed:
        buffer->failed = true;
        return NULL;
}

int record_buffer_reserve(RecordBuffer *buffer, size_t size) {
        size_t before = buffer->size;
        uint8_t *room = grow(buffer, size);

        buffer->size = before;
        if (!room)
                buffer->failed = false;
        return room ? 0 : -ENOMEM;
}

void record_buffer_put(RecordBuffer *buffer, const void *bytes, size_t size) {
        uint8_t *to;

        assert(buffer->open);
        to = grow(buffer, size);
        if (to && size > 0)
                memcpy(to, bytes, size);
}

void record_buffer_begin(RecordBuffer *buffer, uint16_t type, uint16_t version) {
        RecordHead head = { .type = type, .version = version };

        assert(!buffer->open);
        buffer->open = true;
        buffer->head = buffer->size;
        record_buffer_put(buffer, &head, sizeof(head));
}

int record_buffer_end(RecordBuffer *buffer) {
        static const uint8_t zeros[RECORD_ALIGNMENT];
        uint64_t size;
        int r = 0;

        assert(buffer->open);
        size = buffer->size - buffer->head - sizeof(RecordHead);
        if (!buffer->failed)
                record_buffer_put(buffer, zeros, padded(size) - size);
        if (buffer->failed)
                r = -ENOMEM;
        else if (size > UINT32_MAX)
                r = -E2BIG;
        if (r < 0)
                buffer->size = buffer->head;
        else
                ((RecordHead *) (buffer->bytes + buffer->head))->size = (uint32_t) size;
        buffer->open = buffer->failed = false;
        return r;
}

void record_buffer_clear(RecordBuffer *buffer) {
        buffer->size = 0;
        buffer->open = buffer->failed = false;
}

void record_buffer_done(RecordBuffer *buffer) {
        free(buffer->bytes);
        *buffer = (RecordBuffer) {};
}

int record_next(const void *records, size_t size, size_t *offset, RecordHead *ret, const void **ret_data) {
        const uint8_t *bytes = records;
        size_t left = size - *offset;
        RecordHead head;

        if (left == 0)
                return 0;
        if (*offset > size || left < sizeof(head))
                return -EBADMSG;
        memcpy(&head, bytes + *offset, sizeof(head));
        if (padded(head.size) > left - sizeof(head))
                return -EBADMSG;
        *ret = head;
        *ret_data = bytes + *offset + sizeof(head);
        *offset += sizeof(head) + padded(head.size);
        return 1;
}
