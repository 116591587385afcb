/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Slots and guest_memfds in KVM and in privmemd at once.
 *
 * privmemd cannot ask KVM which slots a VM has, so it must know of each before KVM does, and until after KVM has
 * forgotten it: the order in privmem_slot_set() is what keeps that true. */

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kvm-abi.h"
#include "slot.h"

_Static_assert(PRIVMEM_SLOT_LOG_DIRTY_PAGES == 1 << 0, "KVM_MEM_LOG_DIRTY_PAGES");
_Static_assert(PRIVMEM_SLOT_READONLY == 1 << 1, "KVM_MEM_READONLY");
_Static_assert(PRIVMEM_SLOT_GUEST_MEMFD == 1 << 2, "KVM_MEM_GUEST_MEMFD, and KVM_MEM_PRIVATE of the v5 series");
_Static_assert(PRIVMEM_GUEST_MEMFD_MMAP == 1 << 0, "GUEST_MEMFD_FLAG_MMAP");
_Static_assert(PRIVMEM_GUEST_MEMFD_INIT_SHARED == 1 << 1, "GUEST_MEMFD_FLAG_INIT_SHARED");

/* ---- encoding ------------------------------------------------------------------------------------------ */

static bool wraps(uint64_t start, uint64_t size) {
        uint64_t end;

        return __builtin_add_overflow(start, size, &end);
}

static bool has_guest_memfd(const struct privmem_slot *s) {
        return s->flags & PRIVMEM_SLOT_GUEST_MEMFD;
}

static int encode_region(const struct privmem_slot *s, struct kvm_abi_region *ret) {
        if (s->slot_id > UINT16_MAX || s->address_space > UINT16_MAX || s->flags & ~(uint32_t) SLOT_FLAGS_ALL)
                return -EINVAL;
        if (wraps(s->guest_phys_addr, s->memory_size) || wraps(s->userspace_addr, s->memory_size))
                return -EINVAL;

        *ret = (struct kvm_abi_region) {
                .slot = s->address_space << 16 | s->slot_id,
                .flags = s->flags,
                .guest_phys_addr = s->guest_phys_addr,
                .memory_size = s->memory_size,
                .userspace_addr = s->userspace_addr,
        };
        return 0;
}

static int check_private(const struct privmem_slot *s, int private_fd) {
        if (!has_guest_memfd(s))
                return 0;
        if (private_fd < 0)
                return -EBADF;
        if (wraps(s->guest_memfd_offset, s->memory_size))
                return -EINVAL;
        return 0;
}

int privmem_slot_encode_region(const struct privmem_slot *slot, void *ret_region) {
        struct kvm_abi_region region;
        int r;

        if (has_guest_memfd(slot))
                return -EINVAL;

        r = encode_region(slot, &region);
        if (r < 0)
                return r;

        memcpy(ret_region, &region, sizeof(region));
        return 0;
}

int privmem_slot_encode_region2(const struct privmem_slot *slot, int private_fd, void *ret_region2) {
        struct kvm_abi_region2 region2 = {};
        struct kvm_abi_region region;
        int r;

        r = encode_region(slot, &region);
        if (r >= 0)
                r = check_private(slot, private_fd);
        if (r < 0)
                return r;

        memcpy(&region2, &region, sizeof(region));
        if (has_guest_memfd(slot)) {
                region2.guest_memfd_offset = slot->guest_memfd_offset;
                region2.guest_memfd = (uint32_t) private_fd;
        }
        memcpy(ret_region2, &region2, sizeof(region2));
        return 0;
}

int privmem_slot_encode_ext(const struct privmem_slot *slot, int private_fd, void *ret_ext) {
        struct kvm_abi_region_ext ext = {};
        int r;

        r = encode_region(slot, &ext.region);
        if (r >= 0)
                r = check_private(slot, private_fd);
        if (r < 0)
                return r;

        if (has_guest_memfd(slot)) {
                ext.private_offset = slot->guest_memfd_offset;
                ext.private_fd = (uint32_t) private_fd;
        }
        memcpy(ret_ext, &ext, sizeof(ext));
        return 0;
}

/* ---- one slot in KVM ----------------------------------------------------------------------------------- */

