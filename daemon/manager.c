/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <fcntl.h>
#include <inttypes.h>
#include <linux/capability.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>

#include "core/backing.h"
#include "core/cleanup.h"
#include "core/range.h"
#include "front/front.h"
#include "front/service.h"
#include "front/words.h"
#include "host/capability.h"
#include "host/hugepages.h"
#include "host/kvm.h"
#include "host/mapping.h"
#include "host/memory-file.h"
#include "host/process.h"
#include "manager.h"

/* The manager's part of a backing: what backing->userdata points to. */
typedef struct Holding {
        int fd;
        unsigned seals; /* F_SEAL_… */
} Holding;

/* The manager's part of an attached VM: what vm->userdata points to. */
typedef struct VMM {
        Manager *manager;
        VM *vm;
        Process process;
        MappingReader mappings;
        uint64_t mm_id;
        sd_event_source *exit;
} VMM;

struct Service {
        sd_event *event;
        Registry *registry;
        Front *front;
        MemoryHost memory;
        KVMHost kvm;
        uint64_t next_mm_id;
        AdviceFacts advice;
        uint64_t advice_looked_up; /* CLOCK_MONOTONIC, µs; 0: not yet */
};

Front *manager_front(Manager *manager) {
        return manager->front;
}

Registry *service_registry(Service *service) {
        return service->registry;
}

int service_host_report(Service *service, HostReport *ret) {
        _cleanup_free_ HugePagePool *pools = NULL;
        HostReport report = {
                .kvm = service->kvm.present,
                .guest_memfd = service->kvm.guest_memfd,
                .guest_memfd_flags = service->kvm.guest_memfd_flags,
                .cachestat = service->memory.cachestat,
                .noexec_seal = service->memory.noexec_seal,
        };
        int r;

        r = hugepages_list(&pools, &report.n_pools);
        if (r < 0)
                return r;
        report.pools = calloc(report.n_pools ?: 1, sizeof(*report.pools));
        if (!report.pools)
                return -ENOMEM;
        for (size_t i = 0; i < report.n_pools; i++)
                report.pools[i] = (PoolReport) {
                        .page_size = pools[i].page_size,
                        .node = pools[i].node,
                        .total = pools[i].total,
                        .free = pools[i].free,
                        .reserved = pools[i].reserved,
                };
        *ret = report;
        return 0;
}

/* The administrator may change it while we run, which neither inotify(7) nor poll(2) tells. A look for each call would
 * make the call slower, and a timer would wake an idle host. */
#define ADVICE_VALID_USEC UINT64_C(10000000)

const AdviceFacts *service_advice_facts(Service *service) {
        uint64_t now = 0;

        (void) sd_event_now(service->event, CLOCK_MONOTONIC, &now);
        if (service->advice_looked_up == 0 || now - service->advice_looked_up > ADVICE_VALID_USEC) {
                service->advice.page_size = (uint64_t) sysconf(_SC_PAGESIZE);
                service->advice.memfd_page_size = hugepages_of_memfd() ?: service->advice.page_size;
                service->advice_looked_up = now;
        }
        return &service->advice;
}

/* ---- backings ---- */

static Holding *holding_of(const Backing *backing) {
        return backing->userdata;
}

static Holding *holding_free(Holding *holding) {
        if (!holding)
                return NULL;
        safe_close(holding->fd);
        free(holding);
        return NULL;
}

unsigned service_seals(const Backing *backing) {
        return holding_of(backing)->seals;
}

uint64_t service_resident(Service *service, const Backing *backing) {
        uint64_t bytes;

        if (memory_file_resident(&service->memory, holding_of(backing)->fd, backing->kind, &bytes) < 0)
                return 0;
        return bytes;
}

bool service_can_count_ranges(Service *service) {
        return service->memory.cachestat;
}

int service_resident_range(Service *service, const Backing *backing, uint64_t offset, uint64_t size, uint64_t *ret) {
        return memory_file_resident_range(&service->memory, holding_of(backing)->fd, backing->kind, offset, size, ret);
}

/* Makes the backing of a file; fd is taken on success. *ret is set for CORE_E_… too. */
static int hold(VM *vm, const BackingSpec *spec, int fd, unsigned seals, Backing **ret) {
        Holding *holding;
        int r;

        holding = malloc(sizeof(*holding));
        if (!holding)
                return -ENOMEM;
        r = backing_new(vm, spec, ret);
        if (r != 0) {
                free(holding);
                return r;
        }
        *holding = (Holding) { .fd = fd, .seals = seals };
        (*ret)->userdata = holding;
        return 0;
}

