/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "rest/http-private.h"

#include <errno.h>
#include <netinet/tcp.h>
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

static Origin *origin_of(Http *http, AddressKey key) {
        Origin *origin;

        for (origin = http->origins; origin; origin = origin->next)
                if (memcmp(&origin->key, &key, sizeof(key)) == 0)
                        return origin;
        origin = calloc(1, sizeof(*origin));
        if (!origin)
                return NULL;
        origin->key = key;
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
        tls_peer_free(peer->tls);
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

/* The session is there, and its handshake has not begun. */
static void secure(HttpPeer *peer, struct MHD_Connection *connection) {
        const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_GNUTLS_SESSION);

        /* Without its credentials no handshake could succeed anyway. */
        if (!info || tls_peer_new(peer->http->tls, info->tls_session, &peer->tls) < 0)
                (void) shutdown(peer->fd, SHUT_RDWR);
}

static void on_connection(void *cls, struct MHD_Connection *connection, void **socket_context,
                          enum MHD_ConnectionNotificationCode code) {
        Http *http = cls;

        if (code == MHD_CONNECTION_NOTIFY_STARTED) {
                *socket_context = http->adding;
                if (http->adding && http->adding->is_secure)
                        secure(http->adding, connection);
                http->adding = NULL;
        } else if (*socket_context) {
                *socket_context = peer_free(*socket_context);
        }
}

static int peer_new(Http *http, int fd, const Caller *caller, AddressKey key, HttpPeer **ret) {
        unsigned most = caller->is_remote ? http->settings.connections_per_address :
                                            http->settings.connections_per_peer;
        Origin *origin;
        HttpPeer *peer;
        int r;

        if (http->connections >= http->settings.connections)
                return -EMFILE;
        origin = origin_of(http, key);
        if (!origin)
                return -ENOMEM;
        origin->connections++;
        peer = calloc(1, sizeof(*peer));
        r = !peer ? -ENOMEM : origin->connections > most ? -EMFILE : 0;
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
        peer->is_secure = caller->is_remote;
        peer->origin = origin;
        peer->fd = fd;
        peer->hang_up = (LoopWatch) { .fd = fd, .function = on_hang_up, .userdata = peer };
        http->connections++;
        *ret = peer;
        return 0;
}

static int add(Http *http, struct MHD_Daemon *daemon, int fd, const struct sockaddr *address, socklen_t size,
               const Caller *caller, AddressKey key) {
        HttpPeer *peer;
        int r;

        r = peer_new(http, fd, caller, key, &peer);
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

        return add(http, http->plain.daemon, fd, &address, sizeof(address), caller, address_key_of_uid(caller->uid));
}

int http_add_tls(Http *http, int fd, const struct sockaddr *address, socklen_t size) {
        Caller caller = { .is_remote = true };
        AddressKey key = address_key(address);

        /* A handshake takes us milliseconds, and the client next to nothing. */
        if (!budget_take(http->handshakes, key, loop_now(http->loop))) {
                close(fd);
                return -EBUSY;
        }
        /* The last words of a handshake are short, and the answer would wait for their acknowledgement. */
        (void) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int) { 1 }, sizeof(int));
        address_print(address, caller.name);
        return add(http, http->secure.daemon, fd, address, size, &caller, key);
}

/* ---- life ---- */

static uint64_t turn_server(const Server *server) {
        uint64_t msec;

        /* Suspended connections that go on, and what libmicrohttpd read ahead. */
        if (!server->daemon || MHD_get_timeout64(server->daemon, &msec) != MHD_YES)
                return LOOP_NEVER;
        if (msec > 0)
                return msec * LOOP_MSEC;
        (void) MHD_run(server->daemon);
        return MHD_get_timeout64(server->daemon, &msec) == MHD_YES ? msec * LOOP_MSEC : LOOP_NEVER;
}

static uint64_t on_turn(void *userdata) {
        const Http *http = userdata;
        uint64_t plain = turn_server(&http->plain), secured = turn_server(&http->secure);

        return plain < secured ? plain : secured;
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

/* flags and the options in more: of TLS, or none. */
static int server_start(Http *http, Server *server, unsigned flags, struct MHD_OptionItem *more) {
        const union MHD_DaemonInfo *info;
        const HttpSettings *s = &http->settings;

        server->daemon = MHD_start_daemon(
                flags | MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_NO_THREAD_SAFETY,
                /* port= */ 0, /* apc= */ NULL, /* apc_cls= */ NULL, exchange_on_request, http,
                MHD_OPTION_URI_LOG_CALLBACK, exchange_on_uri, http, MHD_OPTION_NOTIFY_COMPLETED, exchange_on_completed,
                http, MHD_OPTION_NOTIFY_CONNECTION, on_connection, http, MHD_OPTION_UNESCAPE_CALLBACK, leave_as_it_is,
                NULL, MHD_OPTION_CONNECTION_MEMORY_LIMIT, HTTP_MEMORY, MHD_OPTION_CONNECTION_LIMIT, s->connections,
                MHD_OPTION_CONNECTION_TIMEOUT, (unsigned) (s->idle_usec / LOOP_SEC), MHD_OPTION_CLIENT_DISCIPLINE_LVL,
                2, MHD_OPTION_ARRAY, more, MHD_OPTION_END);
        if (!server->daemon)
                return errno ? -errno : -EIO;
        info = MHD_get_daemon_info(server->daemon, MHD_DAEMON_INFO_EPOLL_FD);
        if (!info)
                return -EIO;
        server->watch = (LoopWatch) { .fd = info->epoll_fd, .function = on_events, .userdata = server->daemon };
        return loop_watch(http->loop, &server->watch, EPOLLIN);
}

static int start_plain(Http *http) {
        struct MHD_OptionItem none[] = { { MHD_OPTION_END, 0, NULL } };

        return server_start(http, &http->plain, 0, none);
}

int http_start_tls(Http *http, Tls *tls) {
        struct MHD_OptionItem more[] = {
                { MHD_OPTION_HTTPS_PRIORITIES, 0, (char *) TLS_PRIORITIES },
                { MHD_OPTION_HTTPS_CERT_CALLBACK2, 0, (void *) tls_no_certificate },
                { MHD_OPTION_END, 0, NULL },
        };
        int r;

        if (http->secure.daemon)
                return 0;
        http->tls = tls;
        r = budget_new(http->settings.handshakes_per_second, &http->handshakes);
        return r < 0 ? r : server_start(http, &http->secure, MHD_USE_TLS, more);
}

bool http_has_tls(const Http *http) {
        return http->secure.daemon;
}

void http_end_tls_streams(Http *http) {
        Exchange *x;

        TAILQ_FOREACH(x, &http->exchanges, exchanges)
                if (x->peer->is_secure && x->stream)
                        (void) shutdown(x->peer->fd, SHUT_RDWR);
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
        r = start_plain(http);
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
        server_stop(http, &http->secure);
        budget_free(http->handshakes);
        free(http);
        return NULL;
}
