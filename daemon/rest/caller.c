/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "rest/caller.h"

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shared/unix-socket.h"

int caller_of_unix(int fd, gid_t group, Caller *ret) {
        struct ucred peer;
        socklen_t size = sizeof(peer);
        bool manages;
        int r = 0;

        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0)
                return -errno;
        manages = peer.uid == 0 || peer.uid == geteuid();
        if (!manages && group != (gid_t) -1) {
                manages = peer.gid == group;
                if (!manages)
                        r = unix_socket_peer_has_group(fd, group, &manages);
        }
        if (r < 0)
                return r;
        *ret = (Caller) { .right = manages ? RIGHT_MANAGE : RIGHT_NONE, .has_uid = true, .uid = peer.uid };
        snprintf(ret->name, sizeof(ret->name), "uid %u", (unsigned) peer.uid);
        return 0;
}
