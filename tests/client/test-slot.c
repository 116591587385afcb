/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* privmem_slot_set() and privmem_guest_memfd_create(): who is asked for what, in which order, and what is undone.
 * KVM is ioctl() below, privmemd a thread; both write into one log. */

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "fake.h"
#include "lib/kvm-abi.h"

#define VM_FD 12345

typedef struct World {
        char log[1000];

        int user_memory2; /* what KVM says of the capability */
        int region_errno, region2_errno, guest_memfd_errno;
        unsigned char argument[160]; /* of the last slot ioctl */

        const char *listed; /* the array of ListSlots */
        bool refuse_slots, refuse_admission, refuse_adoption;
        int calls_left; /* then the server dies; negative: never */
} World;

static World world;

static void note(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void note(const char *format, ...) {
        size_t used = strlen(world.log);
        va_list arguments;

        va_start(arguments, format);
        vsnprintf(world.log + used, sizeof(world.log) - used, format, arguments);
        va_end(arguments);
}

/* ---- KVM ----------------------------------------------------------------------------------------------- */

static int fail_with(int code) {
        if (code == 0)
                return 0;
        errno = code;
        return -1;
}

int __wrap_ioctl(int fd, unsigned long request, ...);
int __wrap_ioctl(int fd, unsigned long request, ...) {
        va_list arguments;
        void *argument;

        va_start(arguments, request);
        argument = va_arg(arguments, void *);
        va_end(arguments);
        assert_int_equal(fd, VM_FD);

        switch ((uint32_t) request) {
        case (uint32_t) KVM_ABI_CHECK_EXTENSION:
                return (uintptr_t) argument == KVM_ABI_CAP_USER_MEMORY2 ? world.user_memory2 : 3;
        case (uint32_t) KVM_ABI_SET_USER_MEMORY_REGION:
                note("REGION ");
                memcpy(world.argument, argument, 64);
                return fail_with(world.region_errno);
        case (uint32_t) KVM_ABI_SET_USER_MEMORY_REGION2:
                note("REGION2 ");
                memcpy(world.argument, argument, 160);
                return fail_with(world.region2_errno);
        case (uint32_t) KVM_ABI_CREATE_GUEST_MEMFD:
                note("GUEST_MEMFD ");
                return world.guest_memfd_errno ? fail_with(world.guest_memfd_errno) : dup(STDIN_FILENO);
        default:
                note("UNKNOWN ");
                return fail_with(ENOTTY);
        }
}

/* ---- privmemd ------------------------------------------------------------------------------------------ */

#define REFUSAL \
        "{\"error\":\"io.privmemd.Memory.SlotRefused\",\"parameters\":{\"message\":\"Taken.\",\"vm\":\"v\",\"slotId\":1," \
        "\"addressSpace\":0,\"verdict\":{\"outcome\":\"refused\",\"rule\":\"undeclared_alias\",\"kernelErrno\":0," \
        "\"conflicts\":[]}}}"
#define VERDICT \
        "{\"parameters\":{\"verdict\":{\"outcome\":\"allowed\",\"rule\":\"rom_shadow\",\"kernelErrno\":17,\"conflicts\":[]}}}"
#define ADOPTED \
        "{\"parameters\":{\"backing\":{\"vm\":\"v\",\"name\":\"g\",\"kind\":\"guest_memfd\",\"origin\":\"adopted\"," \
        "\"size\":4096,\"pageSize\":4096,\"device\":1,\"inode\":2,\"residentBytes\":0,\"slots\":0},\"created\":true}}"

static void serve_slot(Fake *f, json_object *parameters) {
        json_object *slot = NULL;

        json_object_object_get_ex(parameters, "slot", &slot);
        note("set:%s ", json_object_to_json_string_ext(slot, JSON_C_TO_STRING_PLAIN));
        fake_send(f, world.refuse_slots ? REFUSAL : VERDICT);
}

static void serve_adoption(Fake *f, json_object *parameters) {
        bool donated = json_object_object_get_ex(parameters, "fileDescriptor", NULL);
        bool refused = donated ? world.refuse_adoption : world.refuse_admission;

        note("%s:%zu ", donated ? "adopt" : "admit", f->n_fds);
        if (refused)
                fake_send(f, "{\"error\":\"io.privmemd.Memory.NotSupported\",\"parameters\":{\"message\":\"No.\"}}");
        else
                fake_send(f, donated ? ADOPTED : "{\"parameters\":{\"created\":true}}");
}

static void serve(Fake *f, void *userdata) {
        char text[1000];

        (void) userdata;
        for (;;) {
                json_object *call = fake_read(f), *method = NULL, *parameters = NULL;
                const char *name;

                if (!call || world.calls_left-- == 0) {
                        json_object_put(call);
                        return;
                }

                json_object_object_get_ex(call, "method", &method);
                json_object_object_get_ex(call, "parameters", &parameters);
                name = strrchr(json_object_get_string(method), '.') + 1;
                if (strcmp(name, "SetSlot") == 0) {
                        serve_slot(f, parameters);
                } else if (strcmp(name, "AdoptBacking") == 0) {
                        serve_adoption(f, parameters);
                } else if (strcmp(name, "ListSlots") == 0) {
                        note("list ");
                        snprintf(text, sizeof(text), "{\"parameters\":{\"slots\":%s}}", world.listed);
                        fake_send(f, text);
                } else {
                        fake_send(f, world.listed);
                }
                json_object_put(call);
        }
}

static Fake fake;
static privmem *p;
static privmem_vm *vm;
static unsigned fds_before;

static int setup(void **state) {
        (void) state;
        world = (World) { .user_memory2 = 1, .listed = "[]", .calls_left = -1 };
        fds_before = count_fds();
        p = fake_start(&fake, serve, NULL);
        return privmem_vm_new(p, "v", &vm);
}

static int teardown(void **state) {
        (void) state;
        vm = privmem_vm_free(vm);
        fake_stop(&fake, p);
        return count_fds() == fds_before ? 0 : -1;
}

#define TEXT_OF(gpa, size) \
        "{\"slotId\":1,\"addressSpace\":0,\"flags\":[],\"guestPhysAddr\":" #gpa ",\"memorySize\":" #size \
        ",\"userspaceAddr\":8192,\"backing\":\"ram0\",\"backingOffset\":0}"
#define TEXT_OF_NONE \
        "{\"slotId\":1,\"addressSpace\":0,\"flags\":[],\"guestPhysAddr\":0,\"memorySize\":0,\"userspaceAddr\":0}"

static const struct privmem_slot plain = {
        .slot_id = 1, .guest_phys_addr = 0, .memory_size = 4096, .userspace_addr = 8192, .backing = "ram0"
};

static void assert_log(const char *expected) {
        assert_string_equal(world.log, expected);
        world.log[0] = 0;
}

/* ---- slots --------------------------------------------------------------------------------------------- */

static void test_create(void **state) {
        struct privmem_slot second = plain;

        (void) state;
        assert_int_equal(privmem_slot_set(vm, VM_FD, &plain), 0);
        assert_log("list set:" TEXT_OF(0, 4096) " REGION2 ");

        second.guest_phys_addr = 4096;
        assert_int_equal(privmem_slot_set(vm, VM_FD, &second), 0);
        assert_log("set:" TEXT_OF(4096, 4096) " REGION2 ");
}

static void test_create_fails_in_kvm(void **state) {
        (void) state;
        world.region2_errno = EEXIST;
        assert_int_equal(privmem_slot_set(vm, VM_FD, &plain), -EEXIST);
        assert_log("list set:" TEXT_OF(0, 4096) " REGION2 set:" TEXT_OF_NONE " ");
        assert_null(privmem_error_name(p));
        assert_non_null(strstr(privmem_error_message(p), "KVM_SET_USER_MEMORY_REGION2: File exists"));
}

static void test_create_refused(void **state) {
        (void) state;
        world.refuse_slots = true;
        assert_int_equal(privmem_slot_set(vm, VM_FD, &plain), -ERANGE);
        assert_log("list set:" TEXT_OF(0, 4096) " ");
        assert_string_equal(privmem_error_message(p), "Taken.");
        assert_non_null(strstr(privmem_error_json(p), "undeclared_alias"));
}

static void test_move_fails_in_kvm(void **state) {
        struct privmem_slot moved = plain;

        (void) state;
        assert_int_equal(privmem_slot_set(vm, VM_FD, &plain), 0);
        world.log[0] = 0;

        moved.guest_phys_addr = 65536;
        world.region2_errno = EINVAL;
        assert_int_equal(privmem_slot_set(vm, VM_FD, &moved), -EINVAL);
        assert_log("set:" TEXT_OF(65536, 4096) " REGION2 set:" TEXT_OF(0, 4096) " ");

        /* The old one is what is remembered. */
        assert_int_equal(privmem_slot_set(vm, VM_FD, &moved), -EINVAL);
        assert_log("set:" TEXT_OF(65536, 4096) " REGION2 set:" TEXT_OF(0, 4096) " ");
}

static void test_move_of_a_slot_set_before(void **state) {
        struct privmem_slot moved = plain;

        (void) state;
        world.listed = "[{\"vm\":\"v\",\"slot\":" TEXT_OF(0, 4096) "}]";
        world.region2_errno = EINVAL;
        moved.guest_phys_addr = 65536;
        assert_int_equal(privmem_slot_set(vm, VM_FD, &moved), -EINVAL);
        assert_log("list set:" TEXT_OF(65536, 4096) " REGION2 set:" TEXT_OF(0, 4096) " ");
}

static void test_undo_fails(void **state) {
        (void) state;
        world.region2_errno = ENOMEM;
        world.calls_left = 2;
        assert_int_equal(privmem_slot_set(vm, VM_FD, &plain), -ENOMEM);
        assert_log("list set:" TEXT_OF(0, 4096) " REGION2 ");
        assert_non_null(strstr(privmem_error_message(p), "could not be undone"));
}

static void test_delete(void **state) {
        const struct privmem_slot none = { .slot_id = 1 };

        (void) state;
        assert_int_equal(privmem_slot_set(vm, VM_FD, &plain), 0);
        world.log[0] = 0;
        assert_int_equal(privmem_slot_set(vm, VM_FD, &none), 0);
        assert_log("REGION2 set:" TEXT_OF_NONE " ");

        /* It is forgotten: a create that fails is withdrawn. */
        world.region2_errno = EEXIST;
        assert_int_equal(privmem_slot_set(vm, VM_FD, &plain), -EEXIST);
        assert_log("set:" TEXT_OF(0, 4096) " REGION2 set:" TEXT_OF_NONE " ");

        world.region2_errno = EINVAL;
        assert_int_equal(privmem_slot_set(vm, VM_FD, &none), -EINVAL);
        assert_log("REGION2 ");
}

static void test_bad_arguments(void **state) {
        struct privmem_slot slot = plain;

        (void) state;
        assert_int_equal(privmem_slot_set(vm, -1, &plain), -EBADF);
        slot.flags = 1 << 3;
        assert_int_equal(privmem_slot_set(vm, VM_FD, &slot), -EINVAL);
        assert_int_equal(privmem_slot_declare(vm, &slot, NULL), -EINVAL);
        slot.flags = PRIVMEM_SLOT_GUEST_MEMFD;
        slot.guest_memfd_fd = -1;
        assert_int_equal(privmem_slot_set(vm, VM_FD, &slot), -EBADF);
        slot = plain;
        slot.slot_id = 65536;
        assert_int_equal(privmem_slot_set(vm, VM_FD, &slot), -EINVAL);
        assert_int_equal(privmem_vm_set_kvm_abi(vm, (privmem_kvm_abi) 4), -EINVAL);
        assert_log("");
}

static void test_old_kernel(void **state) {
        struct privmem_slot slot = plain;

        (void) state;
        world.user_memory2 = 0;
        assert_int_equal(privmem_slot_set(vm, VM_FD, &plain), 0);
        assert_log("list set:" TEXT_OF(0, 4096) " REGION ");

        slot.flags = PRIVMEM_SLOT_GUEST_MEMFD;
        assert_int_equal(privmem_slot_set(vm, VM_FD, &slot), -EOPNOTSUPP);
        assert_log("");
}

static void test_kernel_that_promised_too_much(void **state) {
        (void) state;
        world.region2_errno = ENOTTY;
        assert_int_equal(privmem_slot_set(vm, VM_FD, &plain), 0);
        assert_log("list set:" TEXT_OF(0, 4096) " REGION2 REGION ");
        assert_int_equal(privmem_slot_set(vm, VM_FD, &plain), 0);
        assert_log("set:" TEXT_OF(0, 4096) " REGION ");
}

static void test_v5_series(void **state) {
        struct privmem_slot slot = plain;
        struct kvm_abi_region_ext ext;

        (void) state;
        slot.flags = PRIVMEM_SLOT_GUEST_MEMFD;
        slot.guest_memfd = "g";
        slot.guest_memfd_fd = 7;
        slot.guest_memfd_offset = 0x5000;
        assert_int_equal(privmem_vm_set_kvm_abi(vm, PRIVMEM_KVM_ABI_EXT), 0);
        assert_int_equal(privmem_slot_set(vm, VM_FD, &slot), 0);
        assert_non_null(strstr(world.log, "\"guestMemfd\":\"g\",\"guestMemfdOffset\":20480} REGION "));
        memcpy(&ext, world.argument, sizeof(ext));
        assert_int_equal(ext.region.flags, 1 << 2);
        assert_int_equal(ext.private_fd, 7);
        assert_int_equal(ext.private_offset, 0x5000);
}

static void test_declare_and_check(void **state) {
        struct privmem_verdict verdicts[2];
        bool accepted = true;

        (void) state;
        assert_int_equal(privmem_slot_declare(vm, &plain, verdicts), 0);
        assert_int_equal(verdicts[0].outcome, PRIVMEM_OUTCOME_ALLOWED);
        assert_string_equal(verdicts[0].rule, "rom_shadow");
        assert_int_equal(verdicts[0].kernel_errno, 17);
        assert_int_equal(privmem_slot_withdraw(vm, 0, 1), 0);
        assert_log("set:" TEXT_OF(0, 4096) " set:" TEXT_OF_NONE " ");

        world.listed = "{\"parameters\":{\"accepted\":false,\"verdicts\":["
                       "{\"outcome\":\"ok\",\"kernelErrno\":0,\"conflicts\":[]},"
                       "{\"outcome\":\"refused\",\"rule\":\"gfn_overlap\",\"kernelErrno\":17,\"conflicts\":[]}]}}";
        assert_int_equal(
                privmem_slot_check(vm, (const struct privmem_slot[]) { plain, plain }, 2, verdicts, &accepted), 0);
        assert_false(accepted);
        assert_int_equal(verdicts[0].outcome, PRIVMEM_OUTCOME_OK);
        assert_string_equal(verdicts[0].rule, "");
        assert_int_equal(verdicts[1].outcome, PRIVMEM_OUTCOME_REFUSED);
        assert_string_equal(verdicts[1].rule, "gfn_overlap");
        assert_int_equal(privmem_slot_check(vm, &plain, 1, verdicts, &accepted), -EPROTO);
}

static void test_absurd_lists(void **state) {
        static const char *const lists[] = {
                "7",
                "[7]",
                "[{\"slot\":{}}]",
                "[{\"slot\":{\"slotId\":-1}}]",
                "[{\"slot\":{\"slotId\":65536}}]",
                "[{\"slot\":{\"slotId\":1,\"addressSpace\":99999999999}}]",
        };

        (void) state;
        for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
                assert_int_equal(setup(NULL), 0);
                world.listed = lists[i];
                assert_int_equal(privmem_slot_set(vm, VM_FD, &plain), -EPROTO);
                assert_log("list ");
                assert_int_equal(teardown(NULL), 0);
        }
}

