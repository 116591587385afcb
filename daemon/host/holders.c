/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "host/holders.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "core/cleanup.h"

/* One step: an fd or a mapping costs 1, what each process costs anyhow PROCESS_COST. Measured: 1 to 2 µs each. */
#define STEP_COST    128U
#define PROCESS_COST 16U

#define PF_KTHREAD 0x00200000U /* <linux/sched.h>, and the flags of /proc/PID/stat */

/* A directory that is read in small pieces: the kernel takes about 1 µs for each process or fd that it lists. */
typedef struct Directory {
        int fd;
        size_t at, filled;
        _Alignas(struct dirent64) char buffer[1024];
} Directory;

/* The line of /proc/PID/stat. */
typedef struct Stat {
        char command[16];
        char state;
        unsigned flags;
        unsigned n_threads;
        uint64_t start_time;
} Stat;

/* What else is known of a file. */
typedef struct FileState {
        size_t row; /* of the process that is being looked at, plus 1; 0: none */
        unsigned n_holders;
} FileState;

typedef enum Phase {
        PHASE_NEXT, /* between two processes */
        PHASE_FDS,
        PHASE_MAPS,
} Phase;

struct HolderWalk {
        pid_t self;
        HolderFile *files;
        FileState *states;
        size_t n_files;
        Directory processes;
        bool saw_init;
        HolderReport report;
        size_t n_allocated;
        char *line;
        size_t line_size;

        /* The process that is being looked at. Its directory stays its own: once it is gone, nothing can be opened
         * in there, whoever has its number then. */
        Phase phase;
        int process;
        int task; /* the same, or that of a thread */
        Stat stat;
        pid_t pid;
        Directory fds;
        FILE *maps;
        size_t first_row;
        bool unreadable;
};

/* ---- small readers ---- */

static bool is_gone(int r) {
        return r == -ENOENT || r == -ESRCH;
}

/* Negative errno, or the fd. */
static int open_at(int directory, const char *name, int flags) {
        int fd = openat(directory, name, O_RDONLY | O_CLOEXEC | flags);

        return fd < 0 ? -errno : fd;
}

/* 1: *ret_name is the next entry; 0: there is none. */
static int directory_next(Directory *d, const char **ret_name) {
        const struct dirent64 *entry;
        ssize_t n;

        if (d->at == d->filled) {
                n = getdents64(d->fd, d->buffer, sizeof(d->buffer));
                if (n <= 0)
                        return n < 0 ? -errno : 0;
                d->at = 0;
                d->filled = (size_t) n;
        }
        entry = (const struct dirent64 *) (d->buffer + d->at);
        d->at += entry->d_reclen;
        *ret_name = entry->d_name;
        return 1;
}

static int directory_open(Directory *d, int at, const char *name) {
        *d = (Directory) { .fd = open_at(at, name, O_DIRECTORY) };
        return d->fd < 0 ? d->fd : 0;
}

static bool is_number(const char *name) {
        return isdigit((unsigned char) name[0]);
}

/* Reads a file of one line, or the front of a longer one. */
static int read_front(int directory, const char *name, char *buffer, size_t size) {
        _cleanup_close_ int fd = open_at(directory, name, 0);
        ssize_t n;

        if (fd < 0)
                return fd;
        n = read(fd, buffer, size - 1);
        if (n < 0)
                return -errno;
        buffer[n] = 0;
        return 0;
}

static int read_stat(int directory, Stat *ret) {
        char buffer[1024], *start, *end;
        size_t n;
        int r;

        r = read_front(directory, "stat", buffer, sizeof(buffer));
        if (r < 0)
                return r;
        /* A command may have any character in it, also a parenthesis or a newline. */
        start = strchr(buffer, '(');
        end = strrchr(buffer, ')');
        if (!start || !end || end < start)
                return -EIO;
        /* state, 5 fields, flags, 10 fields, num_threads, itrealvalue, starttime */
        if (sscanf(end + 1, " %c %*s %*s %*s %*s %*s %u %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %u %*s %" SCNu64,
                   &ret->state, &ret->flags, &ret->n_threads, &ret->start_time) != 4)
                return -EIO;
        n = (size_t) (end - start - 1);
        n = n < sizeof(ret->command) ? n : sizeof(ret->command) - 1;
        for (size_t i = 0; i < n; i++)
                ret->command[i] = start[1 + i] >= ' ' && start[1 + i] <= '~' ? start[1 + i] : '?';
        ret->command[n] = 0;
        return 0;
}

