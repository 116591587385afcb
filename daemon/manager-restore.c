/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The start after a restart: what the ledger names gets its fds back, and everything is looked at again before the
 * first call is served.
 *
 * A file or a process that could not be looked at is not one that is gone. Where there is no memory or no fd to look
 * with, the start fails, and the next one has everything. */

#include <inttypes.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "front/words.h"
#include "host/retrieve.h"
#include "manager-private.h"

/* Whose fd is in the bag under an id: a backing; or a process: the VMM of a VM or of its outgoing part, or its successor. */
typedef struct Wanted {
        uint64_t id;
        Backing *backing;
        VM *vm;
        bool is_successor;
        Process process; /* of a successor, until its VM's VMM is known */
} Wanted;

typedef struct Restoring {
        Manager *manager;
        Wanted *wanted; /* by id */
        size_t n_wanted;
        size_t next_wanted; /* what follows the one that was found last */
        KeeperReport report;
        uint64_t lost_backings;
        bool damaged;   /* the ledger, now */
        bool keeps_all; /* what nobody knows may be something that the ledger has lost, now or once */
} Restoring;

/* ---- fds ---- */

static int compare_wanted(const void *a, const void *b) {
        const Wanted *x = a, *y = b;

        return x->id < y->id ? -1 : x->id > y->id;
}

static size_t list_wanted_of(VM *vm, Wanted *wanted) {
        Backing *backing;
        size_t n = 0;

        if (vm->state == VM_ATTACHED)
                wanted[n++] = (Wanted) { .id = vm->vmm.id, .vm = vm };
        if (vm->outgoing)
                wanted[n++] = (Wanted) { .id = vm->outgoing->vmm.id, .vm = vm->outgoing };
        if (vm->successor.id != 0)
                wanted[n++] = (Wanted) {
                        .id = vm->successor.id,
                        .vm = vm,
                        .is_successor = true,
                        .process.pidfd = -EBADF,
                };
        TAILQ_FOREACH(backing, &vm->backings, backings)
                wanted[n++] = (Wanted) { .id = backing->id, .backing = backing };
        return n;
}

static int list_wanted(Restoring *r) {
        Registry *registry = r->manager->registry;
        VM *vm;

        r->wanted = calloc(3 * registry->n_vms + registry->n_backings + 1, sizeof(*r->wanted));
        if (!r->wanted)
                return -ENOMEM;
        TAILQ_FOREACH(vm, &registry->vms, vms)
                r->n_wanted += list_wanted_of(vm, r->wanted + r->n_wanted);
        qsort(r->wanted, r->n_wanted, sizeof(*r->wanted), compare_wanted);
        return 0;
}

/* An fd of a process must be what the ledger says it is. */
static int is_file_of(Manager *manager, const Backing *backing, int fd, bool *ret) {
        MemoryIdentity identity;
        const char *found;
        int r;

        r = memory_file_identify(&manager->memory, fd, &identity, &found);
        if (r < 0)
                return r;
        *ret = r == 0 && identity.dev == backing->dev && identity.ino == backing->ino &&
               identity.kind == backing->kind && identity.size == backing->size &&
               (identity.seals & backing->seals) == backing->seals && identity.writable;
        return 0;
}

static const VMMIdentity *identity_of(const Wanted *wanted) {
        return wanted->is_successor ? &wanted->vm->successor : &wanted->vm->vmm;
}

/* Takes the process. */
static int restore_process(Manager *manager, Wanted *wanted, Process *process) {
        if (!wanted->is_successor)
                return vmm_restore(manager, wanted->vm, process);
        wanted->process = *process;
        process->pidfd = -EBADF;
        return 0;
}

/* One that has exited is seen later, when all are known. */
static int keep_process(Restoring *r, Wanted *wanted, int fd) {
        _cleanup_(process_done) Process process = { .pidfd = -EBADF };
        const VMMIdentity *identity = identity_of(wanted);
        int k;

        k = process_open(fd, &process);
        if (k < 0)
                return k;
        if (k != 0 || process.pid != identity->pid || process.start_time != identity->start_time)
                return 0;
        k = keeper_keep_fd(&r->manager->keeper, wanted->id, process.pidfd);
        return k < 0 ? k : restore_process(r->manager, wanted, &process);
}

/* A full message has its ids in order. */
static Wanted *find_wanted(Restoring *r, uint64_t id) {
        Wanted key = { .id = id }, *found = r->wanted + r->next_wanted;

        if (r->next_wanted >= r->n_wanted || found->id != id)
                found = bsearch(&key, r->wanted, r->n_wanted, sizeof(key), compare_wanted);
        if (found)
                r->next_wanted = (size_t) (found - r->wanted) + 1;
        return found;
}

