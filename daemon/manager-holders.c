/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Who has some files open, or mapped: service_scan_holders().
 *
 * One walk over all processes serves everybody who was waiting when it began; who asks while it is under way waits for
 * the next, since what it has seen already is older than the question. So however many ask, there is one walk.
 *
 * It goes on while nothing else is to be done, and if there always is, by one step every TICK_USEC. */

#include <string.h>
#include <sys/queue.h>

#include "host/holders.h"
#include "manager-private.h"

/* A tenth of the time, as a step is about 0.2 ms. */
#define TICK_USEC UINT64_C(2000)

/* One of the files that somebody asked for. */
typedef struct Wanted {
        HolderFile file;
        size_t index;
} Wanted;

struct HolderScan {
        HolderDesk *desk;
        Wanted *wanted; /* in the order of holder_file_compare() */
        size_t n_wanted;
        HolderScanDone done;
        void *userdata;
        bool is_walking;
        TAILQ_ENTRY(HolderScan) scans;
};

typedef TAILQ_HEAD(HolderScanList, HolderScan) HolderScanList;

struct HolderDesk {
        HolderScanList waiting; /* for the next walk */
        HolderScanList walking; /* for this one */
        HolderWalk *walk;       /* NULL: none is under way */
        HolderFile *files;      /* of all that are walking for */
        size_t n_files;
        sd_event_source *idle, *tick; /* on while somebody waits */
};

static HolderScan *scan_free(HolderScan *scan) {
        HolderDesk *desk = scan->desk;

        TAILQ_REMOVE(scan->is_walking ? &desk->walking : &desk->waiting, scan, scans);
        free(scan->wanted);
        free(scan);
        return NULL;
}

static int compare_wanted(const void *a, const void *b) {
        const Wanted *x = a, *y = b;

        return holder_file_compare(&x->file, &y->file);
}

static int compare_files(const void *a, const void *b) {
        return holder_file_compare(a, b);
}

static bool has_work(const HolderDesk *desk) {
        return !TAILQ_EMPTY(&desk->waiting) || !TAILQ_EMPTY(&desk->walking);
}

static int set_running(HolderDesk *desk, bool on) {
        int r;

        r = sd_event_source_set_enabled(desk->idle, on ? SD_EVENT_ON : SD_EVENT_OFF);
        if (r >= 0 && on)
                r = sd_event_source_set_time_relative(desk->tick, TICK_USEC);
        if (r >= 0)
                r = sd_event_source_set_enabled(desk->tick, on ? SD_EVENT_ONESHOT : SD_EVENT_OFF);
        return r;
}

/* ---- one walk ---- */

static int collect_files(HolderDesk *desk) {
        HolderScan *scan;
        size_t n = 0, distinct = 0;

        TAILQ_FOREACH(scan, &desk->walking, scans)
                n += scan->n_wanted;
        desk->files = reallocarray(NULL, n ?: 1, sizeof(HolderFile));
        if (!desk->files)
                return -ENOMEM;
        n = 0;
        TAILQ_FOREACH(scan, &desk->walking, scans)
                for (size_t i = 0; i < scan->n_wanted; i++)
                        desk->files[n++] = scan->wanted[i].file;
        qsort(desk->files, n, sizeof(HolderFile), compare_files);
        for (size_t i = 0; i < n; i++)
                if (i == 0 || holder_file_compare(&desk->files[i], &desk->files[i - 1]) != 0)
                        desk->files[distinct++] = desk->files[i];
        desk->n_files = distinct;
        return 0;
}

static int begin(HolderDesk *desk) {
        HolderScan *scan;
        int r;

        while ((scan = TAILQ_FIRST(&desk->waiting))) {
                TAILQ_REMOVE(&desk->waiting, scan, scans);
                TAILQ_INSERT_TAIL(&desk->walking, scan, scans);
                scan->is_walking = true;
        }
        r = collect_files(desk);
        return r < 0 ? r : holder_walk_new("/proc", getpid(), desk->files, desk->n_files, &desk->walk);
}

static void end_walk(HolderDesk *desk) {
        desk->walk = holder_walk_free(desk->walk);
        free(desk->files);
        desk->files = NULL;
}

/* What of the walk's report concerns the scan. */
static int make_report(const HolderScan *scan, const HolderDesk *desk, HolderReport *ret) {
        const HolderReport *all = holder_walk_report(desk->walk);
        Wanted *found;

        *ret = (HolderReport) { .n_unreadable = all->n_unreadable, .is_complete = all->is_complete };
        ret->holders = reallocarray(NULL, all->n_holders ?: 1, sizeof(Holder));
        if (!ret->holders)
                return -ENOMEM;
        for (size_t i = 0; i < all->n_holders; i++) {
                const Wanted key = { .file = desk->files[all->holders[i].file] };

                found = bsearch(&key, scan->wanted, scan->n_wanted, sizeof(key), compare_wanted);
                if (!found)
                        continue;
                ret->holders[ret->n_holders] = all->holders[i];
                ret->holders[ret->n_holders++].file = found->index;
        }
        for (size_t i = 0; i < desk->n_files; i++) {
                const Wanted key = { .file = desk->files[i] };

                if (holder_walk_is_cut(desk->walk, i) &&
                    bsearch(&key, scan->wanted, scan->n_wanted, sizeof(key), compare_wanted))
                        ret->is_complete = false;
        }
        return 0;
}

