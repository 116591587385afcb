/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What http.c, with the connections, and exchange.c, with what goes through them, know of each other. */

#include "rest/address.h"
#include "rest/budget.h"
#include "rest/http.h"

typedef struct Server {
        struct MHD_Daemon *daemon;
        LoopWatch watch;
} Server;

/* Connections of one uid, or of one address. */
typedef struct Origin {
        struct Origin *next;
        AddressKey key;
        unsigned connections;
} Origin;

struct Http {
        Loop *loop;
        HttpSettings settings;
        HttpHandler handler;
        Server plain, secure; /* secure.daemon is NULL as long as there is no TLS */
        Tls *tls;
        Budget *handshakes;
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
        bool is_secure;
        TlsPeer *tls; /* of a secure one, from the start of its connection */
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

/* What libmicrohttpd calls; cls is the Http. */
void *exchange_on_uri(void *cls, const char *uri, struct MHD_Connection *connection);
enum MHD_Result exchange_on_request(void *cls, struct MHD_Connection *connection, const char *url, const char *method,
                                    const char *version, const char *data, size_t *size, void **req_cls);
void exchange_on_completed(void *cls, struct MHD_Connection *connection, void **req_cls,
                           enum MHD_RequestTerminationCode code);

/* The program ends: ends the exchange too, whatever it waits for. */
void exchange_give_up(Exchange *exchange);
