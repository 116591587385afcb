/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Backings in custody: an fd of each, from custody_enter() to custody_leave(), and what is done with it. */

#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

#include "front/words.h"
#include "manager-private.h"

/* The manager's part of a backing, backing->userdata, is its fd; one more, so that none is NULL. */

int custody_fd(const Backing *backing) {
        return backing->userdata ? (int) (intptr_t) backing->userdata - 1 : -EBADF;
}

static void set_fd(Backing *backing, int fd) {
        backing->userdata = (void *) (intptr_t) (fd + 1);
}

unsigned service_seals(const Backing *backing) {
        return backing->seals;
}

uint64_t service_resident(Service *service, const Backing *backing) {
        uint64_t bytes;

        if (memory_file_resident(&service->memory, custody_fd(backing), backing->kind, &bytes) < 0)
                return 0;
        return bytes;
}

bool service_can_count_ranges(Service *service) {
        return service->memory.cachestat;
}

int service_resident_range(Service *service, const Backing *backing, uint64_t offset, uint64_t size, uint64_t *ret) {
        return memory_file_resident_range(&service->memory, custody_fd(backing), backing->kind, offset, size, ret);
}

static int hold_flight(Manager *manager, Failure *f) {
        int r = flight_hold(&manager->flight);

        if (r == FLIGHT_E_FULL)
                return fail_custody_full(f, "fds in flight", ETOOMANYREFS);
        return r < 0 ? fail_host(f, "sending a file descriptor", r) : 0;
}

/* What is allocated is handed out with the reply. */
static int park(Manager *manager, const Backing *backing, int fd, Failure *f) {
        int r;

        r = hold_flight(manager, f);
        if (r == 0)
                r = keeper_put_fd(&manager->keeper, backing->id, fd, f);
        flight_drop(&manager->flight);
        return r;
}

int custody_enter(Manager *manager, VM *vm, const BackingSpec *spec, int fd, Backing **ret, Failure *f) {
        Backing *backing;
        int r;

        r = keeper_reserve(&manager->keeper, RECORD_SIZE_MAX, f);
        if (r != 0)
                return r;
        r = backing_new(vm, spec, &backing);
        if (r != 0)
                return r < 0 ? r : -EIO;
        r = park(manager, backing, fd, f);
        STEP("enter.bag");
        if (r == 0) {
                (void) record_backing(keeper_records(&manager->keeper), backing);
                r = keeper_try_commit(&manager->keeper, f);
        }
        STEP("enter.ledger");
        if (r != 0) {
                keeper_forget_fd(&manager->keeper, backing->id);
                (void) backing_release(backing);
                return r;
        }
        set_fd(backing, fd);
        *ret = backing;
        return 0;
}

void custody_restore(Backing *backing, int fd) {
        set_fd(backing, fd);
}

void custody_close(Backing *backing) {
        safe_close(custody_fd(backing));
        backing->userdata = NULL;
}

/* The memory is free once this returns, whoever still holds the file. What a write seal protects goes with its last
 * holder instead. */
static uint64_t give_back(Service *service, Backing *backing) {
        uint64_t resident = service_resident(service, backing);

        return memory_file_punch(custody_fd(backing), 0, backing->size) < 0 ? 0 : resident;
}

void custody_unshare(Manager *manager, Backing *backing, VM *peer) {
        backing_unshare(backing, peer);
        front_publish(manager->front, &(Event) {
                                              .kind = EVENT_BACKING_RECLAIMED,
                                              .vm = backing->vm,
                                              .backing = backing,
                                              .peer_vm = peer,
                                      });
}

uint64_t custody_drop(Service *service, Backing *backing, EndReason reason) {
        uint64_t freed = give_back(service, backing), id = backing->id;
        int fd = custody_fd(backing);

        STEP("leave.punched");
        while (backing->n_shares > 0)
                custody_unshare(service, backing, backing->shares[0].vm);
        claims_end_with(service, backing, reason);
        front_publish(service->front, &(Event) { .kind = EVENT_BACKING_RELEASED,
                                                 .vm = backing->vm,
                                                 .backing = backing,
                                                 .freed = &freed,
                                                 .reason = reason });
        (void) backing_release(backing);
        keeper_forget_fd(&service->keeper, id);
        safe_close(fd);
        return freed;
}

/* Were it the other way round, a ledger could name what is empty by now. */
uint64_t custody_leave(Service *service, Backing *backing, EndReason reason) {
        (void) record_backing_gone(keeper_records(&service->keeper), backing);
        keeper_commit(&service->keeper);
        STEP("leave.ledger");
        return custody_drop(service, backing, reason);
}

