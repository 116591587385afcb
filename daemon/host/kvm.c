/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A slot costs KVM nothing until a guest runs, so its rules can be seen by setting some: in a VM without a vCPU, at
 * addresses where nothing is mapped, with a guest_memfd of two pages that nobody touches. Each slot is deleted before
 * the next one is set. */

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>

#include "core/cleanup.h"
#include "core/slot.h"
#include "host/kvm.h"

#ifndef KVM_CAP_GUEST_MEMFD
#define KVM_CAP_GUEST_MEMFD 234 /* Linux 6.8 */
#endif
#ifndef KVM_CAP_GUEST_MEMFD_FLAGS
#define KVM_CAP_GUEST_MEMFD_FLAGS 244 /* Linux 6.18 */
#endif

/* struct kvm_userspace_memory_region2 and kvm_create_guest_memfd, which older headers do not have. */
typedef struct Region2 {
        uint32_t slot, flags;
        uint64_t gpa, size, hva, guest_memfd_offset;
        uint32_t guest_memfd, pad1;
        uint64_t pad2[14];
} Region2;

typedef struct CreateGuestMemfd {
        uint64_t size, flags, reserved[6];
} CreateGuestMemfd;

#define SET_REGION2        _IOW(KVMIO, 0x49, Region2)
#define CREATE_GUEST_MEMFD _IOWR(KVMIO, 0xd4, CreateGuestMemfd)

_Static_assert(SET_REGION2 == 0x40a0ae49, "Region2 has another size than KVM's");
_Static_assert(CREATE_GUEST_MEMFD == 0xc040aed4, "CreateGuestMemfd has another size than KVM's");

typedef struct Probe {
        int vm;
        uint64_t page;
} Probe;

static int check_extension(int fd, int capability) {
        int r;

        r = ioctl(fd, KVM_CHECK_EXTENSION, (long) capability);
        return r < 0 ? 0 : r;
}

/* 0, or the errno as a positive number. */
static int set_slot(const Probe *probe, Region2 region) {
        return ioctl(probe->vm, SET_REGION2, &region) < 0 ? errno : 0;
}

static void delete_slot(const Probe *probe, uint32_t slot) {
        (void) set_slot(probe, (Region2) { .slot = slot });
}

static bool takes_slot(const Probe *probe, Region2 region) {
        if (set_slot(probe, region) != 0)
                return false;
        delete_slot(probe, region.slot);
        return true;
}

/* ---- limits of addresses ---- */

typedef bool (*TakesBits)(const Probe *probe, unsigned bits);

/* The greatest number of bits that is taken, between 32, which any KVM takes, and 63. */
static unsigned greatest_bits(const Probe *probe, TakesBits takes) {
        unsigned good = 32, bad = 64;

        while (bad - good > 1) {
                unsigned middle = (good + bad) / 2;

                if (takes(probe, middle))
                        good = middle;
                else
                        bad = middle;
        }

        return good;
}

static bool takes_gpa_bits(const Probe *probe, unsigned bits) {
        return takes_slot(probe, (Region2) { .gpa = (UINT64_C(1) << bits) - probe->page, .size = probe->page });
}

/* The end of user space is a power of two, or on x86 a page below one. */
static bool takes_hva_bits(const Probe *probe, unsigned bits) {
        return takes_slot(probe, (Region2) { .hva = (UINT64_C(1) << bits) - 2 * probe->page, .size = probe->page });
}

static uint64_t probe_max_gpa(const Probe *probe) {
#if defined(__x86_64__)
        /* kvm_mmu_max_gfn(): from the CPU where KVM uses EPT or NPT, 52 bits where it shadows page tables. */
        unsigned bits = greatest_bits(probe, takes_gpa_bits);

        return bits < 63 ? UINT64_C(1) << bits : 0;
#else
        /* Elsewhere each VM has its own limit. */
        (void) probe;
        (void) takes_gpa_bits;
        return 0;
#endif
}

