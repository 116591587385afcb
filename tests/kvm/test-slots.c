/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Real memslots of a real KVM, next to the table of a real privmemd. Skipped without /dev/kvm. */

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include <privmem.h>

#include "small-vmm.h"

#define PAGE 4096u

static char directory[] = "/tmp/privmemd-kvm-XXXXXX", socket_path[64];
static pid_t daemon_pid;

static privmem *p;
static privmem_vm *vm;
static int kvm = -1, kvm_vm = -1, ram_fd = -1;
static unsigned char *ram;

/* ---- privmemd ------------------------------------------------------------------------------------------ */

static pid_t start(const char *program, char *const arguments[], int output) {
        pid_t pid = fork();

        if (pid != 0)
                return pid;
        if (output >= 0)
                dup2(output, STDOUT_FILENO);
        execv(program, arguments);
        _exit(127);
}

static int start_privmemd(void **state) {
        const char *program = getenv("PRIVMEMD");
        char option[96];

        (void) state;
        kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
        if (kvm < 0 || !program || access(program, X_OK) < 0)
                return 0; /* every test skips itself */

        if (!mkdtemp(directory))
                return -1;
        snprintf(socket_path, sizeof(socket_path), "%s/socket", directory);
        snprintf(option, sizeof(option), "--socket=%s", socket_path);
        daemon_pid = start(program, (char *[]) { (char *) program, option, NULL }, STDERR_FILENO);

        for (int i = 0; i < 500; i++) {
                privmem *probe = NULL;

                if (privmem_connect(socket_path, &probe) >= 0) {
                        privmem_close(probe);
                        return 0;
                }
                usleep(10000);
        }
        return -1;
}

static int stop_privmemd(void **state) {
        int status = 0;

        (void) state;
        if (daemon_pid <= 0)
                return 0;

        kill(daemon_pid, SIGTERM);
        waitpid(daemon_pid, &status, 0);
        unlink(socket_path);
        rmdir(directory);
        return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -1;
}

static void need_privmemd(void) {
        if (daemon_pid > 0)
                return;
        print_message(kvm < 0 ? "# /dev/kvm is missing\n" : "# privmemd is missing\n");
        skip();
}

/* ---- a VM ---------------------------------------------------------------------------------------------- */

static void create_vm(const char *name) {
        assert_int_equal(privmem_connect(socket_path, &p), 0);
        assert_int_equal(privmem_vm_register(p, name, NULL, &vm, NULL), 0);
        assert_int_equal(privmem_vm_attach(vm, -1), 0);
        assert_int_equal(privmem_backing_allocate(vm, "ram0", 16 * PAGE, NULL, &ram_fd, NULL), 0);
        ram = mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, ram_fd, 0);
        assert_ptr_not_equal(ram, MAP_FAILED);
        kvm_vm = ioctl(kvm, KVM_CREATE_VM, 0);
        assert_true(kvm_vm >= 0);
}

/* This process stays the VMM of all its VMs: a slot that stayed would still own its user addresses. */
static int destroy_vm(void **state) {
        (void) state;
        if (!p)
                return 0;
        for (uint32_t slot_id = 0; slot_id < 5; slot_id++)
                (void) privmem_slot_withdraw(vm, 0, slot_id);
        munmap(ram, 16 * PAGE);
        close(ram_fd);
        close(kvm_vm);
        vm = privmem_vm_free(vm);
        p = privmem_close(p);
        return 0;
}

static struct privmem_slot slot_at(uint32_t slot_id, uint64_t guest_phys_addr, unsigned first, unsigned pages) {
        return (struct privmem_slot) {
                .slot_id = slot_id,
                .guest_phys_addr = guest_phys_addr,
                .memory_size = (uint64_t) pages * PAGE,
                .userspace_addr = (uintptr_t) ram + first * PAGE,
                .backing = "ram0",
                .backing_offset = (uint64_t) first * PAGE,
        };
}

static int collect(const char *reply, void *userdata) {
        strncat(userdata, reply, 1000);
        return 0;
}

