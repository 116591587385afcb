/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The walk over all processes, on a /proc of paper and on the real one. In the former an fd of guest memory is a link to
 * a file beside it, whose name has no slash in it, as the kernel's own have none. */

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/cleanup.h"
#include "host/holders.h"

#define SELF 99

static struct {
        char root[64];
        HolderFile files[2]; /* "a" and "b" */
        HolderWalk *walk;
        const HolderReport *report;
        unsigned steps;
} f;

static void write_file(int pid, const char *name, const char *text) {
        char path[128];
        FILE *file;

        snprintf(path, sizeof(path), "%s/%d/%s", f.root, pid, name);
        file = fopen(path, "w");
        assert_non_null(file);
        assert_true(fputs(text, file) >= 0);
        assert_int_equal(fclose(file), 0);
}

static void make_directory(int pid, const char *name) {
        char path[128];

        snprintf(path, sizeof(path), "%s/%d/%s", f.root, pid, name);
        assert_int_equal(mkdir(path, 0700), 0);
}

static void write_stat(int pid, const char *name, const char *command, char state, unsigned flags, unsigned threads) {
        char text[256];

        snprintf(text, sizeof(text),
                 "%d (%s) %c 1 1 1 0 -1 %u 1 2 3 4 5 6 7 8 20 0 %u 0 %d 1000 200 18446744073709551615\n", pid, command,
                 state, flags, threads, 5000 + pid);
        write_file(pid, name, text);
}

/* One with a file of another user's mapped, and nothing open. */
static void add_process(int pid) {
        make_directory(pid, "");
        make_directory(pid, "fd");
        write_stat(pid, "stat", "small-vmm", 'S', 0x400000, 1);
        write_file(pid, "status", "Name:\tsmall-vmm\nUmask:\t0022\nUid:\t1234\t0\t0\t0\n");
        write_file(pid, "maps", "55e0c0000000-55e0c0001000 r-xp 00000000 fe:01 77    /usr/bin/small-vmm\n");
}

/* permissions as in "rw-s" */
static void add_mapping(int pid, const char *permissions, unsigned pages, const HolderFile *file) {
        char path[128];
        FILE *maps;

        snprintf(path, sizeof(path), "%s/%d/maps", f.root, pid);
        maps = fopen(path, "a");
        assert_non_null(maps);
        fprintf(maps, "7f0000000000-7f00000%02x000 %s 00000000 %02x:%02x %lu    /memfd:a b c (deleted)\n", pages,
                permissions, major(file->dev), minor(file->dev), (unsigned long) file->ino);
        assert_int_equal(fclose(maps), 0);
}

static void add_fd(int pid, int fd, const char *name) {
        char from[128], to[160];

        snprintf(from, sizeof(from), "%s/%s", f.root, name);
        snprintf(to, sizeof(to), "%s/%d/fd/anon_inode:%s", f.root, pid, name);
        assert_true(link(from, to) == 0 || errno == EEXIST);
        snprintf(from, sizeof(from), "anon_inode:%s", name);
        snprintf(to, sizeof(to), "%s/%d/fd/%d", f.root, pid, fd);
        assert_int_equal(symlink(from, to), 0);
}

static void identify(const char *name, HolderFile *ret) {
        char path[128];
        struct stat st;
        FILE *file;

        snprintf(path, sizeof(path), "%s/%s", f.root, name);
        file = fopen(path, "w");
        assert_non_null(file);
        assert_int_equal(fclose(file), 0);
        assert_int_equal(stat(path, &st), 0);
        *ret = (HolderFile) { .dev = st.st_dev, .ino = st.st_ino };
}

static int setup(void **state) {
        (void) state;
        strcpy(f.root, "/tmp/privmemd-proc-XXXXXX");
        assert_non_null(mkdtemp(f.root));
        identify("a", &f.files[0]);
        identify("b", &f.files[1]);
        if (holder_file_compare(&f.files[0], &f.files[1]) > 0) {
                HolderFile a = f.files[0];

                f.files[0] = f.files[1];
                f.files[1] = a;
        }
        add_process(1);
        return 0;
}

