/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What a server can do wrong on the wire. Each ends in its errno, a sentence, a dead or a living connection as
 * the header says, and with as many open file descriptors as before. */

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <unistd.h>

#include <cmocka.h>

#include "fake.h"

static unsigned fds_before;

static int setup(void **state) {
        (void) state;
        fds_before = count_fds();
        return 0;
}

static int teardown(void **state) {
        (void) state;
        return count_fds() == fds_before ? 0 : -1;
}

#define BACKING \
        "{\"vm\":\"v\",\"name\":\"b\",\"kind\":\"memfd\",\"origin\":\"allocated\",\"size\":4096,\"pageSize\":4096," \
        "\"device\":1,\"inode\":2,\"seals\":[],\"residentBytes\":0,\"slots\":0}"

/* ---- ways to lose the connection ----------------------------------------------------------------------- */

static void assert_broken(privmem *p) {
        assert_int_equal(privmem_call(p, "GetHost", NULL, NULL, 0, NULL, NULL, NULL), -ENOTCONN);
        assert_int_equal(privmem_fd(p), -1);
}

/* Calls GetHost; the server is expected to break the connection with that error and sentence. */
static void expect_break(FakeFunc function, void *userdata, int code, const char *sentence) {
        Fake f;
        privmem *p = fake_start(&f, function, userdata);

        assert_int_equal(privmem_call(p, "GetHost", NULL, NULL, 0, NULL, NULL, NULL), code);
        assert_non_null(strstr(privmem_error_message(p), sentence));
        assert_null(privmem_error_name(p));
        assert_broken(p);
        fake_stop(&f, p);
}

static void send_half(Fake *f, void *userdata) {
        json_object_put(fake_read(f));
        fake_send_bytes(f, userdata, strlen(userdata), 0);
}

static void test_half_a_message(void **state) {
        (void) state;
        expect_break(send_half, (char *) "{\"parameters\":{", -ECONNRESET, "middle");
}

static void test_death_in_a_call(void **state) {
        (void) state;
        expect_break(fake_answer, NULL, -ECONNRESET, "closed the connection");
}

static void send_20_mib(Fake *f, void *userdata) {
        static const size_t size = 20 * 1024 * 1024;
        char *bytes = malloc(size);

        (void) userdata;
        memset(bytes, 'x', size);
        json_object_put(fake_read(f));
        fake_send_bytes(f, bytes, size, 0);
        free(bytes);
}

static void test_20_mib(void **state) {
        (void) state;
        expect_break(send_20_mib, NULL, -EMSGSIZE, "larger than 16 MiB");
}

static void test_no_sense(void **state) {
        static const char *const answers[] = {
                "",
                "[]",
                "7",
                "\"x\"",
                "{\"parameters\":{}",
                "{} {}",
                "{\"parameters\":{}}x",
                "nonsense",
                "{\"a\":\"\xff\"}",
        };

        (void) state;
        for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++)
                expect_break(fake_answer, (char *) answers[i], -EPROTO, "makes no sense");
}

static void test_deep_json(void **state) {
        static char answer[200000];

        (void) state;
        strcpy(answer, "{\"parameters\":");
        memset(answer + strlen(answer), '[', 100000);
        expect_break(fake_answer, answer, -EPROTO, "nested too deeply");
}

static void test_part_of_a_stream(void **state) {
        (void) state;
        expect_break(fake_answer, (char *) "{\"parameters\":{},\"continues\":true}", -EPROTO, "stream");
}

static void send_two(Fake *f, void *userdata) {
        static const char both[] = "{\"parameters\":{}}\0{\"parameters\":{}}";

        (void) userdata;
        json_object_put(fake_read(f));
        fake_send_bytes(f, both, sizeof(both), 0);
}

static void test_two_answers(void **state) {
        (void) state;
        expect_break(send_two, NULL, -EPROTO, "behind it");
}

static void say_nothing(Fake *f, void *userdata) {
        (void) f;
        (void) userdata;
}

