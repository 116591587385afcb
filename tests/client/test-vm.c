/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* privmem_vm_register() and privmem_vm_hand_over(): what is asked of privmemd. */

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

        (void) userdata;
        snprintf(asked, sizeof(asked), "%s", json_object_to_json_string_ext(call, JSON_C_TO_STRING_PLAIN));
        json_object_put(call);
        fake_send(f, "{\"parameters\":{\"created\":true}}");
}

static void register_with(const struct privmem_vm_options *options) {
        Fake fake;
        privmem *p = fake_start(&fake, answer, NULL);
        bool created = false;
        privmem_vm *vm;

        assert_int_equal(privmem_vm_register(p, "v", options, &vm, &created), 0);
        assert_true(created);
        assert_string_equal(privmem_vm_name(vm), "v");
        privmem_vm_free(vm);
        fake_stop(&fake, p);
}

static void test_without_options(void **state) {
        (void) state;
        register_with(NULL);
        assert_non_null(strstr(asked, "\"parameters\":{\"name\":\"v\"}"));
}

static void test_every_option(void **state) {
        const struct privmem_vm_options options = {
                .uuid = "u",
                .exit_policy = PRIVMEM_EXIT_POLICY_RETAIN,
                .retain_usec = 5,
                .retain_guest_memfd = true,
                .alias_policy = PRIVMEM_ALIAS_POLICY_OBSERVE,
                .type = PRIVMEM_VM_TYPE_TDX,
                .set_owner = true,
                .owner_uid = 7,
        };

        (void) state;
        register_with(&options);
        assert_non_null(strstr(asked, "\"uuid\":\"u\",\"exitPolicy\":\"retain\",\"aliasPolicy\":\"observe\","
                                      "\"retainUSec\":5,\"retainGuestMemfd\":true,\"type\":\"tdx\",\"ownerUID\":7}"));
}

static void test_each_type(void **state) {
        static const char *const words[] = { "undeclared", "ordinary", "sw_protected", "sev", "sev_es", "snp", "tdx" };

        (void) state;
        for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
                char wanted[40];

                snprintf(wanted, sizeof(wanted), "\"type\":\"%s\"", words[i]);
                register_with(&(struct privmem_vm_options) { .type = (privmem_vm_type) i });
                assert_non_null(strstr(asked, wanted));
        }
        register_with(&(struct privmem_vm_options) { .type = (privmem_vm_type) 7 });
        assert_non_null(strstr(asked, "\"type\":\"invalid\""));
}

static void answer_hand_over(Fake *f, void *userdata) {
        json_object *call = fake_read(f);

        snprintf(asked, sizeof(asked), "%s", json_object_to_json_string_ext(call, JSON_C_TO_STRING_PLAIN));
        json_object_put(call);
        fake_send(f, userdata);
}

static int hand_over(int pidfd, const char *reply) {
        Fake fake;
        privmem *p = fake_start(&fake, answer_hand_over, (void *) (uintptr_t) reply);
        privmem_vm *vm;
        int r;

        assert_int_equal(privmem_vm_new(p, "v", &vm), 0);
        r = privmem_vm_hand_over(vm, pidfd);
        privmem_vm_free(vm);
        fake_stop(&fake, p);
        return r;
}

static void test_hand_over(void **state) {
        (void) state;
        assert_int_equal(hand_over(STDIN_FILENO, "{\"parameters\":{}}"), 0);
        assert_non_null(strstr(asked, "io.privmemd.Memory.HandOverVM"));
        assert_non_null(strstr(asked, "{\"vm\":\"v\",\"pidFileDescriptor\":0}"));
}

static void test_hand_over_taken_back(void **state) {
        (void) state;
        assert_int_equal(hand_over(-1, "{\"parameters\":{}}"), 0);
        assert_null(strstr(asked, "pidFileDescriptor"));
}

static void test_hand_over_refused(void **state) {
        (void) state;
        assert_int_equal(hand_over(-1, "{\"error\":\"io.privmemd.Memory.VMInUse\",\"parameters\":{}}"), -EBUSY);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_without_options),
                cmocka_unit_test(test_every_option),
                cmocka_unit_test(test_each_type),
                cmocka_unit_test(test_hand_over),
                cmocka_unit_test(test_hand_over_taken_back),
                cmocka_unit_test(test_hand_over_refused),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
