/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "transport.h"

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define BUFFER_MIN ((size_t) 4096)

/* A buffer that grew beyond this is given back once it is empty. */
#define BUFFER_KEEP ((size_t) 256 * 1024)

union fds_control {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int) * TRANSPORT_FDS_MAX)];
};

int transport_connect(Transport *t, const char *path) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        size_t length = strlen(path);
        int fd;

        if (length == 0)
                return -ENOENT;
        if (length >= sizeof(address.sun_path))
                return -ENAMETOOLONG;
        memcpy(address.sun_path, path, length + 1);

        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0)
                return -errno;

        /* An interrupted connect of a unix socket has not begun: it is safe to ask again. */
        while (connect(fd, (const struct sockaddr *) &address, sizeof(address)) < 0)
                if (errno != EINTR) {
                        int r = -errno;

                        close(fd);
                        return r;
                }

        t->fd = fd;
        return 0;
}

void transport_drop_fds(Transport *t) {
        while (t->n_fds > 0)
                close(t->fds[--t->n_fds]);
}

void transport_done(Transport *t) {
        transport_drop_fds(t);
        if (t->fd >= 0)
                close(t->fd);
        free(t->buffer);
        *t = (Transport) TRANSPORT_INIT;
}

static int64_t now_msec(void) {
        struct timespec now;

        clock_gettime(CLOCK_MONOTONIC, &now);
        return (int64_t) now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* deadline: in now_msec() time, or negative for none. */
static int wait_for(int fd, short events, int64_t deadline) {
        for (;;) {
                struct pollfd p = { .fd = fd, .events = events };
                int64_t left = -1;
                int n;

                if (deadline >= 0) {
                        left = deadline - now_msec();
                        if (left < 0)
                                left = 0;
                }

                n = poll(&p, 1, (int) left);
                if (n > 0)
                        return 0;
                if (n == 0)
                        return -EAGAIN;
                if (errno != EINTR)
                        return -errno;
        }
}

/* Leaves the message without control data if there is nothing to send. */
static void put_fds(struct msghdr *message, union fds_control *control, const int *fds, size_t n_fds) {
        struct cmsghdr *c;

        if (n_fds == 0)
                return;

        memset(control, 0, sizeof(*control));
        message->msg_control = control;
        message->msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
        c = CMSG_FIRSTHDR(message);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
        memcpy(CMSG_DATA(c), fds, sizeof(int) * n_fds);
}

int transport_send(Transport *t, const char *message, size_t size, const int *fds, size_t n_fds) {
        if (size > TRANSPORT_MESSAGE_MAX + 1 || n_fds > TRANSPORT_FDS_MAX)
                return -EMSGSIZE;

        while (size > 0) {
                struct iovec io = { .iov_base = (char *) message, .iov_len = size };
                struct msghdr header = { .msg_iov = &io, .msg_iovlen = 1 };
                union fds_control control;
                ssize_t n;

                put_fds(&header, &control, fds, n_fds);
                n = sendmsg(t->fd, &header, MSG_NOSIGNAL);
                if (n < 0) {
                        int r = -errno;

                        if (r == -EAGAIN)
                                r = wait_for(t->fd, POLLOUT, -1);
                        else if (r == -EINTR)
                                r = 0;
                        if (r < 0)
                                return r;
                        continue;
                }

                message += n;
                size -= (size_t) n;
                n_fds = 0;
        }

        return 0;
}

/* Every file descriptor in the message is ours from now on: kept, or closed here. */
static int take_fds(Transport *t, struct msghdr *message) {
        int r = 0;

        for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
                size_t n;

                if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
                        continue;

                n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
                for (size_t i = 0; i < n; i++) {
                        int fd;

                        memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
                        if (t->n_fds < TRANSPORT_FDS_MAX)
                                t->fds[t->n_fds++] = fd;
                        else {
                                close(fd);
                                r = -E2BIG;
                        }
                }
        }

        /* There is room for as many as one message can carry: the kernel could not install them. */
        if (message->msg_flags & MSG_CTRUNC)
                r = -EMFILE;

        return r;
}

/* Makes room for at least one more byte. */
static int make_room(Transport *t) {
        size_t capacity;
        char *buffer;

        if (t->filled < t->capacity)
                return 0;

        capacity = t->capacity == 0 ? BUFFER_MIN : t->capacity * 2;
        if (capacity > TRANSPORT_MESSAGE_MAX + 1)
                capacity = TRANSPORT_MESSAGE_MAX + 1;
        if (capacity <= t->filled)
                return -EMSGSIZE;

        buffer = realloc(t->buffer, capacity);
        if (!buffer)
                return -ENOMEM;

        t->buffer = buffer;
        t->capacity = capacity;
        return 0;
}

/* Receives some bytes. MSG_DONTWAIT only with a deadline: without one a blocking read saves the poll. */
static int receive_some(Transport *t, int64_t deadline) {
        int r;

        r = make_room(t);
        if (r < 0)
                return r;

        for (;;) {
                struct iovec io = { .iov_base = t->buffer + t->filled, .iov_len = t->capacity - t->filled };
                union fds_control control;
                struct msghdr header = {
                        .msg_iov = &io,
                        .msg_iovlen = 1,
                        .msg_control = &control,
                        .msg_controllen = sizeof(control),
                };
                ssize_t n;

                n = recvmsg(t->fd, &header, MSG_CMSG_CLOEXEC | (deadline < 0 ? 0 : MSG_DONTWAIT));
                if (n > 0) {
                        t->filled += (size_t) n;
                        return take_fds(t, &header);
                }
                if (n == 0)
                        return -ECONNRESET;

                r = -errno;
                if (r == -EAGAIN)
                        r = wait_for(t->fd, POLLIN, deadline);
                else if (r == -EINTR)
                        r = 0;
                if (r < 0)
                        return r;
        }
}

static void drop_taken(Transport *t) {
        if (t->taken == 0)
                return;

        t->filled -= t->taken;
        memmove(t->buffer, t->buffer + t->taken, t->filled);
        t->taken = 0;
        t->scanned = 0;

        if (t->filled == 0 && t->capacity > BUFFER_KEEP) {
                free(t->buffer);
                t->buffer = NULL;
                t->capacity = 0;
        }
}

int transport_receive(Transport *t, int timeout_msec, const char **ret_message, size_t *ret_size) {
        int64_t deadline = timeout_msec < 0 ? -1 : now_msec() + timeout_msec;

        drop_taken(t);

        for (;;) {
                const char *end = NULL;
                int r;

                if (t->filled > t->scanned)
                        end = memchr(t->buffer + t->scanned, 0, t->filled - t->scanned);
                if (end) {
                        t->taken = (size_t) (end - t->buffer) + 1;
                        *ret_message = t->buffer;
                        *ret_size = t->taken - 1;
                        return 0;
                }

                t->scanned = t->filled;
                r = receive_some(t, deadline);
                if (r < 0)
                        return r;
        }
}

bool transport_has_more(const Transport *t) {
        return t->filled > t->taken;
}
