/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What a VMM has mapped at its addresses, asked of the kernel: PROCMAP_QUERY (Linux 6.11), or the text of
 * /proc/PID/maps where that is missing.
 *
 * The file that is asked is opened once and stays bound to the address space that the process had then: when that is
 * gone there is no answer, and never another process's. An answer is a look at one moment. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/slot.h"

/* Nobody can make a look as long as it likes: of a slot so many mappings are looked at, and what lies behind is as if
 * it were mapped nowhere. The text is read up to so many lines. */
#define MAPPING_RUNS_MAX  64U
#define MAPPING_LINES_MAX 4096U

typedef struct MappingReader {
        int fd;         /* of /proc/PID/maps, owned; negative if it must not be read */
        bool can_query; /* the kernel has PROCMAP_QUERY */
        bool gone; /* the last read found that the address space is no more: the process has executed, or exited */
} MappingReader;

/* Opens the mappings of the process. A reader that cannot be opened is as good as one of a process that maps nothing:
 * reader->fd is negative then. */
void mapping_reader_open(pid_t pid, MappingReader *ret);
void mapping_reader_done(MappingReader *reader);

/* Whether the caller knows the file, and then as what a shared mapping of it counts. The kernel takes half as long
 * again to say what a file is called, which is how the others are told apart. */
typedef bool (*MappingKnownFile)(dev_t dev, ino_t ino, MappedKind *ret, void *userdata);

/* What is mapped in [hva, hva + size): runs in order of their addresses, clipped to the range, and joined where one
 * goes on in the next. Returns how many, at most MAPPING_RUNS_MAX; 0 as well if the answer cannot be had. */
size_t mapping_read(MappingReader *reader, uint64_t hva, uint64_t size, MappingKnownFile known, void *userdata,
                    MappedRun runs[static MAPPING_RUNS_MAX]);