/* Whether privmemd's table has exactly one slot, at that address; or none, if the text is NULL. */
static void assert_declared(const char *text) {
        char slots[2001] = "", parameters[200];

        snprintf(parameters, sizeof(parameters), "{\"vm\":\"%s\"}", privmem_vm_name(vm));
        assert_int_equal(privmem_call_more(p, "ListSlots", parameters, collect, slots), 0);
        if (text)
                assert_non_null(strstr(slots, text));
        else
                assert_null(strstr(slots, "slotId"));
}

/* What KVM itself says to a slot: 0 for one that is there just like that. */
static int ask_kvm(struct privmem_slot slot) {
        struct kvm_userspace_memory_region region;

        assert_int_equal(privmem_slot_encode_region(&slot, &region), 0);
        return ioctl(kvm_vm, KVM_SET_USER_MEMORY_REGION, &region) < 0 ? -errno : 0;
}

/* ---- slots --------------------------------------------------------------------------------------------- */

static void test_create_and_delete(void **state) {
        struct privmem_slot slot;

        (void) state;
        need_privmemd();
        create_vm("create");
        slot = slot_at(0, 0, 0, 4);
        assert_int_equal(privmem_slot_set(vm, kvm_vm, &slot), 0);
        assert_declared("\"slotId\":0");
        assert_int_equal(ask_kvm(slot), 0);

        slot.memory_size = 0;
        assert_int_equal(privmem_slot_set(vm, kvm_vm, &slot), 0);
        assert_declared(NULL);
        assert_int_equal(ask_kvm(slot), -EINVAL); /* nothing to delete */
        assert_int_equal(privmem_slot_set(vm, kvm_vm, &slot), -EINVAL);
}

/* KVM knows a slot that privmemd does not, so it refuses what privmemd lets pass. */
static void test_create_fails_in_kvm(void **state) {
        struct privmem_slot hidden, slot;

        (void) state;
        need_privmemd();
        create_vm("withdraw");
        hidden = slot_at(1, 0, 0, 4);
        slot = slot_at(2, 0, 8, 4);
        assert_int_equal(ask_kvm(hidden), 0);
        assert_int_equal(privmem_slot_set(vm, kvm_vm, &slot), -EEXIST);
        assert_null(privmem_error_name(p));
        assert_non_null(strstr(privmem_error_message(p), "File exists"));
        assert_declared(NULL);
}

static void test_move_fails_in_kvm(void **state) {
        struct privmem_slot hidden, slot, moved;

        (void) state;
        need_privmemd();
        create_vm("restore");
        hidden = slot_at(1, 0x100000, 0, 4);
        slot = slot_at(2, 0x200000, 8, 4);
        moved = slot_at(2, 0x100000, 8, 4);
        assert_int_equal(ask_kvm(hidden), 0);
        assert_int_equal(privmem_slot_set(vm, kvm_vm, &slot), 0);
        assert_int_equal(privmem_slot_set(vm, kvm_vm, &moved), -EEXIST);
        assert_declared("\"guestPhysAddr\":2097152"); /* where KVM has it */
        assert_int_equal(ask_kvm(slot), 0);

        moved.guest_phys_addr = 0x300000;
        assert_int_equal(privmem_slot_set(vm, kvm_vm, &moved), 0);
        assert_declared("\"guestPhysAddr\":3145728");
        assert_int_equal(ask_kvm(moved), 0);
}

static void test_refused_slot_never_reaches_kvm(void **state) {
        struct privmem_slot slot, alias;
        void *second;

        (void) state;
        need_privmemd();
        create_vm("refuse");
        second = mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, ram_fd, 0);
        assert_ptr_not_equal(second, MAP_FAILED);
        slot = slot_at(0, 0, 0, 4);
        alias = slot_at(1, 0x100000, 0, 4);
        alias.userspace_addr = (uintptr_t) second;
        assert_int_equal(privmem_slot_set(vm, kvm_vm, &slot), 0);
        assert_int_equal(privmem_slot_set(vm, kvm_vm, &alias), -ERANGE);
        assert_string_equal(privmem_error_name(p), "io.privmemd.Memory.SlotRefused");
        assert_non_null(strstr(privmem_error_json(p), "undeclared_alias"));

        /* KVM has no slot 1, and would have taken it. */
        alias.memory_size = 0;
        assert_int_equal(ask_kvm(alias), -EINVAL);
        alias.memory_size = 4 * PAGE;
        assert_int_equal(ask_kvm(alias), 0);
        munmap(second, 16 * PAGE);
}