/* The name is taken: by the same backing, which is a success, or by another. */
static int compare(Backing *backing, const BackingSpec *spec, Failure *f) {
        const char *field = backing_differs(backing, spec);
        char present[32], requested[32];

        if (!field && backing->origin == spec->origin)
                return 0;
        if (!field)
                return fail_name_conflict(f, backing->name, "origin", backing_origin_word(backing->origin),
                                          backing_origin_word(spec->origin));
        if (strcmp(field, "kind") == 0)
                return fail_name_conflict(f, backing->name, field, backing_kind_word(backing->kind),
                                          backing_kind_word(spec->kind));
        if (strcmp(field, "numaPolicy") == 0)
                return fail_name_conflict(f, backing->name, field, numa_policy_word(backing->numa_policy) ?: "none",
                                          numa_policy_word(spec->numa_policy) ?: "none");
        if (strcmp(field, "numaNodes") == 0) {
                snprintf(present, sizeof(present), "mask %#" PRIx64, backing->numa_nodes);
                snprintf(requested, sizeof(requested), "mask %#" PRIx64, spec->numa_nodes);
        } else {
                bool is_size = strcmp(field, "size") == 0;

                snprintf(present, sizeof(present), "%" PRIu64, is_size ? backing->size : backing->page_size);
                snprintf(requested, sizeof(requested), "%" PRIu64, is_size ? spec->size : spec->page_size);
        }
        return fail_name_conflict(f, backing->name, field, present, requested);
}

static int check_nodes(const BackingSpec *spec, Failure *f) {
        uint64_t absent;

        if (spec->numa_nodes == 0)
                return 0;
        absent = spec->numa_nodes & ~memory_nodes_online();
        if (absent == 0)
                return 0;
        return fail_invalid_value(f, "numaNodes", (uint64_t) __builtin_ctzll(absent), 0,
                                  63 - (uint64_t) __builtin_clzll(memory_nodes_online()), 0);
}

static int create_file(Service *service, VM *vm, const BackingSpec *spec, MemoryIdentity *ret, int *ret_fd,
                       Failure *f) {
        char label[2 * NAME_LENGTH_MAX + 16];
        MemoryShortage shortage;
        int r;

        snprintf(label, sizeof(label), "privmemd:%s/%s", vm->name, spec->name);
        r = memory_file_create(&service->memory, label, spec, vm->owner, ret, ret_fd, &shortage);
        switch (r) {
        case MEMORY_E_SIZE:
                return fail_not_supported(f, "the file system or the address space is too small for this size");
        case MEMORY_E_NO_POOL:
                return fail_no_capacity(f, spec->page_size, -1, spec->size, 0);
        case MEMORY_E_NO_PAGES:
                return fail_no_capacity(f, spec->page_size, shortage.node, shortage.needed, shortage.available);
        case 0:
                return 0;
        default:
                return fail_host(f, "creating a memfd", r);
        }
}

int service_allocate(Service *service, VM *vm, const BackingSpec *spec, Backing **ret, bool *ret_created, Failure *f) {
        _cleanup_close_ int fd = -EBADF;
        BackingSpec known = *spec;
        MemoryIdentity identity;
        int r;

        r = backing_admit(vm, spec, ret);
        if (r == CORE_E_EXISTS) {
                *ret_created = false;
                return compare(*ret, spec, f);
        }
        if (r == CORE_E_LIMIT)
                return fail_limit(f, "backingsPerVM", service->registry->limits.backings_per_vm);
        if (r < 0)
                return r;
        r = check_nodes(spec, f);
        if (r == 0)
                r = create_file(service, vm, spec, &identity, &fd, f);
        if (r != 0)
                return r;
        known.dev = identity.dev;
        known.ino = identity.ino;
        r = hold(vm, &known, fd, identity.seals, ret);
        if (r != 0)
                /* It was admitted a moment ago, and a new file is nobody's backing yet. */
                return r < 0 ? r : -EIO;
        TAKE_FD(fd);
        *ret_created = true;
        return 0;
}

/* Whether the file is what the caller says. */
static int check_claim(const MemoryIdentity *identity, int kind, uint64_t size, Failure *f) {
        if (kind >= 0 && (BackingKind) kind != identity->kind)
                return fail_not_memory(f, backing_kind_word(identity->kind));
        if (size > 0 && size != identity->size)
                return fail_invalid_value(f, "size of the donated file", identity->size, size, size, 0);
        return 0;
}

