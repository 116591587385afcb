/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>

#include "core/cleanup.h"
#include "host/retrieve.h"

static void cleanup_closedir(DIR **d) {
        if (*d)
                closedir(*d);
}

typedef struct Search {
        const Process *process;
        bool (*wanted)(dev_t dev, ino_t ino, void *userdata);
        int (*found)(int fd, void *userdata);
        void *userdata;
} Search;

/* What went away meanwhile, or is not for us; anything else concerns us and not the process. */
static int error_of(int errnum) {
        switch (errnum) {
        case ENOENT:
        case ESRCH:
        case EBADF:
        case ENXIO:
        case EPERM:
        case EACCES:
                return 0;
        default:
                return -errnum;
        }
}

/* A link of /proc/PID/fd: stat(2) follows it to the file itself, whatever its name. */
static int look_at_fd(const Search *search, DIR *directory, const char *name) {
        _cleanup_close_ int fd = -EBADF;
        struct stat st;
        int flags;

        if (fstatat(dirfd(directory), name, &st, 0) < 0)
                return error_of(errno);
        if (!search->wanted(st.st_dev, st.st_ino, search->userdata))
                return 0;
        fd = pidfd_getfd(search->process->pidfd, atoi(name), 0);
        if (fd < 0)
                return error_of(errno);
        flags = fcntl(fd, F_GETFL);
        if (flags < 0)
                return -errno;
        return (flags & O_ACCMODE) == O_RDWR ? search->found(TAKE_FD(fd), search->userdata) : 0;
}

/* A link of /proc/PID/map_files, which opens the file anew. */
static int look_at_mapping(const Search *search, DIR *directory, const char *name) {
        struct stat st;
        int fd;

        if (fstatat(dirfd(directory), name, &st, 0) < 0)
                return error_of(errno);
        if (!search->wanted(st.st_dev, st.st_ino, search->userdata))
                return 0;
        fd = openat(dirfd(directory), name, O_RDWR | O_CLOEXEC | O_NOCTTY);
        return fd < 0 ? error_of(errno) : search->found(fd, search->userdata);
}

static int look_into(const Search *search, const char *which,
                     int (*look)(const Search *search, DIR *directory, const char *name)) {
        _cleanup_(cleanup_closedir) DIR *directory = NULL;
        const struct dirent *entry;
        char path[64];
        int r;

        snprintf(path, sizeof(path), "/proc/%d/%s", (int) search->process->pid, which);
        directory = opendir(path);
        if (!directory)
                return error_of(errno);
        while (errno = 0, (entry = readdir(directory))) {
                if (entry->d_name[0] == '.')
                        continue;
                r = look(search, directory, entry->d_name);
                if (r != 0)
                        return r;
        }
        return error_of(errno);
}

int retrieve_files(const Process *process, bool (*wanted)(dev_t dev, ino_t ino, void *userdata),
                   int (*found)(int fd, void *userdata), void *userdata) {
        Search search = { .process = process, .wanted = wanted, .found = found, .userdata = userdata };
        int r;

        r = look_into(&search, "fd", look_at_fd);
        return r != 0 ? r : look_into(&search, "map_files", look_at_mapping);
}

int retrieve_process(pid_t pid, uint64_t start_time, Process *ret) {
        _cleanup_close_ int pidfd = pidfd_open(pid, 0);
        int r;

        if (pidfd < 0)
                return errno == ESRCH || errno == EINVAL ? PROCESS_E_GONE : -errno;
        r = process_open(pidfd, ret);
        if (r != 0)
                return r;
        if (ret->start_time == start_time)
                return 0;
        process_done(ret);
        return PROCESS_E_GONE;
}
