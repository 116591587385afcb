/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What is printed of a record, whatever its body is. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "core/record-fields.h"
#include "core/record-private.h"

#define FIELDS_MAX 64

typedef struct Seen {
        RecordField fields[FIELDS_MAX];
        size_t n, stop_after;
} Seen;

static int see(const RecordField *field, void *userdata) {
        Seen *seen = userdata;

        assert_true(seen->n < FIELDS_MAX);
        seen->fields[seen->n++] = *field;
        return seen->stop_after == seen->n ? -ESTALE : 0;
}

static Seen show(uint16_t type, const void *body, size_t size) {
        Seen seen = {};

        assert_int_equal(record_show(type, 1, body, size, see, &seen), 0);
        return seen;
}

static const RecordField *find(const Seen *seen, const char *name, int index) {
        for (size_t i = 0; i < seen->n; i++) {
                const RecordField *field = &seen->fields[i];

                if (strcmp(field->name ?: field->list, name) == 0 &&
                    (field->list ? (int) field->index == index : index < 0))
                        return field;
        }
        return NULL;
}

static uint64_t value(const Seen *seen, const char *name, int index) {
        const RecordField *field = find(seen, name, index);

        assert_non_null(field);
        return field->value;
}

static void test_every_type_has_a_name_and_fields(void **state) {
        static const uint8_t body[256];

        (void) state;
        for (uint16_t type = 1; type < _RECORD_TYPE_MAX; type++) {
                assert_non_null(record_type_name(type, 1));
                assert_true(show(type, body, sizeof(body)).n > 0);
                for (uint16_t other = 1; other < type; other++)
                        assert_string_not_equal(record_type_name(type, 1), record_type_name(other, 1));
        }
}

static void test_a_type_that_is_not_known_has_none(void **state) {
        static const uint8_t body[256];
        Seen seen = {};

        (void) state;
        assert_null(record_type_name(0, 1));
        assert_null(record_type_name(_RECORD_TYPE_MAX, 1));
        assert_null(record_type_name(UINT16_MAX, 1));
        assert_null(record_type_name(RECORD_VM, 2));
        assert_int_equal(record_show(_RECORD_TYPE_MAX, 1, body, sizeof(body), see, &seen), 0);
        assert_int_equal(record_show(RECORD_VM, 2, body, sizeof(body), see, &seen), 0);
        assert_int_equal(seen.n, 0);
}

static void test_values_are_what_was_written(void **state) {
        struct {
                VMBody vm;
                char name[4];
        } body = {
                .vm = { .id = UINT64_MAX,
                        .name = { .at = sizeof(VMBody), .n = 4 },
                        .owner = UINT32_MAX - 1,
                        .uuid = "0123456789abcde",
                        .has_uuid = 1,
                        .exit_policy = 200,
                        .last_vmm_serial = 7 },
                .name = "web1",
        };
        const RecordField *field;
        Seen seen = show(RECORD_VM, &body, sizeof(body));

        (void) state;
        assert_true(value(&seen, "id", -1) == UINT64_MAX);
        assert_int_equal(find(&seen, "id", -1)->kind, RECORD_FIELD_VM);
        assert_int_equal(value(&seen, "owner", -1), UINT32_MAX - 1);
        assert_int_equal(value(&seen, "exit_policy", -1), 200);
        assert_int_equal(value(&seen, "last_vmm_serial", -1), 7);
        field = find(&seen, "name", -1);
        assert_non_null(field);
        assert_int_equal(field->kind, RECORD_FIELD_NAME);
        assert_int_equal(field->size, 4);
        assert_memory_equal(field->bytes, "web1", 4);
        field = find(&seen, "uuid", -1);
        assert_non_null(field);
        assert_int_equal(field->size, 16);
        assert_memory_equal(field->bytes, body.vm.uuid, 16);
}

