/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Ownership in one scope: a variable is released when its scope ends, unless TAKE_…() hands it over. */

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define ELEMENTSOF(array) (sizeof(array) / sizeof((array)[0]))

#define _cleanup_(function) __attribute__((cleanup(function)))
#define _cleanup_close_     _cleanup_(cleanup_close)
#define _cleanup_free_      _cleanup_(cleanup_free)
#define _cleanup_fclose_    _cleanup_(cleanup_fclose)

#define TAKE_FD(fd) \
        ({ \
                int *_fd = &(fd), _taken = *_fd; \
                *_fd = -EBADF; \
                _taken; \
        })

#define TAKE_PTR(pointer) \
        ({ \
                typeof(pointer) *_pointer = &(pointer), _taken = *_pointer; \
                *_pointer = NULL; \
                _taken; \
        })

static inline int safe_close(int fd) {
        if (fd >= 0) {
                int saved = errno;

                close(fd);
                errno = saved;
        }
        return -EBADF;
}

static inline void cleanup_close(int *fd) {
        *fd = safe_close(*fd);
}

static inline void cleanup_free(void *p) {
        free(*(void **) p);
}

static inline void cleanup_fclose(FILE **f) {
        if (*f)
                fclose(*f);
}
