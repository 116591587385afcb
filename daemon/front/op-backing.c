/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* AllocateBacking, AdoptBacking, OpenBacking, ReleaseBacking, PunchBacking. */

#include <inttypes.h>
#include <string.h>

#include "core/cleanup.h"
#include "core/range.h"
#include "front/call.h"
#include "front/format.h"
#include "front/words.h"

#define _cleanup_json_ _cleanup_(sd_json_variant_unrefp)

#define HUGE_PAGE_DEFAULT (UINT64_C(2) << 20)
#define PAGE_SIZE_MAX     (UINT64_C(1) << 40)

static uint64_t host_page_size(void) {
        return (uint64_t) sysconf(_SC_PAGESIZE);
}

typedef struct AllocateParameters {
        const char *vm, *name, *kind, *numa_policy;
        uint64_t size, page_size;
        sd_json_variant *numa_nodes;
        int open; /* negative: not given */
        int dry_run;
} AllocateParameters;

static int parse_numa(const AllocateParameters *p, BackingSpec *spec, Failure *f) {
        size_t n = p->numa_nodes ? sd_json_variant_elements(p->numa_nodes) : 0;

        spec->numa_policy = (NumaPolicy) numa_policy_of(p->numa_policy, NUMA_POLICY_NONE);
        if ((spec->numa_policy == NUMA_POLICY_NONE) != (n == 0))
                return fail_invalid_value(f, "number of numaNodes", n, spec->numa_policy == NUMA_POLICY_NONE ? 0 : 1,
                                          spec->numa_policy == NUMA_POLICY_NONE ? 0 : NUMA_NODES_MAX, 0);
        if (spec->numa_policy == NUMA_POLICY_PREFERRED && n != 1)
                return fail_invalid_value(f, "number of numaNodes", n, 1, 1, 0);
        for (size_t i = 0; i < n; i++) {
                uint64_t node = sd_json_variant_unsigned(sd_json_variant_by_index(p->numa_nodes, i));

                if (node >= NUMA_NODES_MAX)
                        return fail_invalid_value(f, "numaNodes", node, 0, NUMA_NODES_MAX - 1, 0);
                spec->numa_nodes |= UINT64_C(1) << node;
        }
        return 0;
}

static int parse_allocate(const AllocateParameters *p, BackingSpec *ret, Failure *f) {
        uint64_t page = host_page_size();
        BackingSpec spec = { .name = p->name, .origin = BACKING_ALLOCATED, .size = p->size };

        if (!name_is_valid(p->name))
                return fail_invalid_name(f, "name", p->name);
        spec.kind = (BackingKind) backing_kind_of(p->kind, p->page_size > page ? BACKING_HUGETLB : BACKING_MEMFD);
        if (spec.kind == BACKING_GUEST_MEMFD)
                return fail_not_supported(f, "only a VMM can create a guest_memfd; create it there and adopt it");
        spec.page_size = p->page_size ?: spec.kind == BACKING_HUGETLB ? HUGE_PAGE_DEFAULT : page;
        if ((spec.page_size & (spec.page_size - 1)) != 0 || (spec.kind == BACKING_MEMFD && spec.page_size != page) ||
            (spec.kind == BACKING_HUGETLB && (spec.page_size <= page || spec.page_size > PAGE_SIZE_MAX)))
                return fail_invalid_value(f, "pageSize", spec.page_size, page,
                                          spec.kind == BACKING_MEMFD ? page : PAGE_SIZE_MAX, page);
        if (spec.size == 0 || spec.size > INT64_MAX || !is_aligned(spec.size, spec.page_size))
                return fail_invalid_value(f, "size", spec.size, spec.page_size, INT64_MAX & ~(spec.page_size - 1),
                                          spec.page_size);
        *ret = spec;
        return parse_numa(p, ret, f);
}

/* The reply owns a new fd of the backing; the event says who got it. */
static int push_fd(Call *call, Backing *backing, bool read_only, int *ret_index, Failure *f) {
        _cleanup_close_ int fd = -EBADF;
        int r;

        if (call->oneway) {
                /* sd-varlink would send it with the next reply. */
                *ret_index = -1;
                return 0;
        }
        r = service_open(call->service, backing, read_only, &fd, f);
        if (r != 0)
                return r;
        r = sd_varlink_push_fd(call->link, fd);
        if (r < 0)
                return r;
        TAKE_FD(fd);
        call->has_pushed = true;
        *ret_index = r;
        front_publish(call->front, &(Event) {
                                           .kind = EVENT_BACKING_GRANTED,
                                           .vm = backing->vm,
                                           .backing = backing,
                                           .access = access_word(read_only),
                                           .peer = &call->uid,
                                   });
        return 0;
}

