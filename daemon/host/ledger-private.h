/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The layout of a ledger, and what its writer (ledger.c) and its reader (ledger-scan.c) share. */

#include <assert.h>

#include "core/record-buffer.h"
#include "host/ledger.h"

enum {
        HEADERS = 2,
};

typedef struct Header {
        char magic[8];
        uint32_t version, oldest_reader;
        uint64_t generation;
        uint64_t mark;
        uint64_t complete; /* 1 or 0 */
        uint8_t reserved[20];
        uint32_t crc; /* of what is before */
} Header;

typedef struct FrameHead {
        uint64_t mark;
        uint64_t generation;
        uint64_t sequence; /* 0, 1, 2, … in each generation */
        uint32_t size;     /* bytes of records */
        uint32_t records_crc;
        uint32_t head_crc; /* of what is before */
        uint32_t zero;
} FrameHead;

static_assert(sizeof(Header) == 64 && offsetof(Header, crc) == 60, "a header is 64 bytes");
static_assert(sizeof(FrameHead) == 40 && offsetof(FrameHead, head_crc) == 32, "the head of a frame is 40 bytes");

#define FRAMES_AT (HEADERS * sizeof(Header))

struct Ledger {
        int fd;
        Header header;
        bool ready;             /* the end and the next number are known */
        bool dirty;             /* what is behind the end is not all zero */
        uint64_t end;           /* of the last valid frame */
        uint64_t reserved;      /* the file has space up to here */
        uint64_t next_sequence; /* of the next frame */

        bool is_mappable; /* nobody can cut the file */
        uint8_t *map;     /* the part of it that frames go to now, or NULL */
        uint64_t map_at;
        size_t map_size;
};

/* Reads as much as there is. */
int ledger_read_at(int fd, void *bytes, size_t size, uint64_t offset, size_t *ret);
/* As a RecordBuffer has them. */
bool ledger_are_records(const void *records, size_t size);
