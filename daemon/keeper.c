/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "keeper.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "core/cleanup.h"
#include "host/step.h"

/* Reading this much more than is needed is nothing at a start. */
#ifndef LEDGER_SLACK
#define LEDGER_SLACK (UINT64_C(1) << 20)
#endif
/* Whoever reads a frame reads all of it, and damage to one loses all of it. */
#define SNAPSHOT_FRAME_MAX   (UINT64_C(1) << 20)
#define STORE_PATIENCE_USEC  UINT64_C(10000000)
#define STORE_PAUSE_MAX_USEC (64 * STORE_PATIENCE_USEC)
/* A message of the bag, and what a start needs besides. */
#define START_SPARE_FDS      320U
/* So many more may come before the limit is looked up again. */
#define SURE_FDS             64U
/* What gives something up is not refused, and so has room of its own. */
#define LEDGER_SPARE         4096U

RecordBuffer *keeper_records(Keeper *keeper) {
        return &keeper->pending;
}

/* ---- the fd store ---- */

static uint64_t now_usec(void) {
        struct timespec now = {};

        (void) clock_gettime(CLOCK_MONOTONIC, &now);
        return (uint64_t) now.tv_sec * 1000000 + (uint64_t) now.tv_nsec / 1000;
}

/* A service manager that has not answered is asked again later, each time after twice as long: nobody else is served
 * while it is waited for. */
static bool is_pausing(const Keeper *keeper) {
        return keeper->pause_usec > 0 && now_usec() < keeper->pause_ends_usec;
}

static void pause_after(Keeper *keeper, int r) {
        if (r != -ETIMEDOUT) {
                keeper->pause_usec = 0;
                return;
        }
        keeper->pause_usec = keeper->pause_usec == 0                       ? STORE_PATIENCE_USEC :
                             keeper->pause_usec < STORE_PAUSE_MAX_USEC / 2 ? 2 * keeper->pause_usec :
                                                                             STORE_PAUSE_MAX_USEC;
        keeper->pause_ends_usec = now_usec() + keeper->pause_usec;
}

static int store(Keeper *keeper, const char *kind, uint64_t generation, const int *fds, size_t n) {
        char name[32];
        int r;

        snprintf(name, sizeof(name), "%s-%" PRIu64, kind, generation);
        r = fd_store_put(name, fds, n);
        if (r >= 0)
                r = fd_store_barrier(STORE_PATIENCE_USEC);
        pause_after(keeper, r);
        return r;
}

static void unstore(const char *kind, uint64_t generation) {
        char name[32];

        snprintf(name, sizeof(name), "%s-%" PRIu64, kind, generation);
        (void) fd_store_drop(name);
}

/* ---- a new generation of the ledger ---- */

static int append_frame(Ledger *ledger, const uint8_t *records, size_t size) {
        int r = ledger_reserve(ledger, size);

        return r == 0 ? ledger_append(ledger, records, size) : r;
}

/* The snapshot, in frames of whole records. */
static int append_all(Ledger *ledger, const RecordBuffer *records) {
        size_t from = 0, offset = 0, before = 0;
        const void *body;
        RecordHead head;
        int r;

        while (record_next(records->bytes, records->size, &offset, &head, &body) > 0) {
                if (offset - from > SNAPSHOT_FRAME_MAX && before > from) {
                        r = append_frame(ledger, records->bytes + from, before - from);
                        if (r != 0)
                                return r;
                        from = before;
                }
                before = offset;
        }
        return before > from ? append_frame(ledger, records->bytes + from, before - from) : 0;
}

static int write_snapshot(Keeper *keeper, Ledger *ledger) {
        _cleanup_(record_buffer_done) RecordBuffer records = {};
        int r;

        r = record_registry(&records, keeper->registry);
        if (r >= 0 && keeper->strange.size > 0) {
                r = record_buffer_reserve(&records, keeper->strange.size);
                if (r >= 0) {
                        memcpy(records.bytes + records.size, keeper->strange.bytes, keeper->strange.size);
                        records.size += keeper->strange.size;
                }
        }
        return r < 0 ? r : append_all(ledger, &records);
}

/* The new one is whole, and where it outlives us, before the old one goes. It is the last to be called complete: what is
 * stored and not complete is nothing to a reader, whether it can be taken out of the store again or not. */
