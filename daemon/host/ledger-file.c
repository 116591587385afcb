/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The ledger as a file in a directory. */

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "core/cleanup.h"
#include "host/ledger.h"

#define LEDGER_FILE      "ledger"
#define LEDGER_FILE_NEXT "ledger.new"
#define LEDGER_FILE_LOCK "ledger.lock"

/* Nobody but us may have written it. */
static int open_own(int directory, const char *name, int flags, int *ret_fd) {
        _cleanup_close_ int fd = -EBADF;
        struct stat st;

        fd = openat(directory, name, flags | O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0600);
        if (fd < 0)
                switch (errno) {
                case ENOENT:
                        return LEDGER_E_NONE;
                case EISDIR:
                case ELOOP:
                case ENXIO:
                        return LEDGER_E_UNSAFE;
                default:
                        return -errno;
                }
        if (fstat(fd, &st) < 0)
                return -errno;
        if (!S_ISREG(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 077) != 0)
                return LEDGER_E_UNSAFE;
        *ret_fd = TAKE_FD(fd);
        return 0;
}

int ledger_lock(int directory, int *ret_lock) {
        _cleanup_close_ int fd = -EBADF;
        int r;

        r = open_own(directory, LEDGER_FILE_LOCK, O_CREAT, &fd);
        if (r != 0)
                return r;
        if (flock(fd, LOCK_EX | LOCK_NB) < 0)
                return errno == EWOULDBLOCK ? LEDGER_E_LOCKED : -errno;
        *ret_lock = TAKE_FD(fd);
        return 0;
}

int ledger_open_at(int directory, Ledger **ret) {
        _cleanup_close_ int fd = -EBADF;
        int r;

        r = open_own(directory, LEDGER_FILE, 0, &fd);
        if (r == 0)
                r = ledger_open(fd, ret);
        if (r == 0)
                TAKE_FD(fd);
        return r;
}

int ledger_new_at(int directory, uint64_t generation, Ledger **ret) {
        _cleanup_close_ int fd = -EBADF;
        int r;

        /* What is there was never completed, or else it would have another name. */
        if (unlinkat(directory, LEDGER_FILE_NEXT, 0) < 0 && errno != ENOENT)
                return -errno;
        r = open_own(directory, LEDGER_FILE_NEXT, O_CREAT | O_EXCL, &fd);
        if (r == 0)
                r = ledger_new(fd, generation, ret);
        if (r == 0)
                TAKE_FD(fd);
        return r;
}

int ledger_replace_at(int directory, Ledger *ledger) {
        struct stat ours, next;

        if (!ledger_is_complete(ledger))
                return -EINVAL;
        if (fstat(ledger_fd(ledger), &ours) < 0 ||
            fstatat(directory, LEDGER_FILE_NEXT, &next, AT_SYMLINK_NOFOLLOW) < 0)
                return -errno;
        if (ours.st_dev != next.st_dev || ours.st_ino != next.st_ino)
                return -ESTALE;
        if (renameat(directory, LEDGER_FILE_NEXT, directory, LEDGER_FILE) < 0)
                return -errno;
        return 0;
}
