/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "core/cleanup.h"
#include "host/process.h"

/* The end of a file of /proc: that the process has exited is no error. */
static int end_of(FILE *f, int otherwise) {
        return ferror(f) && errno != ESRCH ? -errno : otherwise;
}

/* The line "Pid:" of /proc/self/fdinfo/N is there for pidfds only; it is -1 once the process is reaped and 0 if it
 * is in no pid namespace below ours (kernel/fork.c pidfd_show_fdinfo()). */
static int pid_of(int pidfd, pid_t *ret) {
        _cleanup_fclose_ FILE *f = NULL;
        char path[64], line[128];

        snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", pidfd);
        f = fopen(path, "re");
        if (!f)
                return -errno;
        while (fgets(line, sizeof(line), f)) {
                int pid;

                if (sscanf(line, "Pid: %d", &pid) != 1)
                        continue;
                if (pid <= 0)
                        return PROCESS_E_GONE;
                *ret = pid;
                return 0;
        }
        return end_of(f, PROCESS_E_NOT_PIDFD);
}

/* The owner of /proc/PID is root for a process that is not dumpable, so ask for the line "Uid:" instead. */
static int uid_of(pid_t pid, uid_t *ret) {
        _cleanup_fclose_ FILE *f = NULL;
        char path[64], line[256];

        snprintf(path, sizeof(path), "/proc/%d/status", (int) pid);
        f = fopen(path, "re");
        if (!f)
                return errno == ENOENT ? PROCESS_E_GONE : -errno;
        while (fgets(line, sizeof(line), f)) {
                unsigned uid;

                if (sscanf(line, "Uid: %u", &uid) == 1) {
                        *ret = uid;
                        return 0;
                }
        }
        return end_of(f, PROCESS_E_GONE);
}

/* The name before it may have any character, parentheses and blanks too, but what follows it has none. */
static int start_time_of(pid_t pid, uint64_t *ret) {
        _cleanup_fclose_ FILE *f = NULL;
        char path[64], text[1024], *end;
        size_t n;

        snprintf(path, sizeof(path), "/proc/%d/stat", (int) pid);
        f = fopen(path, "re");
        if (!f)
                return errno == ENOENT ? PROCESS_E_GONE : -errno;
        n = fread(text, 1, sizeof(text) - 1, f);
        text[n] = 0;
        end = strrchr(text, ')');
        /* Field 22; the name is field 2. */
        if (!end ||
            sscanf(end + 1, " %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %" SCNu64,
                   ret) != 1)
                return end_of(f, PROCESS_E_GONE);
        return 0;
}

bool process_is_alive(const Process *process) {
        struct pollfd p = { .fd = process->pidfd, .events = POLLIN };

        return poll(&p, 1, 0) == 0;
}

int process_open(int pidfd, Process *ret) {
        _cleanup_(process_done) Process process = { .pidfd = -EBADF };
        int r;

        process.pidfd = fcntl(pidfd, F_DUPFD_CLOEXEC, 3);
        if (process.pidfd < 0)
                return -errno;
        r = pid_of(process.pidfd, &process.pid);
        if (r != 0)
                return r;
        r = uid_of(process.pid, &process.uid);
        if (r == 0)
                r = start_time_of(process.pid, &process.start_time);
        if (r != 0)
                return r;
        /* Still there, so what was read belongs to this process. */
        if (!process_is_alive(&process))
                return PROCESS_E_GONE;
        *ret = process;
        process.pidfd = -EBADF;
        return 0;
}

void process_done(Process *process) {
        process->pidfd = safe_close(process->pidfd);
}

int process_maps_file(const Process *process, dev_t dev, ino_t ino, bool *ret_maps) {
        _cleanup_fclose_ FILE *f = NULL;
        _cleanup_free_ char *line = NULL;
        char path[64];
        size_t size = 0;
        bool maps = false;

        snprintf(path, sizeof(path), "/proc/%d/maps", (int) process->pid);
        f = fopen(path, "re");
        if (!f) {
                *ret_maps = process_is_alive(process);
                return 0;
        }
        while (!maps && getline(&line, &size, f) >= 0) {
                unsigned device_major, device_minor;
                uint64_t inode;

                /* start-end perms offset major:minor inode path */
                if (sscanf(line, "%*s %*s %*s %x:%x %" SCNu64, &device_major, &device_minor, &inode) == 3)
                        maps = inode == ino && device_major == major(dev) && device_minor == minor(dev);
        }
        if (ferror(f))
                maps = true;
        *ret_maps = maps && process_is_alive(process);
        return 0;
}