static int teardown(void **state) {
        char command[128];

        (void) state;
        f.walk = holder_walk_free(f.walk);
        snprintf(command, sizeof(command), "rm -r %s", f.root);
        return system(command);
}

static void walk(const char *proc, pid_t self, size_t n_files) {
        int r;

        f.walk = holder_walk_free(f.walk);
        assert_int_equal(holder_walk_new(proc, self, f.files, n_files, &f.walk), 0);
        f.steps = 0;
        do {
                r = holder_walk_step(f.walk);
                f.steps++;
        } while (r > 0);
        assert_int_equal(r, 0);
        f.report = holder_walk_report(f.walk);
}

/* The index of file "a" or "b". */
static size_t index_of(const char *name) {
        char path[128];
        struct stat st;

        snprintf(path, sizeof(path), "%s/%s", f.root, name);
        assert_int_equal(stat(path, &st), 0);
        return f.files[0].ino == st.st_ino ? 0 : 1;
}

static const HolderFile *file_of(const char *name) {
        return &f.files[index_of(name)];
}

/* ---- paper ---- */

static void nobody(void **state) {
        (void) state;
        walk(f.root, SELF, 2);
        assert_int_equal(f.report->n_holders, 0);
        assert_int_equal(f.report->n_unreadable, 0);
        assert_true(f.report->is_complete);
}

static void no_files(void **state) {
        (void) state;
        walk(f.root, SELF, 0);
        assert_int_equal(f.report->n_holders, 0);
        assert_true(f.report->is_complete);
}

static void no_proc(void **state) {
        HolderWalk *none;

        (void) state;
        assert_int_equal(holder_walk_new("/nowhere", SELF, f.files, 2, &none), -ENOENT);
}

static void open_only(void **state) {
        const Holder *h;

        (void) state;
        add_process(7);
        add_fd(7, 3, "a");
        add_fd(7, 12, "a");
        walk(f.root, SELF, 2);
        assert_int_equal(f.report->n_holders, 1);
        h = &f.report->holders[0];
        assert_int_equal(h->file, index_of("a"));
        assert_int_equal(h->pid, 7);
        assert_int_equal(h->uid, 1234);
        assert_int_equal(h->start_time, 5007);
        assert_string_equal(h->command, "small-vmm");
        assert_int_equal(h->n_fds, 2);
        assert_int_equal(h->shared_bytes + h->private_bytes, 0);
        assert_true(h->writable); /* a link of paper has all permissions */
        assert_false(h->copies);
}

static void each_kind_of_mapping(void **state) {
        static const struct {
                const char *permissions;
                uint64_t shared, private;
                bool writable, copies;
        } rows[] = {
                { "rw-s", 0x3000, 0, true, false },  { "r--s", 0x3000, 0, false, false },
                { "---s", 0x3000, 0, false, false }, { "-w-s", 0x3000, 0, true, false },
                { "rw-p", 0, 0x3000, false, true },  { "r-xp", 0, 0x3000, false, false },
        };

        (void) state;
        for (size_t i = 0; i < ELEMENTSOF(rows); i++) {
                add_process(10 + (int) i);
                add_mapping(10 + (int) i, rows[i].permissions, 3, file_of("b"));
        }
        walk(f.root, SELF, 2);
        assert_int_equal(f.report->n_holders, ELEMENTSOF(rows));
        for (size_t i = 0; i < ELEMENTSOF(rows); i++) {
                const Holder *h = &f.report->holders[i];
                size_t row = (size_t) (h->pid - 10);

                assert_int_equal(h->file, index_of("b"));
                assert_int_equal(h->shared_bytes, rows[row].shared);
                assert_int_equal(h->private_bytes, rows[row].private);
                assert_int_equal(h->writable, rows[row].writable);
                assert_int_equal(h->copies, rows[row].copies);
                assert_int_equal(h->n_fds, 0);
        }
}