/* Whether a file that is not yet a backing may be given by whom it comes from, and will stay as large as it is. */
static int check_donation(const MemoryIdentity *identity, const VM *vm, uid_t peer, Failure *f) {
        unsigned missing = (F_SEAL_SHRINK | F_SEAL_GROW) & ~identity->seals;

        if (identity->size == 0 || !is_aligned(identity->size, identity->page_size))
                return fail_invalid_value(f, "size of the donated file", identity->size, identity->page_size,
                                          INT64_MAX & ~(identity->page_size - 1), identity->page_size);
        if (identity->kind == BACKING_GUEST_MEMFD)
                return 0;
        /* Whoever holds an fd for reading only, or of a file of somebody else's, must not get more by donating it. */
        if (!identity->writable)
                return fail_not_memory(f, "memfd opened for reading only");
        if (identity->uid != vm->owner && peer != 0)
                return fail_not_permitted(f, "a memfd that another uid created", peer);
        return missing ? fail_not_sealed(f, missing) : 0;
}

/* A memfd is born with mode 0777, so that whoever gets it for reading could open it again for writing. */
static int take_over(int fd, const MemoryIdentity *identity, const VM *vm, Failure *f) {
        if (identity->kind == BACKING_GUEST_MEMFD)
                return 0;
        if (fchmod(fd, 0600) < 0 || (identity->uid != vm->owner && fchown(fd, vm->owner, (gid_t) -1) < 0))
                return fail_host(f, "taking over the donated file", errno);
        return 0;
}

static int adopt_new(VM *vm, const BackingSpec *spec, int donated, const MemoryIdentity *identity, Backing **ret,
                     Failure *f) {
        _cleanup_close_ int fd = -EBADF;
        int r;

        r = backing_admit(vm, spec, ret);
        if (r == CORE_E_EXISTS)
                return fail_name_conflict(f, (*ret)->name, "inode", "another file", "this file");
        if (r == CORE_E_LIMIT)
                return fail_limit(f, "backingsPerVM", vm->registry->limits.backings_per_vm);
        if (r < 0)
                return r;
        fd = fcntl(donated, F_DUPFD_CLOEXEC, 3);
        if (fd < 0)
                return fail_host(f, "duplicating the donated fd", errno);
        r = take_over(fd, identity, vm, f);
        if (r != 0)
                return r;
        r = hold(vm, spec, fd, identity->seals, ret);
        if (r != 0)
                /* It was admitted a moment ago, and the file is nobody's backing yet. */
                return r < 0 ? r : -EIO;
        TAKE_FD(fd);
        return 0;
}

int service_adopt(Service *service, VM *vm, const char *name, int fd, int kind, uint64_t size, uid_t peer,
                  Backing **ret, bool *ret_created, Failure *f) {
        MemoryIdentity identity;
        BackingSpec spec;
        const char *found;
        int r;

        r = memory_file_identify(&service->memory, fd, &identity, &found);
        if (r == MEMORY_E_NOT_MEMORY)
                return fail_not_memory(f, found);
        if (r < 0)
                return fail_host(f, "looking at the donated fd", r);
        r = check_claim(&identity, kind, size, f);
        if (r != 0)
                return r;
        *ret = registry_find_file(service->registry, identity.dev, identity.ino);
        *ret_created = !*ret;
        if (*ret)
                /* One file is one backing; it stays whose it is. */
                return peer == 0 || (*ret)->vm->owner == vm->owner ?
                               0 :
                               fail_not_permitted(f, "another owner's backing", peer);
        r = check_donation(&identity, vm, peer, f);
        if (r != 0)
                return r;
        spec = (BackingSpec) {
                .name = name,
                .kind = identity.kind,
                .origin = BACKING_ADOPTED,
                .size = identity.size,
                .page_size = identity.page_size,
                .dev = identity.dev,
                .ino = identity.ino,
        };
        return adopt_new(vm, &spec, fd, &identity, ret, f);
}

int service_open(Service *service, Backing *backing, bool read_only, int *ret_fd, Failure *f) {
        int fd = holding_of(backing)->fd, r;

        (void) service;
        if (!read_only) {
                r = fcntl(fd, F_DUPFD_CLOEXEC, 3);
                if (r < 0)
                        return fail_host(f, "duplicating the fd of the backing", errno);
                *ret_fd = r;
                return 0;
        }
        r = memory_file_open_read_only(fd, ret_fd);
        if (r == MEMORY_E_NO_READ_ONLY)
                return fail_not_supported(f, "a guest_memfd has no read-only form");
        return r < 0 ? fail_host(f, "opening the backing for reading", r) : 0;
}

/* The memory is free once this returns, whoever still holds the file. What a write seal protects goes with its last
 * holder instead. */
