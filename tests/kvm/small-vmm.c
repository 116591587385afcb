/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A VMM in one file, and the example of how to use libprivmem.
 *
 *   small-vmm --vm=NAME [--mode=run]               a guest writes a sentence into its memory
 *   small-vmm --vm=NAME --mode=alias-self          asks for one page at two guest frames
 *   small-vmm --vm=NAME --mode=alias-other --other=NAME2    the same from a second VM
 *
 *   --retain        keep the memory when this process ends
 *   --hold          at the end wait until standard input is closed
 *   --socket=PATH   where privmemd listens
 *
 * The guest has 64 KiB of memory from privmemd at guest address 0, and, if KVM can do that, 64 KiB of a guest_memfd
 * at 0x40000. It starts in real mode, copies a sentence to 0x2000 and to 0x40000, and halts. */

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <privmem.h>

#include "small-vmm.h"

/* One VM: in privmemd, and in KVM. */
struct machine {
        privmem *p;
        privmem_vm *vm;
        int kvm;    /* /dev/kvm */
        int kvm_vm; /* from KVM_CREATE_VM */
        int ram_fd; /* of the backing "ram0" */
        unsigned char *ram;
};

static struct options {
        const char *vm, *mode, *other, *socket;
        bool retain, hold;
} options = { .mode = "run" };

/* ---- failing ------------------------------------------------------------------------------------------- */

static void die_of_errno(const char *what) {
        printf("small-vmm: %s: %s\n", what, strerror(errno));
        exit(1);
}

/* r: what a function of the library returned. */
static void check(const struct machine *m, int r, const char *what) {
        if (r >= 0)
                return;
        printf("small-vmm: %s: %s\n", what, privmem_error_message(m->p));
        exit(1);
}

static int check_errno(int r, const char *what) {
        if (r < 0)
                die_of_errno(what);
        return r;
}

static unsigned char *map(int fd, size_t size) {
        void *address = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

        if (address == MAP_FAILED)
                die_of_errno("mmap");
        return address;
}

/* ---- a VM and its memory ------------------------------------------------------------------------------- */

/* Makes this process the VMM of a VM in privmemd, and creates one in KVM. */
static struct machine create_machine(const char *name) {
        const struct privmem_vm_options policy = {
                .exit_policy = options.retain ? PRIVMEM_EXIT_POLICY_RETAIN : PRIVMEM_EXIT_POLICY_RELEASE,
                .retain_guest_memfd = options.retain,
        };
        struct machine m = {};
        int r;

        r = privmem_connect(options.socket, &m.p);
        if (r < 0) {
                printf("small-vmm: cannot connect to privmemd: %s\n", strerror(-r));
                exit(1);
        }

        check(&m, privmem_vm_register(m.p, name, &policy, &m.vm, NULL), "RegisterVM");
        check(&m, privmem_vm_attach(m.vm, -1), "AttachVM");
        printf("VM %s is registered, and process %d is its VMM.\n", name, (int) getpid());