static void test_gone_before_the_call(void **state) {
        Fake f;
        privmem *p = fake_start(&f, say_nothing, NULL);

        (void) state;
        pthread_join(f.thread, NULL);
        assert_int_equal(privmem_call(p, "GetHost", NULL, NULL, 0, NULL, NULL, NULL),
                         -ECONNRESET); /* and no SIGPIPE */
        assert_broken(p);
        privmem_close(p);
}

/* ---- file descriptors of answers ----------------------------------------------------------------------- */

typedef struct Answer {
        const char *text;
        size_t n_fds;
} Answer;

static void send_answer(Fake *f, void *userdata) {
        const Answer *a = userdata;

        json_object_put(fake_read(f));
        fake_send_bytes(f, a->text, strlen(a->text) + 1, a->n_fds);
}

static int open_backing(const char *text, size_t n_fds, bool *ret_alive) {
        Answer answer = { text, n_fds };
        Fake f;
        privmem *p = fake_start(&f, send_answer, &answer);
        struct privmem_backing backing;
        privmem_vm *vm;
        int fd = -1, r;

        assert_int_equal(privmem_vm_new(p, "v", &vm), 0);
        r = privmem_backing_open(vm, "b", PRIVMEM_ACCESS_READ_WRITE, &fd, &backing);
        if (r == 0) {
                assert_true(fd >= 0);
                assert_string_equal(backing.vm, "v");
                assert_string_equal(backing.name, "b");
                assert_int_equal(backing.size, 4096);
                assert_int_equal(backing.inode, 2);
                close(fd);
        } else {
                assert_int_equal(fd, -1);
        }

        *ret_alive = privmem_fd(p) >= 0;
        privmem_vm_free(vm);
        fake_stop(&f, p);
        return r;
}

static void test_fd_of_an_answer(void **state) {
        bool alive;

        (void) state;
        assert_int_equal(open_backing("{\"parameters\":{\"backing\":" BACKING
                                      ",\"fileDescriptor\":0,\"created\":true}}",
                                      1, &alive),
                         0);
        assert_true(alive);
}

static void test_wrong_fds(void **state) {
        static const Answer answers[] = {
                { "{\"parameters\":{\"backing\":" BACKING ",\"fileDescriptor\":1,\"created\":true}}", 1 },
                { "{\"parameters\":{\"backing\":" BACKING ",\"fileDescriptor\":-1,\"created\":true}}", 1 },
                { "{\"parameters\":{\"backing\":" BACKING ",\"fileDescriptor\":\"0\",\"created\":true}}", 1 },
                { "{\"parameters\":{\"backing\":" BACKING ",\"fileDescriptor\":18446744073709551615}}", 1 },
                { "{\"parameters\":{\"backing\":" BACKING ",\"created\":true}}", 1 },
                { "{\"parameters\":{\"backing\":" BACKING ",\"fileDescriptor\":0,\"created\":true}}", 0 },
                { "{\"parameters\":{\"backing\":" BACKING ",\"fileDescriptor\":0,\"created\":true}}", 2 },
                { "{\"parameters\":{\"backing\":" BACKING ",\"fileDescriptor\":0,\"created\":true}}", 253 },
                { "{\"parameters\":{\"fileDescriptor\":0,\"created\":true}}", 1 },
                { "{\"error\":\"io.privmemd.Memory.NoSuchVM\",\"parameters\":{}}", 1 },
        };

        (void) state;
        for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
                bool alive = true;

                assert_int_equal(open_backing(answers[i].text, answers[i].n_fds, &alive), -EPROTO);
                assert_false(alive);
        }
}

static int never(const char *reply, void *userdata) {
        (void) reply;
        (void) userdata;
        fail();
        return 0;
}

