/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What one process has of one file of guest memory, and what a look at all processes found. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* More than so many processes that have one file are not told apart any more: a user can start as many as it likes. */
#define HOLDERS_PER_FILE_MAX 1024U

typedef struct HolderFile {
        dev_t dev;
        ino_t ino;
} HolderFile;

typedef struct Holder {
        size_t file;         /* index of the file in what was asked for */
        pid_t pid;           /* in our pid namespace */
        uint64_t start_time; /* field 22 of /proc/PID/stat: with it, the pid is one process for ever */
        uid_t uid;           /* the real one */
        char command[16];    /* as ps(1) shows it; ASCII */
        size_t n_fds;
        uint64_t shared_bytes;  /* sum of the shared mappings of the file */
        uint64_t private_bytes; /* and of the private ones */
        bool writable;          /* an fd that is open for writing, or a shared mapping that can be written */
        bool copies;            /* a private mapping that can be written: what is written is not in the file */
} Holder;

typedef struct HolderReport {
        Holder *holders; /* in order of discovery: those of one process stand together */
        size_t n_holders;
        size_t n_unreadable; /* processes that may not be looked at: each may have any of the files */
        bool is_complete;    /* no such process, none that is hidden from us, and no file with too many holders */
} HolderReport;

static inline int holder_file_compare(const HolderFile *a, const HolderFile *b) {
        if (a->dev != b->dev)
                return a->dev < b->dev ? -1 : 1;
        return a->ino < b->ino ? -1 : a->ino > b->ino;
}