/* ---- encoding ------------------------------------------------------------------------------------------ */

static void test_encoding(void **state) {
        const struct privmem_slot slot = {
                .slot_id = 0x1234,
                .address_space = 1,
                .flags = PRIVMEM_SLOT_GUEST_MEMFD,
                .guest_phys_addr = 0x1112131415161000,
                .memory_size = 0x2122232425262000,
                .userspace_addr = 0x3132333435363000,
                .guest_memfd_offset = 0x4142434445464000,
        };
        unsigned char region[32], region2[160], ext[64], zeroes[160] = {};
        struct privmem_slot plainer = slot;
        uint64_t u64;
        uint32_t u32;

        (void) state;
        memset(region2, 0xff, sizeof(region2));
        memset(ext, 0xff, sizeof(ext));
        assert_int_equal(privmem_slot_encode_region2(&slot, 77, region2), 0);
        assert_int_equal(privmem_slot_encode_ext(&slot, 77, ext), 0);
        assert_int_equal(privmem_slot_encode_region(&slot, region), -EINVAL);

        /* The first 44 bytes of the two are the same; behind them is nothing. */
        assert_memory_equal(region2, ext, 44);
        assert_memory_equal(region2 + 44, zeroes, 116);
        assert_memory_equal(ext + 44, zeroes, 20);

#define ASSERT_AT(offset, variable, value) \
        (memcpy(&(variable), ext + (offset), sizeof(variable)), assert_true((variable) == (value)))
        ASSERT_AT(0, u32, 0x00011234);
        ASSERT_AT(4, u32, 1 << 2);
        ASSERT_AT(8, u64, slot.guest_phys_addr);
        ASSERT_AT(16, u64, slot.memory_size);
        ASSERT_AT(24, u64, slot.userspace_addr);
        ASSERT_AT(32, u64, slot.guest_memfd_offset);
        ASSERT_AT(40, u32, 77);

        plainer.flags = PRIVMEM_SLOT_READONLY;
        assert_int_equal(privmem_slot_encode_region(&plainer, region), 0);
        assert_int_equal(privmem_slot_encode_region2(&plainer, -1, region2), 0);
        assert_memory_equal(region, region2, 32);
        assert_memory_equal(region2 + 32, zeroes, 128);
}