/* The name is taken: by the same backing, which is a success, or by another. */
static int compare(Backing *backing, const BackingSpec *spec, Failure *f) {
        const char *field = backing_differs(backing, spec);
        char present[32], requested[32];

        if (!field && backing->origin == spec->origin)
                return 0;
        if (!field)
                return fail_backing_differs(f, backing, "origin", backing_origin_word(backing->origin),
                                            backing_origin_word(spec->origin));
        if (strcmp(field, "kind") == 0)
                return fail_backing_differs(f, backing, field, backing_kind_word(backing->kind),
                                            backing_kind_word(spec->kind));
        if (strcmp(field, "numaPolicy") == 0)
                return fail_backing_differs(f, backing, field, numa_policy_word(backing->numa_policy) ?: "none",
                                            numa_policy_word(spec->numa_policy) ?: "none");
        if (strcmp(field, "numaNodes") == 0) {
                snprintf(present, sizeof(present), "mask %#" PRIx64, backing->numa_nodes);
                snprintf(requested, sizeof(requested), "mask %#" PRIx64, spec->numa_nodes);
        } else {
                bool is_size = strcmp(field, "size") == 0;

                snprintf(present, sizeof(present), "%" PRIu64, is_size ? backing->size : backing->page_size);
                snprintf(requested, sizeof(requested), "%" PRIu64, is_size ? spec->size : spec->page_size);
        }
        return fail_backing_differs(f, backing, field, present, requested);
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

/* The backing that is there, or else a file for a new one. */
static int find_or_create(Service *service, VM *vm, const BackingSpec *spec, Backing **ret_found, MemoryIdentity *ret,
                          int *ret_fd, Failure *f) {
        int r;

        *ret_found = NULL;
        r = backing_admit(vm, spec, ret_found);
        if (r == CORE_E_EXISTS)
                return compare(*ret_found, spec, f);
        if (r == CORE_E_LIMIT)
                return fail_limit(f, "backingsPerVM", service->registry->limits.backings_per_vm);
        if (r < 0)
                return r;
        r = check_nodes(spec, f);
        return r != 0 ? r : create_file(service, vm, spec, ret, ret_fd, f);
}

int service_check_allocation(Service *service, VM *vm, const BackingSpec *spec, bool *ret_created, Failure *f) {
        _cleanup_close_ int fd = -EBADF;
        MemoryIdentity identity;
        Backing *found;
        int r;

        r = find_or_create(service, vm, spec, &found, &identity, &fd, f);
        if (r == 0)
                *ret_created = !found;
        return r;
}

int service_allocate(Service *service, VM *vm, const BackingSpec *spec, Backing **ret, bool *ret_created, Failure *f) {
        _cleanup_close_ int fd = -EBADF;
        BackingSpec known = *spec;
        MemoryIdentity identity;
        Backing *found;
        int r;

        r = find_or_create(service, vm, spec, &found, &identity, &fd, f);
        if (r != 0)
                return r;
        *ret_created = !found;
        *ret = found;
        if (found)
                return 0;
        STEP("enter.created");
        known.dev = identity.dev;
        known.ino = identity.ino;
        known.seals = identity.seals;
        r = custody_enter(service, vm, &known, fd, ret, f);
        if (r != 0)
                return r;
        TAKE_FD(fd);
        return 0;
}

int service_open(Service *service, Backing *backing, bool read_only, int *ret_fd, Failure *f) {
        int fd = custody_fd(backing), r;

        r = hold_flight(service, f);
        flight_drop(&service->flight);
        if (r != 0)
                return r;
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

int service_release(Service *service, Backing *backing, uint64_t *ret_freed, Failure *f) {
        pid_t pid;

        if (backing->n_slots > 0)
                return fail_backing_in_use(f, backing, 0);
        pid = vmm_that_maps(backing);
        if (pid > 0)
                return fail_backing_in_use(f, backing, pid);
        *ret_freed = custody_leave(service, backing, END_REQUESTED);
        return 0;
}

int service_punch(Service *service, Backing *backing, uint64_t offset, uint64_t size, uint64_t *ret_freed,
                  Failure *f) {
        uint64_t before = service_resident(service, backing), after;
        int r;

        r = memory_file_punch(custody_fd(backing), offset, size);
        if (r == -EPERM)
                return fail_not_supported(f, "the file is sealed against writing, so no hole can be punched into it");
        if (r < 0)
                return fail_host(f, "punching a hole", r);
        after = service_resident(service, backing);
        /* The guest may have touched more than we freed. */
        *ret_freed = before > after ? before - after : 0;
        return 0;
}

int service_share(Service *service, Backing *backing, VM *peer, bool read_only, bool *ret_created, Failure *f) {
        bool known = backing_is_shared_with(backing, peer);
        int r;

        if (peer == backing->vm)
                return fail_not_supported(f, "a VM shows its own backings without a share");
        if (backing->kind == BACKING_GUEST_MEMFD)
                return fail_not_supported(f, "a guest_memfd cannot be shared: private memory must not appear twice");
        r = keeper_reserve(&service->keeper, RECORD_SIZE_MAX, f);
        if (r != 0)
                return r;
        r = read_only ? backing_share_read_only(backing, peer) : backing_share(backing, peer);
        if (r == CORE_E_EXISTS)
                return fail_share_differs(f, backing, peer, access_word(!read_only), access_word(read_only));
        if (r == CORE_E_LIMIT)
                return fail_limit(f, "sharesPerBacking", SHARES_PER_BACKING_MAX);
        if (r == CORE_E_IN_USE)
                return fail_backing_in_use_by(f, backing, peer, backing_count_slots_of(backing, peer));
        if (r < 0)
                return r;
        *ret_created = !known;
        if (!known) {
                (void) record_share(keeper_records(&service->keeper), backing, backing_find_share(backing, peer));
                keeper_commit(&service->keeper);
                front_publish(service->front, &(Event) {
                                                      .kind = EVENT_BACKING_SHARED,
                                                      .vm = backing->vm,
                                                      .backing = backing,
                                                      .peer_vm = peer,
                                                      .access = access_word(read_only),
                                              });
        }
        return 0;
}

void service_reclaim(Service *service, Backing *backing, VM *peer) {
        (void) record_share_gone(keeper_records(&service->keeper), backing, peer);
        keeper_commit(&service->keeper);
        custody_unshare(service, backing, peer);
}
