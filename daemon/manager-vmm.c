/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The VMM of an attached VM: its pidfd, which tells when it exits, and what it has mapped. */

#include <string.h>
#include <sys/epoll.h>

#include "core/hand-over.h"
#include "manager-private.h"

/* The manager's part of an attached VM, or of its outgoing part: what vm->userdata points to. */
typedef struct VMM {
        Manager *manager;
        VM *vm;
        Process process;
        Process successor; /* who may take over; pidfd negative: nobody */
        sd_event_source *successor_exit;
        MappingReader mappings;
        uint64_t mm_id;
        sd_event_source *exit;
} VMM;

static VMM *vmm_free(VMM *vmm) {
        if (!vmm)
                return NULL;
        if (vmm->vm)
                vmm->vm->userdata = NULL;
        sd_event_source_disable_unref(vmm->exit);
        sd_event_source_disable_unref(vmm->successor_exit);
        mapping_reader_done(&vmm->mappings);
        process_done(&vmm->process);
        process_done(&vmm->successor);
        free(vmm);
        return NULL;
}

void vmm_close(VM *vm) {
        if (vm->outgoing)
                vmm_free(vm->outgoing->userdata);
        vmm_free(vm->userdata);
}

pid_t service_vmm_pid(const VM *vm) {
        const VMM *vmm = vm->userdata;

        return vmm ? vmm->process.pid : 0;
}

static bool is_holder(const VM *vm, const Holder *holder) {
        const VMM *vmm = vm ? vm->userdata : NULL;

        return vmm && vmm->process.pid == holder->pid && vmm->process.start_time == holder->start_time;
}

bool service_is_vmm(const VM *vm, const Holder *holder) {
        return is_holder(vm, holder) || is_holder(vm->outgoing, holder);
}

static bool maps_backing(const VM *vm, const Backing *backing) {
        const VMM *vmm = vm ? vm->userdata : NULL;
        bool maps = false;

        return vmm && process_maps_file(&vmm->process, backing->dev, backing->ino, &maps) >= 0 && maps;
}

pid_t vmm_that_maps(const Backing *backing) {
        const VM *vm = backing->vm;

        if (maps_backing(vm, backing))
                return service_vmm_pid(vm);
        return maps_backing(vm->outgoing, backing) ? service_vmm_pid(vm->outgoing) : 0;
}

/* ---- who takes over ---- */

static bool has_successor(const VMM *vmm) {
        return vmm && vmm->successor.pidfd >= 0 && process_is_alive(&vmm->successor);
}

pid_t service_successor_pid(const VM *vm) {
        const VMM *vmm = vm->userdata;

        return has_successor(vmm) ? vmm->successor.pid : 0;
}

bool vmm_is_successor(const VM *vm, const Process *process) {
        /* Both live, so one number is one process. */
        return service_successor_pid(vm) == process->pid;
}

static VMMIdentity identity_of(uint64_t id, const Process *process) {
        return (VMMIdentity) {
                .id = id,
                .pid = process->pid,
                .uid = process->uid,
                .start_time = process->start_time,
        };
}

/* In the core too; whether it is written down is the caller's. */
static void forget_successor(VMM *vmm) {
        vmm->successor_exit = sd_event_source_disable_unref(vmm->successor_exit);
        process_done(&vmm->successor);
        keeper_forget_fd(&vmm->manager->keeper, vmm->vm->successor.id);
        vmm->vm->successor = (VMMIdentity) {};
}

static void write_successor_down(const VMM *vmm) {
        (void) record_successor(keeper_records(&vmm->manager->keeper), vmm->vm);
        keeper_commit(&vmm->manager->keeper);
        STEP("successor.ledger");
}

static int on_successor_exit(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
        VMM *vmm = userdata;

        (void) source;
        (void) fd;
        (void) revents;
        forget_successor(vmm);
        write_successor_down(vmm);
        front_publish(vmm->manager->front, &(Event) { .kind = EVENT_SUCCESSOR_NAMED, .vm = vmm->vm });
        return 0;
}

static int watch_successor(VMM *vmm, const Process *process, sd_event_source **ret) {
        return sd_event_add_io(vmm->manager->event, ret, process->pidfd, EPOLLIN, on_successor_exit, vmm);
}