/* An encoded slot and the ioctl that takes it. */
typedef struct Command {
        unsigned long request;
        const char *name;
        union {
                struct kvm_abi_region region;
                struct kvm_abi_region2 region2;
                struct kvm_abi_region_ext ext;
        };
} Command;

/* KVM_CAP_USER_MEMORY2 is one of the kernel, so asking once a handle is enough. Before Linux 3.17 a VM could
 * not be asked at all: ENOTTY, and no REGION2 either. */
static bool has_region2(privmem_vm *vm, int kvm_vm_fd) {
        if (vm->user_memory2 < 0)
                vm->user_memory2 = ioctl(kvm_vm_fd, KVM_ABI_CHECK_EXTENSION, KVM_ABI_CAP_USER_MEMORY2) > 0;
        return vm->user_memory2;
}

static privmem_kvm_abi choose_abi(privmem_vm *vm, int kvm_vm_fd) {
        if (vm->abi != PRIVMEM_KVM_ABI_AUTO)
                return vm->abi;
        return has_region2(vm, kvm_vm_fd) ? PRIVMEM_KVM_ABI_REGION2 : PRIVMEM_KVM_ABI_REGION;
}

static int command_make(Command *c, privmem_kvm_abi abi, const struct privmem_slot *slot) {
        *c = (Command) { .request = KVM_ABI_SET_USER_MEMORY_REGION, .name = "KVM_SET_USER_MEMORY_REGION" };

        switch (abi) {
        case PRIVMEM_KVM_ABI_REGION:
                return has_guest_memfd(slot) ? -EOPNOTSUPP : privmem_slot_encode_region(slot, &c->region);
        case PRIVMEM_KVM_ABI_EXT:
                return privmem_slot_encode_ext(slot, slot->guest_memfd_fd, &c->ext);
        default:
                c->request = KVM_ABI_SET_USER_MEMORY_REGION2;
                c->name = "KVM_SET_USER_MEMORY_REGION2";
                return privmem_slot_encode_region2(slot, slot->guest_memfd_fd, &c->region2);
        }
}

static int refuse_command(privmem_vm *vm, const struct privmem_slot *slot, int code) {
        const char *why;

        if (code == -EOPNOTSUPP)
                why = "KVM cannot bind a guest_memfd here: it has no KVM_SET_USER_MEMORY_REGION2 (Linux 6.8), or the older ioctl was asked for";
        else if (code == -EBADF)
                why = "it has the flag for a guest_memfd and no file descriptor of one";
        else
                why = "its id, flags, addresses or size do not fit KVM's structure";

        return error_set(&vm->p->error, code, "Slot %u was not set: %s.", slot->slot_id, why);
}

/* Falls back to the older ioctl if a kernel claims to know REGION2 and then does not. */
static int command_run(privmem_vm *vm, int kvm_vm_fd, Command *c, const struct privmem_slot *slot) {
        if (ioctl(kvm_vm_fd, c->request, &c->region) >= 0)
                return 0;

        if (errno == ENOTTY && vm->abi == PRIVMEM_KVM_ABI_AUTO && c->request == KVM_ABI_SET_USER_MEMORY_REGION2 &&
            !has_guest_memfd(slot)) {
                vm->user_memory2 = 0;
                if (command_make(c, PRIVMEM_KVM_ABI_REGION, slot) >= 0 &&
                    ioctl(kvm_vm_fd, c->request, &c->region) >= 0)
                        return 0;
        }

        return -errno;
}

/* ---- one slot in both ---------------------------------------------------------------------------------- */

static int delete_slot(privmem_vm *vm, int kvm_vm_fd, Command *c, const struct privmem_slot *slot) {
        int r;

        r = command_run(vm, kvm_vm_fd, c, slot);
        if (r < 0)
                return error_set(&vm->p->error, r, "KVM did not delete slot %u: %s: %s.", slot->slot_id, c->name,
                                 strerror(-r));

        return privmem_slot_withdraw(vm, slot->address_space, slot->slot_id);
}

