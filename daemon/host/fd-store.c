/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdbool.h>
#include <string.h>
#include <systemd/sd-daemon.h>

#include "core/cleanup.h"
#include "host/fd-store.h"

enum {
        NAME_MAX_LENGTH = 255, /* systemd's FDNAME_MAX */
        STORE_FDS_MAX = 253,   /* in one message */
};

uint64_t fd_store_capacity(void) {
        const char *text = getenv("FDSTORE");
        unsigned long long n;
        char *end;

        if (!getenv("NOTIFY_SOCKET") || !text || text[0] < '0' || text[0] > '9')
                return 0;
        errno = 0;
        n = strtoull(text, &end, 10);
        return errno != 0 || *end ? 0 : n;
}

/* Of others, systemd says nothing and stores under a name of its own. */
static bool name_is_valid(const char *name) {
        size_t length = strlen(name);

        for (const char *c = name; *c; c++)
                if (*c < ' ' || *c > '~' || *c == ':')
                        return false;
        return length > 0 && length <= NAME_MAX_LENGTH;
}

static int notify(const char *state, const int *fds, size_t n) {
        int r;

        r = sd_pid_notify_with_fds(/* pid= */ 0, /* unset_environment= */ false, state, fds, (unsigned) n);
        return r == 0 ? -ENOTCONN : r < 0 ? r : 0;
}

int fd_store_put(const char *name, const int *fds, size_t n) {
        char state[NAME_MAX_LENGTH + 64];

        if (!name_is_valid(name) || n == 0)
                return -EINVAL;
        if (n > STORE_FDS_MAX)
                return -E2BIG;
        snprintf(state, sizeof(state), "FDSTORE=1\nFDNAME=%s\nFDPOLL=0", name);
        return notify(state, fds, n);
}

int fd_store_drop(const char *name) {
        char state[NAME_MAX_LENGTH + 64];

        if (!name_is_valid(name))
                return -EINVAL;
        snprintf(state, sizeof(state), "FDSTOREREMOVE=1\nFDNAME=%s", name);
        return notify(state, /* fds= */ NULL, 0);
}

int fd_store_barrier(uint64_t timeout_usec) {
        int r;

        r = sd_notify_barrier(/* unset_environment= */ false, timeout_usec);
        return r == 0 ? -ENOTCONN : r < 0 ? r : 0;
}

int fd_store_passed(PassedFds *ret) {
        PassedFds passed = {};
        char **names = NULL;
        int n;

        n = sd_listen_fds_with_names(/* unset_environment= */ true, &names);
        if (n < 0)
                return n;
        passed.items = calloc((size_t) n ?: 1, sizeof(*passed.items));
        for (int i = 0; i < n; i++)
                if (passed.items) {
                        passed.items[i].name = names[i];
                        passed.items[i].fd = SD_LISTEN_FDS_START + i;
                } else {
                        free(names[i]);
                }
        free(names);
        if (!passed.items)
                return -ENOMEM;
        passed.n = (size_t) n;
        *ret = passed;
        return 0;
}

int fd_store_take(PassedFds *passed, const char *name) {
        for (size_t i = 0; i < passed->n; i++)
                if (passed->items[i].fd >= 0 && strcmp(passed->items[i].name, name) == 0)
                        return TAKE_FD(passed->items[i].fd);
        return -ENOENT;
}

void fd_store_passed_done(PassedFds *passed) {
        for (size_t i = 0; i < passed->n; i++) {
                safe_close(passed->items[i].fd);
                free(passed->items[i].name);
        }
        free(passed->items);
        *passed = (PassedFds) {};
}
