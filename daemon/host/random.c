/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "host/random.h"

#include <errno.h>
#include <stdint.h>
#include <sys/random.h>
#include <sys/types.h>

int random_fill(void *bytes, size_t size) {
        uint8_t *at = bytes;

        while (size > 0) {
                ssize_t n = getrandom(at, size, 0);

                if (n < 0 && errno != EINTR)
                        return -errno;
                if (n > 0) {
                        at += n;
                        size -= (size_t) n;
                }
        }
        return 0;
}
