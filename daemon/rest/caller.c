/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "rest/caller.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

/* What connect(2) noted, so that a group that was given up since still counts, and one joined since does not. */
static int is_in_group(int fd, gid_t own, gid_t group, bool *ret) {
        gid_t few[64], *groups = few;
        socklen_t size = sizeof(few);
        int r = 0;

        *ret = own == group;
        if (*ret)
                return 0;
        if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &size) < 0) {
                if (errno != ERANGE)
                        return -errno;
                groups = malloc(size);
                if (!groups)
                        return -ENOMEM;
                if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &size) < 0)
                        r = -errno;
        }
        for (size_t i = 0; r == 0 && i < size / sizeof(gid_t); i++)
                *ret = *ret || groups[i] == group;
        if (groups != few)
                free(groups);
        return r;
}

int caller_of_unix(int fd, gid_t group, Caller *ret) {
        struct ucred peer;
        socklen_t size = sizeof(peer);
        bool manages;
        int r = 0;

        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0)
                return -errno;
        manages = peer.uid == 0 || peer.uid == geteuid();
        if (!manages && group != (gid_t) -1)
                r = is_in_group(fd, peer.gid, group, &manages);
        if (r < 0)
                return r;
        *ret = (Caller) { .right = manages ? RIGHT_MANAGE : RIGHT_NONE, .has_uid = true, .uid = peer.uid };
        snprintf(ret->name, sizeof(ret->name), "uid %u", (unsigned) peer.uid);
        return 0;
}