static void sums_for_each_file(void **state) {
        (void) state;
        add_process(7);
        add_fd(7, 3, "b");
        add_mapping(7, "rw-s", 2, file_of("a"));
        add_mapping(7, "r--s", 3, file_of("a"));
        add_mapping(7, "rw-p", 4, file_of("a"));
        add_mapping(7, "r--p", 1, file_of("b"));
        walk(f.root, SELF, 2);
        assert_int_equal(f.report->n_holders, 2);
        assert_int_equal(f.report->holders[0].file, index_of("b"));
        assert_int_equal(f.report->holders[0].n_fds, 1);
        assert_int_equal(f.report->holders[0].private_bytes, 0x1000);
        assert_int_equal(f.report->holders[1].file, index_of("a"));
        assert_int_equal(f.report->holders[1].shared_bytes, 0x5000);
        assert_int_equal(f.report->holders[1].private_bytes, 0x4000);
        assert_int_equal(f.report->holders[1].pid, 7);
}

static void not_ourselves(void **state) {
        (void) state;
        add_process(SELF);
        add_fd(SELF, 3, "a");
        walk(f.root, SELF, 2);
        assert_int_equal(f.report->n_holders, 0);
        assert_true(f.report->is_complete);
}

static void other_files(void **state) {
        HolderFile other = f.files[0];

        (void) state;
        add_process(7);
        other.ino += 1000000;
        add_mapping(7, "rw-s", 1, &other);
        other.ino = f.files[0].ino;
        other.dev = makedev(0, 1);
        if (other.dev == f.files[0].dev)
                other.dev = makedev(0, 2);
        add_mapping(7, "rw-s", 1, &other);
        walk(f.root, SELF, 2);
        assert_int_equal(f.report->n_holders, 0);
}

/* What stands at a path is on some file system, which is not asked: it could be one that does not answer. */
static void file_with_a_path(void **state) {
        char from[128], to[128];

        (void) state;
        add_process(7);
        snprintf(from, sizeof(from), "%s/a", f.root);
        snprintf(to, sizeof(to), "%s/7/fd/3", f.root);
        assert_int_equal(symlink(from, to), 0);
        walk(f.root, SELF, 2);
        assert_int_equal(f.report->n_holders, 0);
        assert_true(f.report->is_complete);
}

static void strange_commands(void **state) {
        static const struct {
                const char *command, *shown;
        } rows[] = {
                { "", "" },
                { "a) Z 1 1 (b", "a) Z 1 1 (b" },
                { "line\nbreak", "line?break" },
                { "\xc3\xa4\x1b[1m", "???[1m" },
                { "fifteen letters!!", "fifteen letters" },
        };

        (void) state;
        for (size_t i = 0; i < ELEMENTSOF(rows); i++) {
                add_process(10 + (int) i);
                write_stat(10 + (int) i, "stat", rows[i].command, 'S', 0, 1);
                add_fd(10 + (int) i, 3, "a");
        }
        walk(f.root, SELF, 2);
        assert_int_equal(f.report->n_holders, ELEMENTSOF(rows));
        for (size_t i = 0; i < ELEMENTSOF(rows); i++)
                assert_string_equal(f.report->holders[i].command, rows[f.report->holders[i].pid - 10].shown);
}

static void zombies_and_kernel_threads(void **state) {
        (void) state;
        add_process(7);
        write_stat(7, "stat", "z", 'Z', 0, 1);
        add_fd(7, 3, "a");
        add_process(8);
        write_stat(8, "stat", "kthreadd", 'S', 0x208040, 1);
        add_fd(8, 3, "a");
        walk(f.root, SELF, 2);
        assert_int_equal(f.report->n_holders, 0);
        assert_true(f.report->is_complete);
}

