/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A process becomes a VM's VMM: at once; by a hand-over; or, if the VM is retained, behind the fence.
 *
 * The memory of a retained VM may still be in use: by a process that the former VMM has forked, by a vhost-user backend, by
 * whoever was given a file descriptor. A new VMM beside it would corrupt its guest. So nobody attaches before a look at all
 * processes has found none that has the memory, other than the one that attaches. The look takes a while. Whatever happens
 * meanwhile, the attempt ends with what is true then: when the VM has gone it fails, when another process was attached it
 * fails, and when there are other backings it looks again. */

#include <string.h>
#include <sys/queue.h>

#include "manager-private.h"

/* An attempt that waits for the look. */
struct Attempt {
        Manager *manager;
        VM *vm;
        Process process;
        HolderFile *files; /* what is looked for: the VM's backings, in their order */
        size_t n_files;
        HolderScan *scan;
        ClaimUse use;
        AttachDone done;
        void *userdata;
        TAILQ_ENTRY(Attempt) attempts;
};

static void on_scan_done(int error, HolderReport *report, void *userdata);

static Attempt *attempt_free(Attempt *attempt) {
        if (!attempt)
                return NULL;
        service_cancel_scan(attempt->scan);
        process_done(&attempt->process);
        free(attempt->files);
        free(attempt);
        return NULL;
}

static void finish(Attempt *attempt, int r, const AttachResult *result, const Failure *f) {
        AttachDone done = attempt->done;
        void *userdata = attempt->userdata;

        TAILQ_REMOVE(&attempt->manager->attempts, attempt, attempts);
        done(r, result, f, userdata);
        attempt_free(attempt);
}

/* In a state that has no fence, or after it. */
static int attach(Manager *manager, VM *vm, Process *process, Failure *f) {
        int r;

        if (!process_is_alive(process))
                return fail_host(f, "attaching a process that has exited", ESRCH);
        if (vm->state == VM_ATTACHED && service_vmm_pid(vm) == process->pid)
                return 0;
        if (vm->state == VM_ATTACHED && !vmm_is_successor(vm, process))
                return fail_vm_in_use(f, vm->name, service_vmm_pid(vm));
        r = vmm_new(manager, vm, process, f);
        if (r != 0)
                return r;
        front_publish(manager->front, &(Event) { .kind = EVENT_VM_ATTACHED, .vm = vm, .pid = service_vmm_pid(vm) });
        return 0;
}

/* What can fail of a redemption comes before the attachment, which cannot be taken back, and the rest behind it. */
static int attach_and_redeem(Manager *manager, VM *vm, Process *process, const ClaimUse *use, AttachResult *result,
                             Failure *f) {
        int r;

        if (use->claim == 0)
                return attach(manager, vm, process, f);
        r = claim_open(manager, vm, use, &result->redemption, f);
        if (r == 0)
                r = attach(manager, vm, process, f);
        return r == 0 ? claim_use_up(manager, result->redemption, use, /* f= */ NULL) : r;
}

/* ---- the fence ---- */

/* Where systemd keeps file descriptors for us, it has them open, and nothing else; then it is our parent. */
static bool is_fd_store(const Holder *holder) {
        return getenv("FDSTORE") && holder->pid == getppid() && holder->shared_bytes == 0 &&
               holder->private_bytes == 0;
}

/* A VMM of a VM that the backing is shared with has it by right, whoever runs the owner's VM. */
static bool is_peer(const Backing *backing, const Holder *holder) {
        for (size_t i = 0; i < backing->n_shares; i++)
                if (service_is_vmm(backing->shares[i].vm, holder))
                        return true;
        return false;
}

static bool is_in_the_way(const Attempt *attempt, const Holder *holder) {
        const HolderFile *file = &attempt->files[holder->file];
        const Backing *backing = registry_find_file(attempt->manager->registry, file->dev, file->ino);

        if (holder->pid == attempt->process.pid && holder->start_time == attempt->process.start_time)
                return false;
        return backing && !is_fd_store(holder) && !is_peer(backing, holder);
}

static int compare_pids(const void *a, const void *b) {
        const Holder *x = a, *y = b;

        return x->pid < y->pid ? -1 : x->pid > y->pid;
}

/* Leaves each process that is in the way once. */
static void keep_what_is_in_the_way(const Attempt *attempt, HolderReport *report) {
        size_t n = 0, distinct = 0;

        for (size_t i = 0; i < report->n_holders; i++)
                if (is_in_the_way(attempt, &report->holders[i]))
                        report->holders[n++] = report->holders[i];
        qsort(report->holders, n, sizeof(Holder), compare_pids);
        for (size_t i = 0; i < n; i++)
                if (i == 0 || report->holders[i].pid != report->holders[distinct - 1].pid)
                        report->holders[distinct++] = report->holders[i];
        report->n_holders = distinct;
}