static int renew_ledger(Keeper *keeper) {
        uint64_t generation = keeper->ledger ? ledger_generation(keeper->ledger) + 1 : 1;
        Ledger *ledger = NULL;
        int fd, r;

        if (is_pausing(keeper))
                return -ETIMEDOUT;
        r = keeper->mode == CUSTODY_RUNTIME_FILE ? ledger_new_at(keeper->directory, generation, &ledger) :
                                                   ledger_new_memfd(generation, &ledger);
        if (r == 0)
                r = write_snapshot(keeper, ledger);
        STEP("ledger.written");
        if (r == 0 && keeper->mode == CUSTODY_FD_STORE) {
                fd = ledger_fd(ledger);
                r = store(keeper, "ledger", generation, &fd, 1);
        }
        STEP("ledger.stored");
        if (r == 0)
                r = ledger_complete(ledger);
        STEP("ledger.complete");
        if (r == 0 && keeper->mode == CUSTODY_RUNTIME_FILE)
                r = ledger_replace_at(keeper->directory, ledger);
        if (r != 0) {
                if (keeper->mode == CUSTODY_FD_STORE)
                        unstore("ledger", generation);
                ledger_free(ledger);
                return r;
        }
        if (keeper->mode == CUSTODY_FD_STORE && keeper->ledger)
                unstore("ledger", generation - 1);
        STEP("ledger.dropped");
        ledger_free(keeper->ledger);
        keeper->ledger = ledger;
        keeper->behind = false;
        return 0;
}

/* About what a snapshot takes. */
static uint64_t snapshot_size(const Registry *registry) {
        return 128 * (uint64_t) (registry->n_slots + registry->n_claims) + 8 * (uint64_t) registry->n_claimed +
               192 * (uint64_t) (registry->n_vms + registry->n_backings);
}

static bool is_due(const Keeper *keeper) {
        return keeper->behind || ledger_size(keeper->ledger) > 2 * snapshot_size(keeper->registry) + LEDGER_SLACK;
}

/* ---- a new bag ---- */

static int renew_bag(Keeper *keeper) {
        uint64_t generation = keeper->bag_generation + 1;
        Bag *bag;
        int r, ends[2];

        if (is_pausing(keeper))
                return -ETIMEDOUT;
        r = keeper->bag ? bag_repack(keeper->bag, &bag) : bag_new(&bag);
        if (r != 0)
                return r;
        STEP("bag.packed");
        bag_ends(bag, ends);
        r = store(keeper, "bag", generation, ends, 2);
        if (r < 0) {
                unstore("bag", generation);
                bag_free(bag);
                return r;
        }
        STEP("bag.stored");
        if (keeper->bag)
                unstore("bag", keeper->bag_generation);
        STEP("bag.dropped");
        bag_free(keeper->bag);
        keeper->bag = bag;
        keeper->bag_generation = generation;
        return 0;
}

/* ---- changes ---- */

static int fail_ledger(int r, Failure *f) {
        if (r == LEDGER_E_NO_SPACE || r == -ENOSPC)
                return fail_custody_full(f, "ledger", ENOSPC);
        return r < 0 ? fail_custody_full(f, "ledger", -r) : fail_custody_full(f, "ledger", EIO);
}

int keeper_reserve(Keeper *keeper, size_t size, Failure *f) {
        int r;

        r = record_buffer_reserve(&keeper->pending, size);
        if (r < 0 || keeper->mode == CUSTODY_NONE)
                return r;
        r = is_due(keeper) ? renew_ledger(keeper) : 0;
        if (r == 0 || !keeper->behind)
                r = ledger_reserve(keeper->ledger, size + LEDGER_SPARE);
        return r == 0 ? 0 : fail_ledger(r, f);
}

/* The next privmemd takes all of them out again, and with each message some that are dead. The limit, which somebody
 * may change, is looked up when as many have come as it was known to allow. */
static bool is_room_for_fd(Keeper *keeper) {
        uint64_t n = bag_size(keeper->bag) + keeper->registry->n_vms, spare;
        struct rlimit limit;

        if (n < keeper->n_sure_fds)
                return true;
        if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
                return true;
        spare = limit.rlim_cur / 2 < START_SPARE_FDS ? limit.rlim_cur / 2 : START_SPARE_FDS;
        if (n + spare >= limit.rlim_cur)
                return false;
        keeper->n_sure_fds = limit.rlim_cur - spare - n < SURE_FDS ? limit.rlim_cur - spare : n + SURE_FDS;
        return true;
}