/* Whoever is told may ask again, or cancel other scans. */
static void tell_all(HolderDesk *desk, int error) {
        HolderScan *scan;

        while ((scan = TAILQ_FIRST(&desk->walking))) {
                HolderScanDone done = scan->done;
                void *userdata = scan->userdata;
                HolderReport report = {};
                int r = error;

                if (r >= 0)
                        r = make_report(scan, desk, &report);
                scan_free(scan);
                done(r, &report, userdata);
                free(report.holders);
        }
}

static void go_on(HolderDesk *desk) {
        int r = 0;

        if (TAILQ_EMPTY(&desk->walking)) {
                end_walk(desk);
                r = begin(desk);
        }
        if (r >= 0)
                r = holder_walk_step(desk->walk);
        if (r > 0)
                return;
        tell_all(desk, r);
        end_walk(desk);
}

/* A walk has files of /proc open, so it ends with the last of those who wait for it. */
static void go_on_or_end(HolderDesk *desk) {
        if (has_work(desk))
                go_on(desk);
        else
                end_walk(desk);
}

static int on_idle(sd_event_source *source, void *userdata) {
        HolderDesk *desk = userdata;

        (void) source;
        go_on_or_end(desk);
        return has_work(desk) ? 0 : set_running(desk, false);
}

static int on_tick(sd_event_source *source, uint64_t usec, void *userdata) {
        HolderDesk *desk = userdata;

        (void) source;
        (void) usec;
        go_on_or_end(desk);
        return set_running(desk, has_work(desk));
}

/* ---- the desk ---- */

int service_scan_holders(Service *service, const HolderFile *files, size_t n_files, HolderScanDone done,
                         void *userdata, HolderScan **ret) {
        HolderDesk *desk = service->holders;
        HolderScan *scan;
        int r;

        scan = calloc(1, sizeof(*scan));
        if (!scan)
                return -ENOMEM;
        *scan = (HolderScan) { .desk = desk, .n_wanted = n_files, .done = done, .userdata = userdata };
        scan->wanted = reallocarray(NULL, n_files ?: 1, sizeof(Wanted));
        r = scan->wanted ? 0 : -ENOMEM;
        if (r >= 0 && !has_work(desk))
                r = set_running(desk, true);
        if (r < 0) {
                free(scan->wanted);
                free(scan);
                return r;
        }
        for (size_t i = 0; i < n_files; i++)
                scan->wanted[i] = (Wanted) { .file = files[i], .index = i };
        qsort(scan->wanted, n_files, sizeof(Wanted), compare_wanted);
        TAILQ_INSERT_TAIL(&desk->waiting, scan, scans);
        *ret = scan;
        return 0;
}

HolderScan *service_cancel_scan(HolderScan *scan) {
        return scan ? scan_free(scan) : NULL;
}

int holder_desk_new(sd_event *event, HolderDesk **ret) {
        HolderDesk *desk;
        int r;

        desk = calloc(1, sizeof(*desk));
        if (!desk)
                return -ENOMEM;
        TAILQ_INIT(&desk->waiting);
        TAILQ_INIT(&desk->walking);
        r = sd_event_add_defer(event, &desk->idle, on_idle, desk);
        if (r >= 0)
                r = sd_event_source_set_priority(desk->idle, SD_EVENT_PRIORITY_IDLE);
        if (r >= 0)
                r = sd_event_add_time_relative(event, &desk->tick, CLOCK_MONOTONIC, TICK_USEC, /* accuracy= */ 1,
                                               on_tick, desk);
        if (r >= 0)
                /* Of those with one priority, a connection that has one call after another always comes first. */
                r = sd_event_source_set_priority(desk->tick, SD_EVENT_PRIORITY_IMPORTANT);
        if (r >= 0)
                r = set_running(desk, false);
        if (r < 0) {
                holder_desk_free(desk);
                return r;
        }
        *ret = desk;
        return 0;
}

HolderDesk *holder_desk_free(HolderDesk *desk) {
        HolderScan *scan;

        if (!desk)
                return NULL;
        while ((scan = TAILQ_FIRST(&desk->waiting)) || (scan = TAILQ_FIRST(&desk->walking)))
                scan_free(scan);
        end_walk(desk);
        sd_event_source_disable_unref(desk->idle);
        sd_event_source_disable_unref(desk->tick);
        free(desk);
        return NULL;
}
