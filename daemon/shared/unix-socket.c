/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "shared/unix-socket.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "core/cleanup.h"

/* Most users have fewer groups; the kernel says how much room the others take. */
#define GROUPS_USUAL 64U

bool unix_socket_is_clients_failure(int errnum) {
        switch (errnum) {
        case EAGAIN:
        case EINTR:
        case ECONNABORTED:
        case EPROTO:
        case EPERM:
                return true;
        default:
                return false;
        }
}

int unix_socket_remove_stale(const struct sockaddr_un *address) {
        _cleanup_close_ int fd = -EBADF;
        struct stat st;

        if (lstat(address->sun_path, &st) < 0)
                return errno == ENOENT ? 0 : -errno;
        if (!S_ISSOCK(st.st_mode))
                return -EEXIST;
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
                return -errno;
        if (connect(fd, (const struct sockaddr *) address, sizeof(*address)) >= 0 || errno == EAGAIN)
                return -EADDRINUSE;
        if (errno != ECONNREFUSED)
                return -errno;
        return unlink(address->sun_path) < 0 ? -errno : 0;
}

static bool contains(const gid_t *groups, socklen_t size, gid_t group) {
        for (size_t i = 0; i < size / sizeof(*groups); i++)
                if (groups[i] == group)
                        return true;
        return false;
}

int unix_socket_peer_has_group(int fd, gid_t group, bool *ret) {
        gid_t usual[GROUPS_USUAL];
        _cleanup_free_ gid_t *all = NULL;
        socklen_t size = sizeof(usual);

        if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, usual, &size) >= 0) {
                *ret = contains(usual, size, group);
                return 0;
        }
        if (errno != ERANGE)
                return -errno;
        all = malloc(size);
        if (!all)
                return -ENOMEM;
        if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, all, &size) < 0)
                return -errno;
        *ret = contains(all, size, group);
        return 0;
}