/* The thread that began the process has ended, and the others go on. */
static void first_thread_has_ended(void **state) {
        const Holder *h;

        (void) state;
        add_process(7);
        write_stat(7, "stat", "vmm", 'Z', 0, 3);
        make_directory(7, "task");
        make_directory(7, "task/7");
        write_stat(7, "task/7/stat", "vmm", 'Z', 0, 3);
        make_directory(7, "task/9");
        make_directory(7, "task/9/fd");
        write_stat(7, "task/9/stat", "vcpu", 'S', 0, 3);
        write_file(7, "task/9/maps", "");
        {
                char from[128], to[128];

                add_mapping(7, "rw-s", 2, file_of("a"));
                snprintf(from, sizeof(from), "%s/7/maps", f.root);
                snprintf(to, sizeof(to), "%s/7/task/9/maps", f.root);
                assert_int_equal(rename(from, to), 0);
        }
        walk(f.root, SELF, 2);
        assert_int_equal(f.report->n_holders, 1);
        h = &f.report->holders[0];
        assert_int_equal(h->pid, 7);
        assert_int_equal(h->shared_bytes, 0x2000);
        assert_string_equal(h->command, "vmm");
        assert_int_equal(f.report->n_unreadable, 0);
}

/* As what vanishes between two steps looks. */
static void remove_file(int pid, const char *name) {
        char from[128], to[160];

        snprintf(from, sizeof(from), "%s/%d/%s", f.root, pid, name);
        snprintf(to, sizeof(to), "%s-gone", from);
        assert_int_equal(rename(from, to), 0);
}

static void vanishing_process(void **state) {
        static const char *const parts[] = { "stat", "fd", "maps", "status" };

        (void) state;
        for (size_t i = 0; i < ELEMENTSOF(parts); i++) {
                add_process(10 + (int) i);
                add_fd(10 + (int) i, 3, "a");
                remove_file(10 + (int) i, parts[i]);
        }
        walk(f.root, SELF, 2);
        /* Without its mappings it lives all the same: it is about to exit, and its fds are still there. */
        assert_int_equal(f.report->n_holders, 1);
        assert_int_equal(f.report->holders[0].pid, 12);
        assert_int_equal(f.report->n_unreadable, 0);
        assert_true(f.report->is_complete);
}

static void malformed(void **state) {
        (void) state;
        add_process(7);
        write_file(7, "stat", "7 (vmm S 1\n");
        add_process(8);
        write_file(8, "stat", "");
        add_process(9);
        write_file(9, "maps", "no mapping\n7f00-7e00 rw-s 0 0:0 1\n\n7f00 rw-s\n");
        add_process(10);
        write_file(10, "status", "Name:\tx\n");
        add_fd(10, 3, "a");
        walk(f.root, SELF, 2);
        assert_int_equal(f.report->n_holders, 0);
        assert_int_equal(f.report->n_unreadable, 3); /* 7, 8 and 10 */
        assert_false(f.report->is_complete);
}

/* What cannot be opened for another reason than that it is gone. */
static void unreadable(void **state) {
        static const char *const parts[] = { "stat", "fd", "maps" };

        (void) state;
        for (size_t i = 0; i < ELEMENTSOF(parts); i++) {
                char path[128];

                add_process(10 + (int) i);
                remove_file(10 + (int) i, parts[i]);
                snprintf(path, sizeof(path), "%s/%d/%s", f.root, 10 + (int) i, parts[i]);
                assert_int_equal(symlink(parts[i], path), 0); /* ELOOP */
        }
        walk(f.root, SELF, 2);
        assert_int_equal(f.report->n_unreadable, ELEMENTSOF(parts));
        assert_false(f.report->is_complete);
}

static void hidden_processes(void **state) {
        char path[128], away[128];

        (void) state;
        snprintf(path, sizeof(path), "%s/1", f.root);
        snprintf(away, sizeof(away), "%s/away", f.root);
        assert_int_equal(rename(path, away), 0);
        walk(f.root, SELF, 2);
        assert_int_equal(f.report->n_unreadable, 0);
        assert_false(f.report->is_complete);
}

static void long_lines(void **state) {
        char text[20000];

        (void) state;
        memset(text, 'x', sizeof(text) - 2);
        memcpy(text, "1000-2000 rw-s 0 0:0 0 /", 24);
        text[sizeof(text) - 2] = '\n';
        text[sizeof(text) - 1] = 0;
        add_process(7);
        write_file(7, "maps", text);
        add_mapping(7, "rw-s", 1, file_of("a"));
        walk(f.root, SELF, 2);
        assert_int_equal(f.report->n_holders, 1);
}

