/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <linux/capability.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "core/cleanup.h"
#include "host/capability.h"
#include "host/flight.h"

int flight_open(Flight *flight) {
        if (capability_have(CAP_SYS_RESOURCE) || capability_have(CAP_SYS_ADMIN))
                return 0;
        if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, flight->ends) < 0)
                return -errno;
        flight->token = eventfd(0, EFD_CLOEXEC);
        return flight->token < 0 ? -errno : 0;
}

void flight_done(Flight *flight) {
        flight->ends[0] = safe_close(flight->ends[0]);
        flight->ends[1] = safe_close(flight->ends[1]);
        flight->token = safe_close(flight->token);
}

int flight_hold(Flight *flight) {
        union {
                struct cmsghdr head;
                char bytes[CMSG_SPACE(sizeof(int))];
        } control = { .head = { CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS } };
        char byte = 0;
        struct iovec io = { &byte, sizeof(byte) };
        struct msghdr message = {
                .msg_iov = &io,
                .msg_iovlen = 1,
                .msg_control = &control,
                .msg_controllen = sizeof(control.bytes),
        };

        if (flight->token < 0)
                return 0;
        *(int *) CMSG_DATA(&control.head) = flight->token;
        if (sendmsg(flight->ends[0], &message, MSG_NOSIGNAL) >= 0)
                return 0;
        return errno == ETOOMANYREFS ? FLIGHT_E_FULL : -errno;
}

/* Received without room for it, the fd is gone. All that is there: one that could not be dropped is dropped now. */
void flight_drop(Flight *flight) {
        char byte;

        while (flight->token >= 0 && recv(flight->ends[1], &byte, sizeof(byte), 0) > 0)
                ;
}
