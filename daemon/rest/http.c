/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "rest/http.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

/* libmicrohttpd calls for each request: on_uri(), then on_request() with the header, with each piece of the body, and once
 * more with all of it; then on_completed(). An answer that is queued at the first of these calls ends the connection, so a
 * request without a body is answered at the last one too. A suspended request gets that last call again. */

enum {
        PHASE_HEADER,  /* nothing but the request line is known */
        PHASE_BODY,    /* begin() has been called; the body comes in */
        PHASE_SERVING, /* serve() has been called */
        PHASE_SENDING, /* libmicrohttpd has the answer */
        PHASE_ABORTED,
};

/* Before sending piece by piece. A subscriber to events keeps one such buffer. */
#define STREAM_BLOCK 1024

typedef struct Server {
        struct MHD_Daemon *daemon;
        LoopWatch watch;
} Server;

/* Connections of one uid, or of one address. */
typedef struct Origin {
        struct Origin *next;
        uid_t uid;
        unsigned connections;
} Origin;

struct Http {
        Loop *loop;
        HttpSettings settings;
        HttpHandler handler;
        Server plain;
        LoopTurn turn;
        unsigned connections;
        Origin *origins;
        HttpPeer *adding; /* whose connection MHD_add_connection() is about to start */
        TAILQ_HEAD(, Exchange) exchanges;
};

struct HttpPeer {
        Http *http;
        Caller caller;
        Origin *origin;
        int fd; /* libmicrohttpd's */
        LoopTimer timer;
        LoopWatch hang_up; /* on as long as a stream has nothing to send */
        Exchange *exchange;
};

typedef struct HttpStream {
        BodyReader reader;
        void *userdata;
        Exchange *exchange; /* NULL once that has ended */
        bool was_woken;
        bool has_hung_up;
} HttpStream;

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

/* ---- requests ---- */

static Verb verb_of(const char *method) {
        static const char *const names[] = {
                [VERB_GET] = "GET",   [VERB_HEAD] = "HEAD",     [VERB_PUT] = "PUT",
                [VERB_POST] = "POST", [VERB_DELETE] = "DELETE", [VERB_OPTIONS] = "OPTIONS",
        };

        for (unsigned i = 0; i < VERB_OTHER; i++)
                if (strcmp(method, names[i]) == 0)
                        return (Verb) i;
        return VERB_OTHER;
}

/* A proxy's form has scheme and host in front. */
static const char *without_origin(const char *uri) {
        const char *host;

        if (strncasecmp(uri, "http://", 7) == 0)
                host = uri + 7;
        else if (strncasecmp(uri, "https://", 8) == 0)
                host = uri + 8;
        else
                return uri;
        host += strcspn(host, "/?");
        return *host == '/' ? host : "/";
}

static HttpPeer *peer_of(struct MHD_Connection *connection) {
        const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

        return info ? info->socket_context : NULL;
}

/* What it returns is the request's context from the start. */
static void *on_uri(void *cls, const char *uri, struct MHD_Connection *connection) {
        Http *http = cls;
        HttpPeer *peer = peer_of(connection);
        size_t size = strlen(uri) + 1;
        Exchange *x;
        const char *path, *query;

        x = peer ? calloc(1, sizeof(*x) + size) : NULL;
        if (!x)
                return NULL;
        x->http = http;
        x->connection = connection;
        x->peer = peer;
        x->caller = &peer->caller;
        memcpy(x->uri, uri, size);
        path = without_origin(x->uri);
        query = strchr(path, '?');
        x->path = (Span) { .text = path, .size = query ? (size_t) (query - path) : strlen(path) };
        if (query)
                x->query = span_of(query + 1);
        peer->exchange = x;
        TAILQ_INSERT_TAIL(&http->exchanges, x, exchanges);
        return x;
}

static void on_completed(void *cls, struct MHD_Connection *connection, void **req_cls,
                         enum MHD_RequestTerminationCode code) {
        Exchange *x = *req_cls;
        Http *http = cls;

        (void) connection;
        (void) code;
        if (!x)
                return;
        *req_cls = NULL;
        if (x->on_end)
                x->on_end(x);
        if (x->stream)
                x->stream->exchange = NULL;
        if (x->response)
                MHD_destroy_response(x->response);
        for (unsigned i = 0; i < x->n_headers; i++)
                free(x->headers[i].value);
        loop_timer_set(http->loop, &x->peer->timer, http->settings.idle_usec);
        x->peer->exchange = NULL;
        TAILQ_REMOVE(&http->exchanges, x, exchanges);
        text_done(&x->body);
        free(x);
}