static void take_successor(VMM *vmm, Process *process, sd_event_source *exit) {
        vmm->successor = *process;
        vmm->successor_exit = exit;
        process->pidfd = -EBADF;
}

int vmm_set_successor(VM *vm, Process *process, Failure *f) {
        VMM *vmm = vm->userdata;
        Keeper *keeper = &vmm->manager->keeper;
        sd_event_source *exit = NULL;
        VMMIdentity identity = {};
        int r;

        r = keeper_reserve(keeper, RECORD_SIZE_MAX, f);
        if (r == 0 && process) {
                identity = identity_of(registry_new_id(vm->registry), process);
                r = keeper_put_fd(keeper, identity.id, process->pidfd, f);
        }
        if (r == 0 && process)
                r = watch_successor(vmm, process, &exit);
        if (r != 0) {
                keeper_forget_fd(keeper, identity.id);
                return r;
        }
        forget_successor(vmm);
        if (process)
                take_successor(vmm, process, exit);
        vm->successor = identity;
        write_successor_down(vmm);
        return 0;
}

int vmm_restore_successor(VM *vm, Process *process) {
        sd_event_source *exit;
        int r;

        r = watch_successor(vm->userdata, process, &exit);
        if (r < 0)
                return r;
        take_successor(vm->userdata, process, exit);
        return 0;
}

/* Its mappings are gone, and with them KVM's table. */
static int on_vmm_exit(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
        VMM *vmm = userdata;
        Manager *manager = vmm->manager;
        VM *vm = vmm->vm;
        pid_t pid = vmm->process.pid;

        (void) source;
        (void) fd;
        (void) revents;
        vmm_free(vmm);
        manager_vmm_exited(manager, vm, pid);
        return 0;
}

static bool is_vmm_of(const VM *vm, const Process *process) {
        const VMM *vmm = vm ? vm->userdata : NULL;

        return vmm && vmm->process.pid == process->pid && process_is_alive(&vmm->process);
}

/* Two VMs that one process runs share its address space. */
static uint64_t mm_id_of(Manager *manager, const Process *process) {
        VM *vm;

        TAILQ_FOREACH(vm, &manager->registry->vms, vms) {
                const VM *part = is_vmm_of(vm->outgoing, process) ? vm->outgoing : vm;

                if (is_vmm_of(part, process))
                        return ((const VMM *) part->userdata)->mm_id;
        }
        return manager->next_mm_id++;
}

int vmm_open_process(int pidfd, const VM *vm, uid_t peer, Process *ret, Failure *f) {
        int r;

        r = process_open(pidfd, ret);
        if (r == PROCESS_E_NOT_PIDFD)
                return fail_not_supported(f, "the file descriptor is not a pidfd");
        if (r == PROCESS_E_GONE)
                return fail_host(f, "attaching a process that has exited", ESRCH);
        if (r < 0)
                return fail_host(f, "looking at the pidfd", r);
        if (peer != 0 && ret->uid != vm->owner) {
                process_done(ret);
                return fail_not_permitted(f, "a process of another uid", peer);
        }
        return 0;
}

void vmm_follow(VM *vm) {
        VMM *vmm = vm->userdata;

        vmm->vm = vm;
}

static void open_mappings(const Process *process, MappingReader *ret) {
        mapping_reader_open(process->pid, ret);
        /* Or else the number may be another process's by now. */
        if (!process_is_alive(process))
                mapping_reader_done(ret);
}

/* The VMM of a VM that is not attached to it yet. */
static int watch(Manager *manager, const Process *process, VMM **ret) {
        VMM *vmm;
        int r;

        vmm = calloc(1, sizeof(*vmm));
        if (!vmm)
                return -ENOMEM;
        vmm->manager = manager;
        vmm->process.pidfd = vmm->successor.pidfd = -EBADF;
        open_mappings(process, &vmm->mappings);
        r = sd_event_add_io(manager->event, &vmm->exit, process->pidfd, EPOLLIN, on_vmm_exit, vmm);
        if (r >= 0)
                /* Exits before calls: nobody is told of a VMM that is known to be gone. */
                r = sd_event_source_set_priority(vmm->exit, SD_EVENT_PRIORITY_IMPORTANT);
        if (r < 0) {
                vmm_free(vmm);
                return r;
        }
        *ret = vmm;
        return 0;
}