static void test_fds_in_a_stream(void **state) {
        Answer answer = { "{\"parameters\":{},\"continues\":true}", 1 };
        Fake f;
        privmem *p = fake_start(&f, send_answer, &answer);

        (void) state;
        assert_int_equal(privmem_call_more(p, "ListVMs", NULL, never, NULL), -EPROTO);
        assert_broken(p);
        fake_stop(&f, p);
}

/* More than one message can carry, in two messages before the NUL. */
static void send_too_many(Fake *f, void *userdata) {
        (void) userdata;
        json_object_put(fake_read(f));
        fake_send_bytes(f, "{", 1, 253);
        fake_send_bytes(f, "}", 2, 253);
}

static void test_more_fds_than_a_message_carries(void **state) {
        (void) state;
        expect_break(send_too_many, NULL, -EPROTO, "more file descriptors");
}

static void test_lost_fds(void **state) {
        struct rlimit before, low;
        Answer answer = { "{\"parameters\":{}}", 50 };
        int fds[50], code;
        size_t n = 50;
        Fake f;
        privmem *p = fake_start(&f, send_answer, &answer);

        (void) state;
        assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
        low = before;
        low.rlim_cur = fds_before + 20;
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
        code = privmem_call(p, "X", NULL, NULL, 0, NULL, fds, &n);
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);

        assert_int_equal(code, -EMFILE);
        assert_non_null(strstr(privmem_error_message(p), "too many open"));
        assert_broken(p);
        fake_stop(&f, p);
}

static void test_many_fds(void **state) {
        Answer answer = { "{\"parameters\":{}}", 253 };
        int fds[253];
        size_t n = 253;
        Fake f;
        privmem *p = fake_start(&f, send_answer, &answer);

        (void) state;
        assert_int_equal(privmem_call(p, "X", NULL, NULL, 0, NULL, fds, &n), 0);
        assert_int_equal(n, 253);
        while (n > 0)
                assert_int_equal(close(fds[--n]), 0);
        fake_stop(&f, p);
}

/* ---- calls --------------------------------------------------------------------------------------------- */

static void send_slowly(Fake *f, void *userdata) {
        static const char answer[] = "{\"parameters\":{\"x\":1}}";

        (void) userdata;
        json_object_put(fake_read(f));
        for (size_t i = 0; i < sizeof(answer); i++) {
                fake_send_bytes(f, answer + i, 1, 0);
                usleep(2000);
        }
}

static void ignore_signal(int signal) {
        (void) signal;
}

static void test_bytes_and_signals(void **state) {
        const struct itimerval often = { .it_interval.tv_usec = 1000, .it_value.tv_usec = 1000 }, off = {};
        const struct sigaction action = { .sa_handler = ignore_signal };
        char *reply = NULL;
        Fake f;
        privmem *p = fake_start(&f, send_slowly, NULL);

        (void) state;
        assert_int_equal(sigaction(SIGALRM, &action, NULL), 0);
        assert_int_equal(setitimer(ITIMER_REAL, &often, NULL), 0);
        assert_int_equal(privmem_call(p, "X", NULL, NULL, 0, &reply, NULL, NULL), 0);
        assert_int_equal(setitimer(ITIMER_REAL, &off, NULL), 0);
        assert_string_equal(reply, "{\"x\":1}");
        assert_string_equal(privmem_reply_json(p), "{\"x\":1}");
        free(reply);
        fake_stop(&f, p);
}

/* Says what it got, until the end of the stream. */
static void echo(Fake *f, void *userdata) {
        json_object *call;

        (void) userdata;
        while ((call = fake_read(f))) {
                json_object *answer = json_object_new_object(), *parameters = json_object_new_object();

                json_object_object_add(parameters, "call", call);
                json_object_object_add(parameters, "fds", json_object_new_uint64(f->n_fds));
                json_object_object_add(answer, "parameters", parameters);
                fake_send(f, json_object_to_json_string_ext(answer, JSON_C_TO_STRING_PLAIN));
                json_object_put(answer);
        }
}

