/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* privmem_vm_register() with all options, privmem_vm_attach() and privmem_vm_hand_over(): what is asked. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "fake.h"

static char asked[500];

static void answer(Fake *f, void *userdata) {
        json_object *call = fake_read(f);

        snprintf(asked, sizeof(asked), "%s", json_object_to_json_string_ext(call, JSON_C_TO_STRING_PLAIN));
        json_object_put(call);
        fake_send(f, userdata);
}

static Fake fake;
static privmem *p;
static privmem_vm *vm;

static void start(const char *reply) {
        p = fake_start(&fake, answer, (void *) (uintptr_t) reply);
        assert_int_equal(privmem_vm_new(p, "v", &vm), 0);
}

static void stop(void) {
        vm = privmem_vm_free(vm);
        fake_stop(&fake, p);
}

static void test_register(void **state) {
        const struct privmem_vm_options options = {
                .exit_policy = PRIVMEM_EXIT_POLICY_RETAIN,
                .retain_usec = 5,
                .retain_guest_memfd = true,
        };
        privmem_vm *other;

        (void) state;
        start("{\"parameters\":{\"created\":true}}");
        assert_int_equal(privmem_vm_register(p, "w", &options, &other, NULL), 0);
        privmem_vm_free(other);
        stop();
        assert_non_null(strstr(asked, "\"exitPolicy\":\"retain\""));
        assert_non_null(strstr(asked, "\"retainUSec\":5,\"retainGuestMemfd\":true"));
}

static void test_register_without_options(void **state) {
        const struct privmem_vm_options options = {};
        privmem_vm *other;

        (void) state;
        start("{\"parameters\":{\"created\":true}}");
        assert_int_equal(privmem_vm_register(p, "w", &options, &other, NULL), 0);
        privmem_vm_free(other);
        stop();
        assert_null(strstr(asked, "retain"));
}

static void test_hand_over(void **state) {
        (void) state;
        start("{\"parameters\":{}}");
        assert_int_equal(privmem_vm_hand_over(vm, STDIN_FILENO), 0);
        stop();
        assert_non_null(strstr(asked, "io.privmemd.Memory.HandOverVM"));
        assert_non_null(strstr(asked, "{\"vm\":\"v\",\"pidFileDescriptor\":0}"));
}

static void test_hand_over_taken_back(void **state) {
        (void) state;
        start("{\"parameters\":{}}");
        assert_int_equal(privmem_vm_hand_over(vm, -1), 0);
        stop();
        assert_null(strstr(asked, "pidFileDescriptor"));
}

static void test_hand_over_refused(void **state) {
        (void) state;
        start("{\"error\":\"io.privmemd.Memory.VMInUse\",\"parameters\":{\"message\":\"Wait.\"}}");
        assert_int_equal(privmem_vm_hand_over(vm, -1), -EBUSY);
        assert_string_equal(privmem_error_message(p), "Wait.");
        stop();
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_register),          cmocka_unit_test(test_register_without_options),
                cmocka_unit_test(test_hand_over),         cmocka_unit_test(test_hand_over_taken_back),
                cmocka_unit_test(test_hand_over_refused),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