static void attach(VMM *vmm, VM *vm, Process *process) {
        vmm->vm = vm;
        vmm->process = *process;
        process->pidfd = -EBADF;
        vm->userdata = vmm;
}

/* Attaches, or hands over, in the core. */
static int enter(Manager *manager, VM *vm, VMM *vmm, uint64_t id, Process *process) {
        RecordBuffer *records = keeper_records(&manager->keeper);
        uint64_t successor = vm->successor.id;
        int r;

        vmm->mm_id = mm_id_of(manager, process);
        r = vm->state == VM_ATTACHED ? vm_hand_over(vm, vmm->mm_id) : vm_attach(vm, vmm->mm_id);
        if (r < 0)
                return r;
        vm->vmm = identity_of(id, process);
        attach(vmm, vm, process);
        if (vm->outgoing) {
                vmm_follow(vm->outgoing);
                forget_successor(vm->outgoing->userdata);
                keeper_forget_fd(&manager->keeper, successor);
                (void) record_hand_over(records, vm);
        } else
                (void) record_vmm(records, vm);
        keeper_commit(&manager->keeper);
        STEP("attach.ledger");
        return 0;
}

int vmm_new(Manager *manager, VM *vm, Process *process, Failure *f) {
        uint64_t id = registry_new_id(manager->registry);
        VMM *vmm;
        int r;

        r = keeper_reserve(&manager->keeper, RECORD_SIZE_MAX, f);
        if (r == 0)
                r = keeper_put_fd(&manager->keeper, id, process->pidfd, f);
        if (r != 0)
                return r;
        STEP("attach.bag");
        r = watch(manager, process, &vmm);
        if (r >= 0) {
                r = enter(manager, vm, vmm, id, process);
                if (r < 0)
                        vmm_free(vmm);
        }
        if (r < 0)
                keeper_forget_fd(&manager->keeper, id);
        return r;
}

int vmm_restore(Manager *manager, VM *vm, Process *process) {
        VMM *vmm;
        int r;

        r = watch(manager, process, &vmm);
        if (r < 0)
                return r;
        vmm->mm_id = vm_mm_id(vm);
        attach(vmm, vm, process);
        return 0;
}

static bool is_backing(dev_t dev, ino_t ino, MappedKind *ret, void *userdata) {
        const Backing *backing = registry_find_file(userdata, dev, ino);

        if (!backing)
                return false;
        *ret = backing->kind == BACKING_GUEST_MEMFD ? MAPPED_GUEST_MEMFD : MAPPED_FILE;
        return true;
}

static size_t look(VMM *vmm, const SlotSpec *spec, MappedRun runs[static MAPPING_RUNS_MAX]) {
        Registry *registry = vmm->vm->registry;
        size_t n;

        n = mapping_read(&vmm->mappings, spec->hva, spec->size, is_backing, registry, runs);
        if (!vmm->mappings.gone)
                return n;
        /* Whoever attaches and then executes the VMM, as privmemctl run does, has another address space now. */
        mapping_reader_done(&vmm->mappings);
        open_mappings(&vmm->process, &vmm->mappings);
        return mapping_read(&vmm->mappings, spec->hva, spec->size, is_backing, registry, runs);
}

int service_look_at_slot(VM *vm, SlotSpec *spec) {
        MappedRun runs[MAPPING_RUNS_MAX];
        Mapping seen = { .runs = runs }, *kept;
        VMM *vmm = vm->userdata;

        if (!vmm || spec->size == 0)
                return 0;
        seen.n_runs = look(vmm, spec, runs);
        spec->mapping = &seen;
        slot_spec_resolve(vm->registry, spec);
        if (!spec->mapping)
                return 0;

        spec->mapping = NULL;
        kept = malloc(sizeof(Mapping) + seen.n_runs * sizeof(MappedRun));
        if (!kept)
                return -ENOMEM;
        *kept = (Mapping) { .n_runs = seen.n_runs, .runs = memcpy(kept + 1, runs, seen.n_runs * sizeof(MappedRun)) };
        spec->mapping = kept;
        return 0;
}

void service_forget_look(SlotSpec *spec) {
        free((Mapping *) spec->mapping);
        spec->mapping = NULL;
}