static bool are_unsigned(sd_json_variant *array) {
        for (size_t i = 0; array && i < sd_json_variant_elements(array); i++)
                if (!sd_json_variant_is_unsigned(sd_json_variant_by_index(array, i)))
                        return false;
        return true;
}

/* *ret_index is negative if the reply is to carry no fd. */
static int allocate(Call *call, const AllocateParameters *p, const BackingSpec *spec, bool *ret_created,
                    int *ret_index, Failure *f) {
        Backing *backing;
        int r;

        *ret_index = -1;
        if (p->open != 0 && p->dry_run <= 0 && !call_owns(call, call->vm))
                return fail_no_fds(f, call->vm->name, call->uid, /* manages= */ true);
        if (p->dry_run > 0)
                return service_check_allocation(call->service, call->vm, spec, ret_created, f);
        r = service_allocate(call->service, call->vm, spec, &backing, ret_created, f);
        if (r != 0)
                return r;
        if (*ret_created)
                front_publish(call->front,
                              &(Event) { .kind = EVENT_BACKING_ALLOCATED, .vm = call->vm, .backing = backing });
        return p->open == 0 ? 0 : push_fd(call, backing, /* read_only= */ false, ret_index, f);
}

int op_allocate_backing(Call *call) {
        static const sd_json_dispatch_field table[] = {
                { "vm", SD_JSON_VARIANT_STRING, sd_json_dispatch_const_string, offsetof(AllocateParameters, vm),
                  SD_JSON_MANDATORY },
                { "name", SD_JSON_VARIANT_STRING, sd_json_dispatch_const_string, offsetof(AllocateParameters, name),
                  SD_JSON_MANDATORY },
                { "size", _SD_JSON_VARIANT_TYPE_INVALID, sd_json_dispatch_uint64, offsetof(AllocateParameters, size),
                  SD_JSON_MANDATORY },
                { "kind", SD_JSON_VARIANT_STRING, sd_json_dispatch_const_string, offsetof(AllocateParameters, kind),
                  SD_JSON_NULLABLE },
                { "pageSize", _SD_JSON_VARIANT_TYPE_INVALID, sd_json_dispatch_uint64,
                  offsetof(AllocateParameters, page_size), SD_JSON_NULLABLE },
                { "numaPolicy", SD_JSON_VARIANT_STRING, sd_json_dispatch_const_string,
                  offsetof(AllocateParameters, numa_policy), SD_JSON_NULLABLE },
                { "numaNodes", SD_JSON_VARIANT_ARRAY, sd_json_dispatch_variant_noref,
                  offsetof(AllocateParameters, numa_nodes), SD_JSON_NULLABLE },
                { "open", SD_JSON_VARIANT_BOOLEAN, sd_json_dispatch_tristate, offsetof(AllocateParameters, open),
                  SD_JSON_NULLABLE },
                { "dryRun", SD_JSON_VARIANT_BOOLEAN, sd_json_dispatch_tristate, offsetof(AllocateParameters, dry_run),
                  SD_JSON_NULLABLE },
                {},
        };
        AllocateParameters p = { .open = -1 };
        BackingSpec spec;
        Failure f = {};
        bool created;
        int index, r;

        r = sd_varlink_dispatch(call->link, call->parameters, table, &p);
        if (r != 0)
                return r;
        if (!are_unsigned(p.numa_nodes))
                return sd_varlink_error_invalid_parameter_name(call->link, "numaNodes");
        r = parse_allocate(&p, &spec, &f);
        if (r == 0)
                r = allocate(call, &p, &spec, &created, &index, &f);
        if (r != 0)
                return failure_reply(call->link, r, &f);
        return sd_varlink_replybo(
                call->link, SD_JSON_BUILD_PAIR_CONDITION(index >= 0, "fileDescriptor", SD_JSON_BUILD_INTEGER(index)),
                SD_JSON_BUILD_PAIR_BOOLEAN("created", created));
}

typedef struct AdoptParameters {
        const char *vm, *name, *kind;
        uint64_t fd, size;
} AdoptParameters;