static void goes_in_short_steps(void **state) {
        (void) state;
        for (int pid = 100; pid < 400; pid++)
                add_process(pid);
        add_process(400);
        for (int i = 0; i < 200; i++)
                add_mapping(400, "rw-s", 1, file_of("a"));
        walk(f.root, SELF, 2);
        assert_int_equal(f.report->n_holders, 1);
        assert_int_equal(f.report->holders[0].shared_bytes, 200 * 0x1000);
        /* 128 of what they cost, of 17 at least for each process */
        assert_in_range(f.steps, 300 * 17 / 128, 300);
}

static void too_many_holders(void **state) {
        (void) state;
        for (int i = 0; i < (int) HOLDERS_PER_FILE_MAX + 1; i++) {
                add_process(1000 + i);
                add_mapping(1000 + i, "rw-s", 1, file_of("a"));
                if (i == 0)
                        add_mapping(1000 + i, "rw-s", 1, file_of("b"));
        }
        walk(f.root, SELF, 2);
        assert_int_equal(f.report->n_holders, HOLDERS_PER_FILE_MAX + 1);
        assert_true(holder_walk_is_cut(f.walk, index_of("a")));
        assert_false(holder_walk_is_cut(f.walk, index_of("b")));
}

static void freed_in_the_middle(void **state) {
        (void) state;
        for (int pid = 100; pid < 150; pid++) {
                add_process(pid);
                add_mapping(pid, "rw-s", 1, file_of("a"));
        }
        for (int steps = 1; steps < 8; steps++) {
                assert_int_equal(holder_walk_new(f.root, SELF, f.files, 2, &f.walk), 0);
                for (int i = 0; i < steps; i++)
                        assert_true(holder_walk_step(f.walk) >= 0);
                f.walk = holder_walk_free(f.walk);
        }
        assert_null(holder_walk_free(NULL));
}

/* ---- the real one ---- */

static const Holder *find(pid_t pid) {
        for (size_t i = 0; i < f.report->n_holders; i++)
                if (f.report->holders[i].pid == pid)
                        return &f.report->holders[i];
        return NULL;
}

static void real_process(void **state) {
        _cleanup_close_ int fd = memfd_create("holders", MFD_CLOEXEC);
        const Holder *h;
        struct stat st;
        int status;
        pid_t pid;

        (void) state;
        assert_true(fd >= 0);
        assert_int_equal(ftruncate(fd, 1 << 20), 0);
        assert_int_equal(fstat(fd, &st), 0);
        f.files[0] = (HolderFile) { .dev = st.st_dev, .ino = st.st_ino };
        assert_ptr_not_equal(mmap(NULL, 1 << 20, PROT_READ, MAP_PRIVATE, fd, 0), MAP_FAILED);
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
                pause();
                _exit(0);
        }
        walk("/proc", getpid(), 1);
        assert_int_equal(f.report->n_holders, 1);
        h = find(pid);
        assert_non_null(h);
        assert_int_equal(h->n_fds, 1);
        assert_int_equal(h->private_bytes, 1 << 20);
        assert_int_equal(h->uid, getuid());
        assert_true(h->writable);
        assert_false(h->copies);
        assert_true(h->start_time > 0);
        assert_int_equal(kill(pid, SIGKILL), 0);
        assert_int_equal(waitpid(pid, &status, 0), pid);

        walk("/proc", 0, 1);
        assert_int_equal(f.report->n_holders, 1);
        assert_non_null(find(getpid()));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(nobody),
                TEST(no_files),
                TEST(no_proc),
                TEST(open_only),
                TEST(each_kind_of_mapping),
                TEST(sums_for_each_file),
                TEST(not_ourselves),
                TEST(other_files),
                TEST(file_with_a_path),
                TEST(strange_commands),
                TEST(zombies_and_kernel_threads),
                TEST(first_thread_has_ended),
                TEST(vanishing_process),
                TEST(malformed),
                TEST(unreadable),
                TEST(hidden_processes),
                TEST(long_lines),
                TEST(goes_in_short_steps),
                TEST(too_many_holders),
                TEST(freed_in_the_middle),
                TEST(real_process),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
