/* SPDX-License-Identifier: LGPL-2.1-or-later */

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#include <fcntl.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>

#include "core/cleanup.h"
#include "host/kvm.h"

#ifndef KVM_CAP_GUEST_MEMFD
#define KVM_CAP_GUEST_MEMFD 234 /* Linux 6.8 */
#endif
#ifndef KVM_CAP_GUEST_MEMFD_FLAGS
#define KVM_CAP_GUEST_MEMFD_FLAGS 244 /* Linux 6.18 */
#endif

static int check_extension(int fd, int capability) {
        int r;

        r = ioctl(fd, KVM_CHECK_EXTENSION, (long) capability);
        return r < 0 ? 0 : r;
}

void kvm_host_probe(KVMHost *ret) {
        _cleanup_close_ int fd = -EBADF;

        *ret = (KVMHost) {};
        fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
        if (fd < 0)
                return;
        ret->present = true;
        ret->guest_memfd = check_extension(fd, KVM_CAP_GUEST_MEMFD) > 0;
        ret->guest_memfd_flags = (uint64_t) check_extension(fd, KVM_CAP_GUEST_MEMFD_FLAGS);
}

#if defined(__x86_64__)
static bool has_two_dimensional_paging(void) {
        static const char *const parameters[] = {
                "/sys/module/kvm_intel/parameters/ept",
                "/sys/module/kvm_amd/parameters/npt",
        };

        for (size_t i = 0; i < ELEMENTSOF(parameters); i++) {
                _cleanup_close_ int fd = open(parameters[i], O_RDONLY | O_CLOEXEC);
                char value;

                if (fd >= 0 && read(fd, &value, 1) == 1 && value == 'Y')
                        return true;
        }
        return false;
}

uint64_t kvm_host_max_gpa(void) {
        unsigned eax, ebx, ecx, edx, bits = 52;

        /* arch/x86/kvm/mmu.h kvm_mmu_max_gfn(), arch/x86/kvm/mmu/mmu.c kvm_get_shadow_phys_bits() */
        if (has_two_dimensional_paging() && __get_cpuid(0x80000008, &eax, &ebx, &ecx, &edx))
                bits = eax & 0xff;
        return bits < 64 ? UINT64_C(1) << bits : 0;
}
#else
uint64_t kvm_host_max_gpa(void) {
        return 0;
}
#endif