static enum MHD_Result queue(Exchange *x) {
        enum MHD_Result result;

        if (x->phase == PHASE_ABORTED)
                return MHD_NO;
        result = MHD_queue_response(x->connection, x->status, x->response);
        MHD_destroy_response(x->response);
        x->response = NULL;
        x->phase = PHASE_SENDING;
        return result;
}

static bool is_answered(const Exchange *x) {
        return x->response || x->phase == PHASE_ABORTED;
}

static void refuse(Exchange *x, unsigned status, const char *why) {
        x->http->handler.refuse(x, status, why, x->http->handler.userdata);
}

/* 1: the connection must end, for nobody can say where the next request would start, or what comes is not wanted. */
static int begin(Exchange *x) {
        const HttpHandler *handler = &x->http->handler;
        unsigned lengths = exchange_count_header(x, MHD_HTTP_HEADER_CONTENT_LENGTH);
        unsigned encodings = exchange_count_header(x, MHD_HTTP_HEADER_TRANSFER_ENCODING);
        const char *length = lengths > 0 ? exchange_header(x, MHD_HTTP_HEADER_CONTENT_LENGTH) : NULL;

        x->phase = PHASE_BODY;
        x->began = loop_now(x->http->loop);
        x->has_body = encodings > 0 || (length && strcmp(length, "0") != 0);
        if (x->has_body)
                loop_timer_set(x->http->loop, &x->peer->timer, x->http->settings.body_usec);
        else
                loop_timer_stop(x->http->loop, &x->peer->timer);
        if (lengths + encodings > 1) {
                refuse(x, MHD_HTTP_BAD_REQUEST, "The request has more than one length.");
                return 1;
        }
        if (length && strtoull(length, NULL, 10) > x->http->settings.body_max) {
                refuse(x, MHD_HTTP_CONTENT_TOO_LARGE, "The body is too long.");
                return 1;
        }
        handler->begin(x, handler->userdata);
        return is_answered(x) && x->has_body && exchange_header(x, MHD_HTTP_HEADER_EXPECT);
}

static enum MHD_Result take_body(Exchange *x, const char *data, size_t size) {
        if (is_answered(x)) {
                /* Thrown away, but not for ever. body.size counts it; there is no text. */
                x->body.size += size;
                return x->body.size > x->http->settings.body_max ? MHD_NO : MHD_YES;
        }
        text_add(&x->body, data, size);
        if (x->body.failed)
                return MHD_NO;
        if (x->body.size > x->http->settings.body_max) {
                text_done(&x->body);
                refuse(x, MHD_HTTP_CONTENT_TOO_LARGE, "The body is too long.");
        }
        return MHD_YES;
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *connection, const char *url, const char *method,
                                  const char *version, const char *data, size_t *size, void **req_cls) {
        Exchange *x = *req_cls;
        Http *http = cls;

        (void) url;
        (void) version;
        if (!x)
                return MHD_NO;
        if (x->phase == PHASE_HEADER) {
                x->verb = verb_of(method);
                return begin(x) > 0 ? queue(x) : MHD_YES;
        }
        if (*size > 0) {
                size_t n = *size;

                *size = 0;
                return take_body(x, data, n);
        }
        x->is_suspended = false;
        if (x->phase == PHASE_BODY) {
                loop_timer_stop(http->loop, &x->peer->timer);
                if (!is_answered(x)) {
                        x->phase = PHASE_SERVING;
                        http->handler.serve(x, http->handler.userdata);
                }
        }
        if (is_answered(x))
                return queue(x);
        x->is_suspended = true;
        MHD_suspend_connection(connection);
        return MHD_YES;
}

static enum MHD_Result count_one(void *cls, enum MHD_ValueKind kind, const char *key, const char *value) {
        struct {
                const char *name;
                unsigned n;
        } *count = cls;

        (void) kind;
        (void) value;
        count->n += strcasecmp(key, count->name) == 0;
        return MHD_YES;
}

const char *exchange_header(const Exchange *exchange, const char *name) {
        return MHD_lookup_connection_value(exchange->connection, MHD_HEADER_KIND, name);
}

unsigned exchange_count_header(const Exchange *exchange, const char *name) {
        struct {
                const char *name;
                unsigned n;
        } count = { .name = name };

        (void) MHD_get_connection_values(exchange->connection, MHD_HEADER_KIND, count_one, &count);
        return count.n;
}

/* ---- answers ---- */

static void go_on(Exchange *x) {
        if (!x->is_suspended)
                return;
        x->is_suspended = false;
        MHD_resume_connection(x->connection);
}

void exchange_abort(Exchange *x) {
        x->phase = PHASE_ABORTED;
        go_on(x);
}