static int read_uid(int directory, uid_t *ret) {
        char buffer[1024];
        const char *line;
        unsigned uid;
        int r;

        r = read_front(directory, "status", buffer, sizeof(buffer));
        if (r < 0)
                return r;
        line = strstr(buffer, "\nUid:");
        if (!line || sscanf(line, "\nUid: %u", &uid) != 1)
                return -EIO;
        *ret = uid;
        return 0;
}

/* Its memory and its fds went before. */
static bool has_exited(const Stat *stat) {
        return stat->state == 'Z' || stat->state == 'X';
}

/* ---- what was found ---- */

static int compare(const void *a, const void *b) {
        return holder_file_compare(a, b);
}

static bool find_file(const HolderWalk *w, dev_t dev, ino_t ino, size_t *ret) {
        const HolderFile key = { .dev = dev, .ino = ino }, *found;

        found = bsearch(&key, w->files, w->n_files, sizeof(key), compare);
        if (!found)
                return false;
        *ret = (size_t) (found - w->files);
        return true;
}

/* What the process has of the file. *ret is NULL if too many others have it too. */
static int row_of(HolderWalk *w, size_t file, Holder **ret) {
        FileState *state = &w->states[file];
        HolderReport *report = &w->report;
        Holder *rows;

        *ret = NULL;
        if (state->row == 0) {
                if (state->n_holders++ >= HOLDERS_PER_FILE_MAX)
                        return 0;
                if (report->n_holders == w->n_allocated) {
                        size_t n = w->n_allocated > 0 ? 2 * w->n_allocated : 64;

                        rows = reallocarray(report->holders, n, sizeof(Holder));
                        if (!rows)
                                return -ENOMEM;
                        report->holders = rows;
                        w->n_allocated = n;
                }
                report->holders[report->n_holders++] = (Holder) { .file = file };
                state->row = report->n_holders;
        }
        *ret = &report->holders[state->row - 1];
        return 0;
}

/* The process has been looked at, or what was found of it counts for nothing. */
static void end_rows(HolderWalk *w, bool keep) {
        HolderReport *report = &w->report;

        for (size_t i = w->first_row; i < report->n_holders; i++) {
                FileState *state = &w->states[report->holders[i].file];

                state->row = 0;
                state->n_holders -= !keep;
        }
        if (!keep)
                report->n_holders = w->first_row;
}

/* ---- one process ---- */

static void close_process(HolderWalk *w) {
        if (w->maps)
                fclose(w->maps);
        w->maps = NULL;
        w->fds.fd = safe_close(w->fds.fd);
        if (w->task != w->process)
                safe_close(w->task);
        w->process = safe_close(w->process);
        w->task = -EBADF;
        w->phase = PHASE_NEXT;
}

/* What was found belongs to a process that still lives, or it is gone too. */
static void end_process(HolderWalk *w) {
        bool keep = false;
        uid_t uid = 0;
        Stat stat;
        int r;

        if (w->first_row < w->report.n_holders) {
                r = read_stat(w->process, &stat);
                if (r >= 0)
                        r = has_exited(&stat) && stat.n_threads <= 1 ? -ESRCH : read_uid(w->process, &uid);
                keep = r >= 0;
                w->unreadable = keep ? w->unreadable : !is_gone(r);
        }
        for (size_t i = w->first_row; keep && i < w->report.n_holders; i++) {
                Holder *row = &w->report.holders[i];

                row->pid = w->pid;
                row->start_time = stat.start_time;
                row->uid = uid;
                memcpy(row->command, stat.command, sizeof(row->command));
        }
        end_rows(w, keep);
        w->report.n_unreadable += w->unreadable;
        close_process(w);
}

