/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* HTTP: libmicrohttpd inside our event loop. It knows no address and no JSON.
 *
 * An Exchange is one request and its answer. It lives until the answer has been sent or the client has gone, which
 * on_end() tells. Exactly one of exchange_answer(), exchange_stream() and exchange_abort() is called for it: at once, or
 * at any time later; the connection is suspended meanwhile.
 *
 * What a client can take is bounded: bytes of header (HTTP_MEMORY a connection, for header and send buffer together), bytes
 * of body, connections in all and of one peer, and the time for a header, for a body, and between requests. */

#include <microhttpd.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "rest/caller.h"
#include "rest/loop.h"
#include "rest/text.h"
#include "rest/tls.h"

#define HTTP_MEMORY      ((size_t) 8 * 1024)
#define HTTP_HEADERS_MAX 6U /* that an answer may have of its own */

typedef enum Verb {
        VERB_GET,
        VERB_HEAD,
        VERB_PUT,
        VERB_POST,
        VERB_DELETE,
        VERB_OPTIONS,
        VERB_OTHER,
} Verb;

typedef struct Http Http;
typedef struct HttpPeer HttpPeer;
typedef struct Exchange Exchange;

typedef struct HttpSettings {
        size_t body_max; /* bytes */
        unsigned connections, connections_per_peer;
        unsigned connections_per_address; /* of TLS, as the next */
        unsigned handshakes_per_second;
        uint64_t header_usec, body_usec, idle_usec;
} HttpSettings;

#define HTTP_SETTINGS_DEFAULT \
        ((HttpSettings) { \
                .body_max = (size_t) 4 * 1024 * 1024, \
                .connections = 4096, \
                .connections_per_peer = 2048, \
                .connections_per_address = 256, \
                .handshakes_per_second = 50, \
                .header_usec = 15 * LOOP_SEC, \
                .body_usec = 30 * LOOP_SEC, \
                .idle_usec = 60 * LOOP_SEC, \
        })

typedef struct HttpHandler {
        /* The header has come. May answer already; then what there is of a body is thrown away. */
        void (*begin)(Exchange *exchange, void *userdata);
        /* The body has come, all of it. Not called if begin() has answered. */
        void (*serve)(Exchange *exchange, void *userdata);
        /* Answers that the request is not one that is taken. */
        void (*refuse)(Exchange *exchange, unsigned status, const char *why, void *userdata);
        void *userdata;
} HttpHandler;

struct Exchange {
        Http *http;
        struct MHD_Connection *connection;
        HttpPeer *peer;
        const Caller *caller; /* the connection's; begin() may put another in its place */
        Verb verb;
        Span path;  /* as it was sent, without the query */
        Span query; /* without the question mark; text is NULL if there is none */
        Text body;

        /* The handler's own. on_end() is called once, when the exchange ends, also if nothing was answered. */
        void *work;
        void (*on_end)(Exchange *exchange);

        /* The same for the resource that the handler has handed the exchange to. */
        void *state;
        void (*on_gone)(Exchange *exchange);

        /* For observers: when the header had come, and what was answered; 0 as long as nothing was. */
        uint64_t began;
        unsigned status;

        /* http.c's own. */
        struct MHD_Response *response;
        struct HttpStream *stream;
        uint8_t phase;
        bool is_suspended;
        bool has_body;
        unsigned n_headers;
        struct {
                const char *name;
                char *value;
        } headers[HTTP_HEADERS_MAX];
        TAILQ_ENTRY(Exchange) exchanges;
        char uri[];
};

/* What sends a body that is not there yet, or is too long to be there at once. */
typedef struct BodyReader {
        /* Puts up to size bytes into buffer. 0: there is nothing now, and exchange_wake() will tell when there is. BODY_END, or
         * BODY_BROKEN if the client must notice that something is missing. */
        ssize_t (*read)(void *userdata, char *buffer, size_t size);
        /* Called once, when nothing will be read any more. May come before the first read(): a HEAD has no body. */
        void (*free)(void *userdata);
} BodyReader;

#define BODY_END    ((ssize_t) - 1)
#define BODY_BROKEN ((ssize_t) - 2)

int http_new(Loop *loop, const HttpSettings *settings, const HttpHandler *handler, Http **ret);

/* Ends every connection, whatever it waits for. */
Http *http_free(Http *http);

/* Without TLS, for unix sockets. The file descriptor is consumed. caller is copied. Too many connections: it is closed. */
int http_add_unix(Http *http, int fd, const Caller *caller);

/* Before http_add_tls(). tls must outlive http. */
int http_start_tls(Http *http, Tls *tls);
bool http_has_tls(const Http *http);

/* Who may do what over TLS has changed: streams that have begun end, so that their clients come again. */
void http_end_tls_streams(Http *http);

/* The same for TCP. Also closed if the address has started too many just now: -EBUSY. */
int http_add_tls(Http *http, int fd, const struct sockaddr *address, socklen_t size);

unsigned http_connections(const Http *http);
Loop *http_loop(const Http *http);

/* Of the request's header; NULL if there is none. In any case of letters. */
const char *exchange_header(const Exchange *exchange, const char *name);

/* How often the request has that header. */
unsigned exchange_count_header(const Exchange *exchange, const char *name);

/* A header of the answer to come; name must stay. */
void exchange_add_header(Exchange *exchange, const char *name, const char *fmt, ...)
        __attribute__((format(printf, 3, 4)));

/* The body is consumed. type NULL: there is none. */
void exchange_answer(Exchange *exchange, unsigned status, const char *type, Text *body);

/* With a body that must stay as it is for ever. */
void exchange_answer_static(Exchange *exchange, unsigned status, const char *type, Span body);

/* In chunks, as the reader has them; userdata is the reader's from now on, also if this fails. */
void exchange_stream(Exchange *exchange, unsigned status, const char *type, const BodyReader *reader, void *userdata);

/* The reader has something again. May be called for any exchange at any time. */
void exchange_wake(Exchange *exchange);

/* Closes the connection without an answer. */
void exchange_abort(Exchange *exchange);