void exchange_add_header(Exchange *x, const char *name, const char *fmt, ...) {
        char *value;
        va_list ap;
        int n;

        if (x->n_headers == HTTP_HEADERS_MAX)
                return;
        va_start(ap, fmt);
        n = vasprintf(&value, fmt, ap);
        va_end(ap);
        if (n < 0)
                return;
        x->headers[x->n_headers].name = name;
        x->headers[x->n_headers++].value = value;
}

/* The response is consumed. */
static void answer(Exchange *x, unsigned status, const char *type, struct MHD_Response *response) {
        bool good = response;

        if (good && type)
                good = MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type) == MHD_YES;
        for (unsigned i = 0; good && i < x->n_headers; i++)
                good = MHD_add_response_header(response, x->headers[i].name, x->headers[i].value) == MHD_YES;
        if (!good) {
                if (response)
                        MHD_destroy_response(response);
                exchange_abort(x);
                return;
        }
        x->status = status;
        x->response = response;
        go_on(x);
}

void exchange_answer_static(Exchange *exchange, unsigned status, const char *type, Span body) {
        answer(exchange, status, type, MHD_create_response_from_buffer_static(body.size, body.text));
}

void exchange_answer(Exchange *exchange, unsigned status, const char *type, Text *body) {
        if (body->failed) {
                text_done(body);
                exchange_abort(exchange);
                return;
        }
        if (!body->text) {
                exchange_answer_static(exchange, status, type, SPAN(""));
                return;
        }
        answer(exchange, status, type,
               MHD_create_response_from_buffer_with_free_callback(body->size, body->text, free));
        *body = (Text) {};
}

static ssize_t on_read(void *cls, uint64_t position, char *buffer, size_t max) {
        HttpStream *stream = cls;
        Exchange *x = stream->exchange;
        ssize_t n;

        (void) position;
        if (!x || stream->has_hung_up)
                return MHD_CONTENT_READER_END_WITH_ERROR;
        do {
                stream->was_woken = false;
                n = stream->reader.read(stream->userdata, buffer, max);
        } while (n == 0 && stream->was_woken);
        if (n > 0)
                return n;
        if (n < 0)
                return n == BODY_END ? MHD_CONTENT_READER_END_OF_STREAM : MHD_CONTENT_READER_END_WITH_ERROR;
        /* libmicrohttpd does not look at a suspended connection. */
        if (loop_watch(x->http->loop, &x->peer->hang_up, EPOLLRDHUP) < 0)
                return MHD_CONTENT_READER_END_WITH_ERROR;
        x->is_suspended = true;
        MHD_suspend_connection(x->connection);
        return 0;
}

static void on_stream_free(void *cls) {
        HttpStream *stream = cls;

        stream->reader.free(stream->userdata);
        if (stream->exchange)
                stream->exchange->stream = NULL;
        free(stream);
}

void exchange_stream(Exchange *x, unsigned status, const char *type, const BodyReader *reader, void *userdata) {
        HttpStream *stream = calloc(1, sizeof(*stream));
        struct MHD_Response *response;

        if (!stream) {
                reader->free(userdata);
                exchange_abort(x);
                return;
        }
        *stream = (HttpStream) { .reader = *reader, .userdata = userdata, .exchange = x };
        x->stream = stream;
        response = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK, on_read, stream, on_stream_free);
        if (!response)
                on_stream_free(stream);
        answer(x, status, type, response);
}

void exchange_wake(Exchange *exchange) {
        if (!exchange->stream)
                return;
        exchange->stream->was_woken = true;
        if (exchange->phase == PHASE_SENDING)
                go_on(exchange);
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
                /* port= */ 0, /* apc= */ NULL, /* apc_cls= */ NULL, on_request, http, MHD_OPTION_URI_LOG_CALLBACK,
                on_uri, http, MHD_OPTION_NOTIFY_COMPLETED, on_completed, http, MHD_OPTION_NOTIFY_CONNECTION,
                on_connection, http, MHD_OPTION_UNESCAPE_CALLBACK, leave_as_it_is, NULL,
                MHD_OPTION_CONNECTION_MEMORY_LIMIT, HTTP_MEMORY, MHD_OPTION_CONNECTION_LIMIT, s->connections,
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
        TAILQ_FOREACH(x, &http->exchanges, exchanges) {
                if (x->stream)
                        x->stream->has_hung_up = true;
                if (x->is_suspended && !x->stream)
                        x->phase = PHASE_ABORTED;
                go_on(x);
        }
        server_stop(http, &http->plain);
        free(http);
        return NULL;
}
