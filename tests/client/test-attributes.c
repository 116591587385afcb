/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* privmem_memory_attributes_set(): who is asked for what, in which order, and what is undone. KVM is ioctl() below,
 * privmemd a thread; both write into one log. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "fake.h"
#include "lib/kvm-abi.h"

#define VM_FD   12345
#define PRIVATE PRIVMEM_MEMORY_ATTRIBUTE_PRIVATE

static struct {
        char log[1000];
        int capability, attributes_errno; /* what KVM says */
        struct kvm_abi_memory_attributes argument;
        const char *was_private; /* what privmemd answers */
        bool refuse;
        int calls_left; /* then the server dies; negative: never */
} world;

static void note(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void note(const char *format, ...) {
        size_t used = strlen(world.log);
        va_list arguments;

        va_start(arguments, format);
        vsnprintf(world.log + used, sizeof(world.log) - used, format, arguments);
        va_end(arguments);
}

int __wrap_ioctl(int fd, unsigned long request, ...);
int __wrap_ioctl(int fd, unsigned long request, ...) {
        va_list arguments;
        void *argument;

        va_start(arguments, request);
        argument = va_arg(arguments, void *);
        va_end(arguments);
        assert_int_equal(fd, VM_FD);

        if ((uint32_t) request == (uint32_t) KVM_ABI_CHECK_EXTENSION) {
                assert_int_equal((uintptr_t) argument, KVM_ABI_CAP_MEMORY_ATTRIBUTES);
                note("CAP ");
                return world.capability;
        }
        assert_int_equal((uint32_t) request, 0x4020aed2);
        note("ATTRIBUTES ");
        memcpy(&world.argument, argument, sizeof(world.argument));
        errno = world.attributes_errno;
        return world.attributes_errno ? -1 : 0;
}

static void serve(Fake *f, void *userdata) {
        json_object *call;
        char text[1000];

        (void) userdata;
        while (world.calls_left-- != 0 && (call = fake_read(f))) {
                json_object *q = json_object_object_get(call, "parameters");

                assert_string_equal(json_object_get_string(json_object_object_get(call, "method")),
                                    "io.privmemd.Memory.SetMemoryAttributes");
                note("%s:%s+%s ", json_object_get_boolean(json_object_object_get(q, "private")) ? "private" : "shared",
                     json_object_get_string(json_object_object_get(q, "guestPhysAddr")),
                     json_object_get_string(json_object_object_get(q, "memorySize")));
                json_object_put(call);
                snprintf(text, sizeof(text), "{\"parameters\":{\"wasPrivate\":%s}}", world.was_private);
                fake_send(f, world.refuse ? "{\"error\":\"io.privmemd.Memory.LimitExceeded\",\"parameters\":{"
                                            "\"message\":\"Too many.\",\"limit\":\"x\",\"maximum\":1}}" :
                                            text);
        }
}

static Fake fake;
static privmem *p;
static privmem_vm *vm;

static int setup(void **state) {
        (void) state;
        memset(&world, 0, sizeof(world));
        world.capability = PRIVATE;
        world.was_private = "[]";
        world.calls_left = -1;
        p = fake_start(&fake, serve, NULL);
        return privmem_vm_new(p, "v", &vm);
}

static int teardown(void **state) {
        (void) state;
        vm = privmem_vm_free(vm);
        fake_stop(&fake, p);
        return 0;
}

static void test_declared_before_the_ioctl(void **state) {
        (void) state;
        assert_int_equal(privmem_memory_attributes_set(vm, VM_FD, 4096, 8192, PRIVATE), 0);
        assert_string_equal(world.log, "CAP private:4096+8192 ATTRIBUTES ");
        assert_int_equal(world.argument.address, 4096);
        assert_int_equal(world.argument.size, 8192);
        assert_int_equal(world.argument.attributes, 8);
        assert_int_equal(world.argument.flags, 0);
}

static void test_shared(void **state) {
        (void) state;
        assert_int_equal(privmem_memory_attributes_set(vm, VM_FD, 0, 4096, 0), 0);
        assert_string_equal(world.log, "CAP shared:0+4096 ATTRIBUTES ");
        assert_int_equal(world.argument.attributes, 0);
}

static void test_kernel_without(void **state) {
        static const int answers[] = { 0, -1, 1 << 2 };

        (void) state;
        for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
                world.log[0] = 0;
                world.capability = answers[i];
                assert_int_equal(privmem_memory_attributes_set(vm, VM_FD, 0, 4096, PRIVATE), -EOPNOTSUPP);
                assert_string_equal(world.log, "CAP ");
                assert_null(privmem_error_name(p));
                assert_non_null(strstr(privmem_error_message(p), "KVM_CAP_MEMORY_ATTRIBUTES"));
        }
}