static void test_encoding_refuses(void **state) {
        unsigned char out[160] = {}, untouched[160] = {};
        struct privmem_slot slot;

        (void) state;
#define REFUSED(code, field, value) \
        do { \
                slot = (struct privmem_slot) { .memory_size = 4096, .flags = PRIVMEM_SLOT_GUEST_MEMFD }; \
                slot.field = (value); \
                assert_int_equal(privmem_slot_encode_region2(&slot, 0, out), code); \
                assert_int_equal(privmem_slot_encode_ext(&slot, 0, out), code); \
        } while (0)
        REFUSED(-EINVAL, slot_id, 65536);
        REFUSED(-EINVAL, address_space, 65536);
        REFUSED(-EINVAL, flags, 1 << 3);
        REFUSED(-EINVAL, guest_phys_addr, UINT64_MAX - 4095);
        REFUSED(-EINVAL, userspace_addr, UINT64_MAX);
        REFUSED(-EINVAL, guest_memfd_offset, UINT64_MAX - 4095);

        slot = (struct privmem_slot) { .memory_size = 4096, .flags = PRIVMEM_SLOT_GUEST_MEMFD };
        assert_int_equal(privmem_slot_encode_region2(&slot, -1, out), -EBADF);
        assert_int_equal(privmem_slot_encode_ext(&slot, -1, out), -EBADF);
        slot = (struct privmem_slot) { .memory_size = 4096, .guest_phys_addr = UINT64_MAX };
        assert_int_equal(privmem_slot_encode_region(&slot, out), -EINVAL);
        assert_memory_equal(out, untouched, sizeof(out));
}