static uint64_t give_back(Service *service, Backing *backing) {
        uint64_t resident = service_resident(service, backing);

        return memory_file_punch(holding_of(backing)->fd, 0, backing->size) < 0 ? 0 : resident;
}

static void reclaim(Service *service, Backing *backing, VM *peer) {
        backing_unshare(backing, peer);
        front_publish(service->front, &(Event) {
                                              .kind = EVENT_BACKING_RECLAIMED,
                                              .vm = backing->vm,
                                              .backing = backing,
                                              .peer_vm = peer,
                                      });
}

/* Frees a backing that no slot shows. */
static uint64_t drop(Service *service, Backing *backing) {
        Holding *holding = holding_of(backing);
        uint64_t freed = give_back(service, backing);

        while (backing->n_shares > 0)
                reclaim(service, backing, backing->shares[0].vm);
        front_publish(
                service->front,
                &(Event) { .kind = EVENT_BACKING_RELEASED, .vm = backing->vm, .backing = backing, .freed = &freed });
        (void) backing_release(backing);
        holding_free(holding);
        return freed;
}

static bool is_mapped_by_vmm(const Backing *backing) {
        const VMM *vmm = backing->vm->userdata;
        bool maps = false;

        return vmm && process_maps_file(&vmm->process, backing->dev, backing->ino, &maps) >= 0 && maps;
}

int service_release(Service *service, Backing *backing, uint64_t *ret_freed, Failure *f) {
        if (backing->n_slots > 0)
                return fail_backing_in_use(f, backing, 0);
        if (is_mapped_by_vmm(backing))
                return fail_backing_in_use(f, backing, service_vmm_pid(backing->vm));
        *ret_freed = drop(service, backing);
        return 0;
}

int service_punch(Service *service, Backing *backing, uint64_t offset, uint64_t size, uint64_t *ret_freed,
                  Failure *f) {
        uint64_t before = service_resident(service, backing), after;
        int r;

        r = memory_file_punch(holding_of(backing)->fd, offset, size);
        if (r == -EPERM)
                return fail_not_supported(f, "the file is sealed against writing, so no hole can be punched into it");
        if (r < 0)
                return fail_host(f, "punching a hole", r);
        after = service_resident(service, backing);
        /* The guest may have touched more than we freed. */
        *ret_freed = before > after ? before - after : 0;
        return 0;
}

/* ---- VMs ---- */

bool service_can_own(uid_t uid) {
        return uid == geteuid() || capability_have(CAP_CHOWN);
}

pid_t service_vmm_pid(const VM *vm) {
        const VMM *vmm = vm->userdata;

        return vmm ? vmm->process.pid : 0;
}

static VMM *vmm_free(VMM *vmm) {
        if (!vmm)
                return NULL;
        if (vmm->vm)
                vmm->vm->userdata = NULL;
        sd_event_source_disable_unref(vmm->exit);
        mapping_reader_done(&vmm->mappings);
        process_done(&vmm->process);
        free(vmm);
        return NULL;
}

/* What other VMs share with this one. */
static void return_shares(Service *service, VM *peer) {
        Backing *backing;
        VM *vm;

        TAILQ_FOREACH(vm, &service->registry->vms, vms)
                TAILQ_FOREACH(backing, &vm->backings, backings)
                        if (backing_is_shared_with(backing, peer))
                                reclaim(service, backing, peer);
}

/* Gives the VM's memory back and forgets it. Its own slots go; slots of other VMs must not show its backings. */
static uint64_t drop_vm(Service *service, VM *vm) {
        uint64_t freed = 0;
        Backing *backing;

        vm_withdraw_slots(vm);
        while ((backing = TAILQ_FIRST(&vm->backings)))
                freed += drop(service, backing);
        return_shares(service, vm);
        front_publish(service->front, &(Event) { .kind = EVENT_VM_UNREGISTERED, .vm = vm, .freed = &freed });
        vm_free(vm);
        return freed;
}

/* A backing that a slot of another VM shows, or NULL. */
static Backing *shown_elsewhere(VM *vm) {
        Backing *backing;

        TAILQ_FOREACH(backing, &vm->backings, backings)
                if (backing_is_shown_by_other(backing))
                        return backing;
        return NULL;
}

int service_unregister(Service *service, VM *vm, uint64_t *ret_freed, Failure *f) {
        Backing *shown;

        if (vm->state == VM_ATTACHED)
                return fail_vm_in_use(f, vm->name, service_vmm_pid(vm));
        shown = shown_elsewhere(vm);
        if (shown)
                return fail_backing_in_use(f, shown, 0);
        *ret_freed = drop_vm(service, vm);
        return 0;
}

