/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Slots in one process, without privmemd: what the core does, and what the kernel does for the same slot.
 *
 * usage: bench-slots core SLOTS [VMS [scattered]]
 *                             the core, with so many slots in each of so many VMs
 *        bench-slots kernel SLOTS
 *                             KVM_SET_USER_MEMORY_REGION2 of /dev/kvm, with so many slots in the VM
 *        bench-slots memory SLOTS rising|random [private]
 *                             bytes a slot that the core keeps, as malloc(3) counts them, of slots that were created
 *                             in that order of their addresses, and have a private side if wanted
 *
 * Every slot is one page and shows a page of its VM's backing; between any two there is room for one more. A call
 * creates a slot in one of these gaps, chosen at random, and deletes it again. For each number on standard input: so
 * many calls, and their mean time in ns on standard output. They are a burst on one VM, as of a VMM that plugs memory
 * while others run, and the next burst is on another VM; scattered, each call is on another. Ends with status 77 where
 * there is no /dev/kvm. */

#include <fcntl.h>
#include <linux/kvm.h>
#include <malloc.h>
#include <stdbool.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "bench.h"
#include "core/backing.h"
#include "core/registry.h"
#include "core/slot.h"
#include "core/vm.h"

#define PAGE      UINT64_C(4096)
#define VMS_MAX   1024U
#define SLOTS_MAX (SLOTS_PER_ADDRESS_SPACE_MAX - 1)
#define CALLS_MAX 100000U
#define NO_KVM    77

typedef struct Bench {
        size_t n_slots; /* in each VM */
        size_t n_vms;
        VM *vms[VMS_MAX];
        Backing *backings[VMS_MAX], *private_backings[VMS_MAX];
        int kernel_vm;
        uint64_t memory; /* the hva of the kernel's slots */
        uint64_t random;
} Bench;

typedef struct Call {
        size_t vm;
        uint64_t page;
} Call;

static Bench bench = { .random = UINT64_C(0x9e3779b97f4a7c15) };

static uint64_t next_random(void) {
        bench.random ^= bench.random << 13;
        bench.random ^= bench.random >> 7;
        bench.random ^= bench.random << 17;
        return bench.random;
}

/* Two pages for each slot: its own, and a gap. */
static uint64_t space(void) {
        return 2 * (bench.n_slots + 1) * PAGE;
}

/* ---- the core ------------------------------------------------------------------------------------------ */

static void core_set(size_t vm, uint32_t id, uint64_t page, uint64_t size) {
        SlotSpec spec = {
                .id = id,
                .gpa = page * PAGE,
                .size = size,
                .hva = UINT64_C(0x7f0000000000) + page * PAGE,
                .backing = bench.backings[vm],
                .offset = page * PAGE,
        };
        Verdict verdict;
        bool changed;

        if (bench.private_backings[vm]) {
                spec.flags = SLOT_GUEST_MEMFD;
                spec.guest_memfd = bench.private_backings[vm];
                spec.guest_memfd_offset = page * PAGE;
        }
        verdict_init(&verdict);
        if (slot_set(bench.vms[vm], &spec, &verdict, &changed) < 0 || !changed)
                die("the core refuses slot %u at page %lu by rule %d", id, (unsigned long) page, verdict.rule);
        verdict_done(&verdict);
}

static Backing *core_backing(size_t vm, const char *name, BackingKind kind) {
        BackingSpec spec = {
                .name = name,
                .kind = kind,
                .size = space(),
                .page_size = PAGE,
                .dev = 1,
                .ino = 1 + 2 * vm + (kind == BACKING_GUEST_MEMFD),
        };
        Backing *backing;

        if (backing_new(bench.vms[vm], &spec, &backing) != 0)
                die("cannot make a backing");
        return backing;
}

static void core_prepare_vms(bool with_private) {
        KVMRules kvm = kvm_rules_of(KVM_GENERATION_DEFAULT);
        Registry *registry;
        char name[32];

        if (registry_new(PAGE, &kvm, &registry) < 0)
                die("out of memory");
        for (size_t vm = 0; vm < bench.n_vms; vm++) {
                snprintf(name, sizeof(name), "vm%zu", vm);
                if (vm_new(registry, &(VMSpec) { .name = name }, &bench.vms[vm]) != 0)
                        die("cannot make VM %s", name);
                bench.backings[vm] = core_backing(vm, "ram", BACKING_MEMFD);
                if (with_private)
                        bench.private_backings[vm] = core_backing(vm, "private", BACKING_GUEST_MEMFD);
        }
}

/* VMs get their slots in turn, as on a host where all of them run. */
static void core_prepare_slots(void) {
        for (uint32_t id = 0; id < bench.n_slots; id++)
                for (size_t vm = 0; vm < bench.n_vms; vm++)
                        core_set(vm, id, 2 * (uint64_t) id, PAGE);
}

static void core_call(const Call *call) {
        core_set(call->vm, (uint32_t) bench.n_slots, call->page, PAGE);
        core_set(call->vm, (uint32_t) bench.n_slots, call->page, 0);
}