static void test_calls_that_are_not_sent(void **state) {
        int fds[254] = {}, closed = 999;
        char *large = malloc(17 * 1024 * 1024), *reply = NULL;
        Fake f;
        privmem *p = fake_start(&f, echo, NULL);

        (void) state;
        memset(large, 'x', 17 * 1024 * 1024);
        memcpy(large, "{\"a\":\"", 6);
        memcpy(large + 17 * 1024 * 1024 - 3, "\"}", 3);

        assert_int_equal(privmem_call(p, "X", "nonsense", NULL, 0, NULL, NULL, NULL), -EINVAL);
        assert_int_equal(privmem_call(p, "X", "[]", NULL, 0, NULL, NULL, NULL), -EINVAL);
        assert_int_equal(privmem_call(p, "X\xff", "{}", NULL, 0, NULL, NULL, NULL), -EINVAL);
        assert_int_equal(privmem_call(p, "X", large, NULL, 0, NULL, NULL, NULL), -EMSGSIZE);
        assert_int_equal(privmem_call(p, "X", NULL, fds, 254, NULL, NULL, NULL), -EMSGSIZE);
        assert_int_equal(privmem_call(p, "X", NULL, &closed, 1, NULL, NULL, NULL), -EBADF);
        free(large);

        /* Nothing of all that has reached the server. */
        assert_int_equal(privmem_call(p, "X", "{\"a\":18446744073709551615}", fds, 253, &reply, NULL, NULL), 0);
        assert_string_equal(
                reply,
                "{\"call\":{\"parameters\":{\"a\":18446744073709551615},\"method\":\"io.privmemd.Memory.X\"},\"fds\":253}");
        free(reply);
        assert_int_equal(privmem_call(p, "org.varlink.service.GetInfo", NULL, NULL, 0, &reply, NULL, NULL), 0);
        assert_string_equal(reply,
                            "{\"call\":{\"parameters\":{},\"method\":\"org.varlink.service.GetInfo\"},\"fds\":0}");
        free(reply);
        fake_stop(&f, p);
}

static void send_just_16_mib(Fake *f, void *userdata) {
        static const char front[] = "{\"parameters\":{\"a\":\"", back[] = "\"}}";
        static const size_t size = 16 * 1024 * 1024 + 1;
        char *bytes = malloc(size);

        (void) userdata;
        memset(bytes, 'x', size);
        memcpy(bytes, front, sizeof(front) - 1);
        memcpy(bytes + size - sizeof(back), back, sizeof(back));
        for (int i = 0; i < 2; i++) {
                json_object_put(fake_read(f));
                fake_send_bytes(f, bytes, size, 0);
        }
        free(bytes);
}

static void test_just_16_mib(void **state) {
        Fake f;
        privmem *p = fake_start(&f, send_just_16_mib, NULL);

        (void) state;
        for (int i = 0; i < 2; i++) {
                char *reply = NULL;

                assert_int_equal(privmem_call(p, "X", NULL, NULL, 0, &reply, NULL, NULL), 0);
                assert_int_equal(strlen(reply), 16 * 1024 * 1024 - strlen("{\"parameters\":}"));
                free(reply);
        }
        fake_stop(&f, p);
}

/* ---- streams ------------------------------------------------------------------------------------------- */

static void send_three(Fake *f, void *userdata) {
        json_object *call = fake_read(f), *more;

        (void) userdata;
        if (json_object_object_get_ex(call, "more", &more) && json_object_get_boolean(more)) {
                fake_send(f, "{\"parameters\":{\"n\":1},\"continues\":true}");
                fake_send(f, "{\"parameters\":{\"n\":2},\"continues\":true}");
                fake_send(f, "{\"parameters\":{\"n\":3}}");
        }
        json_object_put(call);

        call = fake_read(f);
        if (call)
                fake_send(f, "{}");
        json_object_put(call);
}

static int append(const char *reply, void *userdata) {
        strcat(userdata, reply);
        return 0;
}

