/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A walk over all processes: which of them have one of some files open, or mapped?
 *
 * The walk goes in short steps, so that others have their turn between them. It opens no file of a process and asks no
 * file system but /proc for anything, for that could wait for ever.
 *
 * It is a look and not a lock. A process is looked at once: one that gets the memory afterwards, from another that has
 * not been looked at yet, is missed. Nobody sees a file that is on its way through a socket or registered with
 * io_uring, and the fds of a thread that has a table of its own are not looked at. */

#include "core/holder.h"

typedef struct HolderWalk HolderWalk;

/* proc: where procfs is mounted. self: the process to leave out. files: in the order of holder_file_compare(), each of
 * them once; copied. */
int holder_walk_new(const char *proc, pid_t self, const HolderFile *files, size_t n_files, HolderWalk **ret);
/* Accepts NULL, returns NULL. */
HolderWalk *holder_walk_free(HolderWalk *walk);

/* Goes on for about 0.2 ms. 1: there is more to look at; 0: that was all. After a negative errno the walk is of no
 * use. */
int holder_walk_step(HolderWalk *walk);

/* What was found, once a step has returned 0; the walk's. */
const HolderReport *holder_walk_report(const HolderWalk *walk);
/* More processes have it than the report says. */
bool holder_walk_is_cut(const HolderWalk *walk, size_t file);
