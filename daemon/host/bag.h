/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The fd bag: a pair of connected sockets whose queues hold duplicates of fds, each with a number of ours, its id. An
 * fd that is in a queue is kept by the kernel for as long as anybody holds both ends, whatever becomes of us; the ends
 * lie in the service manager's fd store too.
 *
 * One queue has the young entries, a message each, so that parking an fd is one sendmsg(2). The other has packed
 * messages of up to 253. When there are many young messages, those that are live are sent as one packed message, and
 * only then taken out of the young queue: at every instant each live id is in one queue or in both.
 *
 * Nothing is taken out to be read, and nothing in the middle of a queue can be taken out at all. An id that is
 * forgotten leaves its fd behind until it is folded away or the bag is repacked; so an id is never used again for
 * another file. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
        BAG_E_FULL = 1,  /* no queue takes any more: repack, or there are too many fds for the socket's buffer */
        BAG_E_IN_FLIGHT, /* the fds of our user in all queues of the host exceed our RLIMIT_NOFILE */
        BAG_E_TOO_MANY,  /* RLIMIT_NOFILE is too low to take them all out */
        BAG_E_NOT_A_BAG, /* not the two ends of one bag, or what is in it is not ours */
};

typedef struct Bag Bag;

int bag_new(Bag **ret);
/* From the two ends, as the fd store gave them back, in any order. Takes both on success. BAG_E_NOT_A_BAG. */
int bag_open(int end, int other_end, Bag **ret);
/* Closes our ends, and no fd that was put. Accepts NULL, returns NULL. */
Bag *bag_free(Bag *bag);

/* Hands out each id once, of a bag that was opened and not yet read. found() owns fd, which has O_CLOEXEC, if it
 * returns 0, and calls bag_keep() for an entry that is to live on; the others are dead. Anything else that it returns
 * ends the reading and is returned. BAG_E_TOO_MANY, BAG_E_NOT_A_BAG. After a failure the bag is as full as before, and
 * can be opened again by whoever has its ends. */
int bag_read(Bag *bag, int (*found)(uint64_t id, int fd, void *userdata), void *userdata);
/* In found() only, with its id; its fd, or another of the same file, is borrowed until bag_forget(). */
int bag_keep(Bag *bag, uint64_t id, int fd);

/* 0: kept by the kernel. fd is borrowed until bag_forget(). -EEXIST: the id is live; -EBUSY: not read yet. BAG_E_FULL,
 * BAG_E_IN_FLIGHT. */
int bag_put(Bag *bag, uint64_t id, int fd);
/* The id may be unknown. */
void bag_forget(Bag *bag, uint64_t id);

/* More entries are dead than live, and more than a few hundred; or there is no room for lack of order. */
bool bag_wants_repack(const Bag *bag);
/* A new bag with the live entries; this one is untouched. BAG_E_FULL, BAG_E_IN_FLIGHT; -EBUSY: not read yet. */
int bag_repack(const Bag *bag, Bag **ret);

/* The two ends, borrowed, to be stored. */
void bag_ends(const Bag *bag, int ret[static 2]);
size_t bag_size(const Bag *bag); /* live entries */