static int found_in_bag(uint64_t id, int fd, void *userdata) {
        Restoring *restoring = userdata;
        Manager *manager = restoring->manager;
        bool is_backing = false;
        Wanted *wanted;
        int r = 0;

        restoring->report.n_fds++;
        if (id > manager->registry->last_id)
                manager->registry->last_id = id;
        wanted = find_wanted(restoring, id);
        /* The bag has held the file since before the ledger named it. */
        if (wanted && wanted->backing)
                r = memory_file_is(fd, wanted->backing->dev, wanted->backing->ino, wanted->backing->size, &is_backing);
        if (r < 0)
                return r;
        if (wanted && wanted->vm)
                r = keep_process(restoring, wanted, fd);
        else if (is_backing) {
                r = keeper_keep_fd(&manager->keeper, id, fd);
                if (r >= 0)
                        custody_restore(wanted->backing, fd);
                return r;
        } else if (restoring->keeps_all) {
                /* Open, and parked, until somebody has looked at it. */
                restoring->report.orphans++;
                return keeper_keep_fd(&manager->keeper, id, fd);
        } else
                restoring->report.orphans++;
        if (r >= 0)
                safe_close(fd);
        return r;
}

/* ---- without a bag ---- */

static bool is_sought(dev_t dev, ino_t ino, void *userdata) {
        const Restoring *restoring = userdata;
        const Backing *backing = registry_find_file(restoring->manager->registry, dev, ino);

        return backing && custody_fd(backing) < 0;
}

static int found_in_process(int fd, void *userdata) {
        _cleanup_close_ int found = fd;
        Restoring *restoring = userdata;
        Backing *backing;
        struct stat st;
        bool is_backing;
        int r;

        if (fstat(found, &st) < 0)
                return -errno;
        backing = registry_find_file(restoring->manager->registry, st.st_dev, st.st_ino);
        if (!backing || custody_fd(backing) >= 0)
                return 0;
        r = is_file_of(restoring->manager, backing, found, &is_backing);
        if (r < 0 || !is_backing)
                return r;
        custody_restore(backing, TAKE_FD(found));
        restoring->report.n_fds++;
        return 0;
}

static int seek_process(Restoring *restoring, Wanted *wanted) {
        _cleanup_(process_done) Process process = { .pidfd = -EBADF };
        const VMMIdentity *identity = identity_of(wanted);
        int r;

        r = retrieve_process(identity->pid, identity->start_time, &process);
        if (r != 0)
                return r < 0 ? r : 0;
        r = retrieve_files(&process, is_sought, found_in_process, restoring);
        return r < 0 ? r : restore_process(restoring->manager, wanted, &process);
}

static int seek_in_processes(Restoring *restoring) {
        int r = 0;

        for (size_t i = 0; i < restoring->n_wanted && r == 0; i++)
                if (restoring->wanted[i].vm)
                        r = seek_process(restoring, &restoring->wanted[i]);
        return r;
}

/* Who may take over is watched beside the VMM. One without, or that has exited, is forgotten in see_exits(). */
static int restore_successors(Restoring *restoring) {
        int r = 0;

        for (size_t i = 0; i < restoring->n_wanted; i++) {
                Wanted *wanted = &restoring->wanted[i];

                if (!wanted->is_successor)
                        continue;
                if (r >= 0 && wanted->process.pidfd >= 0 && wanted->vm->userdata)
                        r = vmm_restore_successor(wanted->vm, &wanted->process);
                if (wanted->process.pidfd >= 0)
                        keeper_forget_fd(&restoring->manager->keeper, wanted->id);
                process_done(&wanted->process);
        }
        return r;
}

/* ---- what is gone ---- */

static void lose_backings(Restoring *restoring) {
        Backing *backing, *next;
        VM *vm;

        TAILQ_FOREACH(vm, &restoring->manager->registry->vms, vms)
                for (backing = TAILQ_FIRST(&vm->backings); backing; backing = next) {
                        next = TAILQ_NEXT(backing, backings);
                        if (custody_fd(backing) >= 0)
                                continue;
                        fprintf(stderr, "privmemd: backing %s of VM %s, %" PRIu64 " bytes, is lost: %s\n",
                                backing->name, vm->name, backing->size,
                                restoring->manager->keeper.mode == CUSTODY_FD_STORE ?
                                        "the service manager did not keep it" :
                                        "no living VMM has it, and there is no fd store");
                        restoring->lost_backings++;
                        front_publish(restoring->manager->front,
                                      &(Event) { .kind = EVENT_BACKING_LOST, .vm = vm, .backing = backing });
                        claims_end_with(restoring->manager, backing, END_NONE);
                        backing_lose(backing);
                }
}

