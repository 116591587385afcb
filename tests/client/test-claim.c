/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* privmem_claim_redeem(): what is asked, what is made of the answer, and that no file descriptor is lost or taken twice,
 * whatever the answer says. */

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

typedef struct Answer {
        const char *text;
        size_t n_fds;
} Answer;

static char asked[500];

static void answer(Fake *f, void *userdata) {
        const Answer *a = userdata;
        json_object *call = fake_read(f);

        snprintf(asked, sizeof(asked), "%s", json_object_to_json_string_ext(call, JSON_C_TO_STRING_PLAIN));
        json_object_put(call);
        fake_send_bytes(f, a->text, strlen(a->text) + 1, a->n_fds);
}

static Fake fake;
static privmem *p;
static privmem_vm *vm;
static unsigned n_before;

static void start(Answer *a) {
        n_before = count_fds();
        p = fake_start(&fake, answer, a);
        assert_int_equal(privmem_vm_new(p, "v", &vm), 0);
}

static void stop(void) {
        vm = privmem_vm_free(vm);
        fake_stop(&fake, p);
        assert_int_equal(count_fds(), n_before);
}

#define BACKING(name, index) \
        "{\"name\":\"" name \
        "\",\"kind\":\"hugetlb\",\"size\":4096,\"access\":\"read_only\",\"fileDescriptor\":" index "}"
#define REPLY(backings) "{\"parameters\":{\"vm\":{},\"backings\":[" backings "]}}"

static void test_redeem(void **state) {
        Answer a = { REPLY(BACKING("ram1", "1") "," BACKING("ram0", "0")), 2 };
        struct privmem_redeemed *redeemed = NULL;
        size_t n = 0;

        (void) state;
        start(&a);
        assert_int_equal(privmem_claim_redeem(vm, "pmc_x", false, &redeemed, &n), 0);
        assert_non_null(strstr(asked, "io.privmemd.Memory.RedeemClaim"));
        assert_non_null(strstr(asked, "{\"vm\":\"v\",\"token\":\"pmc_x\"}"));
        assert_int_equal(n, 2);
        assert_string_equal(redeemed[0].name, "ram1");
        assert_string_equal(redeemed[1].name, "ram0");
        assert_int_equal(redeemed[0].kind, PRIVMEM_KIND_HUGETLB);
        assert_int_equal(redeemed[0].access, PRIVMEM_ACCESS_READ_ONLY);
        assert_int_equal(redeemed[0].size, 4096);
        assert_true(redeemed[0].fd > 2 && redeemed[1].fd > 2 && redeemed[0].fd != redeemed[1].fd);
        assert_null(privmem_redeemed_free(redeemed, n));
        stop();
}

static void test_what_is_kept_stays_open(void **state) {
        Answer a = { REPLY(BACKING("ram0", "0")), 1 };
        struct privmem_redeemed *redeemed = NULL;
        size_t n = 0;
        int fd;

        (void) state;
        start(&a);
        assert_int_equal(privmem_claim_redeem(vm, "pmc_x", true, &redeemed, &n), 0);
        assert_non_null(strstr(asked, "\"attach\":true"));
        fd = redeemed[0].fd;
        redeemed[0].fd = -1;
        privmem_redeemed_free(redeemed, n);
        assert_int_equal(close(fd), 0);
        stop();
}

static void test_refused(void **state) {
        Answer a = { "{\"error\":\"io.privmemd.Memory.ClaimInvalid\",\"parameters\":{\"message\":\"No.\"}}", 0 };
        struct privmem_redeemed *redeemed = NULL;
        size_t n = 7;

        (void) state;
        start(&a);
        assert_int_equal(privmem_claim_redeem(vm, NULL, false, &redeemed, &n), -EACCES);
        assert_string_equal(privmem_error_message(p), "No.");
        assert_non_null(strstr(asked, "\"token\":\"\""));
        assert_null(redeemed);
        assert_int_equal(n, 7);
        assert_null(privmem_redeemed_free(NULL, 0));
        stop();
}

/* A file descriptor that no backing names is closed. */
static void test_more_than_is_named(void **state) {
        Answer a = { REPLY(BACKING("ram0", "2")), 3 };
        struct privmem_redeemed *redeemed = NULL;
        size_t n = 0;

        (void) state;
        start(&a);
        assert_int_equal(privmem_claim_redeem(vm, "pmc_x", false, &redeemed, &n), 0);
        assert_int_equal(n, 1);
        privmem_redeemed_free(redeemed, n);
        stop();
}

static void test_malformed(void **state) {
        static Answer wrong[] = {
                { "{\"parameters\":{\"vm\":{}}}", 1 },
                { REPLY(""), 1 },
                { REPLY("1"), 1 },
                { REPLY(BACKING("", "0")), 1 },
                { REPLY(BACKING("a123456789a123456789a123456789a123456789a123456789a123456789a123456789", "0")), 1 },
                { REPLY(BACKING("ram0", "1")), 1 },
                { REPLY(BACKING("ram0", "0")), 0 },
                { REPLY(BACKING("ram0", "\"0\"")), 1 },
                { REPLY(BACKING("ram0", "0") "," BACKING("ram1", "0")), 2 },
                { REPLY("{\"name\":\"ram0\",\"kind\":\"x\",\"size\":1,\"access\":\"read_only\",\"fileDescriptor\":0}"),
                  1 },
                { REPLY("{\"name\":\"ram0\",\"kind\":\"memfd\",\"size\":1,\"access\":\"x\",\"fileDescriptor\":0}"),
                  1 },
                { REPLY("{\"name\":\"ram0\",\"kind\":\"memfd\",\"access\":\"read_only\",\"fileDescriptor\":0}"), 1 },
        };

        (void) state;
        for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
                struct privmem_redeemed *redeemed = NULL;
                size_t n = 0;

                start(&wrong[i]);
                assert_int_equal(privmem_claim_redeem(vm, "pmc_x", false, &redeemed, &n), -EPROTO);
                assert_null(redeemed);
                assert_int_equal(privmem_claim_redeem(vm, "pmc_x", false, &redeemed, &n), -ENOTCONN);
                stop();
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_redeem),    cmocka_unit_test(test_what_is_kept_stays_open),
                cmocka_unit_test(test_refused),   cmocka_unit_test(test_more_than_is_named),
                cmocka_unit_test(test_malformed),
        };

        return cmocka_run_group_tests_name("claim", tests, NULL, NULL);
}