/* The fd of a thread that has not ended, or a negative errno. */
static int find_living_task(Directory *tasks) {
        for (;;) {
                const char *name = NULL;
                Stat stat;
                int fd, r;

                r = directory_next(tasks, &name);
                if (r <= 0)
                        return r < 0 ? r : -ESRCH;
                if (!is_number(name))
                        continue;
                fd = open_at(tasks->fd, name, O_DIRECTORY);
                if (fd >= 0 && read_stat(fd, &stat) >= 0 && !has_exited(&stat))
                        return fd;
                safe_close(fd);
        }
}

/* A process whose first thread has ended is known by another: the first one has no memory and no fds any more. */
static int open_living_task(HolderWalk *w) {
        Directory tasks;
        int fd, r;

        r = directory_open(&tasks, w->process, "task");
        if (r < 0)
                return r;
        fd = find_living_task(&tasks);
        safe_close(tasks.fd);
        if (fd < 0)
                return fd;
        w->task = fd;
        return 0;
}

/* 1: it is to be looked at; 0: it has nothing. */
static int open_process(HolderWalk *w, const char *name) {
        int r;

        w->process = open_at(w->processes.fd, name, O_DIRECTORY);
        if (w->process < 0)
                return w->process;
        w->task = w->process;
        r = read_stat(w->process, &w->stat);
        if (r < 0)
                return r;
        if ((w->stat.flags & PF_KTHREAD) || (has_exited(&w->stat) && w->stat.n_threads <= 1))
                return 0;
        if (has_exited(&w->stat)) {
                r = open_living_task(w);
                if (r < 0)
                        return r;
        }
        /* Fds first: whoever opens, maps and then closes is met either way. */
        r = directory_open(&w->fds, w->task, "fd");
        return r < 0 ? r : 1;
}

static int next_process(HolderWalk *w) {
        const char *name;
        int r;

        do {
                r = directory_next(&w->processes, &name);
                if (r <= 0)
                        return r;
        } while (!is_number(name));
        w->pid = (pid_t) strtol(name, NULL, 10);
        w->saw_init |= w->pid == 1;
        if (w->pid == w->self)
                return 1;
        w->first_row = w->report.n_holders;
        w->unreadable = false;
        r = open_process(w, name);
        if (r > 0) {
                w->phase = PHASE_FDS;
                return 1;
        }
        w->report.n_unreadable += r < 0 && !is_gone(r);
        close_process(w);
        return 1;
}

/* A file that has a path is none of ours, and its file system may take for ever to say what it is. 1: it may be ours;
 * 0: it is not; negative: nobody tells us. */
static int may_be_memory(int directory, const char *name) {
        char target[9];
        ssize_t n;

        n = readlinkat(directory, name, target, sizeof(target));
        if (n < 0)
                return errno == ENAMETOOLONG ? 0 : -errno;
        /* memfd, and guest_memfd from Linux 6.19 on; before it had no slash */
        return n < 2 || target[0] != '/' || target[1] == '[' || (n >= 7 && memcmp(target, "/memfd:", 7) == 0);
}

static int look_at_fd(HolderWalk *w, const char *name) {
        struct statx file;
        struct stat link;
        Holder *row;
        size_t i;
        int r;

        r = may_be_memory(w->fds.fd, name);
        if (r > 0 && statx(w->fds.fd, name, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, STATX_INO, &file) < 0)
                r = -errno;
        if (r < 0)
                w->unreadable |= !is_gone(r);
        if (r <= 0 || !find_file(w, makedev(file.stx_dev_major, file.stx_dev_minor), file.stx_ino, &i))
                return 0;
        r = row_of(w, i, &row);
        if (r < 0 || !row)
                return r;
        row->n_fds++;
        /* The link's own permissions say how the file was opened. */
        if (fstatat(w->fds.fd, name, &link, AT_SYMLINK_NOFOLLOW) >= 0)
                row->writable |= link.st_mode & S_IWUSR;
        return 0;
}