static void shuffle(uint32_t *ids, size_t n) {
        for (size_t i = n; i > 1; i--) {
                size_t other = next_random() % i;
                uint32_t id = ids[i - 1];

                ids[i - 1] = ids[other];
                ids[other] = id;
        }
}

static void measure_memory(bool in_random_order, bool with_private) {
        static uint32_t places[SLOTS_MAX];
        size_t before = mallinfo2().uordblks;

        for (uint32_t i = 0; i < bench.n_slots; i++)
                places[i] = i;
        if (in_random_order)
                shuffle(places, bench.n_slots);
        core_prepare_vms(with_private);
        for (uint32_t id = 0; id < bench.n_slots; id++)
                core_set(0, id, 2 * (uint64_t) places[id], PAGE);
        printf("%.2f\n", (double) (mallinfo2().uordblks - before) / (double) bench.n_slots);
}

/* ---- the kernel ---------------------------------------------------------------------------------------- */

static void kernel_set(uint32_t id, uint64_t page, uint64_t size) {
        struct kvm_userspace_memory_region2 region = {
                .slot = id,
                .guest_phys_addr = page * PAGE,
                .memory_size = size,
                .userspace_addr = bench.memory + page * PAGE,
        };

        if (ioctl(bench.kernel_vm, KVM_SET_USER_MEMORY_REGION2, &region) < 0)
                die("KVM refuses slot %u: %m", id);
}

static void kernel_prepare(void) {
        int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
        void *memory;

        if (kvm < 0) {
                fprintf(stderr, "bench-slots: there is no /dev/kvm to be used: %m\n");
                exit(NO_KVM);
        }
        if ((bench.kernel_vm = ioctl(kvm, KVM_CREATE_VM, 0)) < 0)
                die("cannot make a VM: %m");
        memory = mmap(NULL, space(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED)
                die("cannot map memory: %m");
        bench.memory = (uint64_t) (uintptr_t) memory;
        for (uint32_t id = 0; id < bench.n_slots; id++)
                kernel_set(id, 2 * (uint64_t) id, PAGE);
}

static void kernel_call(const Call *call) {
        kernel_set((uint32_t) bench.n_slots, call->page, PAGE);
        kernel_set((uint32_t) bench.n_slots, call->page, 0);
}

/* ---- time ---------------------------------------------------------------------------------------------- */

static double batch(void (*call)(const Call *call), size_t n, bool scattered) {
        static Call calls[CALLS_MAX];
        size_t vm = next_random() % bench.n_vms;
        uint64_t start;

        if (n == 0 || n > CALLS_MAX)
                die("%zu is no number of calls", n);
        for (size_t i = 0; i < n; i++) {
                if (scattered)
                        vm = next_random() % bench.n_vms;
                calls[i] = (Call) { .vm = vm, .page = 2 * (next_random() % (bench.n_slots + 1)) + 1 };
        }

        start = now();
        for (size_t i = 0; i < n; i++)
                call(&calls[i]);
        return (double) (now() - start) / (double) n;
}

/* The first calls find the indexes as the order of creation left them, and not as they are in the long run. */
static void warm_up(void (*call)(const Call *call)) {
        for (size_t vm = 0; vm < bench.n_vms; vm++)
                for (uint64_t i = 0; i <= bench.n_slots; i++)
                        call(&(Call) { .vm = vm, .page = 2 * (next_random() % (bench.n_slots + 1)) + 1 });
}

static void serve(void (*call)(const Call *call), bool scattered) {
        size_t n;

        warm_up(call);
        printf("ready\n");
        fflush(stdout);
        while (scanf("%zu", &n) == 1) {
                printf("%.0f\n", batch(call, n, scattered));
                fflush(stdout);
        }
}

static bool is(const char *a, const char *b) {
        return strcmp(a, b) == 0;
}

int main(int argc, char *argv[]) {
        const char *mode = argc > 2 ? argv[1] : "", *third = argc > 3 ? argv[3] : "",
                   *fourth = argc > 4 ? argv[4] : "";

        bench.n_slots = argc > 2 ? strtoul(argv[2], NULL, 10) : 0;
        bench.n_vms = is(mode, "core") && *third ? strtoul(third, NULL, 10) : 1;
        if (bench.n_slots == 0 || bench.n_slots > SLOTS_MAX || bench.n_vms == 0 || bench.n_vms > VMS_MAX)
                die("1 to %u slots, 1 to %u VMs", SLOTS_MAX, VMS_MAX);

        if (is(mode, "core")) {
                core_prepare_vms(/* with_private= */ false);
                core_prepare_slots();
                serve(core_call, is(fourth, "scattered"));
        } else if (is(mode, "kernel")) {
                kernel_prepare();
                serve(kernel_call, /* scattered= */ false);
        } else if (is(mode, "memory"))
                measure_memory(is(third, "random"), is(fourth, "private"));
        else
                die("core|kernel|memory SLOTS …");
        return EXIT_SUCCESS;
}
