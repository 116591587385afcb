/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "rest/lines.h"

#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>

#include "core/cleanup.h"

#define FILE_SIZE_MAX ((size_t) 1024 * 1024) /* a file that is larger was named by mistake */

void lines_complain(Lines *lines, const char *fmt, ...) {
        _cleanup_free_ char *text = NULL;
        va_list ap;
        int r;

        if (lines->message || lines->error < 0)
                return;
        va_start(ap, fmt);
        r = vasprintf(&text, fmt, ap);
        va_end(ap);
        if (r < 0 || asprintf(&lines->message, "%s:%u: %s", lines->path, lines->number, text) < 0) {
                lines->message = NULL;
                lines->error = -ENOMEM;
        }
}

int lines_bad(char **ret_message, const char *fmt, ...) {
        char *text;
        va_list ap;
        int r;

        va_start(ap, fmt);
        r = vasprintf(&text, fmt, ap);
        va_end(ap);
        if (r < 0)
                return -ENOMEM;
        *ret_message = text;
        return LINES_E_BAD;
}

static int check_file(int fd, const char *path, bool is_secret, char **ret_message) {
        struct stat st;

        if (fstat(fd, &st) < 0)
                return -errno;
        if (!S_ISREG(st.st_mode))
                return lines_bad(ret_message, "%s: it must be a regular file", path);
        if (!is_secret)
                return 0;
        if (st.st_uid != 0 && st.st_uid != geteuid())
                return lines_bad(ret_message, "%s: it must belong to root or to the user that runs this", path);
        if (st.st_mode & (S_IRWXO | S_IWGRP))
                return lines_bad(ret_message, "%s: others may read or change it (mode %04o); it must be 0640 or less",
                                 path, st.st_mode & 07777U);
        return 0;
}

int lines_read_all(const char *path, bool is_secret, char **ret_data, size_t *ret_size, char **ret_message) {
        _cleanup_free_ char *data = NULL;
        _cleanup_close_ int fd = -EBADF;
        size_t size = 0;
        ssize_t n;
        int r;

        fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
        if (fd < 0)
                return lines_bad(ret_message, "%s: %s", path, strerror(errno));
        r = check_file(fd, path, is_secret, ret_message);
        if (r != 0)
                return r;
        data = malloc(FILE_SIZE_MAX + 1);
        if (!data)
                return -ENOMEM;
        while ((n = read(fd, data + size, FILE_SIZE_MAX - size)) > 0)
                size += (size_t) n;
        if (n < 0)
                return lines_bad(ret_message, "%s: %s", path, strerror(errno));
        if (size == FILE_SIZE_MAX)
                return lines_bad(ret_message, "%s: it must be smaller than %zu bytes", path, FILE_SIZE_MAX);
        data[size] = 0;
        *ret_data = TAKE_PTR(data);
        *ret_size = size;
        return 0;
}

static char *trimmed(char *text) {
        size_t size;

        text += strspn(text, " \t");
        for (size = strlen(text); size > 0 && strchr(" \t\r", text[size - 1]); size--)
                ;
        text[size] = 0;
        return text;
}

int lines_read(const char *path, bool is_secret, LinesFunction function, void *userdata, char **ret_message) {
        _cleanup_free_ char *data = NULL;
        Lines lines = { .path = path };
        size_t size;
        char *rest;
        int r;

        r = lines_read_all(path, is_secret, &data, &size, ret_message);
        if (r != 0)
                return r;
        if (strlen(data) != size)
                return lines_bad(ret_message, "%s: there is a NUL byte in it; it must be text", path);
        rest = data;
        for (char *line; !lines.message && lines.error == 0 && (line = strsep(&rest, "\n"));) {
                lines.number++;
                line = trimmed(line);
                if (line[0] && line[0] != '#')
                        function(&lines, line, userdata);
        }
        explicit_bzero(data, size);
        if (lines.error < 0)
                return lines.error;
        if (!lines.message)
                return 0;
        *ret_message = lines.message;
        return LINES_E_BAD;
}
