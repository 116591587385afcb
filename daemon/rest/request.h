/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A request becomes a call of privmemd, by its row in api/operations.def. */

#include "rest/http.h"
#include "rest/route.h"
#include "rest/text.h"
#include "rest/upstream.h"

/* What is wrong with a request. */
typedef struct Mistake {
        unsigned status;
        const char *parameter; /* or NULL */
        size_t parameter_size;
        char detail[256];
} Mistake;

typedef struct RequestInput {
        const RouteMatch *match;
        Span query;           /* text is NULL if there is none */
        Span body;            /* the same */
        const char *if_match; /* the header, or NULL */
        const Caller *caller;
} RequestInput;

enum {
        REQUEST_E_MISTAKE = 1, /* *ret_mistake says which; it may point into the input */
};

typedef struct RequestKind {
        bool is_stream;  /* the answer comes in parts */
        bool is_dry_run; /* nothing is changed */
} RequestKind;

/* Writes the message of the call, ready for upstream_call(). -ENOMEM. */
int request_map(const RequestInput *input, Text *message, RequestKind *ret_kind, Mistake *ret_mistake);
