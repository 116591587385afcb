/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/cleanup.h"
#include "core/record-buffer.h"

static bool no_memory;

void *__real_realloc(void *p, size_t size);
void *__wrap_realloc(void *p, size_t size);

void *__wrap_realloc(void *p, size_t size) {
        return no_memory ? NULL : __real_realloc(p, size);
}

static void add(RecordBuffer *buffer, uint16_t type, const char *text) {
        record_buffer_begin(buffer, type, type + 1);
        record_buffer_put(buffer, text, strlen(text));
        assert_int_equal(record_buffer_end(buffer), 0);
}

static void assert_next(const RecordBuffer *buffer, size_t *offset, uint16_t type, const char *text) {
        const void *data;
        RecordHead head;

        assert_int_equal(record_next(buffer->bytes, buffer->size, offset, &head, &data), 1);
        assert_int_equal(head.type, type);
        assert_int_equal(head.version, type + 1);
        assert_int_equal(head.size, strlen(text));
        assert_memory_equal(data, text, strlen(text));
        assert_int_equal((uintptr_t) data % RECORD_ALIGNMENT, 0);
}

static void test_records_come_back_aligned_and_in_order(void **state) {
        static const char *const texts[] = { "", "1234567", "12345678", "123456789", "x" };
        RecordBuffer buffer = {};
        const void *data;
        size_t offset = 0;
        RecordHead head;

        (void) state;
        for (uint16_t i = 0; i < ELEMENTSOF(texts); i++)
                add(&buffer, i, texts[i]);
        assert_int_equal(buffer.size, 8 + 16 + 16 + 24 + 16);
        for (uint16_t i = 0; i < ELEMENTSOF(texts); i++)
                assert_next(&buffer, &offset, i, texts[i]);
        assert_int_equal(record_next(buffer.bytes, buffer.size, &offset, &head, &data), 0);
        assert_int_equal(buffer.bytes[buffer.size - 1], 0);

        record_buffer_clear(&buffer);
        assert_int_equal(buffer.size, 0);
        add(&buffer, 7, "again");
        offset = 0;
        assert_next(&buffer, &offset, 7, "again");
        record_buffer_done(&buffer);
}

static void test_what_is_no_record_is_refused(void **state) {
        RecordBuffer buffer = {};
        const void *data;
        RecordHead head;
        size_t offset;

        (void) state;
        add(&buffer, 1, "123456789");
        for (size_t size = 1; size < buffer.size; size++) {
                offset = 0;
                assert_int_equal(record_next(buffer.bytes, size, &offset, &head, &data), -EBADMSG);
                assert_int_equal(offset, 0);
        }
        offset = buffer.size + 8;
        assert_int_equal(record_next(buffer.bytes, buffer.size, &offset, &head, &data), -EBADMSG);
        memset(buffer.bytes + 4, 0xff, 4);
        offset = 0;
        assert_int_equal(record_next(buffer.bytes, buffer.size, &offset, &head, &data), -EBADMSG);
        record_buffer_done(&buffer);
}

static void test_without_memory_the_record_is_not_there(void **state) {
        RecordBuffer buffer = {};
        char large[4096] = {};
        size_t offset = 0, size;

        (void) state;
        no_memory = true;
        record_buffer_begin(&buffer, 1, 1);
        record_buffer_put(&buffer, "x", 1);
        assert_int_equal(record_buffer_end(&buffer), -ENOMEM);
        assert_int_equal(buffer.size, 0);

        no_memory = false;
        add(&buffer, 1, "first");
        size = buffer.size;
        no_memory = true;
        record_buffer_begin(&buffer, 2, 2);
        record_buffer_put(&buffer, large, sizeof(large));
        no_memory = false;
        record_buffer_put(&buffer, "x", 1);
        assert_int_equal(record_buffer_end(&buffer), -ENOMEM);
        assert_int_equal(buffer.size, size);

        add(&buffer, 3, "third");
        assert_next(&buffer, &offset, 1, "first");
        assert_next(&buffer, &offset, 3, "third");
        record_buffer_done(&buffer);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_records_come_back_aligned_and_in_order),
                cmocka_unit_test(test_what_is_no_record_is_refused),
                cmocka_unit_test(test_without_memory_the_record_is_not_there),
        };

        return cmocka_run_group_tests_name("record-buffer", tests, NULL, NULL);
}