static void test_old_and_new_form(void **state) {
        struct privmem_slot slot;

        (void) state;
        need_privmemd();
        create_vm("forms");
        slot = slot_at(0, 0, 0, 4);
        slot.flags = PRIVMEM_SLOT_LOG_DIRTY_PAGES;
        for (int abi = PRIVMEM_KVM_ABI_AUTO; abi <= PRIVMEM_KVM_ABI_EXT; abi++) {
                if (abi == PRIVMEM_KVM_ABI_REGION2 && ioctl(kvm_vm, KVM_CHECK_EXTENSION, 231) <= 0)
                        continue;
                assert_int_equal(privmem_vm_set_kvm_abi(vm, (privmem_kvm_abi) abi), 0);
                assert_int_equal(privmem_slot_set(vm, kvm_vm, &slot), 0);
                slot.flags ^= PRIVMEM_SLOT_LOG_DIRTY_PAGES;
        }
}

/* ---- guest_memfd --------------------------------------------------------------------------------------- */

static void test_guest_memfd(void **state) {
        struct privmem_slot slot = {
                .slot_id = 3, .flags = PRIVMEM_SLOT_GUEST_MEMFD, .memory_size = 4 * PAGE, .guest_memfd = "private0"
        };
        uint64_t flags = 0;

        (void) state;
        need_privmemd();
        create_vm("private");
        if (privmem_guest_memfd_flags(kvm_vm, &flags) < 0 || flags == 0) {
                print_message("# this KVM has no guest_memfd for ordinary VMs\n");
                skip();
        }

        assert_int_equal(privmem_guest_memfd_create(vm, kvm_vm, "private0", 4 * PAGE, flags, &slot.guest_memfd_fd), 0);
        assert_int_equal(fcntl(slot.guest_memfd_fd, F_GETFD), FD_CLOEXEC);
        assert_int_equal(privmem_slot_set(vm, kvm_vm, &slot), 0);
        assert_declared("\"guestMemfd\":\"private0\"");

        /* The v5 series is in no released kernel: its form of a private slot is refused, and undone. */
        slot.slot_id = 4;
        slot.guest_phys_addr = 0x100000;
        assert_int_equal(privmem_vm_set_kvm_abi(vm, PRIVMEM_KVM_ABI_EXT), 0);
        assert_true(privmem_slot_set(vm, kvm_vm, &slot) < 0);
        assert_int_equal(privmem_vm_set_kvm_abi(vm, PRIVMEM_KVM_ABI_AUTO), 0);

        slot.slot_id = 3;
        slot.memory_size = 0;
        assert_int_equal(privmem_slot_set(vm, kvm_vm, &slot), 0);
        assert_declared(NULL);
        close(slot.guest_memfd_fd);
}

static void test_v5_form_is_undone(void **state) {
        struct privmem_slot slot = { .flags = PRIVMEM_SLOT_GUEST_MEMFD,
                                     .memory_size = PAGE,
                                     .guest_memfd = "private0" };
        uint64_t flags = 0;

        (void) state;
        need_privmemd();
        create_vm("v5");
        if (privmem_guest_memfd_flags(kvm_vm, &flags) < 0 || flags == 0) {
                print_message("# this KVM has no guest_memfd for ordinary VMs\n");
                skip();
        }

        assert_int_equal(privmem_guest_memfd_create(vm, kvm_vm, "private0", PAGE, flags, &slot.guest_memfd_fd), 0);
        assert_int_equal(privmem_vm_set_kvm_abi(vm, PRIVMEM_KVM_ABI_EXT), 0);
        assert_int_equal(privmem_slot_set(vm, kvm_vm, &slot), -EINVAL);
        assert_declared(NULL);
        close(slot.guest_memfd_fd);
}

/* ---- a guest ------------------------------------------------------------------------------------------- */

/* Whether the backing says SENTENCE there, seen from this process, which never was its VMM. */
static void assert_sentence(privmem_vm *of, const char *backing, uint64_t offset) {
        unsigned char *memory;
        int fd = -1;

        assert_int_equal(privmem_backing_open(of, backing, PRIVMEM_ACCESS_READ_WRITE, &fd, NULL), 0);
        memory = mmap(NULL, RAM_SIZE, PROT_READ, MAP_SHARED, fd, 0);
        assert_ptr_not_equal(memory, MAP_FAILED);
        assert_memory_equal(memory + offset, SENTENCE, strlen(SENTENCE));
        assert_int_equal(memory[offset + strlen(SENTENCE)], 0);
        munmap(memory, RAM_SIZE);
        close(fd);
}

