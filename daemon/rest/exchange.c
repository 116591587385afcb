/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <time.h>

#include "rest/http-private.h"

/* libmicrohttpd calls for each request: exchange_on_uri(), then exchange_on_request() with the header, with each piece of
 * the body, and once more with all of it; then exchange_on_completed(). An answer that is queued at the first of these
 * calls ends the connection, so a request without a body is answered at the last one too. A suspended request gets that
 * last call again. */

enum {
        PHASE_HEADER,  /* nothing but the request line is known */
        PHASE_BODY,    /* begin() has been called; the body comes in */
        PHASE_SERVING, /* serve() has been called */
        PHASE_SENDING, /* libmicrohttpd has the answer */
        PHASE_ABORTED,
};

/* Before sending piece by piece. A subscriber to events keeps one such buffer. */
#define STREAM_BLOCK 1024

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

/* Anew for each request: the certificate may have expired, or have been revoked. */
static void look_at_certificate(HttpPeer *peer) {
        const char *name;
        Right right = tls_peer_right(peer->tls, time(NULL), &name);

        peer->caller = (Caller) {
                .right = right,
                .is_remote = true,
                .showed = right == RIGHT_NONE ? CALLER_SHOWED_NOTHING : CALLER_SHOWED_CERTIFICATE,
        };
        snprintf(peer->caller.name, sizeof(peer->caller.name), "%.*s", (int) CALLER_NAME_MAX,
                 name[0] ? name : "unknown");
}

/* What it returns is the request's context from the start. */
void *exchange_on_uri(void *cls, const char *uri, struct MHD_Connection *connection) {
        Http *http = cls;
        HttpPeer *peer = peer_of(connection);
        size_t size = strlen(uri) + 1;
        Exchange *x;
        const char *path, *query;

        x = peer ? calloc(1, sizeof(*x) + size) : NULL;
        if (!x)
                return NULL;
        if (peer->tls)
                look_at_certificate(peer);
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

void exchange_on_completed(void *cls, struct MHD_Connection *connection, void **req_cls,
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
static int begin(Exchange *x, const char *version) {
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
        /* RFC 9112, 6.1 and 3.2; libmicrohttpd takes both. */
        if (encodings > 0 && strcmp(version, MHD_HTTP_VERSION_1_0) == 0) {
                refuse(x, MHD_HTTP_BAD_REQUEST, "HTTP/1.0 has no Transfer-Encoding.");
                return 1;
        }
        if (exchange_count_header(x, MHD_HTTP_HEADER_HOST) > 1) {
                refuse(x, MHD_HTTP_BAD_REQUEST, "The request has more than one Host.");
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

enum MHD_Result exchange_on_request(void *cls, struct MHD_Connection *connection, const char *url, const char *method,
                                    const char *version, const char *data, size_t *size, void **req_cls) {
        Exchange *x = *req_cls;
        Http *http = cls;

        (void) url;
        if (!x)
                return MHD_NO;
        if (x->phase == PHASE_HEADER) {
                x->verb = verb_of(method);
                return begin(x, version) > 0 ? queue(x) : MHD_YES;
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

void exchange_give_up(Exchange *x) {
        if (x->stream)
                x->stream->has_hung_up = true;
        if (x->is_suspended && !x->stream)
                x->phase = PHASE_ABORTED;
        go_on(x);
}
