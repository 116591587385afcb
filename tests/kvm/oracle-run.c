/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What an operation is made into are the very bytes that KVM reads; the decoder gives the core what it finds in them.
 *
 * Where the core refuses what KVM takes, the change is undone in KVM, so that the tables stay equal. Such a refusal
 * must have one of the reasons of enum OracleReason, which are decided here and not asked of the core. */

#include "oracle.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "core/memslot.h"
#include "front/words.h"
#include "host/kvm.h"

#define P           ORACLE_PAGE
#define RAM_SIZE    (ORACLE_AREA_PAGES * P)
/* Two VMs of one process. */
#define MM_ID       1
#define CLOSED_FD   0x7ffffff0
/* KVM that shadows page tables allocates 8 bytes for each page of a slot. */
#define LARGE       (UINT64_C(1) << 24)
#define FRESH_EVERY 2000 /* sequences on the same VMs of KVM's */

typedef struct Machine {
        int fd; /* from KVM_CREATE_VM */
        int guest_memfds[ORACLE_GUEST_MEMFDS], duplicate;
        VM *vm;
        Backing *ram, *files[ORACLE_GUEST_MEMFDS];
} Machine;

static struct Oracle {
        KVMHost host;
        int kvm, memfd, null_device;
        Machine machines[ORACLE_VMS];
        size_t runs;
        unsigned char *page; /* of bytes; none is readable behind it */
        Registry *registry;
        Backing *other_file; /* stands for every file that is no guest_memfd */
        char *difference;
        size_t difference_size;
} oracle;

OracleCounts oracle_counts;

__attribute__((format(printf, 1, 2))) static bool differs(const char *format, ...) {
        va_list ap;

        va_start(ap, format);
        vsnprintf(oracle.difference, oracle.difference_size, format, ap);
        va_end(ap);
        return false;
}

static void die(const char *what) {
        printf("Bail out! %s: %s\n", what, strerror(errno));
        exit(EXIT_FAILURE);
}

static int must(int r, const char *what) {
        if (r < 0)
                die(what);
        return r;
}

static const char *errno_word(int e) {
        return e == 0 ? "0" : strerrorname_np(e) ?: "an unknown errno";
}

/* ---- VMs of KVM's ---- */

static int create_guest_memfd(int vm, uint64_t size) {
        uint64_t create[8] = { size };

        /* Not every KVM has it; then the field holds a bad fd, and so it does for the core. */
        return ioctl(vm, _IOC(_IOC_READ | _IOC_WRITE, KVMIO, 0xd4, sizeof(create)), create);
}

static void machine_open(Machine *m) {
        m->fd = must(ioctl(oracle.kvm, KVM_CREATE_VM, 0UL), "KVM_CREATE_VM");
        for (size_t i = 0; i < ORACLE_GUEST_MEMFDS; i++)
                m->guest_memfds[i] = create_guest_memfd(m->fd, oracle_guest_memfd_sizes[i]);
        m->duplicate = m->guest_memfds[0] < 0 ? -1 : dup(m->guest_memfds[0]);
}

static void machine_close(Machine *m) {
        for (size_t i = 0; i < ORACLE_GUEST_MEMFDS; i++)
                safe_close(m->guest_memfds[i]);
        safe_close(m->duplicate);
        safe_close(m->fd);
}

/* A VM that has had thousands of slots might remember something. */
static void freshen(void) {
        if (oracle.runs++ % FRESH_EVERY != 0)
                return;
        for (size_t i = 0; i < ORACLE_VMS; i++) {
                if (oracle.runs > 1)
                        machine_close(&oracle.machines[i]);
                machine_open(&oracle.machines[i]);
        }
}

