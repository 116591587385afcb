/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* privmem_backing_share() and privmem_backing_reclaim(): what is asked, and what is made of the answer. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

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

static void test_share(void **state) {
        bool created = false;

        (void) state;
        start("{\"parameters\":{\"created\":true}}");
        assert_int_equal(privmem_backing_share(vm, "ram0", "w", PRIVMEM_ACCESS_READ_ONLY, &created), 0);
        stop();
        assert_true(created);
        assert_non_null(strstr(asked, "io.privmemd.Memory.ShareBacking"));
        assert_non_null(strstr(asked, "\"vm\":\"v\",\"backing\":\"ram0\",\"peer\":\"w\",\"access\":\"read_only\""));
}

static void test_share_refused(void **state) {
        bool created = true;

        (void) state;
        start("{\"error\":\"io.privmemd.Memory.NameConflict\",\"parameters\":{\"message\":\"It differs.\"}}");
        assert_int_equal(privmem_backing_share(vm, "ram0", "w", PRIVMEM_ACCESS_READ_WRITE, &created), -EEXIST);
        assert_string_equal(privmem_error_message(p), "It differs.");
        stop();
        assert_true(created);
        assert_non_null(strstr(asked, "\"access\":\"read_write\""));
}

static void test_reclaim(void **state) {
        bool reclaimed = true;

        (void) state;
        start("{\"parameters\":{\"reclaimed\":false}}");
        assert_int_equal(privmem_backing_reclaim(vm, "ram0", "w", &reclaimed), 0);
        stop();
        assert_false(reclaimed);
        assert_non_null(strstr(asked, "io.privmemd.Memory.ReclaimBacking"));
        assert_null(strstr(asked, "access"));
}

static void test_reclaim_without_interest(void **state) {
        (void) state;
        start("{\"parameters\":{\"reclaimed\":true}}");
        assert_int_equal(privmem_backing_reclaim(vm, "ram0", "w", NULL), 0);
        stop();
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_share),
                cmocka_unit_test(test_share_refused),
                cmocka_unit_test(test_reclaim),
                cmocka_unit_test(test_reclaim_without_interest),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