int keeper_put_fd(Keeper *keeper, uint64_t id, int fd, Failure *f) {
        int r;

        if (keeper->mode != CUSTODY_FD_STORE)
                return 0;
        if (!is_room_for_fd(keeper))
                return fail_custody_full(f, "file descriptors", EMFILE);
        if (bag_wants_repack(keeper->bag))
                (void) renew_bag(keeper); /* if it must be, the next call says so */
        r = bag_put(keeper->bag, id, fd);
        if (r == BAG_E_FULL && renew_bag(keeper) == 0)
                r = bag_put(keeper->bag, id, fd);
        if (r == BAG_E_IN_FLIGHT)
                return fail_custody_full(f, "fds in flight", ETOOMANYREFS);
        if (r == BAG_E_FULL)
                return fail_custody_full(f, "bag", EAGAIN);
        return r < 0 ? fail_custody_full(f, "bag", -r) : 0;
}

void keeper_forget_fd(Keeper *keeper, uint64_t id) {
        if (keeper->mode == CUSTODY_FD_STORE)
                bag_forget(keeper->bag, id);
}

/* Once more if need be: what was written in vain is wiped out first. */
static int append_pending(Keeper *keeper) {
        const RecordBuffer *pending = &keeper->pending;
        int r = 0;

        if (keeper->mode == CUSTODY_NONE || pending->size == 0 || keeper->behind)
                return 0;
        STEP("commit.begun");
        for (unsigned tries = 0; tries < 2; tries++) {
                r = ledger_reserve(keeper->ledger, pending->size);
                if (r == 0)
                        r = ledger_append(keeper->ledger, pending->bytes, pending->size);
                if (r == 0)
                        break;
        }
        STEP("commit.done");
        return r;
}

int keeper_try_commit(Keeper *keeper, Failure *f) {
        int r = append_pending(keeper);

        record_buffer_clear(&keeper->pending);
        return r == 0 ? 0 : fail_ledger(r, f);
}

void keeper_commit(Keeper *keeper) {
        Failure f = {};

        if (keeper_try_commit(keeper, &f) == 0)
                return;
        fprintf(stderr,
                "privmemd: cannot write to the ledger: %s; a restart would not know the last change until "
                "there is room for a new one\n",
                strerror(f.errnum));
        keeper->behind = true;
}

/* ---- start and end ---- */

int keeper_read_bag(Keeper *keeper, int (*found)(uint64_t id, int fd, void *userdata), void *userdata) {
        int r = keeper->bag ? bag_read(keeper->bag, found, userdata) : 0;

        if (r > 0)
                return r == BAG_E_TOO_MANY ? KEEPER_E_TOO_MANY : KEEPER_E_UNREADABLE;
        return r;
}

int keeper_keep_fd(Keeper *keeper, uint64_t id, int fd) {
        return bag_keep(keeper->bag, id, fd);
}

int keeper_begin(Keeper *keeper, bool always, bool repack) {
        int r = 0;

        if (keeper->mode == CUSTODY_NONE)
                return 0;
        /* Of what reserves nothing, the record must not fail for want of memory. */
        r = record_buffer_reserve(&keeper->pending, RECORD_SIZE_MAX);
        if (r < 0)
                return r;
        /* A bag without a ledger would be a ledger lost. */
        /* The header says who may read what we are about to write. */
        if (always || !keeper->ledger || ledger_is_of_another_version(keeper->ledger) || is_due(keeper))
                r = renew_ledger(keeper);
        if (r == 0 && keeper->mode == CUSTODY_FD_STORE && (repack || !keeper->bag))
                r = renew_bag(keeper);
        return r > 0 ? KEEPER_E_NO_SPACE : r;
}

void keeper_done(Keeper *keeper) {
        record_buffer_done(&keeper->pending);
        record_buffer_done(&keeper->strange);
        keeper->ledger = ledger_free(keeper->ledger);
        keeper->bag = bag_free(keeper->bag);
        keeper->directory = safe_close(keeper->directory);
        keeper->lock = safe_close(keeper->lock);
}