        m.kvm = check_errno(open("/dev/kvm", O_RDWR | O_CLOEXEC), "/dev/kvm");
        m.kvm_vm = check_errno(ioctl(m.kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
        return m;
}

/* Its memory stays mapped until this process ends. */
static void destroy_machine(struct machine *m) {
        close(m->kvm_vm);
        close(m->kvm);
        m->vm = privmem_vm_free(m->vm);
        m->p = privmem_close(m->p);
}

/* Ordinary memory: allocate, map, set a slot. */
static void add_ram(struct machine *m) {
        struct stat file;
        struct privmem_slot slot = {
                .slot_id = 0,
                .guest_phys_addr = RAM_GUEST_ADDRESS,
                .memory_size = RAM_SIZE,
                .backing = "ram0",
        };

        check(m, privmem_backing_allocate(m->vm, "ram0", RAM_SIZE, NULL, &m->ram_fd, NULL), "AllocateBacking");
        check_errno(fstat(m->ram_fd, &file), "fstat");
        m->ram = map(m->ram_fd, RAM_SIZE);

        slot.userspace_addr = (uintptr_t) m->ram;
        check(m, privmem_slot_set(m->vm, m->kvm_vm, &slot), "slot 0");
        printf("Slot 0: guest 0x%x, %u KiB of backing ram0 (memfd, inode %llu).\n", RAM_GUEST_ADDRESS, RAM_SIZE / 1024,
               (unsigned long long) file.st_ino);
}

/* Memory of KVM's own kind. It is its own user space side too: the guest sees the guest_memfd either way. */
static void add_guest_memfd(struct machine *m) {
        const uint64_t wanted = PRIVMEM_GUEST_MEMFD_MMAP | PRIVMEM_GUEST_MEMFD_INIT_SHARED;
        struct privmem_slot slot = {
                .slot_id = 1,
                .flags = PRIVMEM_SLOT_GUEST_MEMFD,
                .guest_phys_addr = PRIVATE_GUEST_ADDRESS,
                .memory_size = PRIVATE_SIZE,
                .backing = "private0",
                .guest_memfd = "private0",
        };
        uint64_t flags = 0;

        if (privmem_guest_memfd_flags(m->kvm_vm, &flags) < 0 || (flags & wanted) != wanted) {
                printf("Slot 1: none, as this KVM has no guest_memfd that can be mapped (Linux 6.18).\n");
                return;
        }

        check(m, privmem_guest_memfd_create(m->vm, m->kvm_vm, "private0", PRIVATE_SIZE, wanted, &slot.guest_memfd_fd),
              "guest_memfd");
        slot.userspace_addr = (uintptr_t) map(slot.guest_memfd_fd, PRIVATE_SIZE);
        check(m, privmem_slot_set(m->vm, m->kvm_vm, &slot), "slot 1");
        printf("Slot 1: guest 0x%x, %u KiB of backing private0 (guest_memfd).\n", PRIVATE_GUEST_ADDRESS,
               PRIVATE_SIZE / 1024);
}

/* ---- a guest ------------------------------------------------------------------------------------------- */

#define WORD(x) (unsigned char) ((x) & 0xff), (unsigned char) ((x) >> 8)
#define LENGTH  (sizeof(SENTENCE) - 1)

static const unsigned char code[] = {
        0x31, 0xc0,                             /* xor ax, ax */
        0x8e, 0xd8,                             /* mov ds, ax */
        0x8e, 0xc0,                             /* mov es, ax */
        0xfc,                                   /* cld */
        0xbe, WORD(SENTENCE_AT),                /* mov si, sentence */
        0xbf, WORD(RAM_OFFSET),                 /* mov di, 0x2000 */
        0xb9, WORD(LENGTH),                     /* mov cx, length */
        0xf3, 0xa4,                             /* rep movsb */
        0xb8, WORD(PRIVATE_GUEST_ADDRESS >> 4), /* mov ax, 0x4000 */
        0x8e, 0xc0,                             /* mov es, ax */
        0xbe, WORD(SENTENCE_AT),                /* mov si, sentence */
        0x31, 0xff,                             /* xor di, di */
        0xb9, WORD(LENGTH),                     /* mov cx, length */
        0xf3, 0xa4,                             /* rep movsb; without slot 1 each byte is an MMIO exit */
        0xf4,                                   /* hlt */
};

/* Runs until the guest halts. */
static void run_guest(struct machine *m) {
        struct kvm_regs registers = { .rip = CODE_AT, .rflags = 2 };
        struct kvm_sregs segments;
        struct kvm_run *run;
        int vcpu, size;

        memcpy(m->ram + CODE_AT, code, sizeof(code));
        memcpy(m->ram + SENTENCE_AT, SENTENCE, LENGTH);

        size = check_errno(ioctl(m->kvm, KVM_GET_VCPU_MMAP_SIZE, 0), "KVM_GET_VCPU_MMAP_SIZE");
        vcpu = check_errno(ioctl(m->kvm_vm, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");
        run = (struct kvm_run *) map(vcpu, (size_t) size);

        check_errno(ioctl(vcpu, KVM_GET_SREGS, &segments), "KVM_GET_SREGS");
        segments.cs.base = 0;
        segments.cs.selector = 0;
        check_errno(ioctl(vcpu, KVM_SET_SREGS, &segments), "KVM_SET_SREGS");
        check_errno(ioctl(vcpu, KVM_SET_REGS, &registers), "KVM_SET_REGS");

        do
                check_errno(ioctl(vcpu, KVM_RUN, 0), "KVM_RUN");
        while (run->exit_reason == KVM_EXIT_MMIO);

        if (run->exit_reason != KVM_EXIT_HLT) {
                printf("small-vmm: the guest stopped for reason %u, not to halt.\n", run->exit_reason);
                exit(1);
        }
        printf("The guest has run and halted. Its memory at 0x%x says: %.*s\n", RAM_OFFSET, (int) LENGTH,
               (const char *) m->ram + RAM_OFFSET);
        close(vcpu);
}

/* ---- the same page twice ------------------------------------------------------------------------------- */

/* Asks privmemd for the slot, and then KVM without privmemd. 0: the one refuses and the other does not. */
static int ask_twice(struct machine *m, const struct privmem_slot *slot) {
        struct kvm_userspace_memory_region region;
        int r;

        r = privmem_slot_set(m->vm, m->kvm_vm, slot);
        if (r >= 0) {
                printf("small-vmm: privmemd and KVM took it.\n");
                return 1;
        }
        printf("privmemd refuses it: %s\n", privmem_error_message(m->p));
        if (r != -ERANGE)
                return 1;

        check_errno(privmem_slot_encode_region(slot, &region), "encoding");
        check_errno(ioctl(m->kvm_vm, KVM_SET_USER_MEMORY_REGION, &region), "KVM_SET_USER_MEMORY_REGION");
        printf("KVM alone accepts the very same slot: KVM_SET_USER_MEMORY_REGION returns 0.\n");

        region.memory_size = 0;
        check_errno(ioctl(m->kvm_vm, KVM_SET_USER_MEMORY_REGION, &region), "KVM_SET_USER_MEMORY_REGION");
        return 0;
}

static int alias_self(struct machine *m) {
        struct privmem_slot slot = {
                .slot_id = 2,
                .guest_phys_addr = ALIAS_GUEST_ADDRESS,
                .memory_size = ALIAS_SIZE,
                .userspace_addr = (uintptr_t) map(m->ram_fd, RAM_SIZE),
                .backing = "ram0",
        };

        printf("Now the first page of ram0 a second time, at guest 0x%x of the same VM.\n", ALIAS_GUEST_ADDRESS);
        return ask_twice(m, &slot);
}

static int alias_other(struct machine *m) {
        struct machine other = create_machine(options.other);
        struct privmem_slot slot = {
                .slot_id = 0,
                .guest_phys_addr = ALIAS_GUEST_ADDRESS,
                .memory_size = ALIAS_SIZE,
                .backing = "ram0",
                .backing_vm = options.vm,
        };
        int fd, r;

        check(m, privmem_backing_open(m->vm, "ram0", PRIVMEM_ACCESS_READ_WRITE, &fd, NULL), "OpenBacking");
        slot.userspace_addr = (uintptr_t) map(fd, RAM_SIZE);
        close(fd);

        printf("Now the first page of %s's ram0 at guest 0x%x of %s.\n", options.vm, ALIAS_GUEST_ADDRESS,
               options.other);
        r = ask_twice(&other, &slot);
        destroy_machine(&other);
        return r;
}

/* ---- command line -------------------------------------------------------------------------------------- */

static bool parse_options(int argc, char **argv) {
        static const struct option names[] = {
                { "vm", required_argument, NULL, 'v' },
                { "mode", required_argument, NULL, 'm' },
                { "other", required_argument, NULL, 'o' },
                { "socket", required_argument, NULL, 's' },
                { "retain", no_argument, NULL, 'r' },
                { "hold", no_argument, NULL, 'h' },
                {},
        };
        int c;

        while ((c = getopt_long(argc, argv, "", names, NULL)) >= 0)
                switch (c) {
                case 'v':
                        options.vm = optarg;
                        break;
                case 'm':
                        options.mode = optarg;
                        break;
                case 'o':
                        options.other = optarg;
                        break;
                case 's':
                        options.socket = optarg;
                        break;
                case 'r':
                        options.retain = true;
                        break;
                case 'h':
                        options.hold = true;
                        break;
                default:
                        return false;
                }
        return options.vm && optind == argc && (strcmp(options.mode, "alias-other") != 0) == !options.other;
}

int main(int argc, char **argv) {
        struct machine m;
        char none;
        int r = 0;

        setvbuf(stdout, NULL, _IOLBF, 0);
        if (!parse_options(argc, argv)) {
                fprintf(stderr, "usage: small-vmm --vm=NAME [--mode=run|alias-self|alias-other] [--other=NAME2]\n"
                                "                 [--retain] [--hold] [--socket=PATH]\n");
                return 2;
        }

        m = create_machine(options.vm);
        add_ram(&m);
        if (strcmp(options.mode, "alias-self") == 0) {
                r = alias_self(&m);
        } else if (strcmp(options.mode, "alias-other") == 0) {
                r = alias_other(&m);
        } else {
                add_guest_memfd(&m);
                run_guest(&m);
        }

        while (options.hold && read(STDIN_FILENO, &none, 1) > 0)
                ;
        destroy_machine(&m);
        return r;
}