static void report_alias(const Slot *slot, const Verdict *verdict, void *userdata) {
        (void) userdata;
        fprintf(stderr, "privmemd: slot %u of address space %u of VM %s would be refused today: %s\n", slot->spec.id,
                slot->spec.as_id, slot->vm->name, slot_rule_word(verdict->rule));
}

static void report_ledger(const Restoring *restoring) {
        const KeeperReport *report = &restoring->report;

        if (restoring->damaged)
                fprintf(stderr,
                        "privmemd: the ledger is damaged: %" PRIu64 " frames are missing, %" PRIu64
                        " bytes are unreadable, %" PRIu64 " records contradict the others; %" PRIu64
                        " file descriptors that no record names are kept\n",
                        report->ledger.lost, report->ledger.damaged_bytes, report->refused, report->orphans);
        else if (report->orphans > 0 && restoring->keeps_all)
                fprintf(stderr,
                        "privmemd: the ledger was damaged once; %" PRIu64
                        " file descriptors that no record names are still kept\n",
                        report->orphans);
        if (report->unknown > 0)
                fprintf(stderr, "privmemd: %" PRIu64 " records of a newer privmemd are kept for it\n",
                        report->unknown);
}

static bool has_exited(const VM *part) {
        return part && part->state == VM_ATTACHED && !part->userdata;
}

/* VMMs that were there when we ended, and are not now. */
static void see_exits(Manager *manager) {
        VM *vm, *next;

        for (vm = TAILQ_FIRST(&manager->registry->vms); vm; vm = next) {
                next = TAILQ_NEXT(vm, vms);
                if (has_exited(vm->outgoing))
                        manager_vmm_exited(manager, vm->outgoing, vm->outgoing->vmm.pid);
                if (has_exited(vm))
                        manager_vmm_exited(manager, vm, vm->vmm.pid);
                else if (vm->successor.id != 0 && service_successor_pid(vm) == 0)
                        (void) vmm_set_successor(vm, /* process= */ NULL, &(Failure) {});
        }
}

/* Address spaces have numbers that no later one may have. */
static void count_address_spaces(Manager *manager) {
        VM *vm;

        TAILQ_FOREACH(vm, &manager->registry->vms, vms)
                for (const VM *part = vm; part; part = part->outgoing)
                        if (vm_mm_id(part) >= manager->next_mm_id)
                                manager->next_mm_id = vm_mm_id(part) + 1;
}

static int restore(Restoring *restoring, PassedFds *passed, const char *directory) {
        Manager *manager = restoring->manager;
        KeeperReport *report = &restoring->report;
        int r;

        r = keeper_open(&manager->keeper, manager->registry, passed, directory, report);
        if (r != 0)
                return r;
        STEP("start.read");
        count_address_spaces(manager);
        restoring->damaged = report->refused > 0 || report->ledger.lost > 0 || report->ledger.damaged_bytes > 0 ||
                             (manager->keeper.bag && !report->had_ledger);
        restoring->keeps_all = restoring->damaged || manager->registry->was_damaged;
        r = list_wanted(restoring);
        if (r >= 0)
                r = keeper_read_bag(&manager->keeper, found_in_bag, restoring);
        if (r == 0 && manager->keeper.mode == CUSTODY_RUNTIME_FILE)
                r = seek_in_processes(restoring);
        if (r == 0)
                r = restore_successors(restoring);
        if (r != 0)
                return r;
        STEP("start.fds");
        manager->registry->was_damaged = restoring->keeps_all && report->orphans > 0;
        report_ledger(restoring);
        lose_backings(restoring);
        return registry_audit(manager->registry, report_alias, NULL);
}

/* A ledger that is full does without the number. */
static void count_restart(Manager *manager) {
        Keeper *keeper = &manager->keeper;

        if (keeper_reserve(keeper, RECORD_SIZE_MAX, &(Failure) {}) == 0 &&
            record_ids(keeper_records(keeper), manager->registry) >= 0)
                keeper_commit(keeper);
}

int manager_restore(Manager *manager, PassedFds *passed, const char *directory) {
        Restoring restoring = { .manager = manager };
        bool changed;
        int r;

        r = restore(&restoring, passed, directory);
        free(restoring.wanted);
        if (r != 0)
                return r;
        manager->registry->restarts += restoring.report.had_ledger;
        changed = restoring.damaged || restoring.lost_backings > 0 || restoring.report.ledger.torn;
        r = keeper_begin(&manager->keeper, changed, restoring.report.orphans > 0 && !restoring.keeps_all);
        STEP("start.begun");
        if (r != 0)
                return r;
        if (restoring.report.had_ledger)
                count_restart(manager);
        see_exits(manager);
        manager_watch_expiry(manager);
        return 0;
}
