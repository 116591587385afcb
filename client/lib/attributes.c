/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Private and shared guest memory, in KVM and in privmemd at once. */

#include <errno.h>
#include <string.h>

#include "json.h"
#include "kvm-abi.h"
#include "vm.h"

_Static_assert(PRIVMEM_MEMORY_ATTRIBUTE_PRIVATE == 1 << 3, "KVM_MEMORY_ATTRIBUTE_PRIVATE");

/* ret_before: the private parts of the range until now; the handle's, until its next call. */
static int call_set(privmem_vm *vm, uint64_t guest_phys_addr, uint64_t size, bool private, json_object **ret_before) {
        json_object *q = vm_parameters(vm), *reply = NULL, *before;
        int r;

        if (!json_add_uint64(q, "guestPhysAddr", guest_phys_addr) || !json_add_uint64(q, "memorySize", size) ||
            !json_add(q, "private", json_object_new_boolean(private))) {
                json_object_put(q);
                q = NULL;
        }

        r = connection_call(vm->p, "SetMemoryAttributes", q, /* fds= */ NULL, /* n_fds= */ 0, /* max_fds= */ 0,
                            &reply);
        if (r < 0)
                return r;

        before = json_get_array(reply, "wasPrivate");
        if (!before)
                return connection_malformed(vm->p, "wasPrivate is missing");
        if (ret_before)
                *ret_before = before;
        return 0;
}

static int check_attributes(privmem_vm *vm, uint64_t attributes) {
        if (attributes & ~(uint64_t) PRIVMEM_MEMORY_ATTRIBUTE_PRIVATE)
                return error_set(&vm->p->error, -EINVAL, "The attributes 0x%llx are none of guest memory.",
                                 (unsigned long long) (attributes & ~(uint64_t) PRIVMEM_MEMORY_ATTRIBUTE_PRIVATE));
        return 0;
}

int privmem_memory_attributes_declare(privmem_vm *vm, uint64_t guest_phys_addr, uint64_t size, uint64_t attributes) {
        int r;

        r = check_attributes(vm, attributes);
        if (r < 0)
                return r;
        return call_set(vm, guest_phys_addr, size, attributes != 0, /* ret_before= */ NULL);
}

/* Makes a range that has become private or shared as a whole what it was before. */
static int roll_back(privmem_vm *vm, uint64_t guest_phys_addr, uint64_t size, bool private, json_object *before) {
        int r = 0;

        if (private)
                r = call_set(vm, guest_phys_addr, size, /* private= */ false, /* ret_before= */ NULL);
        for (size_t i = 0; r >= 0 && i < json_object_array_length(before); i++) {
                json_object *range = json_object_array_get_idx(before, i);
                uint64_t start, length;

                if (!json_get_uint64(range, "guestPhysAddr", &start) || !json_get_uint64(range, "memorySize", &length))
                        return connection_malformed(vm->p, "a private range is incomplete");
                r = call_set(vm, start, length, /* private= */ true, /* ret_before= */ NULL);
        }
        return r;
}

/* Asks KVM of this VM, since it is not one of the kernel. */
static bool can_have(int kvm_vm_fd) {
        int attributes = ioctl(kvm_vm_fd, KVM_ABI_CHECK_EXTENSION, KVM_ABI_CAP_MEMORY_ATTRIBUTES);

        return attributes > 0 && attributes & PRIVMEM_MEMORY_ATTRIBUTE_PRIVATE;
}

int privmem_memory_attributes_set(privmem_vm *vm, int kvm_vm_fd, uint64_t guest_phys_addr, uint64_t size,
                                  uint64_t attributes) {
        struct kvm_abi_memory_attributes command = {
                .address = guest_phys_addr,
                .size = size,
                .attributes = attributes,
        };
        json_object *before;
        int r, undone;

        if (kvm_vm_fd < 0)
                return error_set(&vm->p->error, -EBADF, "The file descriptor of the VM is negative.");
        r = check_attributes(vm, attributes);
        if (r < 0)
                return r;
        if (!can_have(kvm_vm_fd))
                return error_set(
                        &vm->p->error, -EOPNOTSUPP,
                        "KVM has no private memory for this VM: KVM_CAP_MEMORY_ATTRIBUTES does not have the attribute. It takes Linux 6.8, and a type of VM with private memory.");

        r = call_set(vm, guest_phys_addr, size, attributes != 0, &before);
        if (r < 0)
                return r;
        if (ioctl(kvm_vm_fd, KVM_ABI_SET_MEMORY_ATTRIBUTES, &command) >= 0)
                return 0;

        r = -errno;
        json_object_get(before); /* the calls below drop the answer that it belongs to */
        undone = roll_back(vm, guest_phys_addr, size, attributes != 0, before);
        json_object_put(before);
        if (undone < 0)
                return error_set(
                        &vm->p->error, r,
                        "KVM refused the attributes: KVM_SET_MEMORY_ATTRIBUTES: %s. Their declaration could not be undone: %s",
                        strerror(-r), privmem_error_message(vm->p));
        return error_set(&vm->p->error, r, "KVM refused the attributes: KVM_SET_MEMORY_ATTRIBUTES: %s.", strerror(-r));
}