/* Whether the name, the kind and the size would be taken. */
static int admit(Call *call, const AdoptParameters *p, Failure *f) {
        BackingSpec spec = {
                .name = p->name,
                .kind = (BackingKind) backing_kind_of(p->kind, BACKING_GUEST_MEMFD),
                .origin = BACKING_ADOPTED,
                .size = p->size,
                .page_size = host_page_size(),
        };
        Backing *backing;
        char inode[24];
        int r;

        if (p->size == 0 || p->size > INT64_MAX || !is_aligned(p->size, spec.page_size))
                return fail_invalid_value(f, "size", p->size, spec.page_size, INT64_MAX & ~(spec.page_size - 1),
                                          spec.page_size);
        r = backing_admit(call->vm, &spec, &backing);
        if (r == CORE_E_EXISTS) {
                snprintf(inode, sizeof(inode), "%" PRIu64, (uint64_t) backing->ino);
                return fail_backing_differs(f, backing, "inode", inode, "a new one");
        }
        if (r == CORE_E_LIMIT)
                return fail_limit(f, "backingsPerVM", call->registry->limits.backings_per_vm);
        return r;
}

static int adopt(Call *call, const AdoptParameters *p, Backing **ret, bool *ret_created, Failure *f) {
        int fd, r;

        if (!name_is_valid(p->name))
                return fail_invalid_name(f, "name", p->name);
        r = call_peek_fd(call, p->fd, f, &fd);
        if (r != 0)
                return r;
        if (p->fd == NO_FD) {
                *ret = NULL;
                *ret_created = false;
                return admit(call, p, f);
        }
        return service_adopt(call->service, call->vm, p->name, fd, backing_kind_of(p->kind, -1), p->size, call->uid,
                             ret, ret_created, f);
}

int op_adopt_backing(Call *call) {
        static const sd_json_dispatch_field table[] = {
                { "vm", SD_JSON_VARIANT_STRING, sd_json_dispatch_const_string, offsetof(AdoptParameters, vm),
                  SD_JSON_MANDATORY },
                { "name", SD_JSON_VARIANT_STRING, sd_json_dispatch_const_string, offsetof(AdoptParameters, name),
                  SD_JSON_MANDATORY },
                { "fileDescriptor", SD_JSON_VARIANT_UNSIGNED, sd_json_dispatch_uint64, offsetof(AdoptParameters, fd),
                  SD_JSON_NULLABLE },
                { "kind", SD_JSON_VARIANT_STRING, sd_json_dispatch_const_string, offsetof(AdoptParameters, kind),
                  SD_JSON_NULLABLE },
                { "size", _SD_JSON_VARIANT_TYPE_INVALID, sd_json_dispatch_uint64, offsetof(AdoptParameters, size),
                  SD_JSON_NULLABLE },
                {},
        };
        _cleanup_json_ sd_json_variant *object = NULL;
        AdoptParameters p = { .fd = NO_FD };
        Failure f = {};
        Backing *backing;
        bool created;
        int r;

        r = sd_varlink_dispatch(call->link, call->parameters, table, &p);
        if (r != 0)
                return r;
        r = adopt(call, &p, &backing, &created, &f);
        if (r != 0)
                return failure_reply(call->link, r, &f);
        if (created)
                front_publish(call->front, &(Event) {
                                                   .kind = EVENT_BACKING_ADOPTED,
                                                   .vm = call->vm,
                                                   .backing = backing,
                                                   .peer = &call->uid,
                                           });
        if (backing) {
                r = format_backing(call->service, backing, call->uid, &object);
                if (r < 0)
                        return sd_varlink_error_errno(call->link, r);
        }
        return sd_varlink_replybo(
                call->link, SD_JSON_BUILD_PAIR_CONDITION(object != NULL, "backing", SD_JSON_BUILD_VARIANT(object)),
                SD_JSON_BUILD_PAIR_BOOLEAN("created", created));
}

typedef struct BackingParameters {
        const char *vm, *backing, *access;
        uint64_t offset, size;
} BackingParameters;

/* Somebody else's VM: say of its backings no more than what is shared. */
static int find_openable(Call *call, const BackingParameters *p, bool read_only, Backing **ret, Failure *f) {
        BackingAccess access;
        Backing *backing;

        if (call_owns(call, call->vm))
                return find_backing(call->vm, p->backing, ret, f);
        backing = vm_find_backing(call->vm, p->backing);
        access = backing ? backing_access_of(backing, call->uid) : ACCESS_NONE;
        if (access == ACCESS_NONE)
                return fail_no_fds(f, call->vm->name, call->uid, /* manages= */ false);
        if (access == ACCESS_READ_ONLY && !read_only)
                return fail_not_permitted(f, "a backing that is shared for reading only, in order to write",
                                          call->uid);
        *ret = backing;
        return 0;
}

