/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What the kernel alone costs: a socket that passes a new memfd for each byte 'a', and closes the newest for each
 * byte 'r'. The answer is a byte 0.
 *
 * usage: bench-raw-server SOCKET */

#include <sys/socket.h>
#include <sys/un.h>

#include "memory.h"

static int answer(int link, int fd) {
        union {
                struct cmsghdr header;
                char space[CMSG_SPACE(sizeof(int))];
        } control = {};
        char byte = 0;
        struct iovec iov = { &byte, 1 };
        struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1 };

        if (fd >= 0) {
                message.msg_control = &control;
                message.msg_controllen = sizeof(control);
                control.header = (struct cmsghdr) {
                        .cmsg_level = SOL_SOCKET,
                        .cmsg_type = SCM_RIGHTS,
                        .cmsg_len = CMSG_LEN(sizeof(int)),
                };
                memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
        }
        return sendmsg(link, &message, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

static int serve(int link) {
        char request;
        int r;

        while (recv(link, &request, 1, 0) == 1) {
                r = request == 'a' ? memory_create("raw", MEMORY_SIZE) : memory_release();
                if (r >= 0)
                        r = answer(link, request == 'a' ? r : -EBADF);
                if (r < 0)
                        return r;
        }
        return 0;
}

static int listen_at(const char *path) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int fd;

        if (strlen(path) >= sizeof(address.sun_path))
                return -ENAMETOOLONG;
        strcpy(address.sun_path, path);
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0 || bind(fd, (struct sockaddr *) &address, sizeof(address)) < 0 || listen(fd, 8) < 0)
                return -errno;
        return fd;
}

int main(int argc, char *argv[]) {
        int listener, link, r = 0;

        if (argc != 2) {
                fprintf(stderr, "usage: %s SOCKET\n", argv[0]);
                return 2;
        }
        memory_probe();
        listener = listen_at(argv[1]);
        if (listener < 0)
                r = listener;
        while (r >= 0) {
                link = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
                r = link < 0 ? -errno : serve(link);
                if (link >= 0)
                        close(link);
        }
        fprintf(stderr, "%s: %s\n", argv[0], strerror(-r));
        return EXIT_FAILURE;
}