static void test_stream(void **state) {
        char all[100] = "";
        Fake f;
        privmem *p = fake_start(&f, send_three, NULL);

        (void) state;
        assert_int_equal(privmem_call_more(p, "ListVMs", NULL, append, all), 0);
        assert_string_equal(all, "{\"n\":1}{\"n\":2}{\"n\":3}");
        assert_int_equal(privmem_call(p, "GetHost", NULL, NULL, 0, NULL, NULL, NULL), 0);
        fake_stop(&f, p);
}

static int stop_at(const char *reply, void *userdata) {
        return strstr(reply, userdata) ? 42 : 0;
}

static void test_stopped_stream(void **state) {
        Fake f;
        privmem *p = fake_start(&f, send_three, NULL);

        (void) state;
        assert_int_equal(privmem_call_more(p, "ListVMs", NULL, stop_at, (char *) "2"), 42);
        assert_broken(p);
        fake_stop(&f, p);

        p = fake_start(&f, send_three, NULL);
        assert_int_equal(privmem_call_more(p, "ListVMs", NULL, stop_at, (char *) "3"), 42);
        assert_int_equal(privmem_call(p, "GetHost", NULL, NULL, 0, NULL, NULL, NULL), 0);
        fake_stop(&f, p);
}

static void send_error_in_a_stream(Fake *f, void *userdata) {
        (void) userdata;
        json_object_put(fake_read(f));
        fake_send(f, "{\"parameters\":{\"n\":1},\"continues\":true}");
        fake_send(f,
                  "{\"error\":\"io.privmemd.Memory.NoSuchVM\",\"parameters\":{\"message\":\"Gone.\",\"vm\":\"v\"}}");
        fake_answer(f, (char *) "{}");
}

static void test_error_in_a_stream(void **state) {
        char all[100] = "";
        Fake f;
        privmem *p = fake_start(&f, send_error_in_a_stream, NULL);

        (void) state;
        assert_int_equal(privmem_call_more(p, "ListVMs", NULL, append, all), -ENOENT);
        assert_string_equal(all, "{\"n\":1}");
        assert_string_equal(privmem_error_message(p), "Gone.");
        assert_int_equal(privmem_call(p, "GetHost", NULL, NULL, 0, NULL, NULL, NULL), 0);
        fake_stop(&f, p);
}

/* ---- connecting ---------------------------------------------------------------------------------------- */

static void test_connect(void **state) {
        char path[200];
        privmem *p = NULL;

        (void) state;
        memset(path, 'x', sizeof(path));
        path[199] = 0;
        assert_int_equal(privmem_connect("/nowhere/at/all", &p), -ENOENT);
        assert_int_equal(privmem_connect(path, &p), -ENAMETOOLONG);
        assert_int_equal(privmem_connect("", &p), -ENOENT);
        assert_int_equal(privmem_connect_fd(-1, &p), -EBADF);
        assert_int_equal(setenv("PRIVMEM_SOCKET", "/proc/self/mem/x", 1), 0);
        assert_int_equal(privmem_connect(NULL, &p), -ENOTDIR);
        assert_null(p);
        assert_null(privmem_close(NULL));
}

int main(void) {
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        const struct CMUnitTest tests[] = {
                TEST(test_half_a_message),
                TEST(test_death_in_a_call),
                TEST(test_20_mib),
                TEST(test_no_sense),
                TEST(test_deep_json),
                TEST(test_part_of_a_stream),
                TEST(test_two_answers),
                TEST(test_gone_before_the_call),
                TEST(test_fd_of_an_answer),
                TEST(test_wrong_fds),
                TEST(test_fds_in_a_stream),
                TEST(test_more_fds_than_a_message_carries),
                TEST(test_lost_fds),
                TEST(test_many_fds),
                TEST(test_bytes_and_signals),
                TEST(test_calls_that_are_not_sent),
                TEST(test_just_16_mib),
                TEST(test_stream),
                TEST(test_stopped_stream),
                TEST(test_error_in_a_stream),
                TEST(test_connect),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