static void test_refused_by_privmemd(void **state) {
        (void) state;
        world.refuse = true;
        assert_int_equal(privmem_memory_attributes_set(vm, VM_FD, 0, 4096, PRIVATE), -EDQUOT);
        assert_string_equal(world.log, "CAP private:0+4096 ");
}

static void test_private_is_undone(void **state) {
        (void) state;
        world.attributes_errno = ENOMEM;
        world.was_private =
                "[{\"guestPhysAddr\":4096,\"memorySize\":4096},{\"guestPhysAddr\":16384,\"memorySize\":8192}]";
        assert_int_equal(privmem_memory_attributes_set(vm, VM_FD, 0, 65536, PRIVATE), -ENOMEM);
        assert_string_equal(world.log,
                            "CAP private:0+65536 ATTRIBUTES shared:0+65536 private:4096+4096 private:16384+8192 ");
        assert_null(privmem_error_name(p));
        assert_non_null(strstr(privmem_error_message(p), "KVM_SET_MEMORY_ATTRIBUTES"));
}

static void test_shared_is_undone(void **state) {
        (void) state;
        world.attributes_errno = EINVAL;
        world.was_private = "[{\"guestPhysAddr\":0,\"memorySize\":4096}]";
        assert_int_equal(privmem_memory_attributes_set(vm, VM_FD, 0, 65536, 0), -EINVAL);
        assert_string_equal(world.log, "CAP shared:0+65536 ATTRIBUTES private:0+4096 ");
}

static void test_undoing_fails(void **state) {
        (void) state;
        world.attributes_errno = ENOMEM;
        world.calls_left = 1;
        assert_int_equal(privmem_memory_attributes_set(vm, VM_FD, 0, 4096, PRIVATE), -ENOMEM);
        assert_non_null(strstr(privmem_error_message(p), "could not be undone"));
}

static void test_malformed_answer(void **state) {
        (void) state;
        world.was_private = "null";
        assert_int_equal(privmem_memory_attributes_set(vm, VM_FD, 0, 4096, PRIVATE), -EPROTO);
}

static void test_malformed_range(void **state) {
        (void) state;
        world.attributes_errno = ENOMEM;
        world.was_private = "[{\"guestPhysAddr\":0}]";
        assert_int_equal(privmem_memory_attributes_set(vm, VM_FD, 0, 4096, PRIVATE), -ENOMEM);
        assert_non_null(strstr(privmem_error_message(p), "could not be undone"));
}

static void test_wrong_arguments(void **state) {
        (void) state;
        assert_int_equal(privmem_memory_attributes_set(vm, -1, 0, 4096, PRIVATE), -EBADF);
        assert_int_equal(privmem_memory_attributes_set(vm, VM_FD, 0, 4096, 1), -EINVAL);
        assert_int_equal(privmem_memory_attributes_set(vm, VM_FD, 0, 4096, PRIVATE | UINT64_C(1) << 40), -EINVAL);
        assert_int_equal(privmem_memory_attributes_declare(vm, 0, 4096, 2), -EINVAL);
        assert_string_equal(world.log, "");
}

static void test_declare_asks_no_kernel(void **state) {
        (void) state;
        world.capability = 0;
        assert_int_equal(privmem_memory_attributes_declare(vm, 0, 4096, PRIVATE), 0);
        assert_int_equal(privmem_memory_attributes_declare(vm, 0, 4096, 0), 0);
        assert_string_equal(world.log, "private:0+4096 shared:0+4096 ");
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(test_declared_before_the_ioctl),
                TEST(test_shared),
                TEST(test_kernel_without),
                TEST(test_refused_by_privmemd),
                TEST(test_private_is_undone),
                TEST(test_shared_is_undone),
                TEST(test_undoing_fails),
                TEST(test_malformed_answer),
                TEST(test_malformed_range),
                TEST(test_wrong_arguments),
                TEST(test_declare_asks_no_kernel),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
