/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A subscription: whole events, halves, several at once, and how it ends. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "fake.h"

#define EVENT(n, rest) \
        "{\"parameters\":{\"event\":{\"sequence\":" #n ",\"timestampUSec\":5,\"kind\":\"vm_registered\"" rest \
        "}},\"continues\":true}"

static int gate[2];

static void wait_at_gate(void) {
        char c;

        assert_int_equal(read(gate[0], &c, 1), 1);
}

static void open_gate(void) {
        assert_int_equal(write(gate[1], "x", 1), 1);
}

static void send_events(Fake *f, void *userdata) {
        static const char two[] = EVENT(2, ",\"vm\":\"v\",\"backing\":null") "\0" EVENT(
                3, ",\"vm\":\"v\",\"backing\":\"b\"");
        json_object *call = fake_read(f);

        (void) userdata;
        fake_send(f, EVENT(1, ""));
        json_object_put(call);

        wait_at_gate();
        fake_send_bytes(f, two, sizeof(two), 0);
        fake_send_bytes(f, "{\"para", 6, 0);
        wait_at_gate();
        fake_send(f, "meters\":{\"event\":{\"sequence\":4}},\"continues\":true}");
}

static void test_events(void **state) {
        struct privmem_event event;
        Fake f;
        privmem *p = fake_start(&f, send_events, NULL);

        (void) state;
        assert_int_equal(privmem_event_next(p, 0, &event), -EINVAL);
        assert_int_equal(privmem_subscribe(p, 0), 0);
        assert_int_equal(privmem_subscribe(p, 0), -EBUSY);
        assert_int_equal(privmem_call(p, "GetHost", NULL, NULL, 0, NULL, NULL, NULL), -EBUSY);

        assert_int_equal(privmem_event_next(p, -1, &event), 0);
        assert_int_equal(event.sequence, 1);
        assert_int_equal(event.timestamp_usec, 5);
        assert_string_equal(event.kind, "vm_registered");
        assert_null(event.vm);
        assert_int_equal(privmem_event_next(p, 0, &event), -EAGAIN);
        assert_int_equal(privmem_event_next(p, 20, &event), -EAGAIN);

        open_gate();
        assert_int_equal(privmem_event_next(p, 10000, &event), 0);
        assert_int_equal(event.sequence, 2);
        assert_string_equal(event.vm, "v");
        assert_null(event.backing);
        assert_int_equal(privmem_event_next(p, 10000, &event), 0);
        assert_string_equal(event.backing, "b");
        assert_non_null(strstr(event.json, "\"sequence\":3"));
        assert_int_equal(privmem_event_next(p, 20, &event), -EAGAIN); /* half a message is kept */

        open_gate();
        assert_int_equal(privmem_event_next(p, -1, &event), -EPROTO);
        assert_int_equal(privmem_event_next(p, -1, &event), -EINVAL);
        fake_stop(&f, p);
}

static void test_refused(void **state) {
        static const char refusal[] =
                "{\"error\":\"io.privmemd.Memory.LimitExceeded\",\"parameters\":{\"message\":\"No.\"}}";
        struct privmem_event event;
        Fake f;
        privmem *p = fake_start(&f, fake_answer, (char *) refusal);

        (void) state;
        assert_int_equal(privmem_subscribe(p, -1), 0);
        assert_int_equal(privmem_event_next(p, -1, &event), -EDQUOT);
        assert_string_equal(privmem_error_message(p), "No.");
        assert_int_equal(privmem_event_next(p, -1, &event), -EINVAL);
        fake_stop(&f, p);
}

static void test_end(void **state) {
        struct privmem_event event;
        Fake f;
        privmem *p = fake_start(&f, fake_answer, (char *) EVENT(1, ""));

        (void) state;
        assert_int_equal(privmem_subscribe(p, -1), 0);
        assert_int_equal(privmem_event_next(p, -1, &event), 0);
        assert_int_equal(privmem_event_next(p, -1, &event), -ECONNRESET);
        fake_stop(&f, p);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_events),
                cmocka_unit_test(test_refused),
                cmocka_unit_test(test_end),
        };

        if (pipe(gate) < 0)
                return 1;
        return cmocka_run_group_tests(tests, NULL, NULL);
}
