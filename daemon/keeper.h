/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What must outlive privmemd: a duplicate of every fd in the bag, and every change of the registry in the ledger. Both
 * lie in the service manager's fd store; without one, the ledger is a file, and fds are found again in the VMMs that
 * have them.
 *
 * The order of every change: reserve, change the registry, park the fd, commit, reply. So whatever is acknowledged is
 * in the ledger, and whatever is in the ledger has its fd in the bag. What frees memory commits first and frees then. */

#include "core/record.h"
#include "core/survival.h"
#include "front/failure.h"
#include "host/bag.h"
#include "host/fd-store.h"
#include "host/ledger.h"

enum {
        KEEPER_E_LOCKED = 1, /* another privmemd uses the ledger */
        KEEPER_E_NEWER,      /* a newer privmemd wrote it */
        KEEPER_E_UNSAFE,     /* somebody else's file, or one that others may write */
        KEEPER_E_TOO_MANY,   /* RLIMIT_NOFILE is too low for what is in the bag */
        KEEPER_E_UNREADABLE, /* the bag cannot be read */
        KEEPER_E_NO_SPACE,
        KEEPER_E_SMALL_STORE, /* the service manager keeps something for us, and would take too little */
};

/* So many fds the store must take: bag and ledger, and their successors beside them. */
#define KEEPER_STORE_FDS 6U

typedef struct Keeper {
        Custody mode;
        Registry *registry;
        Ledger *ledger; /* NULL: CUSTODY_NONE */
        Bag *bag;       /* CUSTODY_FD_STORE only */
        uint64_t bag_generation;
        uint64_t n_sure_fds;  /* below so many there is room for one more */
        int directory, lock;  /* CUSTODY_RUNTIME_FILE only */
        RecordBuffer pending; /* of the change that is being made */
        RecordBuffer strange; /* records of a newer privmemd, for the next one */
        uint64_t pause_usec;  /* for how long the service manager is not asked, which has not answered; 0: it has */
        uint64_t pause_ends_usec; /* CLOCK_MONOTONIC */
        bool behind;              /* the ledger lacks a change: a new generation is due */
} Keeper;

#define KEEPER_INIT ((Keeper) { .directory = -EBADF, .lock = -EBADF })

/* What a start found. */
typedef struct KeeperReport {
        LedgerReport ledger;
        uint64_t refused; /* records that contradict the rest */
        uint64_t unknown; /* records of a newer privmemd */
        uint64_t orphans; /* fds in the bag that no backing has */
        uint64_t n_fds;   /* fds that came back */
        bool had_ledger;
} KeeperReport;

/* Fills the empty registry from the ledger, if there is one. Its backings have no fds yet. directory: of the ledger
 * without an fd store; NULL: CUSTODY_NONE then. KEEPER_E_LOCKED, _NEWER, _UNSAFE, _SMALL_STORE. */
int keeper_open(Keeper *keeper, Registry *registry, PassedFds *passed, const char *directory, KeeperReport *report);
/* Hands out the fds of the bag; see bag_read(). Before it returns, nothing can be parked. KEEPER_E_TOO_MANY,
 * _UNREADABLE. */
int keeper_read_bag(Keeper *keeper, int (*found)(uint64_t id, int fd, void *userdata), void *userdata);
/* Of an fd that found() wants to keep parked. */
int keeper_keep_fd(Keeper *keeper, uint64_t id, int fd);
/* From here on changes can be made. always: begin a new generation of the ledger even if nothing demands it; repack: of
 * the bag. KEEPER_E_NO_SPACE. */
int keeper_begin(Keeper *keeper, bool always, bool repack);
void keeper_done(Keeper *keeper);

/* Makes sure that records of so many bytes can be committed. API_E_CustodyFull. */
int keeper_reserve(Keeper *keeper, size_t size, Failure *f);
/* Parks a duplicate of fd, which is borrowed until keeper_forget_fd(). API_E_CustodyFull. */
int keeper_put_fd(Keeper *keeper, uint64_t id, int fd, Failure *f);
void keeper_forget_fd(Keeper *keeper, uint64_t id);
/* Where to put the records of the change. */
RecordBuffer *keeper_records(Keeper *keeper);
/* They are in the ledger, or API_E_CustodyFull: none of them is, and the change is to be undone. */
int keeper_try_commit(Keeper *keeper, Failure *f);
/* They are in the ledger when it returns. Of what was not reserved, and does not fit, the ledger stays behind until a
 * new generation fits; until then nothing can be reserved. */
void keeper_commit(Keeper *keeper);
