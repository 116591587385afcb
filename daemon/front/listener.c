/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdbool.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "core/cleanup.h"
#include "front/listener.h"
#include "shared/unix-socket.h"

/* Until the next accept(2) after one that failed for want of something. */
#define RETRY_USEC UINT64_C(100000)

struct Listener {
        int fd;
        sd_event_source *io;
        sd_event_source *retry; /* on while io is off */
        ListenerAccept on_accept;
        void *userdata;
};

/* The socket stays readable, so do not look at it for a while. */
static int wait_a_while(Listener *listener) {
        int r;

        r = sd_event_source_set_time_relative(listener->retry, RETRY_USEC);
        if (r >= 0)
                r = sd_event_source_set_enabled(listener->retry, SD_EVENT_ONESHOT);
        if (r >= 0)
                r = sd_event_source_set_enabled(listener->io, SD_EVENT_OFF);
        return r;
}

static int on_readable(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
        Listener *listener = userdata;
        int client;

        (void) source;
        (void) revents;
        client = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (client >= 0)
                listener->on_accept(client, listener->userdata);
        else if (!unix_socket_is_clients_failure(errno))
                return wait_a_while(listener);
        return 0;
}

static int on_retry(sd_event_source *source, uint64_t usec, void *userdata) {
        Listener *listener = userdata;

        (void) source;
        (void) usec;
        return sd_event_source_set_enabled(listener->io, SD_EVENT_ON);
}

int listener_new(sd_event *event, int fd, ListenerAccept on_accept, void *userdata, Listener **ret) {
        Listener *listener;
        int r;

        listener = malloc(sizeof(*listener));
        if (!listener)
                return -ENOMEM;
        *listener = (Listener) { .fd = -EBADF, .on_accept = on_accept, .userdata = userdata };
        r = sd_event_add_io(event, &listener->io, fd, EPOLLIN, on_readable, listener);
        if (r >= 0)
                r = sd_event_add_time(event, &listener->retry, CLOCK_MONOTONIC, 0, 0, on_retry, listener);
        if (r >= 0)
                r = sd_event_source_set_enabled(listener->retry, SD_EVENT_OFF);
        if (r < 0) {
                listener_free(listener);
                return r;
        }
        listener->fd = fd;
        *ret = listener;
        return 0;
}

Listener *listener_free(Listener *listener) {
        if (!listener)
                return NULL;
        sd_event_source_disable_unref(listener->io);
        sd_event_source_disable_unref(listener->retry);
        safe_close(listener->fd);
        free(listener);
        return NULL;
}

bool listener_path(const Listener *listener, char ret[static LISTENER_PATH_SIZE]) {
        struct sockaddr_un address = {};
        socklen_t size = sizeof(address);

        if (getsockname(listener->fd, (struct sockaddr *) &address, &size) < 0 || address.sun_family != AF_UNIX ||
            address.sun_path[0] != '/')
                return false;
        memcpy(ret, address.sun_path, sizeof(address.sun_path));
        ret[sizeof(address.sun_path)] = '\0';
        return true;
}

int listener_open(const char *path, mode_t mode, int *ret_fd) {
        _cleanup_close_ int fd = -EBADF;
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        mode_t before;
        int r;

        if (!path[0])
                return -EINVAL; /* to bind(2): any name that no file has */
        if (strlen(path) >= sizeof(address.sun_path))
                return -ENAMETOOLONG;
        strcpy(address.sun_path, path);
        r = unix_socket_remove_stale(&address);
        if (r < 0)
                return r;
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
                return -errno;
        /* There is no moment in which the socket can be reached by more than may. */
        before = umask(~mode & 0777);
        r = bind(fd, (struct sockaddr *) &address, sizeof(address)) < 0 ? -errno : 0;
        umask(before);
        if (r < 0)
                return r;
        if (listen(fd, SOMAXCONN) < 0) {
                r = -errno;
                unlink(path);
                return r;
        }
        *ret_fd = TAKE_FD(fd);
        return 0;
}
