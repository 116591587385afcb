/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Every error reply has one errno, its name, its parameters and a sentence, and leaves the connection usable. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "fake.h"

typedef struct Expectation {
        const char *name;
        const char *parameters;
        int code;
        const char *sentence; /* part of it */
} Expectation;

static void refuse(Fake *f, void *userdata) {
        const Expectation *e = userdata;
        char text[1000];

        snprintf(text, sizeof(text), "{\"error\":\"%s\"%s%s}", e->name, e->parameters ? ",\"parameters\":" : "",
                 e->parameters ? e->parameters : "");
        fake_answer(f, text);
        fake_answer(f, (char *) "{\"parameters\":{}}");
}

static void expect(const Expectation *e) {
        unsigned before = count_fds();
        Fake f;
        privmem *p = fake_start(&f, refuse, (void *) e);

        assert_int_equal(privmem_call(p, "X", NULL, NULL, 0, NULL, NULL, NULL), -e->code);
        assert_string_equal(privmem_error_name(p), e->name);
        assert_non_null(strstr(privmem_error_message(p), e->sentence));
        if (e->parameters && e->parameters[0] == '{')
                assert_string_equal(privmem_error_json(p), e->parameters);
        else
                assert_null(privmem_error_json(p));

        assert_int_equal(privmem_call(p, "X", NULL, NULL, 0, NULL, NULL, NULL), 0);
        fake_stop(&f, p);
        assert_int_equal(count_fds(), before);
}

static void test_errors_of_the_interface(void **state) {
        static const Expectation expectations[] = {
#define ERROR(name, code, status, sentence) \
        { "io.privmemd.Memory." #name, "{\"message\":\"It is so.\"}", code, "It is so." }, \
                { "io.privmemd.Memory." #name, NULL, code, sentence },
#include "api/errors.def"
        };

        (void) state;
        for (size_t i = 0; i < sizeof(expectations) / sizeof(expectations[0]); i++)
                expect(&expectations[i]);
}

static void test_errors_of_varlink(void **state) {
        static const Expectation expectations[] = {
                { "org.varlink.service.InvalidParameter", "{\"parameter\":\"size\"}", EINVAL, "\"size\"" },
                { "org.varlink.service.InvalidParameter", NULL, EINVAL, "Invalid argument" },
                { "org.varlink.service.PermissionDenied", "{}", EACCES, "may not" },
                { "org.varlink.service.MethodNotFound", "{\"method\":\"X\"}", EOPNOTSUPP, "does not have" },
                { "org.varlink.service.MethodNotImplemented", "{}", EOPNOTSUPP, "does not have" },
                { "org.varlink.service.InterfaceNotFound", "{}", EOPNOTSUPP, "does not speak" },
                { "org.varlink.service.ExpectedMore", "{}", EPROTO, "stream" },
                { "io.systemd.System", "{\"errno\":28}", ENOSPC, "No space" },
                { "io.systemd.System", "{\"errno\":-28}", EIO, "" },
                { "io.systemd.System", "{\"errno\":99999}", EIO, "" },
                { "io.systemd.System", "{\"errno\":0}", EIO, "" },
                { "io.systemd.System", "{\"errno\":\"28\"}", EIO, "" },
                { "io.systemd.Disconnected", "{}", ECONNRESET, "" },
                { "io.systemd.TimedOut", "{}", ETIMEDOUT, "" },
                { "io.systemd.Protocol", "{}", EPROTO, "" },
                { "io.systemd.InteractiveAuthenticationRequired", "{}", EACCES, "password" },
        };

        (void) state;
        for (size_t i = 0; i < sizeof(expectations) / sizeof(expectations[0]); i++)
                expect(&expectations[i]);
}

static void test_odd_errors(void **state) {
        static const Expectation expectations[] = {
                { "com.example.New", "{\"x\":1}", EREMOTEIO, "com.example.New" },
                { "", "{}", EREMOTEIO, "" },
                { "io.privmemd.Memory.NoSuchVM", "null", ENOENT, "No VM" },
                { "io.privmemd.Memory.NoSuchVM", "[]", ENOENT, "No VM" },
                { "io.privmemd.Memory.NoSuchVM", "{\"message\":7}", ENOENT, "No VM" },
        };

        (void) state;
        for (size_t i = 0; i < sizeof(expectations) / sizeof(expectations[0]); i++)
                expect(&expectations[i]);
}

static void test_numbers(void **state) {
        (void) state;
#define ERROR(name, code, status, sentence) assert_in_range(code, 1, 4095);
#include "api/errors.def"
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_errors_of_the_interface),
                cmocka_unit_test(test_errors_of_varlink),
                cmocka_unit_test(test_odd_errors),
                cmocka_unit_test(test_numbers),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
