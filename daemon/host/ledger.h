/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The ledger: a file to which frames are appended, each one commit of several records (core/record-buffer.h). What the
 * records mean is not known here. docs/ledger.md has the format.
 *
 * A frame goes into space that was reserved before, so that appending does not fail for lack of space. Whatever
 * instant the writer dies at, a reader finds a frame whole or not at all, and every frame for which ledger_append()
 * returned 0.
 *
 * A ledger never shrinks. Its successor is a new file of the next generation, which begins with a snapshot; a ledger
 * whose snapshot is not complete is to be thrown away. The file is a memfd that the service manager keeps, or a file
 * in the runtime directory. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LEDGER_FRAME_MAX (UINT64_C(16) << 20) /* bytes of records in one frame */
#define LEDGER_SIZE_MAX  (UINT64_C(4) << 30)  /* bytes of the file */

enum {
        LEDGER_E_NOT_A_LEDGER = 1, /* no valid header */
        LEDGER_E_NEWER,            /* its oldest reader is newer than we are */
        LEDGER_E_NO_SPACE,
        LEDGER_E_LOCKED, /* another daemon uses the directory */
        LEDGER_E_NONE,   /* the directory has no ledger */
        LEDGER_E_UNSAFE, /* somebody else's file, or one that others may write */
};

typedef struct Ledger Ledger;

typedef int (*LedgerRecord)(uint16_t type, uint16_t version, const void *data, size_t size, void *userdata);

typedef struct LedgerReport {
        uint64_t frames, records; /* read */
        uint64_t lost;            /* frames whose numbers are missing between those that were read */
        uint64_t damaged_bytes;   /* with a valid frame behind them: records that were acknowledged are lost */
        bool torn;                /* the last frame is not whole; it was never acknowledged, and is overwritten */
} LedgerReport;

/* Takes an empty file on success, and writes the header, incomplete. LEDGER_E_NO_SPACE. */
int ledger_new(int fd, uint64_t generation, Ledger **ret);
int ledger_new_memfd(uint64_t generation, Ledger **ret);
/* Takes fd on success. Nothing can be appended before ledger_read(). LEDGER_E_NOT_A_LEDGER, LEDGER_E_NEWER. */
int ledger_open(int fd, Ledger **ret);
/* Accepts NULL, returns NULL. */
Ledger *ledger_free(Ledger *ledger);

/* The snapshot is whole. */
int ledger_complete(Ledger *ledger);
bool ledger_is_complete(const Ledger *ledger);
/* Written by an older privmemd, or by a newer one that lets us read it. */
bool ledger_is_of_another_version(const Ledger *ledger);
uint64_t ledger_generation(const Ledger *ledger);
uint64_t ledger_size(const Ledger *ledger);   /* bytes up to the end of the last frame; known after ledger_read() */
uint64_t ledger_frames(const Ledger *ledger); /* that have been written, and may be damaged now; known by then too */
int ledger_fd(const Ledger *ledger);          /* borrowed */

/* Every record of every valid frame in order; data is aligned to 8 bytes and valid during the call. What record()
 * returns ends the reading unless it is 0, and is returned; nothing can be appended then. */
int ledger_read(Ledger *ledger, LedgerRecord record, void *userdata, LedgerReport *ret);

/* ---- looking at a ledger that goes on being written ---- */

typedef struct LedgerScan LedgerScan;

typedef struct LedgerFrame {
        uint64_t offset, size; /* in the file, its head included */
        uint64_t sequence;
        const void *records; /* valid until the next call */
        size_t records_size;
        uint64_t lost;          /* frames whose numbers are missing before it */
        uint64_t damaged_bytes; /* before it */
} LedgerFrame;

/* From the first frame up to the last that has been appended by now. The scan has an fd of its own, and does not mind
 * what becomes of the ledger. -EBUSY: not read yet. */
int ledger_scan_new(const Ledger *ledger, LedgerScan **ret);
/* 1: the next frame; 0: there is none, and *ret is what would be the next one, without records: lost and damaged_bytes
 * are missing before it, and size bytes of a torn one lie there. */
int ledger_scan_next(LedgerScan *scan, LedgerFrame *ret);
/* Accepts NULL, returns NULL. */
LedgerScan *ledger_scan_free(LedgerScan *scan);

/* ---- writing ---- */

/* Makes sure that a frame of this many bytes of records can be appended. It is not added to what was reserved before.
 * LEDGER_E_NO_SPACE. */
int ledger_reserve(Ledger *ledger, size_t size);
/* One frame. -ENOBUFS: not reserved; -EINVAL: not records as a RecordBuffer has them; -EBUSY: not read yet. */
int ledger_append(Ledger *ledger, const void *records, size_t size);

/* The ledger as a file in a directory. The lock lasts until *ret_lock is closed. LEDGER_E_LOCKED, LEDGER_E_UNSAFE. */
int ledger_lock(int directory, int *ret_lock);
/* LEDGER_E_NONE, LEDGER_E_UNSAFE, and what ledger_open() returns. */
int ledger_open_at(int directory, Ledger **ret);
/* A new one beside the present one, which stays what ledger_open_at() finds until ledger_replace_at(). */
int ledger_new_at(int directory, uint64_t generation, Ledger **ret);
/* It is complete and takes the place of the present one, at once. */
int ledger_replace_at(int directory, Ledger *ledger);
