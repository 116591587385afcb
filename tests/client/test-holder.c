/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* privmem_vm_holders(): what is asked, and what is made of the answer. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "fake.h"

#define HOLDER(backing, vmm, rest) \
        "{\"backing\":\"" backing "\",\"pid\":42,\"command\":\"qemu\",\"uid\":64055," vmm \
        "\"fileDescriptors\":3,\"sharedBytes\":4096,\"privateBytes\":8192,\"writable\":true,\"copiesOnWrite\":" rest \
        "}"
#define END "],\"complete\":false,\"unreadable\":5}"

static const char *answers[4]; /* ends with NULL */
static char asked[500];

static void answer(Fake *f, void *userdata) {
        json_object *call = fake_read(f);

        (void) userdata;
        snprintf(asked, sizeof(asked), "%s", json_object_to_json_string_ext(call, JSON_C_TO_STRING_PLAIN));
        json_object_put(call);
        for (size_t i = 0; answers[i]; i++)
                fake_send(f, answers[i]);
}

static Fake fake;
static privmem *p;
static privmem_vm *vm;
static struct privmem_holder seen[4];
static size_t n_seen;

static int collect(const struct privmem_holder *holder, void *userdata) {
        seen[n_seen++] = *holder;
        return *(int *) userdata;
}

static int list(const char *backing, int verdict, bool *ret_complete, uint64_t *ret_unreadable) {
        n_seen = 0;
        p = fake_start(&fake, answer, NULL);
        assert_int_equal(privmem_vm_new(p, "v", &vm), 0);
        return privmem_vm_holders(vm, backing, collect, &verdict, ret_complete, ret_unreadable);
}

static void stop(void) {
        vm = privmem_vm_free(vm);
        fake_stop(&fake, p);
        memset(answers, 0, sizeof(answers));
}

static void test_all(void **state) {
        uint64_t unreadable = 0;
        bool complete = true;

        (void) state;
        answers[0] = "{\"parameters\":{\"holders\":[" HOLDER("ram0", "\"vmmOf\":[\"w\",\"v\"],", "false") "," HOLDER(
                "ram0", "\"vmmOf\":[\"w\"],", "true") END ",\"continues\":true}";
        answers[1] = "{\"parameters\":{\"holders\":[" HOLDER("ram1", "", "false") END "}";
        assert_int_equal(list(NULL, 0, &complete, &unreadable), 0);
        assert_int_equal(n_seen, 3);
        assert_string_equal(seen[0].backing, "ram0");
        assert_string_equal(seen[0].command, "qemu");
        assert_int_equal(seen[0].pid, 42);
        assert_int_equal(seen[0].uid, 64055);
        assert_int_equal(seen[0].fds, 3);
        assert_int_equal(seen[0].shared_bytes, 4096);
        assert_int_equal(seen[0].private_bytes, 8192);
        assert_true(seen[0].is_vmm && seen[0].writable && !seen[0].copies_on_write);
        assert_true(!seen[1].is_vmm && seen[1].copies_on_write);
        assert_string_equal(seen[2].backing, "ram1");
        assert_false(seen[2].is_vmm);
        assert_false(complete);
        assert_int_equal(unreadable, 5);
        assert_non_null(strstr(asked, "io.privmemd.Memory.ListHolders"));
        assert_non_null(strstr(asked, "\"more\":true"));
        assert_null(strstr(asked, "backing"));
        stop();
}

static void test_one_backing(void **state) {
        (void) state;
        answers[0] = "{\"parameters\":{\"holders\":[],\"complete\":true,\"unreadable\":0}}";
        assert_int_equal(list("ram0", 0, NULL, NULL), 0);
        assert_int_equal(n_seen, 0);
        assert_non_null(strstr(asked, "\"vm\":\"v\",\"backing\":\"ram0\""));
        stop();
}

static void test_error(void **state) {
        uint64_t unreadable = 7;

        (void) state;
        answers[0] = "{\"error\":\"io.privmemd.Memory.NoSuchBacking\",\"parameters\":{\"message\":\"None.\"}}";
        assert_int_equal(list("ram0", 0, NULL, &unreadable), -ENOENT);
        assert_string_equal(privmem_error_message(p), "None.");
        assert_int_equal(unreadable, 7);
        stop();
}

static void test_stopped_by_the_callback(void **state) {
        (void) state;
        answers[0] = "{\"parameters\":{\"holders\":[" HOLDER("ram0", "", "true") "," HOLDER("ram1", "", "true") END
                ",\"continues\":true}";
        answers[1] = "{\"parameters\":{\"holders\":[" END "}";
        assert_int_equal(list(NULL, 9, NULL, NULL), 9);
        assert_int_equal(n_seen, 1);
        assert_int_equal(privmem_vm_attach(vm, -1), -ENOTCONN);
        stop();
}

static void test_malformed(void **state) {
        static const char *const wrong[] = {
                "{\"parameters\":{\"complete\":true,\"unreadable\":0}}",
                "{\"parameters\":{\"holders\":[],\"complete\":true}}",
                "{\"parameters\":{\"holders\":[1" END "}",
                "{\"parameters\":{\"holders\":[{\"backing\":\"ram0\"}" END "}",
                "{\"parameters\":{\"holders\":[" HOLDER(
                        "a123456789a123456789a123456789a123456789a123456789a123456789a123456789", "", "true") END "}",
        };

        (void) state;
        for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
                answers[0] = wrong[i];
                assert_int_equal(list(NULL, 0, NULL, NULL), -EPROTO);
                assert_int_equal(n_seen, 0);
                stop();
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_all),       cmocka_unit_test(test_one_backing),
                cmocka_unit_test(test_error),     cmocka_unit_test(test_stopped_by_the_callback),
                cmocka_unit_test(test_malformed),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