/* Runs small-vmm to its end; what it printed is in output. */
static int run_small_vmm(char *output, size_t size, const char *mode, const char *other) {
        const char *program = getenv("SMALL_VMM");
        char socket_option[96], mode_option[64], other_option[64];
        char *arguments[] = { (char *) program,
                              socket_option,
                              (char *) "--vm=guest",
                              (char *) "--retain",
                              mode_option,
                              other ? other_option : NULL,
                              NULL };
        size_t used = 0;
        int ends[2], status;
        ssize_t n;
        pid_t pid;

        snprintf(socket_option, sizeof(socket_option), "--socket=%s", socket_path);
        snprintf(mode_option, sizeof(mode_option), "--mode=%s", mode);
        snprintf(other_option, sizeof(other_option), "--other=%s", other ? other : "");
        assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
        pid = start(program, arguments, ends[1]);
        close(ends[1]);
        while ((n = read(ends[0], output + used, size - 1 - used)) > 0)
                used += (size_t) n;
        output[used] = 0;
        close(ends[0]);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* The exit of the last small-vmm is seen a moment later. */
static void unregister(privmem_vm *v) {
        int r = -EBUSY;

        for (int i = 0; i < 500 && r == -EBUSY; i++) {
                r = privmem_vm_unregister(v, NULL);
                if (r == -EBUSY)
                        usleep(10000);
        }
        assert_int_equal(r, 0);
}

static void test_guest(void **state) {
        char output[8000];

        (void) state;
        need_privmemd();
        assert_int_equal(run_small_vmm(output, sizeof(output), "run", NULL), 0);
        assert_non_null(strstr(output, "The guest has run and halted. Its memory at 0x2000 says: " SENTENCE));

        assert_int_equal(privmem_connect(socket_path, &p), 0);
        assert_int_equal(privmem_vm_new(p, "guest", &vm), 0);
        assert_sentence(vm, "ram0", RAM_OFFSET);
        if (strstr(output, "of backing private0"))
                assert_sentence(vm, "private0", PRIVATE_OFFSET);
        unregister(vm);
}

static void test_alias(void **state) {
        static const char *const modes[] = { "alias-self", "alias-other" };

        (void) state;
        need_privmemd();
        assert_int_equal(privmem_connect(socket_path, &p), 0);
        for (size_t i = 0; i < 2; i++) {
                char output[8000];

                assert_int_equal(run_small_vmm(output, sizeof(output), modes[i], i == 0 ? NULL : "guest2"), 0);
                assert_non_null(strstr(output, "privmemd refuses it: "));
                assert_non_null(strstr(output, "already at guest address 0x0 in slot 0 of VM guest"));
                assert_non_null(strstr(output, "KVM alone accepts"));
                assert_int_equal(privmem_vm_new(p, "guest", &vm), 0);
                unregister(vm);
                vm = privmem_vm_free(vm);
        }
        assert_int_equal(privmem_vm_new(p, "guest2", &vm), 0);
        unregister(vm);
}

static int forget(void **state) {
        (void) state;
        vm = privmem_vm_free(vm);
        p = privmem_close(p);
        return 0;
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_teardown(test_create_and_delete, destroy_vm),
                cmocka_unit_test_teardown(test_create_fails_in_kvm, destroy_vm),
                cmocka_unit_test_teardown(test_move_fails_in_kvm, destroy_vm),
                cmocka_unit_test_teardown(test_refused_slot_never_reaches_kvm, destroy_vm),
                cmocka_unit_test_teardown(test_old_and_new_form, destroy_vm),
                cmocka_unit_test_teardown(test_guest_memfd, destroy_vm),
                cmocka_unit_test_teardown(test_v5_form_is_undone, destroy_vm),
                cmocka_unit_test_teardown(test_guest, forget),
                cmocka_unit_test_teardown(test_alias, forget),
        };

        return cmocka_run_group_tests(tests, start_privmemd, stop_privmemd);
}
