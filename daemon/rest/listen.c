/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "rest/listen.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "rest/address.h"
#include "shared/unix-socket.h"

#define FIRST_PASSED 3 /* SD_LISTEN_FDS_START */

/* Until the next accept(2) after one that failed for want of something. */
#define RETRY_USEC (100 * LOOP_MSEC)

/* Connections to one socket before the others have a turn. */
#define BATCH 16

typedef struct Listener {
        Listeners *listeners;
        bool is_tls;
        LoopWatch watch;
        LoopTimer retry; /* on while watch is off */
        char *path;      /* to remove in the end, or NULL */
        TAILQ_ENTRY(Listener) entries;
} Listener;

struct Listeners {
        Loop *loop;
        Http *http;
        gid_t group;
        TAILQ_HEAD(, Listener) all;
};

static void on_client(const Listener *listener, int fd, const struct sockaddr *address, socklen_t size) {
        Listeners *listeners = listener->listeners;
        Caller caller;

        if (listener->is_tls) {
                (void) http_add_tls(listeners->http, fd, address, size);
                return;
        }
        if (caller_of_unix(fd, listeners->group, &caller) < 0) {
                close(fd);
                return;
        }
        /* Too many, or no memory: the client sees that it was closed. */
        (void) http_add_unix(listeners->http, fd, &caller);
}

static void on_readable(uint32_t events, void *userdata) {
        Listener *listener = userdata;
        Listeners *all = listener->listeners;

        (void) events;
        for (int i = 0; i < BATCH; i++) {
                struct sockaddr_storage address;
                socklen_t size = sizeof(address);
                int fd = accept4(listener->watch.fd, (struct sockaddr *) &address, &size,
                                 SOCK_NONBLOCK | SOCK_CLOEXEC);

                if (fd >= 0) {
                        on_client(listener, fd, (struct sockaddr *) &address, size);
                        continue;
                }
                if (unix_socket_is_clients_failure(errno))
                        return;
                /* The socket stays readable, so do not look at it for a while. */
                loop_unwatch(all->loop, &listener->watch);
                loop_timer_set(all->loop, &listener->retry, RETRY_USEC);
                return;
        }
}

static void on_retry(void *userdata) {
        Listener *listener = userdata;

        if (loop_watch(listener->listeners->loop, &listener->watch, EPOLLIN) < 0)
                loop_timer_set(listener->listeners->loop, &listener->retry, RETRY_USEC);
}

/* The file descriptor is consumed; path only if this succeeds. */
static int listener_new(Listeners *all, int fd, bool is_tls, char *path) {
        Listener *listener = calloc(1, sizeof(*listener));
        int r;

        if (!listener) {
                close(fd);
                return -ENOMEM;
        }
        listener->listeners = all;
        listener->is_tls = is_tls;
        listener->watch = (LoopWatch) { .fd = fd, .function = on_readable, .userdata = listener };
        listener->retry = (LoopTimer) { .function = on_retry, .userdata = listener };
        r = loop_timer_add(all->loop, &listener->retry);
        if (r == 0) {
                r = loop_watch(all->loop, &listener->watch, EPOLLIN);
                if (r < 0)
                        loop_timer_remove(all->loop, &listener->retry);
        }
        if (r < 0) {
                close(fd);
                free(listener);
                return r;
        }
        listener->path = path;
        TAILQ_INSERT_TAIL(&all->all, listener, entries);
        return 0;
}

int listeners_new(Loop *loop, Http *http, gid_t group, Listeners **ret) {
        Listeners *all = calloc(1, sizeof(*all));

        if (!all)
                return -ENOMEM;
        all->loop = loop;
        all->http = http;
        all->group = group;
        TAILQ_INIT(&all->all);
        *ret = all;
        return 0;
}

Listeners *listeners_free(Listeners *all) {
        Listener *listener;

        if (!all)
                return NULL;
        while ((listener = TAILQ_FIRST(&all->all))) {
                TAILQ_REMOVE(&all->all, listener, entries);
                loop_unwatch(all->loop, &listener->watch);
                loop_timer_remove(all->loop, &listener->retry);
                close(listener->watch.fd);
                if (listener->path)
                        unlink(listener->path);
                free(listener->path);
                free(listener);
        }
        free(all);
        return NULL;
}