/* ---- guest_memfd --------------------------------------------------------------------------------------- */

static void test_guest_memfd(void **state) {
        int fd = -1;

        (void) state;
        assert_int_equal(privmem_guest_memfd_create(vm, VM_FD, "g", 4096, 0, &fd), 0);
        assert_log("admit:0 GUEST_MEMFD adopt:1 ");
        assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
        close(fd);
}

static void test_guest_memfd_fails(void **state) {
        int fd = -1;

        (void) state;
        assert_int_equal(privmem_guest_memfd_create(vm, -1, "g", 4096, 0, &fd), -EBADF);
        assert_log("");

        world.refuse_admission = true;
        assert_int_equal(privmem_guest_memfd_create(vm, VM_FD, "g", 4096, 0, &fd), -EOPNOTSUPP);
        assert_log("admit:0 ");

        world.refuse_admission = false;
        world.guest_memfd_errno = EINVAL;
        assert_int_equal(privmem_guest_memfd_create(vm, VM_FD, "g", 4096, 8, &fd), -EINVAL);
        assert_log("admit:0 GUEST_MEMFD ");

        world.guest_memfd_errno = 0;
        world.refuse_adoption = true;
        assert_int_equal(privmem_guest_memfd_create(vm, VM_FD, "g", 4096, 0, &fd), -EOPNOTSUPP);
        assert_log("admit:0 GUEST_MEMFD adopt:1 ");
        assert_int_equal(fd, -1);
}

static void test_guest_memfd_flags(void **state) {
        uint64_t flags = 0;

        (void) state;
        assert_int_equal(privmem_guest_memfd_flags(-1, &flags), -EBADF);
        assert_int_equal(privmem_guest_memfd_flags(VM_FD, &flags), 0);
        assert_int_equal(flags, 3);
}

int main(void) {
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        const struct CMUnitTest tests[] = {
                TEST(test_create),
                TEST(test_create_fails_in_kvm),
                TEST(test_create_refused),
                TEST(test_move_fails_in_kvm),
                TEST(test_move_of_a_slot_set_before),
                TEST(test_undo_fails),
                TEST(test_delete),
                TEST(test_bad_arguments),
                TEST(test_old_kernel),
                TEST(test_kernel_that_promised_too_much),
                TEST(test_v5_series),
                TEST(test_declare_and_check),
                cmocka_unit_test(test_absurd_lists),
                cmocka_unit_test(test_encoding),
                cmocka_unit_test(test_encoding_refuses),
                TEST(test_guest_memfd),
                TEST(test_guest_memfd_fails),
                TEST(test_guest_memfd_flags),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
