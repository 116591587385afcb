/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* From an exchange to a call of privmemd and back: who may do it, which address it is, what the answer looks like. */

#include "rest/access.h"
#include "rest/http.h"
#include "rest/upstream.h"

typedef struct Gateway Gateway;

/* An address that is no single call of privmemd. It is for GET and HEAD alone. */
typedef struct Resource {
        const char *path;
        Right right;              /* RIGHT_NONE: whoever can connect */
        const char *const *types; /* media types that it has, the best first, and NULL behind the last */
        /* Answers, now or later. type is the one of types that the client wants. */
        void (*serve)(Exchange *exchange, const char *type, void *userdata);
        void *userdata;
        bool is_endless; /* the answer ends when the client goes */
        struct Resource *next;
} Resource;

/* Is told of every exchange that ends. route: the address as api/operations.def has it, "" if there is none of that kind. */
typedef struct Observer {
        void (*function)(const Exchange *exchange, const char *route, bool is_endless, void *userdata);
        void *userdata;
} Observer;

int gateway_new(Upstream *upstream, Gateway **ret);
Gateway *gateway_free(Gateway *gateway);

void gateway_add(Gateway *gateway, Resource *resource);
void gateway_observe(Gateway *gateway, const Observer *observer);

/* Without it, a caller is whoever its connection says it is. access must outlive the gateway. */
void gateway_set_access(Gateway *gateway, const Access *access);

/* For http_new(). */
HttpHandler gateway_handler(Gateway *gateway);