static void test_each_run_has_its_fields(void **state) {
        struct {
                SlotBody slot;
                RunBody runs[3];
        } body = { .slot = { .vm = 5, .runs = { .at = sizeof(SlotBody), .n = 3 } } };
        Seen seen;

        (void) state;
        for (unsigned i = 0; i < 3; i++)
                body.runs[i] = (RunBody) { .dev = i + 1, .ino = 10 * i, .flags = i };
        seen = show(RECORD_SLOT, &body, sizeof(body));
        assert_int_equal(value(&seen, "runs", -1), 3);
        for (int i = 0; i < 3; i++) {
                assert_int_equal(value(&seen, "dev", i), i + 1);
                assert_int_equal(value(&seen, "ino", i), 10 * i);
                assert_int_equal(value(&seen, "flags", i), i);
        }
        assert_null(find(&seen, "dev", 3));
}

static void test_each_id_of_a_list(void **state) {
        struct {
                ClaimBody claim;
                uint64_t ids[3];
        } body = { .claim = { .vm = 5, .backings = { .at = sizeof(ClaimBody), .n = 3 } },
                   .ids = { 7, UINT64_MAX, 9 } };
        Seen seen = show(RECORD_CLAIM, &body, sizeof(body));

        (void) state;
        assert_int_equal(value(&seen, "backings", -1), 3);
        assert_int_equal(value(&seen, "backings", 0), 7);
        assert_true(value(&seen, "backings", 1) == UINT64_MAX);
        assert_int_equal(value(&seen, "backings", 2), 9);
        assert_string_equal(find(&seen, "backings", 2)->list, "backings");
        assert_null(find(&seen, "backings", 3));
        assert_int_equal(find(&seen, "digest", -1)->size, 32);
}

/* Of a body that was cut, or written by an older privmemd, what is there; of a tail that lies outside, nothing. */
static void test_no_body_is_read_beyond_its_end(void **state) {
        _Alignas(8) uint8_t body[sizeof(SlotBody) + sizeof(RunBody)];
        Seen whole, cut;

        (void) state;
        for (uint16_t type = 1; type < _RECORD_TYPE_MAX; type++)
                for (size_t size = 0; size <= sizeof(body); size++) {
                        /* A sanitizer sees the bytes that are not the body's. */
                        uint8_t *exact = test_malloc(size);
                        Seen seen;

                        memset(exact, 0xff, size);
                        seen = show(type, exact, size);
                        assert_null(find(&seen, "name", -1));
                        assert_null(find(&seen, "runs", -1));
                        assert_null(find(&seen, "backings", -1));
                        test_free(exact);
                }
        memset(body, 0, sizeof(body));
        ((SlotBody *) body)->runs = (Tail) { .at = sizeof(SlotBody), .n = 1 };
        whole = show(RECORD_SLOT, body, sizeof(body));
        assert_non_null(find(&whole, "dev", 0));
        cut = show(RECORD_SLOT, body, sizeof(body) - 1);
        assert_null(find(&cut, "runs", -1));
        assert_null(find(&cut, "dev", 0));
}

static void test_a_shorter_body_has_fewer_fields(void **state) {
        VMMBody body = { .vm = 1, .id = 2 };
        Seen seen = show(RECORD_VMM, &body, offsetof(VMMBody, mm));

        (void) state;
        assert_int_equal(seen.n, 2);
        assert_int_equal(value(&seen, "id", -1), 2);
}

static void test_what_show_returns_ends_it(void **state) {
        VMMBody body = {};
        Seen seen = { .stop_after = 3 };

        (void) state;
        assert_int_equal(record_show(RECORD_VMM, 1, &body, sizeof(body), see, &seen), -ESTALE);
        assert_int_equal(seen.n, 3);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_every_type_has_a_name_and_fields),
                cmocka_unit_test(test_a_type_that_is_not_known_has_none),
                cmocka_unit_test(test_values_are_what_was_written),
                cmocka_unit_test(test_each_run_has_its_fields),
                cmocka_unit_test(test_each_id_of_a_list),
                cmocka_unit_test(test_no_body_is_read_beyond_its_end),
                cmocka_unit_test(test_a_shorter_body_has_fewer_fields),
                cmocka_unit_test(test_what_show_returns_ends_it),
        };

        return cmocka_run_group_tests_name("record-fields", tests, NULL, NULL);
}
