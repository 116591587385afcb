/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "core/cleanup.h"
#include "host/file.h"

/* Files of /proc and /sys that we read hold one line of far less than this. */
static int read_line(const char *path, char buffer[static 256]) {
        _cleanup_close_ int fd = -EBADF;
        ssize_t n;

        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return -errno;
        n = read(fd, buffer, 255);
        if (n < 0)
                return -errno;
        buffer[n] = 0;
        return 0;
}

int file_read_u64(const char *path, uint64_t *ret) {
        char buffer[256], *end;
        unsigned long long value;
        int r;

        r = read_line(path, buffer);
        if (r < 0)
                return r;
        errno = 0;
        value = strtoull(buffer, &end, 10);
        if (errno != 0 || end == buffer || (*end != 0 && *end != '\n'))
                return -EINVAL;
        *ret = value;
        return 0;
}

int file_read_choice(const char *path, char ret[static 32]) {
        char buffer[256], *start, *end;
        int r;

        r = read_line(path, buffer);
        if (r < 0)
                return r;
        start = strchr(buffer, '[');
        end = start ? strchr(start, ']') : NULL;
        if (!end || end - start > 32)
                return -EINVAL;
        *end = 0;
        strcpy(ret, start + 1);
        return 0;
}

int file_read_bitmap(const char *path, uint64_t *ret) {
        char buffer[256], *p = buffer;
        uint64_t bits = 0;
        int r;

        r = read_line(path, buffer);
        if (r < 0)
                return r;
        while (*p != 0 && *p != '\n') {
                unsigned long first, last;
                char *end;

                first = last = strtoul(p, &end, 10);
                if (end == p)
                        return -EINVAL;
                if (*end == '-') {
                        p = end + 1;
                        last = strtoul(p, &end, 10);
                        if (end == p || last < first)
                                return -EINVAL;
                }
                for (unsigned long i = first; i <= last && i < 64; i++)
                        bits |= UINT64_C(1) << i;
                p = *end == ',' ? end + 1 : end;
                if (*end != 0 && *end != ',' && *end != '\n')
                        return -EINVAL;
        }
        *ret = bits;
        return 0;
}
