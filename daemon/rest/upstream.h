/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* privmemd, at the other end of a few varlink connections. Each carries one call at a time.
 *
 * It receives without room for control messages, so that the kernel drops every file descriptor that might come: this
 * process can hold none. Calls wait in order for a connection; if privmemd is not there, they wait for it, and fail when
 * their time is over. A call that was under way when privmemd went is made again if is_repeatable, for nobody knows whether
 * it was done. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "rest/loop.h"
#include "rest/text.h"

typedef struct Upstream Upstream;
typedef struct UpstreamCall UpstreamCall;

typedef enum UpstreamOutcome {
        UPSTREAM_REPLY, /* the last one */
        UPSTREAM_PART,  /* of a call with is_stream; more will come */
        UPSTREAM_ERROR, /* reply->error names it */
        UPSTREAM_GONE,  /* privmemd is not there or went before it had answered. With is_stream, parts may have come */
        UPSTREAM_LATE,  /* it took too long */
        UPSTREAM_BUSY,  /* too many calls wait already, or there is no memory */
        UPSTREAM_BROKEN, /* privmemd sent what makes no sense */
} UpstreamOutcome;

typedef struct UpstreamReply {
        Span error;      /* its name; text is NULL if it is none */
        Span parameters; /* a JSON object */
} UpstreamReply;

struct UpstreamCall {
        Span message; /* with its NUL, which counts; it must stay until the call is over */
        bool is_repeatable;
        bool is_stream; /* the message says "more" */
        uint64_t
                usec; /* from now to its end, for a stream to the next part; LOOP_NEVER for one that waits for events */
        uint64_t wait_usec; /* how long it may wait for a connection; 0: as the settings say */

        /* The reply is valid during the call only, and empty if there is none. The call is over unless the outcome is
         * UPSTREAM_PART: the function may free it then. It may be called before upstream_call() returns. */
        void (*function)(UpstreamCall *call, UpstreamOutcome outcome, const UpstreamReply *reply);

        /* upstream.c's own. */
        Upstream *upstream;
        struct UpstreamLink *link;
        TAILQ_ENTRY(UpstreamCall) calls;
        LoopTimer timer;
        bool is_on, is_paused, has_parts;
        unsigned repeats;
};

typedef struct UpstreamSettings {
        const char *path;
        unsigned links;        /* connections */
        unsigned stream_links; /* how many of them may carry calls with is_stream at a time */
        unsigned waiting;      /* calls without a connection */
        uint64_t wait_usec;    /* how long a call waits for a connection */
        uint64_t call_usec;    /* how long privmemd may take for the answer */
} UpstreamSettings;

#define UPSTREAM_SETTINGS_DEFAULT \
        ((UpstreamSettings) { \
                .links = 16, \
                .stream_links = 10, \
                .waiting = 1024, \
                .wait_usec = 5 * LOOP_SEC, \
                .call_usec = 30 * LOOP_SEC, \
        })

int upstream_new(Loop *loop, const UpstreamSettings *settings, Upstream **ret);

/* Calls that are under way are given up without a word. */
Upstream *upstream_free(Upstream *upstream);

void upstream_call(Upstream *upstream, UpstreamCall *call);

/* Gives the call up; its function is not called any more. Harmless if it is over. */
void upstream_cancel(UpstreamCall *call);

/* Of a call with is_stream: takes no more parts for a while. Its time runs meanwhile too, so that who does not read does
 * not keep the connection. May be called by the call's function. */
void upstream_pause(UpstreamCall *call);
void upstream_resume(UpstreamCall *call);

/* Begins and ends the message of a call; between both come the members of its parameters. */
void upstream_message_begin(Text *message, const char *method);
void upstream_message_end(Text *message, bool is_stream);