/* The VMM has exited: its mappings are gone, and with them KVM's table. A VM whose memory another VM shows is kept
 * whatever its policy says. */
static int on_vmm_exit(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
        VMM *vmm = userdata;
        Manager *manager = vmm->manager;
        VM *vm = vmm->vm;
        pid_t pid = vmm->process.pid;

        (void) source;
        (void) fd;
        (void) revents;
        vmm_free(vmm);
        vm_detach(vm);
        front_publish(manager->front, &(Event) { .kind = EVENT_VMM_EXITED, .vm = vm, .pid = pid });
        if (vm->exit_policy == EXIT_POLICY_RELEASE && !shown_elsewhere(vm))
                (void) drop_vm(manager, vm);
        return 0;
}

/* Two VMs that one process runs share its address space. */
static uint64_t mm_id_of(Manager *manager, const Process *process) {
        VM *vm;

        TAILQ_FOREACH(vm, &manager->registry->vms, vms) {
                const VMM *vmm = vm->userdata;

                if (vmm && vmm->process.pid == process->pid && process_is_alive(&vmm->process))
                        return vmm->mm_id;
        }
        return manager->next_mm_id++;
}

static int open_process(int pidfd, const VM *vm, uid_t peer, Process *ret, Failure *f) {
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

static void open_mappings(const Process *process, MappingReader *ret) {
        mapping_reader_open(process->pid, ret);
        /* Or else the number may be another process's by now. */
        if (!process_is_alive(process))
                mapping_reader_done(ret);
}

static int attach_new(Manager *manager, VM *vm, const Process *process) {
        VMM *vmm;
        int r;

        vmm = calloc(1, sizeof(*vmm));
        if (!vmm)
                return -ENOMEM;
        vmm->manager = manager;
        vmm->process.pidfd = -EBADF;
        open_mappings(process, &vmm->mappings);
        r = sd_event_add_io(manager->event, &vmm->exit, process->pidfd, EPOLLIN, on_vmm_exit, vmm);
        if (r >= 0)
                /* Exits before calls: nobody is told of a VMM that is known to be gone. */
                r = sd_event_source_set_priority(vmm->exit, SD_EVENT_PRIORITY_IMPORTANT);
        if (r >= 0) {
                vmm->mm_id = mm_id_of(manager, process);
                r = vm_attach(vm, vmm->mm_id);
        }
        if (r < 0) {
                vmm_free(vmm);
                return r;
        }
        vmm->vm = vm;
        vmm->process = *process;
        vm->userdata = vmm;
        return 0;
}

int service_attach(Service *service, VM *vm, int pidfd, uid_t peer, Failure *f) {
        _cleanup_(process_done) Process process = { .pidfd = -EBADF };
        int r;

        r = open_process(pidfd, vm, peer, &process, f);
        if (r != 0)
                return r;
        if (vm->state == VM_ATTACHED)
                return service_vmm_pid(vm) == process.pid ? 0 : fail_vm_in_use(f, vm->name, service_vmm_pid(vm));
        r = attach_new(service, vm, &process);
        if (r < 0)
                return r;
        process.pidfd = -EBADF; /* the VMM's now */
        return 0;
}

/* ---- slots ---- */

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

/* ---- the manager ---- */

int manager_configure(Manager *manager, const Config *config) {
        manager->registry->limits = config->limits;
        return front_configure(manager->front, &config->front);
}

int manager_new(sd_event *event, Manager **ret) {
        Manager *manager;
        int r;

        manager = calloc(1, sizeof(*manager));
        if (!manager)
                return -ENOMEM;
        manager->event = sd_event_ref(event);
        manager->next_mm_id = 1;
        kvm_host_probe(&manager->kvm);
        r = memory_host_probe(&manager->memory);
        if (r >= 0)
                r = registry_new((uint64_t) sysconf(_SC_PAGESIZE), &manager->kvm.rules, &manager->registry);
        if (r >= 0)
                r = front_new(event, manager, &manager->front);
        if (r < 0) {
                manager_free(manager);
                return r;
        }
        *ret = manager;
        return 0;
}

Manager *manager_free(Manager *manager) {
        Backing *backing;
        VM *vm;

        if (!manager)
                return NULL;
        /* Nobody is told any more. */
        manager->front = front_free(manager->front);
        if (manager->registry)
                TAILQ_FOREACH(vm, &manager->registry->vms, vms) {
                        TAILQ_FOREACH(backing, &vm->backings, backings)
                                backing->userdata = holding_free(backing->userdata);
                        vmm_free(vm->userdata);
                }
        registry_free(manager->registry);
        sd_event_unref(manager->event);
        free(manager);
        return NULL;
}