static uint64_t probe_user_end(const Probe *probe) {
        uint64_t end = UINT64_C(1) << greatest_bits(probe, takes_hva_bits);

        if (takes_slot(probe, (Region2) { .hva = end - probe->page, .size = probe->page }))
                return end;
        return end - probe->page;
}

/* ---- guest_memfd ---- */

static Region2 binding(const Probe *probe, uint32_t slot, int guest_memfd, uint64_t offset) {
        return (Region2) {
                .slot = slot,
                .flags = SLOT_GUEST_MEMFD,
                .gpa = slot * probe->page,
                .size = probe->page,
                .guest_memfd = (uint32_t) guest_memfd,
                .guest_memfd_offset = offset,
        };
}

static void probe_bindings(const Probe *probe, KVMRules *rules) {
        CreateGuestMemfd create = { .size = 2 * probe->page };
        _cleanup_close_ int fd = ioctl(probe->vm, CREATE_GUEST_MEMFD, &create);
        Region2 second = binding(probe, 1, fd, 0);
        int e;

        if (fd < 0)
                return;

        rules->signed_offsets = takes_slot(probe, binding(probe, 0, fd, INT64_MAX - (probe->page - 1)));
        if (set_slot(probe, binding(probe, 0, fd, 0)) != 0)
                return;
        e = set_slot(probe, second);
        if (e != 0)
                rules->binding_errno = e;
        if (e == EEXIST && rules->max_gpa > 0) {
                /* Wrong in two ways; the errno tells which one KVM saw first. */
                second.gpa = rules->max_gpa;
                rules->binding_after_arch = set_slot(probe, second) == EINVAL;
        }
        delete_slot(probe, 0);
}

/* ---- all ---- */

static void probe_rules(const KVMHost *host, const Probe *probe, KVMRules *rules) {
        int n;

        n = check_extension(probe->vm, KVM_CAP_NR_MEMSLOTS);
        if (n > 0 && (unsigned) n < rules->slots_per_address_space)
                rules->slots_per_address_space = (uint32_t) n;
        n = check_extension(probe->vm, KVM_CAP_MULTI_ADDRESS_SPACE);
        rules->address_spaces = n > 1 ? ADDRESS_SPACES_MAX : 1;
        rules->readonly = check_extension(probe->vm, KVM_CAP_READONLY_MEM) > 0;
        rules->user_end = probe_user_end(probe);
        rules->max_gpa = probe_max_gpa(probe);

        /* Of /dev/kvm the answer is what some type of VM can have, of a VM what that one can. */
        if (check_extension(probe->vm, KVM_CAP_GUEST_MEMFD) > 0)
                rules->guest_memfd = KVM_GUEST_MEMFD_ANY_VM;
        else
                rules->guest_memfd = host->guest_memfd ? KVM_GUEST_MEMFD_PRIVATE_VM : KVM_GUEST_MEMFD_NONE;
        /* Where an ordinary VM can have none, the kernel is older than the rules that differ. */
        if (rules->guest_memfd == KVM_GUEST_MEMFD_ANY_VM)
                probe_bindings(probe, rules);
}

void kvm_host_probe(KVMHost *ret) {
        _cleanup_close_ int fd = -EBADF, vm = -EBADF;
        Probe probe = { .page = (uint64_t) sysconf(_SC_PAGESIZE) };

        *ret = (KVMHost) { .rules = kvm_rules_of(KVM_GENERATION_DEFAULT) };
        fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
        if (fd < 0)
                return;
        ret->present = true;
        ret->guest_memfd = check_extension(fd, KVM_CAP_GUEST_MEMFD) > 0;
        ret->guest_memfd_flags = (uint64_t) check_extension(fd, KVM_CAP_GUEST_MEMFD_FLAGS);

        vm = ioctl(fd, KVM_CREATE_VM, 0UL);
        probe.vm = vm;
        if (vm < 0 || !takes_slot(&probe, (Region2) { .size = probe.page }))
                return; /* KVM_SET_USER_MEMORY_REGION2 came with Linux 6.8 */
        probe_rules(ret, &probe, &ret->rules);
        ret->probed = true;
}