bool oracle_open(KVMRules *ret, const char **ret_why) {
        unsigned char *pages;

        oracle.kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
        if (oracle.kvm < 0) {
                *ret_why = "/dev/kvm is missing";
                return false;
        }
        kvm_host_probe(&oracle.host);
        if (!oracle.host.probed) {
                *ret_why = "KVM can make no VM, or is older than Linux 6.8";
                return false;
        }

        if (mmap((void *) ORACLE_AREA, RAM_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1,
                 0) != (void *) ORACLE_AREA)
                die("reserving user addresses");
        pages = mmap(NULL, 2 * P, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (pages == MAP_FAILED || mprotect(pages + P, P, PROT_NONE) < 0)
                die("mmap");
        oracle.page = pages;
        oracle.memfd = must(memfd_create("oracle", MFD_CLOEXEC), "memfd_create");
        must(ftruncate(oracle.memfd, (off_t) RAM_SIZE), "ftruncate");
        oracle.null_device = must(open("/dev/null", O_RDWR | O_CLOEXEC), "/dev/null");
        *ret = oracle.host.rules;
        return true;
}

/* ---- the core's VMs ---- */

static Backing *make_backing(VM *vm, const char *name, BackingKind kind, uint64_t size) {
        static ino_t next_ino;
        BackingSpec spec = {
                .name = name,
                .kind = kind,
                .size = size,
                .page_size = P,
                .dev = 1,
                .ino = ++next_ino,
        };
        Backing *backing;

        if (backing_new(vm, &spec, &backing) != 0)
                die("backing_new");
        return backing;
}

static void make_core(bool observe) {
        static const char *const names[] = { "vm0", "vm1" };
        static const char *const files[] = { "gmem0", "gmem1", "gmem2" };

        if (registry_new(P, &oracle.host.rules, &oracle.registry) != 0)
                die("registry_new");
        for (size_t i = 0; i < ORACLE_VMS; i++) {
                Machine *m = &oracle.machines[i];
                VMSpec spec = { .name = names[i], .type = VM_TYPE_ORDINARY };

                if (observe && i == 1)
                        spec.alias_policy = ALIAS_POLICY_OBSERVE;
                if (vm_new(oracle.registry, &spec, &m->vm) != 0 || vm_attach(m->vm, MM_ID) != 0)
                        die("vm_new");
                m->ram = make_backing(m->vm, "ram", BACKING_MEMFD, RAM_SIZE);
                for (size_t j = 0; j < ORACLE_GUEST_MEMFDS; j++)
                        m->files[j] = make_backing(m->vm, files[j], BACKING_GUEST_MEMFD, oracle_guest_memfd_sizes[j]);
        }
        oracle.other_file = make_backing(oracle.machines[0].vm, "other", BACKING_MEMFD, RAM_SIZE);
        if (backing_share(oracle.machines[0].ram, oracle.machines[1].vm) != 0 ||
            backing_share_read_only(oracle.machines[1].ram, oracle.machines[0].vm) != 0)
                die("backing_share");
}

static Backing *backing_of_fd(int fd) {
        if (fd < 0 || fd == CLOSED_FD)
                return NULL;
        for (size_t i = 0; i < ORACLE_VMS; i++) {
                const Machine *m = &oracle.machines[i];

                if (fd == m->duplicate)
                        return m->files[0];
                for (size_t j = 0; j < ORACLE_GUEST_MEMFDS; j++)
                        if (fd == m->guest_memfds[j])
                                return m->files[j];
        }
        return oracle.other_file;
}

static Backing *declared_backing(const Operation *o) {
        switch (o->declared) {
        case DECLARED_RAM:
                return oracle.machines[o->vm].ram;
        case DECLARED_RAM_OF_OTHER:
                return oracle.machines[!o->vm].ram;
        case DECLARED_GUEST_MEMFD:
                return oracle.machines[o->vm].files[0];
        default:
                return NULL;
        }
}

/* ---- bytes ---- */

static int fd_of(const Operation *o) {
        const Machine *m = &oracle.machines[o->vm];

        switch (o->fd) {
        case FD_DUPLICATE:
                return m->duplicate;
        case FD_OTHER_VM:
                return oracle.machines[!o->vm].guest_memfds[0];
        case FD_MINUS_ONE:
                return -1;
        case FD_CLOSED:
                return CLOSED_FD;
        case FD_MEMFD:
                return oracle.memfd;
        case FD_NULL_DEVICE:
                return oracle.null_device;
        case FD_VM:
                return m->fd;
        default:
                return m->guest_memfds[o->fd];
        }
}

static uint64_t command_of(const Operation *o) {
        return (uint64_t) o->high << 32 | (o->old_ioctl ? MEMSLOT_SET_REGION : MEMSLOT_SET_REGION2);
}

/* The structure at the end of the page, or one byte beyond it. */
static unsigned char *write_bytes(const Operation *o, size_t *ret_readable) {
        unsigned char bytes[MEMSLOT_BYTES_MAX], *at;
        size_t size = memslot_bytes(MEMSLOT_UPSTREAM, command_of(o));
        int fd = fd_of(o);

        memset(bytes, o->padding, sizeof(bytes));
        memcpy(bytes, &o->slot, 4);
        memcpy(bytes + 4, &o->flags, 4);
        memcpy(bytes + 8, &o->gpa, 8);
        memcpy(bytes + 16, &o->size, 8);
        memcpy(bytes + 24, &o->hva, 8);
        memcpy(bytes + 32, &o->fd_offset, 8);
        memcpy(bytes + 40, &fd, 4);

        *ret_readable = size - o->unreadable;
        at = oracle.page + P - *ret_readable;
        memcpy(at, bytes, *ret_readable);
        return at;
}

/* ---- asking ---- */

/* KVM's answer: 0 or an errno. */
static int ask_kernel(unsigned vm, uint64_t command, const unsigned char *bytes) {
        return syscall(SYS_ioctl, oracle.machines[vm].fd, command, bytes) < 0 ? errno : 0;
}

/* Of numbers that need no hostility. */
static int set_in_kernel(unsigned vm, const SlotSpec *spec) {
        struct kvm_userspace_memory_region region = {
                .slot = spec->as_id << 16 | spec->id,
                .flags = spec->flags,
                .guest_phys_addr = spec->gpa,
                .memory_size = spec->size,
                .userspace_addr = spec->hva,
        };

        return ioctl(oracle.machines[vm].fd, KVM_SET_USER_MEMORY_REGION, &region) < 0 ? errno : 0;
}

static OracleReason reason_of(unsigned vm, const SlotSpec *spec, const Verdict *verdict) {
        uint64_t end;

        if (verdict->rule == RULE_PRIVATE_ALIAS || verdict->rule == RULE_UNDECLARED_ALIAS)
                return REASON_ALIAS;
        if (verdict->rule == RULE_SHARE_READ_ONLY)
                return vm == 0 && spec->backing == oracle.machines[1].ram && !(spec->flags & SLOT_READONLY) ?
                               REASON_READ_ONLY :
                               REASON_NONE;
        if (verdict->rule != RULE_BEYOND_BACKING)
                return REASON_NONE;
        if (spec->backing && (spec->offset % P != 0 || __builtin_add_overflow(spec->offset, spec->size, &end) ||
                              end > spec->backing->size))
                return REASON_BEYOND_SHARED;
        if (oracle.host.rules.signed_offsets && (spec->flags & SLOT_GUEST_MEMFD) &&
            spec->guest_memfd_offset <= INT64_MAX && spec->guest_memfd_offset + spec->size > INT64_MAX)
                return REASON_SIGNED_OFFSETS;
        return REASON_NONE;
}

/* The core has refused and KVM has not: what the slot was it becomes again. */
static bool undo_in_kernel(unsigned vm, const SlotSpec *spec) {
        const Slot *slot = slot_find(oracle.machines[vm].vm, spec->as_id, spec->id);
        SlotSpec was = slot ? slot_spec(slot) : (SlotSpec) { .id = spec->id, .as_id = spec->as_id };
        int e;

        e = set_in_kernel(vm, &was);
        return e == 0 || differs("KVM does not undo the slot: %s", errno_word(e));
}

static bool compare(const Operation *o, const SlotSpec *spec, const Verdict *verdict, int kernel) {
        bool denied = verdict_denies(verdict, oracle.machines[o->vm].vm->alias_policy);
        int expected = denied ? verdict->kernel_errno : 0;
        OracleReason reason;

        if (kernel != expected)
                return differs("the core %s%s%s%s, KVM gives %s", denied ? "refuses by rule " : "takes it",
                               denied ? slot_rule_word(verdict->rule) : "", denied ? " and says KVM gives " : "",
                               denied ? errno_word(expected) : "", errno_word(kernel));
        if (!denied) {
                oracle_counts.taken++;
                oracle_counts.observed += verdict->outcome == OUTCOME_REFUSED;
                return true;
        }
        if (kernel != 0) {
                oracle_counts.refused[verdict->rule]++;
                return true;
        }

        reason = reason_of(o->vm, spec, verdict);
        if (reason == REASON_NONE)
                return differs("the core refuses by rule %s what KVM takes, without a reason",
                               slot_rule_word(verdict->rule));
        oracle_counts.more[verdict->rule]++;
        oracle_counts.reasons[reason]++;
        return undo_in_kernel(o->vm, spec);
}

/* KVM refuses before it looks at the numbers. */
static bool compare_form(int kernel, int expected) {
        if (kernel != expected)
                return differs("the decoder expects %s, KVM gives %s", errno_word(expected), errno_word(kernel));
        if (expected == EINVAL)
                oracle_counts.refused[RULE_FLAGS]++;
        else
                oracle_counts.unreadable++;
        return true;
}

/* A large slot that KVM refuses is as good as any, and has its own limit; one that it takes costs seconds. */
static bool is_too_large(VM *vm, const SlotSpec *spec) {
        Verdict verdict;
        bool too_large;

        if (spec->size <= LARGE)
                return false;
        verdict_init(&verdict);
        too_large = kvm_rules_accept(vm, spec, &verdict) || verdict.kernel_errno == 0;
        verdict_done(&verdict);
        oracle_counts.too_large += too_large;
        return too_large;
}

static bool run_operation(const Operation *o) {
        VM *vm = oracle.machines[o->vm].vm;
        size_t readable;
        unsigned char *bytes = write_bytes(o, &readable);
        Memslot memslot;
        Verdict verdict;
        bool changed, same;
        int r, kernel;

        oracle_counts.operations++;
        r = memslot_decode(MEMSLOT_UPSTREAM, command_of(o), bytes, readable, &memslot);
        if (r == 0) {
                memslot.spec.guest_memfd = backing_of_fd(memslot.guest_memfd);
                memslot.spec.backing = declared_backing(o);
                memslot.spec.offset = o->offset;
                if (is_too_large(vm, &memslot.spec))
                        return true;
                verdict_init(&verdict);
                if (slot_set(vm, &memslot.spec, &verdict, &changed) != 0)
                        die("slot_set");
        }

        kernel = ask_kernel(o->vm, command_of(o), bytes);
        if (r != 0)
                return compare_form(kernel, r == MEMSLOT_E_SHORT ? EFAULT : EINVAL);
        same = compare(o, &memslot.spec, &verdict, kernel);
        verdict_done(&verdict);
        return same;
}

/* ---- comparing tables ---- */

/* No slot of the operations has this number, or next to none. */
static uint32_t spare_id(void) {
        return oracle.host.rules.slots_per_address_space - 100;
}

static bool is_occupied(unsigned vm, const SlotSpec *spec, uint64_t gpa) {
        SlotSpec probe = { .id = spare_id(), .as_id = spec->as_id, .gpa = gpa, .size = P, .hva = ORACLE_AREA };
        int e = set_in_kernel(vm, &probe);

        if (e == EEXIST)
                return true;
        if (e == 0) {
                probe.size = 0;
                (void) set_in_kernel(vm, &probe);
        }
        return differs("VM %u, slot %" PRIu32 ": KVM does not have it at guest %#" PRIx64, vm, spec->id, gpa);
}

static bool same_slot(unsigned vm, const SlotSpec *spec) {
        SlotSpec deleted = { .id = spec->id, .as_id = spec->as_id };
        int e;

        if (!slot_find(oracle.machines[vm].vm, spec->as_id, spare_id()) &&
            (!is_occupied(vm, spec, spec->gpa) || !is_occupied(vm, spec, spec->gpa + spec->size - P)))
                return false;
        if (!(spec->flags & SLOT_GUEST_MEMFD)) {
                e = set_in_kernel(vm, spec);
                if (e != 0)
                        return differs("VM %u, slot %" PRIu32 ": KVM's is another: %s", vm, spec->id, errno_word(e));
        }
        e = set_in_kernel(vm, &deleted);
        return e == 0 || differs("VM %u, slot %" PRIu32 ": KVM does not have it: %s", vm, spec->id, errno_word(e));
}

static bool same_absence(const Operation *o) {
        SlotSpec deleted = { .id = o->slot & 0xffff, .as_id = o->slot >> 16 };
        int e;

        if (slot_find(oracle.machines[o->vm].vm, deleted.as_id, deleted.id))
                return true;
        e = set_in_kernel(o->vm, &deleted);
        return e == EINVAL || differs("VM %u, slot %" PRIu32 ": KVM has one, the core has none", o->vm, deleted.id);
}

/* Takes all slots out of KVM's tables on the way. */
static bool same_tables(const Operation *operations, size_t n) {
        bool same = true;

        for (size_t i = 0; i < n && same; i++)
                same = same_absence(&operations[i]);
        for (unsigned vm = 0; vm < ORACLE_VMS && same; vm++)
                for (Slot *slot = slot_first(oracle.machines[vm].vm); slot && same;
                     slot = slot_next(slot->vm, slot->spec.as_id, slot->spec.id)) {
                        SlotSpec spec = slot_spec(slot);

                        same = same_slot(vm, &spec);
                }
        return same;
}

static void clean_kernel(const Operation *operations, size_t n) {
        for (size_t i = 0; i < n; i++) {
                SlotSpec deleted = { .id = operations[i].slot & 0xffff, .as_id = operations[i].slot >> 16 };

                (void) set_in_kernel(operations[i].vm, &deleted);
        }
}

size_t oracle_run(const Operation *operations, size_t n, bool observe, char *difference, size_t difference_size) {
        bool same = true;
        size_t i;

        oracle.difference = difference;
        oracle.difference_size = difference_size;
        freshen();
        make_core(observe);

        for (i = 0; i < n && same; i++)
                same = run_operation(&operations[i]);
        if (same)
                same = same_tables(operations, n);
        if (!same)
                clean_kernel(operations, i);

        oracle.registry = registry_free(oracle.registry);
        return same ? n : i - 1;
}
