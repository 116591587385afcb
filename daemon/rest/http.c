/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "rest/http-private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

unsigned http_connections(const Http *http) {
        return http->connections;
}

Loop *http_loop(const Http *http) {
        return http->loop;
}

/* ---- connections ---- */

static Origin *origin_of(Http *http, uid_t uid) {
        Origin *origin;

        for (origin = http->origins; origin; origin = origin->next)
                if (origin->uid == uid)
                        return origin;
        origin = calloc(1, sizeof(*origin));
        if (!origin)
                return NULL;
        origin->uid = uid;
        origin->next = http->origins;
        http->origins = origin;
        return origin;
}

static void origin_drop(Http *http, Origin *origin) {
        if (--origin->connections > 0)
                return;
        for (Origin **place = &http->origins; *place; place = &(*place)->next)
                if (*place == origin) {
                        *place = origin->next;
                        break;
                }
        free(origin);
}

static HttpPeer *peer_free(HttpPeer *peer) {
        loop_unwatch(peer->http->loop, &peer->hang_up);
        loop_timer_remove(peer->http->loop, &peer->timer);
        peer->http->connections--;
        origin_drop(peer->http, peer->origin);
        free(peer);
        return NULL;
}

/* libmicrohttpd knows only how long nothing came at all; who sends a byte now and then would stay for ever. */
static void on_too_slow(void *userdata) {
        HttpPeer *peer = userdata;

        (void) shutdown(peer->fd, SHUT_RDWR);
}

static void on_hang_up(uint32_t events, void *userdata) {
        HttpPeer *peer = userdata;

        (void) events;
        loop_unwatch(peer->http->loop, &peer->hang_up);
        if (!peer->exchange || !peer->exchange->stream)
                return;
        peer->exchange->stream->has_hung_up = true;
        exchange_wake(peer->exchange);
}

static void on_connection(void *cls, struct MHD_Connection *connection, void **socket_context,
                          enum MHD_ConnectionNotificationCode code) {
        Http *http = cls;

        (void) connection;
        if (code == MHD_CONNECTION_NOTIFY_STARTED) {
                *socket_context = http->adding;
                http->adding = NULL;
        } else if (*socket_context) {
                *socket_context = peer_free(*socket_context);
        }
}

static int peer_new(Http *http, int fd, const Caller *caller, HttpPeer **ret) {
        Origin *origin;
        HttpPeer *peer;
        int r;

        if (http->connections >= http->settings.connections)
                return -EMFILE;
        origin = origin_of(http, caller->uid);
        if (!origin)
                return -ENOMEM;
        origin->connections++;
        peer = calloc(1, sizeof(*peer));
        r = !peer ? -ENOMEM : origin->connections > http->settings.connections_per_peer ? -EMFILE : 0;
        if (r == 0) {
                peer->timer = (LoopTimer) { .function = on_too_slow, .userdata = peer };
                r = loop_timer_add(http->loop, &peer->timer);
        }
        if (r < 0) {
                origin_drop(http, origin);
                free(peer);
                return r;
        }
        peer->http = http;
        peer->caller = *caller;
        peer->origin = origin;
        peer->fd = fd;
        peer->hang_up = (LoopWatch) { .fd = fd, .function = on_hang_up, .userdata = peer };
        http->connections++;
        *ret = peer;
        return 0;
}

static int add(Http *http, struct MHD_Daemon *daemon, int fd, const struct sockaddr *address, socklen_t size,
               const Caller *caller) {
        HttpPeer *peer;
        int r;

        r = peer_new(http, fd, caller, &peer);
        if (r < 0) {
                close(fd);
                return r;
        }
        loop_timer_set(http->loop, &peer->timer, http->settings.header_usec);
        http->adding = peer;
        if (MHD_add_connection(daemon, fd, address, size) == MHD_YES)
                return 0;
        r = -errno;
        if (http->adding)
                peer_free(http->adding);
        http->adding = NULL;
        return r;
}