/* Fds are done. */
static int begin_maps(HolderWalk *w) {
        int fd;

        w->fds.fd = safe_close(w->fds.fd);
        fd = open_at(w->task, "maps", 0);
        if (fd < 0) {
                w->unreadable |= !is_gone(fd);
                end_process(w);
                return 0;
        }
        w->maps = fdopen(fd, "r");
        if (!w->maps) {
                safe_close(fd);
                return -ENOMEM;
        }
        w->phase = PHASE_MAPS;
        return 0;
}

static int next_fd(HolderWalk *w) {
        const char *name;
        int r;

        r = directory_next(&w->fds, &name);
        if (r > 0)
                return is_number(name) ? look_at_fd(w, name) : 0;
        if (r < 0)
                w->unreadable |= !is_gone(r);
        return begin_maps(w);
}

static int look_at_mapping(HolderWalk *w) {
        unsigned device_major, device_minor;
        uint64_t start, end, inode;
        char permissions[5];
        Holder *row;
        size_t i;
        int r;

        /* start-end perms offset major:minor inode path */
        if (sscanf(w->line, "%" SCNx64 "-%" SCNx64 " %4s %*s %x:%x %" SCNu64, &start, &end, permissions, &device_major,
                   &device_minor, &inode) != 6 ||
            strlen(permissions) != 4 || start >= end || inode == 0 ||
            !find_file(w, makedev(device_major, device_minor), inode, &i))
                return 0;
        r = row_of(w, i, &row);
        if (r < 0 || !row)
                return r;
        if (permissions[3] == 's') {
                row->shared_bytes += end - start;
                row->writable |= permissions[1] == 'w';
        } else {
                row->private_bytes += end - start;
                row->copies |= permissions[1] == 'w';
        }
        return 0;
}

static int next_mapping(HolderWalk *w) {
        errno = 0;
        if (getline(&w->line, &w->line_size, w->maps) >= 0)
                return look_at_mapping(w);
        if (errno == ENOMEM)
                return -ENOMEM;
        w->unreadable |= ferror(w->maps) && !is_gone(-errno);
        end_process(w);
        return 0;
}

/* ---- the walk ---- */

int holder_walk_new(const char *proc, pid_t self, const HolderFile *files, size_t n_files, HolderWalk **ret) {
        HolderWalk *w;
        int r;

        w = calloc(1, sizeof(*w));
        if (!w)
                return -ENOMEM;
        w->self = self;
        w->n_files = n_files;
        w->process = w->task = w->fds.fd = -EBADF;
        r = directory_open(&w->processes, AT_FDCWD, proc);
        w->files = reallocarray(NULL, n_files ?: 1, sizeof(HolderFile));
        w->states = calloc(n_files ?: 1, sizeof(FileState));
        if (r >= 0 && (!w->files || !w->states))
                r = -ENOMEM;
        if (r < 0) {
                holder_walk_free(w);
                return r;
        }
        for (size_t i = 0; i < n_files; i++)
                w->files[i] = files[i];
        *ret = w;
        return 0;
}

HolderWalk *holder_walk_free(HolderWalk *w) {
        if (!w)
                return NULL;
        close_process(w);
        safe_close(w->processes.fd);
        free(w->report.holders);
        free(w->states);
        free(w->files);
        free(w->line);
        free(w);
        return NULL;
}

int holder_walk_step(HolderWalk *w) {
        for (unsigned cost = 0; cost < STEP_COST; cost++) {
                int r = 0;

                switch (w->phase) {
                case PHASE_NEXT:
                        cost += PROCESS_COST;
                        r = next_process(w);
                        if (r == 0) {
                                /* There is always a process 1, but procfs may be mounted so that it hides others'. */
                                w->report.is_complete = w->report.n_unreadable == 0 && w->saw_init;
                                return 0;
                        }
                        break;
                case PHASE_FDS:
                        r = next_fd(w);
                        break;
                case PHASE_MAPS:
                        r = next_mapping(w);
                        break;
                }
                if (r < 0)
                        return r;
        }
        return 1;
}

const HolderReport *holder_walk_report(const HolderWalk *w) {
        return &w->report;
}

bool holder_walk_is_cut(const HolderWalk *w, size_t file) {
        return w->states[file].n_holders > HOLDERS_PER_FILE_MAX;
}
