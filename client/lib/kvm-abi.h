/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* KVM's side of memslots and guest_memfd, defined here: the installed linux/kvm.h may be older than the kernel,
 * a musl toolchain may have none, and kvm_userspace_memory_region_ext was never in any. Layouts and numbers are
 * those of include/uapi/linux/kvm.h in Linux 7.3, and for …_ext those of "KVM: mm: fd-based approach for
 * supporting KVM guest private memory", v5 (March 2022). */

#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>

struct kvm_abi_region {
        uint32_t slot;
        uint32_t flags;
        uint64_t guest_phys_addr;
        uint64_t memory_size;
        uint64_t userspace_addr;
};

struct kvm_abi_region2 {
        uint32_t slot;
        uint32_t flags;
        uint64_t guest_phys_addr;
        uint64_t memory_size;
        uint64_t userspace_addr;
        uint64_t guest_memfd_offset;
        uint32_t guest_memfd;
        uint32_t pad1;
        uint64_t pad2[14];
};

struct kvm_abi_region_ext {
        struct kvm_abi_region region;
        uint64_t private_offset;
        uint32_t private_fd;
        uint32_t padding[5];
};

struct kvm_abi_create_guest_memfd {
        uint64_t size;
        uint64_t flags;
        uint64_t reserved[6];
};

struct kvm_abi_memory_attributes {
        uint64_t address;
        uint64_t size;
        uint64_t attributes;
        uint64_t flags;
};

/* KVMIO. The number of the first holds the size of the 32-byte structure for …_ext too: that series reads the
 * flags first and copies 64 bytes if KVM_MEM_PRIVATE is set. */
#define KVM_ABI_SET_USER_MEMORY_REGION  _IOW(0xAE, 0x46, struct kvm_abi_region)
#define KVM_ABI_SET_USER_MEMORY_REGION2 _IOW(0xAE, 0x49, struct kvm_abi_region2)
#define KVM_ABI_CREATE_GUEST_MEMFD      _IOWR(0xAE, 0xd4, struct kvm_abi_create_guest_memfd)
#define KVM_ABI_SET_MEMORY_ATTRIBUTES   _IOW(0xAE, 0xd2, struct kvm_abi_memory_attributes)
#define KVM_ABI_CHECK_EXTENSION         _IO(0xAE, 0x03)

enum {
        KVM_ABI_CAP_USER_MEMORY2 = 231,
        KVM_ABI_CAP_MEMORY_ATTRIBUTES = 233,
        KVM_ABI_CAP_GUEST_MEMFD = 234,
        KVM_ABI_CAP_GUEST_MEMFD_FLAGS = 244,
};

#define ASSERT_FIELD(type, field, offset, size) \
        _Static_assert(offsetof(struct type, field) == (offset) && sizeof(((struct type *) 0)->field) == (size), \
                       #type "." #field)

_Static_assert(sizeof(struct kvm_abi_region) == 32, "kvm_userspace_memory_region");
ASSERT_FIELD(kvm_abi_region, slot, 0, 4);
ASSERT_FIELD(kvm_abi_region, flags, 4, 4);
ASSERT_FIELD(kvm_abi_region, guest_phys_addr, 8, 8);
ASSERT_FIELD(kvm_abi_region, memory_size, 16, 8);
ASSERT_FIELD(kvm_abi_region, userspace_addr, 24, 8);

_Static_assert(sizeof(struct kvm_abi_region2) == 160, "kvm_userspace_memory_region2");
ASSERT_FIELD(kvm_abi_region2, slot, 0, 4);
ASSERT_FIELD(kvm_abi_region2, flags, 4, 4);
ASSERT_FIELD(kvm_abi_region2, guest_phys_addr, 8, 8);
ASSERT_FIELD(kvm_abi_region2, memory_size, 16, 8);
ASSERT_FIELD(kvm_abi_region2, userspace_addr, 24, 8);
ASSERT_FIELD(kvm_abi_region2, guest_memfd_offset, 32, 8);
ASSERT_FIELD(kvm_abi_region2, guest_memfd, 40, 4);
ASSERT_FIELD(kvm_abi_region2, pad1, 44, 4);
ASSERT_FIELD(kvm_abi_region2, pad2, 48, 112);

_Static_assert(sizeof(struct kvm_abi_region_ext) == 64, "kvm_userspace_memory_region_ext");
ASSERT_FIELD(kvm_abi_region_ext, region, 0, 32);
ASSERT_FIELD(kvm_abi_region_ext, private_offset, 32, 8);
ASSERT_FIELD(kvm_abi_region_ext, private_fd, 40, 4);
ASSERT_FIELD(kvm_abi_region_ext, padding, 44, 20);

_Static_assert(sizeof(struct kvm_abi_create_guest_memfd) == 64, "kvm_create_guest_memfd");
ASSERT_FIELD(kvm_abi_create_guest_memfd, size, 0, 8);
ASSERT_FIELD(kvm_abi_create_guest_memfd, flags, 8, 8);
ASSERT_FIELD(kvm_abi_create_guest_memfd, reserved, 16, 48);

_Static_assert(sizeof(struct kvm_abi_memory_attributes) == 32, "kvm_memory_attributes");
ASSERT_FIELD(kvm_abi_memory_attributes, address, 0, 8);
ASSERT_FIELD(kvm_abi_memory_attributes, size, 8, 8);
ASSERT_FIELD(kvm_abi_memory_attributes, attributes, 16, 8);
ASSERT_FIELD(kvm_abi_memory_attributes, flags, 24, 8);

/* The four architectures of KVM with another encoding of ioctl numbers have none of the below. */
#if defined(__x86_64__) || defined(__aarch64__) || defined(__riscv) || defined(__s390x__)
_Static_assert((uint32_t) KVM_ABI_SET_USER_MEMORY_REGION == 0x4020ae46, "KVM_SET_USER_MEMORY_REGION");
_Static_assert((uint32_t) KVM_ABI_SET_USER_MEMORY_REGION2 == 0x40a0ae49, "KVM_SET_USER_MEMORY_REGION2");
_Static_assert((uint32_t) KVM_ABI_CREATE_GUEST_MEMFD == 0xc040aed4, "KVM_CREATE_GUEST_MEMFD");
_Static_assert((uint32_t) KVM_ABI_SET_MEMORY_ATTRIBUTES == 0x4020aed2, "KVM_SET_MEMORY_ATTRIBUTES");
_Static_assert((uint32_t) KVM_ABI_CHECK_EXTENSION == 0xae03, "KVM_CHECK_EXTENSION");
#endif
