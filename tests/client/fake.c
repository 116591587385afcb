/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "fake.h"

#include <assert.h>
#include <dirent.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void close_fds(Fake *f) {
        while (f->n_fds > 0)
                close(f->fds[--f->n_fds]);
}

static void *serve(void *userdata) {
        Fake *f = userdata;

        f->function(f, f->userdata);
        close_fds(f);
        close(f->fd);
        return NULL;
}

privmem *fake_start(Fake *f, FakeFunc function, void *userdata) {
        privmem *p = NULL;
        int pair[2], r;

        r = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair);
        assert(r == 0);
        *f = (Fake) { .fd = pair[1], .function = function, .userdata = userdata };
        r = pthread_create(&f->thread, NULL, serve, f);
        assert(r == 0);
        r = privmem_connect_fd(pair[0], &p);
        assert(r == 0);
        return p;
}

void fake_stop(Fake *f, privmem *p) {
        privmem_close(p);
        pthread_join(f->thread, NULL);
}

static void take_fds(Fake *f, struct msghdr *message) {
        for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
                size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

                assert(f->n_fds + n <= 253);
                memcpy(f->fds + f->n_fds, CMSG_DATA(c), n * sizeof(int));
                f->n_fds += n;
        }
}

json_object *fake_read(Fake *f) {
        static const size_t most = 17 * 1024 * 1024;
        char *text = malloc(most);
        json_object *call = NULL;
        size_t size = 0;

        close_fds(f);
        while (size < most) {
                char control[CMSG_SPACE(253 * sizeof(int))];
                struct iovec io = { .iov_base = text + size, .iov_len = most - size };
                struct msghdr message = {
                        .msg_iov = &io, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)
                };
                ssize_t n = recvmsg(f->fd, &message, MSG_CMSG_CLOEXEC);

                if (n <= 0)
                        break;
                take_fds(f, &message);
                size += (size_t) n;
                if (text[size - 1] == 0) {
                        call = json_tokener_parse(text);
                        break;
                }
        }

        free(text);
        return call;
}

void fake_send_bytes(Fake *f, const char *bytes, size_t size, size_t n_fds) {
        while (size > 0) {
                char control[CMSG_SPACE(253 * sizeof(int))] = {};
                struct iovec io = { .iov_base = (char *) bytes, .iov_len = size };
                struct msghdr message = { .msg_iov = &io, .msg_iovlen = 1 };
                ssize_t n;

                if (n_fds > 0) {
                        struct cmsghdr *c = (struct cmsghdr *) control;

                        c->cmsg_level = SOL_SOCKET;
                        c->cmsg_type = SCM_RIGHTS;
                        c->cmsg_len = CMSG_LEN(n_fds * sizeof(int)); /* all 0: standard input */
                        message.msg_control = control;
                        message.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
                }

                n = sendmsg(f->fd, &message, MSG_NOSIGNAL);
                if (n < 0)
                        return; /* the client had enough of it */
                bytes += n;
                size -= (size_t) n;
                n_fds = 0;
        }
}

void fake_send(Fake *f, const char *text) {
        fake_send_bytes(f, text, strlen(text) + 1, 0);
}

void fake_answer(Fake *f, void *userdata) {
        json_object *call = fake_read(f);

        json_object_put(call);
        if (userdata)
                fake_send(f, userdata);
}

unsigned count_fds(void) {
        DIR *d = opendir("/proc/self/fd");
        unsigned n = 0;

        assert(d);
        while (readdir(d))
                n++;
        closedir(d);
        return n;
}
