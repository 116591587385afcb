/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What privmemd and privmem-rest both have to know of the unix sockets that they listen on. */

#include <stdbool.h>
#include <sys/types.h>
#include <sys/un.h>

/* Whether a failure of accept(2) concerns this one client and not us: its "Error handling", and whoever has gone already.
 * errnum: positive. */
bool unix_socket_is_clients_failure(int errnum);

/* Removes what bind(2) would trip over. It must be a socket that nobody listens on any more: -EEXIST if it is something
 * else, -EADDRINUSE if somebody does. */
int unix_socket_remove_stale(const struct sockaddr_un *address);

/* Whether the peer had that supplementary group when it connected, as SO_PEERGROUPS says: one that was given up since
 * still counts, and one joined since does not. Negative: the kernel does not say. */
int unix_socket_peer_has_group(int fd, gid_t group, bool *ret);
