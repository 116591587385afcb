/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The start: which of the fds that the service manager kept are the bag and the ledger, and what the ledger says. */

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/cleanup.h"
#include "host/heap.h"
#include "keeper.h"

/* ---- what the service manager kept ---- */

/* The generation of a name such as ledger-7, or 0. */
static uint64_t generation_of(const char *name, const char *kind) {
        size_t n = strlen(kind);
        uint64_t generation;
        char *end;

        if (strncmp(name, kind, n) != 0 || name[n] != '-' || name[n + 1] < '1' || name[n + 1] > '9')
                return 0;
        errno = 0;
        generation = strtoull(name + n + 1, &end, 10);
        return *end == '\0' && errno == 0 ? generation : 0;
}

/* The greatest generation of that kind below the limit, or 0. */
static uint64_t greatest(const PassedFds *passed, const char *kind, uint64_t below) {
        uint64_t best = 0;

        for (size_t i = 0; i < passed->n; i++) {
                uint64_t generation = passed->items[i].fd >= 0 ? generation_of(passed->items[i].name, kind) : 0;

                if (generation > best && generation < below)
                        best = generation;
        }
        return best;
}

static int take(PassedFds *passed, const char *kind, uint64_t generation) {
        char name[32];

        snprintf(name, sizeof(name), "%s-%" PRIu64, kind, generation);
        return fd_store_take(passed, name);
}

/* Closes and forgets what is older, or was never finished. */
static void drop(PassedFds *passed, const char *kind, uint64_t generation) {
        char name[32];
        int fd;

        snprintf(name, sizeof(name), "%s-%" PRIu64, kind, generation);
        while ((fd = fd_store_take(passed, name)) >= 0)
                safe_close(fd);
        (void) fd_store_drop(name);
}

/* A ledger whose snapshot is not complete was never the one in use. */
static int open_stored_ledger(Keeper *keeper, PassedFds *passed) {
        uint64_t generation = UINT64_MAX;

        while ((generation = greatest(passed, "ledger", generation)) > 0) {
                _cleanup_close_ int fd = take(passed, "ledger", generation);
                Ledger *ledger = NULL;
                int r;

                if (keeper->ledger) {
                        drop(passed, "ledger", generation);
                        continue;
                }
                r = ledger_open(fd, &ledger);
                if (r < 0 || r == LEDGER_E_NEWER)
                        return r;
                if (r == 0)
                        TAKE_FD(fd);
                if (r == 0 && ledger_is_complete(ledger) && ledger_generation(ledger) == generation) {
                        keeper->ledger = ledger;
                        continue;
                }
                ledger_free(ledger);
                drop(passed, "ledger", generation);
        }
        return 0;
}

/* A bag is complete before it is stored. */
static int open_stored_bag(Keeper *keeper, PassedFds *passed) {
        uint64_t generation = UINT64_MAX;

        while ((generation = greatest(passed, "bag", generation)) > 0) {
                _cleanup_close_ int a = take(passed, "bag", generation), b = take(passed, "bag", generation);
                int r;

                if (!keeper->bag && a >= 0 && b >= 0) {
                        r = bag_open(a, b, &keeper->bag);
                        if (r < 0)
                                return r;
                        if (r == 0) {
                                TAKE_FD(a);
                                TAKE_FD(b);
                                keeper->bag_generation = generation;
                                continue;
                        }
                }
                drop(passed, "bag", generation);
        }
        return 0;
}

static int open_file(Keeper *keeper, const char *directory) {
        int r;

        keeper->directory = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (keeper->directory < 0)
                return -errno;
        r = ledger_lock(keeper->directory, &keeper->lock);
        if (r == 0)
                r = ledger_open_at(keeper->directory, &keeper->ledger);
        if (r == LEDGER_E_NONE || r == LEDGER_E_NOT_A_LEDGER)
                return 0;
        if (r == 0 && !ledger_is_complete(keeper->ledger))
                keeper->ledger = ledger_free(keeper->ledger);
        return r;
}

/* ---- what the ledger says ---- */

typedef struct Reading {
        Keeper *keeper;
        RecordReader reader;
        KeeperReport *report;
} Reading;

static int apply(uint16_t type, uint16_t version, const void *data, size_t size, void *userdata) {
        Reading *reading = userdata;
        int r;

        r = record_apply(&reading->reader, type, version, data, size);
        if (r == RECORD_E_UNKNOWN) {
                reading->report->unknown++;
                return record_verbatim(&reading->keeper->strange, type, version, data, size);
        }
        reading->report->refused += r == RECORD_E_DAMAGED;
        return r < 0 ? r : 0;
}

static int read_ledger(Keeper *keeper, KeeperReport *report) {
        struct stat st;
        Reading reading = { .keeper = keeper, .reader.registry = keeper->registry, .report = report };
        int r;

        report->had_ledger = keeper->ledger != NULL;
        if (!keeper->ledger)
                return 0;
        /* What becomes of a record takes about twice its size, and somewhat more. */
        if (fstat(ledger_fd(keeper->ledger), &st) >= 0)
                heap_expect(5 * (size_t) st.st_size / 2);
        r = ledger_read(keeper->ledger, apply, &reading, &report->ledger);
        record_reader_done(&reading.reader);
        heap_expect_no_more();
        return r;
}

static int condition(int r) {
        switch (r) {
        case LEDGER_E_LOCKED:
                return KEEPER_E_LOCKED;
        case LEDGER_E_NEWER:
                return KEEPER_E_NEWER;
        case LEDGER_E_UNSAFE:
                return KEEPER_E_UNSAFE;
        default:
                return r < 0 ? r : KEEPER_E_UNREADABLE;
        }
}

int keeper_open(Keeper *keeper, Registry *registry, PassedFds *passed, const char *directory, KeeperReport *report) {
        int r;

        keeper->registry = registry;
        if (fd_store_capacity() >= KEEPER_STORE_FDS) {
                keeper->mode = CUSTODY_FD_STORE;
                r = open_stored_ledger(keeper, passed);
                if (r == 0)
                        r = open_stored_bag(keeper, passed);
        } else if (greatest(passed, "ledger", UINT64_MAX) > 0 || greatest(passed, "bag", UINT64_MAX) > 0) {
                return KEEPER_E_SMALL_STORE;
        } else if (directory) {
                keeper->mode = CUSTODY_RUNTIME_FILE;
                r = open_file(keeper, directory);
        } else
                r = 0;
        return r == 0 ? read_ledger(keeper, report) : condition(r);
}