int op_open_backing(Call *call) {
        static const sd_json_dispatch_field table[] = {
                { "vm", SD_JSON_VARIANT_STRING, sd_json_dispatch_const_string, offsetof(BackingParameters, vm),
                  SD_JSON_MANDATORY },
                { "backing", SD_JSON_VARIANT_STRING, sd_json_dispatch_const_string,
                  offsetof(BackingParameters, backing), SD_JSON_MANDATORY },
                { "access", SD_JSON_VARIANT_STRING, sd_json_dispatch_const_string, offsetof(BackingParameters, access),
                  SD_JSON_NULLABLE },
                {},
        };
        _cleanup_json_ sd_json_variant *object = NULL;
        BackingParameters p = {};
        Failure f = {};
        Backing *backing;
        bool read_only;
        int index, r;

        r = sd_varlink_dispatch(call->link, call->parameters, table, &p);
        if (r != 0)
                return r;
        read_only = p.access && strcmp(p.access, "read_only") == 0;
        r = find_openable(call, &p, read_only, &backing, &f);
        if (r == 0)
                r = format_backing(call->service, backing, call->uid, &object);
        if (r == 0)
                r = push_fd(call, backing, read_only, &index, &f);
        if (r != 0)
                return failure_reply(call->link, r, &f);
        return sd_varlink_replybo(call->link, SD_JSON_BUILD_PAIR_VARIANT("backing", object),
                                  SD_JSON_BUILD_PAIR_INTEGER("fileDescriptor", index));
}

static int reply_freed(Call *call, uint64_t freed) {
        return sd_varlink_replybo(call->link, SD_JSON_BUILD_PAIR_UNSIGNED("freedBytes", freed));
}

int op_release_backing(Call *call) {
        static const sd_json_dispatch_field table[] = {
                { "vm", SD_JSON_VARIANT_STRING, sd_json_dispatch_const_string, offsetof(BackingParameters, vm),
                  SD_JSON_MANDATORY },
                { "backing", SD_JSON_VARIANT_STRING, sd_json_dispatch_const_string,
                  offsetof(BackingParameters, backing), SD_JSON_MANDATORY },
                {},
        };
        BackingParameters p = {};
        Failure f = {};
        Backing *backing;
        uint64_t freed;
        int r;

        r = sd_varlink_dispatch(call->link, call->parameters, table, &p);
        if (r != 0)
                return r;
        r = find_backing(call->vm, p.backing, &backing, &f);
        if (r == 0)
                r = service_release(call->service, backing, &freed, &f);
        if (r != 0)
                return failure_reply(call->link, r, &f);
        return reply_freed(call, freed);
}

int op_punch_backing(Call *call) {
        static const sd_json_dispatch_field table[] = {
                { "vm", SD_JSON_VARIANT_STRING, sd_json_dispatch_const_string, offsetof(BackingParameters, vm),
                  SD_JSON_MANDATORY },
                { "backing", SD_JSON_VARIANT_STRING, sd_json_dispatch_const_string,
                  offsetof(BackingParameters, backing), SD_JSON_MANDATORY },
                { "offset", _SD_JSON_VARIANT_TYPE_INVALID, sd_json_dispatch_uint64,
                  offsetof(BackingParameters, offset), SD_JSON_MANDATORY },
                { "size", _SD_JSON_VARIANT_TYPE_INVALID, sd_json_dispatch_uint64, offsetof(BackingParameters, size),
                  SD_JSON_MANDATORY },
                {},
        };
        BackingParameters p = {};
        Failure f = {};
        Backing *backing;
        uint64_t freed;
        int r;

        r = sd_varlink_dispatch(call->link, call->parameters, table, &p);
        if (r != 0)
                return r;
        r = find_backing(call->vm, p.backing, &backing, &f);
        if (r == 0 && (!range_within(p.offset, p.size, backing->size) || !is_aligned(p.offset, backing->page_size) ||
                       !is_aligned(p.size, backing->page_size)))
                r = fail_invalid_range(&f, backing, p.offset, p.size);
        if (r == 0)
                r = service_punch(call->service, backing, p.offset, p.size, &freed, &f);
        if (r != 0)
                return failure_reply(call->link, r, &f);
        front_publish(call->front,
                      &(Event) { .kind = EVENT_BACKING_PUNCHED, .vm = call->vm, .backing = backing, .freed = &freed });
        return reply_freed(call, freed);
}