/* ---- passed ---- */

/* Plain HTTP is for unix sockets alone. */
static int check_passed(const Listeners *all, int fd, bool *ret_is_tls) {
        struct sockaddr_storage address;
        socklen_t size = sizeof(address), length = sizeof(int);
        int listens = 0;

        if (getsockname(fd, (struct sockaddr *) &address, &size) < 0 ||
            getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &length) < 0 || !listens)
                return -ENOTSOCK;
        *ret_is_tls = address.ss_family == AF_INET || address.ss_family == AF_INET6;
        if (*ret_is_tls && !http_has_tls(all->http))
                return -EPROTONOSUPPORT;
        return *ret_is_tls || address.ss_family == AF_UNIX ? 0 : -ENOTSOCK;
}

int listeners_take_passed(Listeners *all) {
        const char *pid = getenv("LISTEN_PID"), *number = getenv("LISTEN_FDS");
        int n = number ? atoi(number) : 0;

        if (!pid || strtol(pid, NULL, 10) != getpid() || n <= 0)
                return 0;
        unsetenv("LISTEN_PID");
        unsetenv("LISTEN_FDS");
        unsetenv("LISTEN_FDNAMES");
        for (int i = 0; i < n; i++) {
                int fd = FIRST_PASSED + i, r;
                bool is_tls;

                r = check_passed(all, fd, &is_tls);
                if (r < 0)
                        return r;
                if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 || fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
                        return -errno;
                r = listener_new(all, fd, is_tls, /* path= */ NULL);
                if (r < 0)
                        return r;
        }
        return n;
}

/* ---- opened ---- */

static int bind_unix(const struct sockaddr_un *address, gid_t group, int *ret_fd) {
        int fd, r = 0;
        mode_t before;

        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
                return -errno;
        /* There is no moment in which the socket can be reached by more than may. */
        before = umask(0177);
        if (bind(fd, (const struct sockaddr *) address, sizeof(*address)) < 0)
                r = -errno;
        umask(before);
        if (r == 0 && group != (gid_t) -1)
                /* Not being allowed to give it away leaves it to the owner. */
                if (chown(address->sun_path, (uid_t) -1, group) == 0)
                        r = chmod(address->sun_path, 0660) < 0 ? -errno : 0;
        if (r == 0 && listen(fd, SOMAXCONN) < 0)
                r = -errno;
        if (r < 0) {
                close(fd);
                return r;
        }
        *ret_fd = fd;
        return 0;
}

static int open_unix(Listeners *all, const char *path) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int fd = -EBADF, r;
        char *copy;

        if (!path[0])
                return -EINVAL; /* to bind(2): any name that no file has */
        if (strlen(path) >= sizeof(address.sun_path))
                return -ENAMETOOLONG;
        strcpy(address.sun_path, path);
        r = unix_socket_remove_stale(&address);
        if (r == 0)
                r = bind_unix(&address, all->group, &fd);
        if (r < 0)
                return r;
        copy = strdup(path);
        if (!copy) {
                close(fd);
                return -ENOMEM;
        }
        r = listener_new(all, fd, /* is_tls= */ false, copy);
        if (r < 0)
                free(copy);
        return r;
}

static int open_tls(Listeners *all, const char *text) {
        struct sockaddr_storage address;
        socklen_t size;
        int fd;

        if (!address_parse(text, &address, &size))
                return -EINVAL;
        if (!http_has_tls(all->http))
                return -EPROTONOSUPPORT;
        fd = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
                return -errno;
        if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int) { 1 }, sizeof(int)) < 0 ||
            bind(fd, (const struct sockaddr *) &address, size) < 0 || listen(fd, SOMAXCONN) < 0) {
                int r = -errno;

                close(fd);
                return r;
        }
        return listener_new(all, fd, /* is_tls= */ true, /* path= */ NULL);
}

int listeners_open(Listeners *all, const char *address) {
        if (strncmp(address, "tls:", 4) == 0)
                return open_tls(all, address + 4);
        if (strncmp(address, "unix:", 5) == 0)
                return open_unix(all, address + 5);
        return -EINVAL;
}