/* Makes the declaration what it was before; before is NULL if there was none. */
static int roll_back(privmem_vm *vm, const struct privmem_slot *slot, const char *before) {
        if (before)
                return slot_declare_text(vm, slot->address_space, slot->slot_id, before);
        return privmem_slot_withdraw(vm, slot->address_space, slot->slot_id);
}

static int set_declared(privmem_vm *vm, int kvm_vm_fd, Command *c, const struct privmem_slot *slot,
                        const char *before) {
        int r, undone;

        r = privmem_slot_declare(vm, slot, /* ret= */ NULL);
        if (r < 0)
                return r;

        r = command_run(vm, kvm_vm_fd, c, slot);
        if (r >= 0)
                return 0;

        undone = roll_back(vm, slot, before);
        if (undone < 0)
                return error_set(&vm->p->error, r,
                                 "KVM refused slot %u: %s: %s. Its declaration could not be undone: %s", slot->slot_id,
                                 c->name, strerror(-r), privmem_error_message(vm->p));
        return error_set(&vm->p->error, r, "KVM refused slot %u: %s: %s.", slot->slot_id, c->name, strerror(-r));
}

int privmem_slot_set(privmem_vm *vm, int kvm_vm_fd, const struct privmem_slot *slot) {
        const char *known;
        char *before = NULL;
        Command c;
        int r;

        if (kvm_vm_fd < 0)
                return error_set(&vm->p->error, -EBADF, "The file descriptor of the VM is negative.");

        r = command_make(&c, choose_abi(vm, kvm_vm_fd), slot);
        if (r < 0)
                return refuse_command(vm, slot, r);
        if (slot->memory_size == 0)
                return delete_slot(vm, kvm_vm_fd, &c, slot);

        r = slot_load_table(vm);
        if (r < 0)
                return r;

        /* The declaration replaces what the table has. */
        known = slot_table_get(&vm->slots, slot->address_space, slot->slot_id);
        if (known) {
                before = strdup(known);
                if (!before)
                        return error_set(&vm->p->error, -ENOMEM, "Out of memory.");
        }

        r = set_declared(vm, kvm_vm_fd, &c, slot, before);
        free(before);
        return r;
}

/* ---- guest_memfd --------------------------------------------------------------------------------------- */

int privmem_guest_memfd_flags(int kvm_vm_fd, uint64_t *ret_flags) {
        int flags;

        if (kvm_vm_fd < 0)
                return -EBADF;
        if (ioctl(kvm_vm_fd, KVM_ABI_CHECK_EXTENSION, KVM_ABI_CAP_GUEST_MEMFD) <= 0)
                return -EOPNOTSUPP;

        flags = ioctl(kvm_vm_fd, KVM_ABI_CHECK_EXTENSION, KVM_ABI_CAP_GUEST_MEMFD_FLAGS);
        if (ret_flags)
                *ret_flags = flags > 0 ? (uint64_t) flags : 0;
        return 0;
}

int privmem_guest_memfd_create(privmem_vm *vm, int kvm_vm_fd, const char *name, uint64_t size, uint64_t flags,
                               int *ret_fd) {
        struct kvm_abi_create_guest_memfd command = { .size = size, .flags = flags };
        int fd, r;

        if (kvm_vm_fd < 0)
                return error_set(&vm->p->error, -EBADF, "The file descriptor of the VM is negative.");

        r = privmem_backing_admit(vm, name, PRIVMEM_KIND_GUEST_MEMFD, size);
        if (r < 0)
                return r;

        fd = ioctl(kvm_vm_fd, KVM_ABI_CREATE_GUEST_MEMFD, &command);
        if (fd < 0) {
                r = -errno;
                return error_set(&vm->p->error, r,
                                 "KVM did not create the guest_memfd \"%s\": KVM_CREATE_GUEST_MEMFD: %s.", name,
                                 strerror(-r));
        }
        (void) fcntl(fd, F_SETFD, FD_CLOEXEC); /* fails for a closed file descriptor only */

        r = privmem_backing_adopt(vm, name, fd, PRIVMEM_KIND_GUEST_MEMFD, size, /* ret= */ NULL);
        if (r < 0) {
                close(fd);
                return r;
        }

        *ret_fd = fd;
        return 0;
}