/* *ret_changed: the VM has other backings than those that were looked for. */
static int collect_files(Attempt *attempt, bool *ret_changed) {
        const VM *vm = attempt->vm;
        const Backing *backing;
        HolderFile *files;
        size_t n = 0;

        files = calloc(vm->n_backings ?: 1, sizeof(HolderFile));
        if (!files)
                return -ENOMEM;
        TAILQ_FOREACH(backing, &vm->backings, backings) {
                files[n].dev = backing->dev;
                files[n++].ino = backing->ino;
        }
        *ret_changed = n != attempt->n_files || (n > 0 && memcmp(files, attempt->files, n * sizeof(HolderFile)) != 0);
        free(attempt->files);
        attempt->files = files;
        attempt->n_files = n;
        return 0;
}

static int look(Attempt *attempt) {
        return service_scan_holders(attempt->manager, attempt->files, attempt->n_files, on_scan_done, attempt,
                                    &attempt->scan);
}

static void on_scan_done(int error, HolderReport *report, void *userdata) {
        Attempt *attempt = userdata;
        AttachResult result = { .vm = attempt->vm, .unreadable = report->n_unreadable };
        bool changed = false;
        Failure f = {};
        int r;

        attempt->scan = NULL;
        r = error < 0 ? fail_host(&f, "looking at all processes", error) : collect_files(attempt, &changed);
        if (r == 0 && changed && attempt->vm->state == VM_RETAINED) {
                r = look(attempt);
                if (r == 0)
                        return;
        }
        if (r == 0 && attempt->vm->state == VM_RETAINED) {
                keep_what_is_in_the_way(attempt, report);
                if (report->n_holders > 0)
                        r = fail_fenced(&f, attempt->vm->name, report);
        }
        if (r == 0)
                r = attach_and_redeem(attempt->manager, attempt->vm, &attempt->process, &attempt->use, &result, &f);
        finish(attempt, r, &result, &f);
        redemption_free(result.redemption);
}

/* ---- */

/* As service_attach(); *result is set if it is known at once. */
static int begin(Manager *manager, VM *vm, int pidfd, const ClaimUse *use, AttachDone done, void *userdata,
                 bool *ret_later, AttachResult *result, Failure *f) {
        _cleanup_(process_done) Process process = { .pidfd = -EBADF };
        Attempt *attempt;
        bool changed;
        int r;

        *ret_later = false;
        result->vm = vm;
        r = vmm_open_process(pidfd, vm, use->uid, &process, f);
        if (r != 0)
                return r;
        if (vm->state != VM_RETAINED || vm->n_backings == 0)
                return attach_and_redeem(manager, vm, &process, use, result, f);

        attempt = calloc(1, sizeof(*attempt));
        if (!attempt)
                return -ENOMEM;
        *attempt = (Attempt) {
                .manager = manager, .vm = vm, .process = process, .use = *use, .done = done, .userdata = userdata
        };
        process.pidfd = -EBADF;
        r = collect_files(attempt, &changed);
        if (r == 0)
                r = look(attempt);
        if (r < 0) {
                attempt_free(attempt);
                return r;
        }
        TAILQ_INSERT_TAIL(&manager->attempts, attempt, attempts);
        *ret_later = true;
        return 0;
}

int service_attach(Service *service, VM *vm, int pidfd, uid_t peer, AttachDone done, void *userdata, bool *ret_later,
                   Failure *f) {
        AttachResult result = {};

        return begin(service, vm, pidfd, &(ClaimUse) { .uid = peer }, done, userdata, ret_later, &result, f);
}

void attach_with_claim(Manager *manager, VM *vm, int pidfd, const ClaimUse *use, AttachDone done, void *userdata) {
        AttachResult result = {};
        Failure f = {};
        bool later;
        int r;

        r = begin(manager, vm, pidfd, use, done, userdata, &later, &result, &f);
        if (r == 0 && later)
                return;
        done(r, &result, &f, userdata);
        redemption_free(result.redemption);
}

/* A claim goes with its VM. */
static int fail_gone(const Attempt *attempt, Failure *f) {
        return attempt->use.claim > 0 ? fail_claim_invalid(f, attempt->vm->name) :
                                        fail_no_such_vm(f, attempt->vm->name);
}

void attempts_end(Manager *manager, const VM *vm) {
        Attempt *attempt, *next;

        for (attempt = TAILQ_FIRST(&manager->attempts); attempt; attempt = next) {
                Failure f = {};

                next = TAILQ_NEXT(attempt, attempts);
                if (!vm || attempt->vm == vm)
                        finish(attempt, vm ? fail_gone(attempt, &f) : -ESHUTDOWN, /* result= */ NULL, &f);
        }
}