int http_add_unix(Http *http, int fd, const Caller *caller) {
        const struct sockaddr address = { .sa_family = AF_UNIX };

        return add(http, http->plain.daemon, fd, &address, sizeof(address), caller);
}

/* ---- life ---- */

static uint64_t on_turn(void *userdata) {
        Http *http = userdata;
        uint64_t msec;

        /* Suspended connections that go on, and what libmicrohttpd read ahead. */
        if (MHD_get_timeout64(http->plain.daemon, &msec) != MHD_YES)
                return LOOP_NEVER;
        if (msec > 0)
                return msec * LOOP_MSEC;
        (void) MHD_run(http->plain.daemon);
        return MHD_get_timeout64(http->plain.daemon, &msec) == MHD_YES ? msec * LOOP_MSEC : LOOP_NEVER;
}

static void on_events(uint32_t events, void *userdata) {
        (void) events;
        (void) MHD_run(userdata);
}

/* The address is looked at as it was sent; libmicrohttpd decodes its own copy, which nobody reads. */
static size_t leave_as_it_is(void *cls, struct MHD_Connection *connection, char *text) {
        (void) cls;
        (void) connection;
        return strlen(text);
}

static int server_start(Http *http, Server *server) {
        const union MHD_DaemonInfo *info;
        const HttpSettings *s = &http->settings;

        server->daemon = MHD_start_daemon(
                MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_NO_THREAD_SAFETY,
                /* port= */ 0, /* apc= */ NULL, /* apc_cls= */ NULL, exchange_on_request, http,
                MHD_OPTION_URI_LOG_CALLBACK, exchange_on_uri, http, MHD_OPTION_NOTIFY_COMPLETED, exchange_on_completed,
                http, MHD_OPTION_NOTIFY_CONNECTION, on_connection, http, MHD_OPTION_UNESCAPE_CALLBACK, leave_as_it_is,
                NULL, MHD_OPTION_CONNECTION_MEMORY_LIMIT, HTTP_MEMORY, MHD_OPTION_CONNECTION_LIMIT, s->connections,
                MHD_OPTION_CONNECTION_TIMEOUT, (unsigned) (s->idle_usec / LOOP_SEC), MHD_OPTION_CLIENT_DISCIPLINE_LVL,
                2, MHD_OPTION_END);
        if (!server->daemon)
                return errno ? -errno : -EIO;
        info = MHD_get_daemon_info(server->daemon, MHD_DAEMON_INFO_EPOLL_FD);
        if (!info)
                return -EIO;
        server->watch = (LoopWatch) { .fd = info->epoll_fd, .function = on_events, .userdata = server->daemon };
        return loop_watch(http->loop, &server->watch, EPOLLIN);
}

static void server_stop(Http *http, Server *server) {
        if (!server->daemon)
                return;
        loop_unwatch(http->loop, &server->watch);
        /* Those that go on are dealt with by the next run. */
        (void) MHD_run(server->daemon);
        MHD_stop_daemon(server->daemon);
}

int http_new(Loop *loop, const HttpSettings *settings, const HttpHandler *handler, Http **ret) {
        Http *http = calloc(1, sizeof(*http));
        int r;

        if (!http)
                return -ENOMEM;
        http->loop = loop;
        http->settings = *settings;
        http->handler = *handler;
        TAILQ_INIT(&http->exchanges);
        r = server_start(http, &http->plain);
        if (r < 0) {
                http_free(http);
                return r;
        }
        http->turn = (LoopTurn) { .function = on_turn, .userdata = http };
        loop_turn_add(loop, &http->turn);
        *ret = http;
        return 0;
}

Http *http_free(Http *http) {
        Exchange *x;

        if (!http)
                return NULL;
        TAILQ_FOREACH(x, &http->exchanges, exchanges)
                exchange_give_up(x);
        server_stop(http, &http->plain);
        free(http);
        return NULL;
}
