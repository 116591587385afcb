/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What the kernel says of this very process's mappings, by the query and by the text. */

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/cleanup.h"
#include "host/mapping.h"

#define PAGES 256U

/* A reserve of addresses where a test maps what it likes. */
static struct {
        MappingReader reader;
        size_t page;
        char *base;
        int fd;
        struct stat file;
        MappedRun runs[MAPPING_RUNS_MAX];
        size_t n;
        MappingKnownFile known;
} f;

static int setup(bool can_query) {
        f.page = (size_t) sysconf(_SC_PAGESIZE);
        mapping_reader_open(getpid(), &f.reader);
        assert_true(f.reader.fd >= 0);
        if (!can_query)
                f.reader.can_query = false;
        f.base = mmap(NULL, PAGES * f.page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        assert_ptr_not_equal(f.base, MAP_FAILED);
        assert_int_equal(munmap(f.base, PAGES * f.page), 0);
        f.fd = memfd_create("test", MFD_CLOEXEC);
        assert_true(f.fd >= 0);
        assert_int_equal(ftruncate(f.fd, (off_t) (PAGES * f.page)), 0);
        assert_int_equal(fstat(f.fd, &f.file), 0);
        return 0;
}

static int setup_query(void **state) {
        (void) state;
        return setup(true);
}

static int setup_text(void **state) {
        (void) state;
        return setup(false);
}

static int teardown(void **state) {
        (void) state;
        munmap(f.base, PAGES * f.page);
        f.fd = safe_close(f.fd);
        mapping_reader_done(&f.reader);
        f.known = NULL;
        return 0;
}

static void map(size_t page, size_t n, int fd, int flags, size_t file_page) {
        void *at = f.base + page * f.page;

        assert_ptr_equal(mmap(at, n * f.page, PROT_READ | PROT_WRITE, flags | MAP_FIXED_NOREPLACE, fd,
                              (off_t) (file_page * f.page)),
                         at);
}

static void look(size_t page, size_t n) {
        bool can_query = f.reader.can_query;

        f.n = mapping_read(&f.reader, (uint64_t) (uintptr_t) f.base + page * f.page, n * f.page, f.known, NULL,
                           f.runs);
        if (!can_query)
                assert_false(f.reader.can_query);
}

static void assert_run(size_t i, MappedKind kind, size_t page, size_t n, size_t file_page) {
        const MappedRun *run = &f.runs[i];

        assert_true(i < f.n);
        assert_int_equal(run->kind, kind);
        assert_int_equal(run->hva, (uint64_t) (uintptr_t) f.base + page * f.page);
        assert_int_equal(run->size, n * f.page);
        if (kind == MAPPED_MEMORY)
                return;
        assert_int_equal(run->dev, f.file.st_dev);
        assert_int_equal(run->ino, f.file.st_ino);
        assert_int_equal(run->offset, file_page * f.page);
}

static void nothing(void **state) {
        (void) state;
        look(0, PAGES);
        assert_int_equal(f.n, 0);
}

static void shared_file(void **state) {
        (void) state;
        map(8, 16, f.fd, MAP_SHARED, 4);
        look(8, 16);
        assert_int_equal(f.n, 1);
        assert_run(0, MAPPED_FILE, 8, 16, 4);
}

static void inside_a_mapping(void **state) {
        (void) state;
        map(8, 16, f.fd, MAP_SHARED, 4);
        look(10, 3);
        assert_int_equal(f.n, 1);
        assert_run(0, MAPPED_FILE, 10, 3, 6);
}

static void next_to_a_mapping(void **state) {
        (void) state;
        map(8, 16, f.fd, MAP_SHARED, 4);
        look(0, 8);
        assert_int_equal(f.n, 0);
        look(24, 8);
        assert_int_equal(f.n, 0);
        look(7, 2);
        assert_int_equal(f.n, 1);
        assert_run(0, MAPPED_FILE, 8, 1, 4);
}

static void kinds(void **state) {
        (void) state;
        map(0, 1, -1, MAP_PRIVATE | MAP_ANONYMOUS, 0);
        map(1, 1, f.fd, MAP_PRIVATE, 7);
        map(3, 1, f.fd, MAP_SHARED, 7);
        look(0, 4);
        assert_int_equal(f.n, 3);
        assert_run(0, MAPPED_MEMORY, 0, 1, 0);
        assert_run(1, MAPPED_COPY, 1, 1, 7);
        assert_run(2, MAPPED_FILE, 3, 1, 7);
}

/* It is a file of its own, though nobody opened it. */
static void shared_memory_without_a_file(void **state) {
        (void) state;
        map(0, 1, -1, MAP_SHARED | MAP_ANONYMOUS, 0);
        look(0, 1);
        assert_int_equal(f.n, 1);
        assert_int_equal(f.runs[0].kind, MAPPED_FILE);
        assert_int_not_equal(f.runs[0].ino, 0);
        assert_int_not_equal(f.runs[0].ino, f.file.st_ino);
}

/* Each page of a device may be anything. */
static void device(void **state) {
        _cleanup_close_ int fd = open("/dev/zero", O_RDWR | O_CLOEXEC);

        (void) state;
        assert_true(fd >= 0);
        map(0, 1, fd, MAP_PRIVATE, 0);
        look(0, 1);
        assert_int_equal(f.n, 1);
        assert_int_equal(f.runs[0].kind, MAPPED_MEMORY);
}

static bool know_everything(dev_t dev, ino_t ino, MappedKind *ret, void *userdata) {
        assert_int_equal(dev, f.file.st_dev);
        assert_int_equal(ino, f.file.st_ino);
        assert_null(userdata);
        *ret = MAPPED_GUEST_MEMFD;
        return true;
}

static void file_that_the_caller_knows(void **state) {
        (void) state;
        f.known = know_everything;
        map(0, 1, f.fd, MAP_SHARED, 0);
        map(1, 1, -1, MAP_PRIVATE | MAP_ANONYMOUS, 0);
        look(0, 2);
        assert_int_equal(f.n, 2);
        assert_run(0, MAPPED_GUEST_MEMFD, 0, 1, 0);
        assert_run(1, MAPPED_MEMORY, 1, 1, 0);
}

static void mappings_that_go_on_are_one_run(void **state) {
        (void) state;
        map(0, 8, f.fd, MAP_SHARED, 0);
        assert_int_equal(mprotect(f.base + 2 * f.page, f.page, PROT_READ), 0);
        assert_int_equal(mprotect(f.base + 5 * f.page, f.page, PROT_NONE), 0);
        look(0, 8);
        assert_int_equal(f.n, 1);
        assert_run(0, MAPPED_FILE, 0, 8, 0);
}

static void mappings_that_do_not_go_on(void **state) {
        (void) state;
        map(0, 2, f.fd, MAP_SHARED, 0);
        map(2, 2, f.fd, MAP_SHARED, 0);
        map(5, 2, f.fd, MAP_SHARED, 2);
        look(0, 8);
        assert_int_equal(f.n, 3);
        assert_run(0, MAPPED_FILE, 0, 2, 0);
        assert_run(1, MAPPED_FILE, 2, 2, 0);
        assert_run(2, MAPPED_FILE, 5, 2, 2);
}

static void no_more_than_the_limit(void **state) {
        (void) state;
        for (size_t i = 0; i < MAPPING_RUNS_MAX + 8; i++)
                map(2 * i, 1, f.fd, MAP_SHARED, i);
        look(0, PAGES);
        assert_int_equal(f.n, MAPPING_RUNS_MAX);
        assert_run(MAPPING_RUNS_MAX - 1, MAPPED_FILE, 2 * (MAPPING_RUNS_MAX - 1), 1, MAPPING_RUNS_MAX - 1);
        look(2 * MAPPING_RUNS_MAX, PAGES - 2 * MAPPING_RUNS_MAX);
        assert_int_equal(f.n, 8);
}

static void ranges_that_are_none(void **state) {
        (void) state;
        assert_int_equal(mapping_read(&f.reader, 0, 0, NULL, NULL, f.runs), 0);
        assert_int_equal(mapping_read(&f.reader, UINT64_MAX - f.page, 2 * f.page, NULL, NULL, f.runs), 0);
        assert_int_equal(mapping_read(&f.reader, UINT64_C(1) << 62, UINT64_C(1) << 62, NULL, NULL, f.runs), 0);
}

static void changes_are_seen(void **state) {
        (void) state;
        for (size_t i = 0; i < 3; i++) {
                map(0, 1, f.fd, MAP_SHARED, i);
                look(0, 1);
                assert_int_equal(f.n, 1);
                assert_run(0, MAPPED_FILE, 0, 1, i);
                assert_int_equal(munmap(f.base, f.page), 0);
                look(0, 1);
                assert_int_equal(f.n, 0);
        }
}

/* The answer is never another process's. */
static void process_that_has_ended(void **state) {
        MappingReader reader;
        bool can_query = f.reader.can_query;
        int pipe_fds[2], status;
        pid_t pid;

        (void) state;
        map(0, 1, f.fd, MAP_SHARED, 0);
        assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
        pid = fork();
        if (pid == 0) {
                char c;

                close(pipe_fds[1]);
                (void) !read(pipe_fds[0], &c, 1);
                _exit(0);
        }
        mapping_reader_open(pid, &reader);
        reader.can_query = can_query;
        assert_int_equal(mapping_read(&reader, (uint64_t) (uintptr_t) f.base, f.page, NULL, NULL, f.runs), 1);
        close(pipe_fds[0]);
        close(pipe_fds[1]);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(mapping_read(&reader, (uint64_t) (uintptr_t) f.base, f.page, NULL, NULL, f.runs), 0);
        mapping_reader_done(&reader);
}

static void process_that_cannot_be_read(void **state) {
        MappingReader reader;

        (void) state;
        mapping_reader_open(0, &reader); /* there is no /proc/0 */
        assert_true(reader.fd < 0);
        assert_int_equal(mapping_read(&reader, (uint64_t) (uintptr_t) f.base, f.page, NULL, NULL, f.runs), 0);
        mapping_reader_done(&reader);
}

#define BOTH(function) \
        { #function " (query)", function, setup_query, teardown, NULL }, { \
                #function " (text)", function, setup_text, teardown, NULL \
        }

int main(void) {
        const struct CMUnitTest tests[] = {
                BOTH(nothing),
                BOTH(shared_file),
                BOTH(inside_a_mapping),
                BOTH(next_to_a_mapping),
                BOTH(kinds),
                BOTH(shared_memory_without_a_file),
                BOTH(device),
                BOTH(file_that_the_caller_knows),
                BOTH(mappings_that_go_on_are_one_run),
                BOTH(mappings_that_do_not_go_on),
                BOTH(no_more_than_the_limit),
                BOTH(ranges_that_are_none),
                BOTH(changes_are_seen),
                BOTH(process_that_has_ended),
                BOTH(process_that_cannot_be_read),
        };

        return cmocka_run_group_tests_name("mapping", tests, NULL, NULL);
}
