/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "rest/gateway.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "rest/accept.h"
#include "rest/answer.h"
#include "rest/list.h"
#include "rest/problem.h"
#include "rest/request.h"
#include "rest/route.h"

struct Gateway {
        Upstream *upstream;
        const Access *access; /* or NULL */
        Resource *resources;
        Observer observer;
};

/* What becomes of one exchange; exchange->work. */
typedef struct Work {
        Gateway *gateway;
        Exchange *exchange;
        Caller caller;            /* if a token says who it is */
        RouteMatch match;         /* route is NULL if it is a resource */
        const Resource *resource; /* or NULL */
        const char *type;         /* of the answer */
        Text message;
        RequestKind kind;
        UpstreamCall call;
        List *list;
} Work;

static const char *const list_types[] = { TYPE_JSON, TYPE_NDJSON, NULL };
static const char *const other_types[] = { TYPE_JSON, NULL };

/* ---- life ---- */

int gateway_new(Upstream *upstream, Gateway **ret) {
        Gateway *gateway = calloc(1, sizeof(*gateway));

        if (!gateway)
                return -ENOMEM;
        gateway->upstream = upstream;
        *ret = gateway;
        return 0;
}

Gateway *gateway_free(Gateway *gateway) {
        free(gateway);
        return NULL;
}

void gateway_add(Gateway *gateway, Resource *resource) {
        resource->next = gateway->resources;
        gateway->resources = resource;
}

void gateway_set_access(Gateway *gateway, const Access *access) {
        gateway->access = access;
}

void gateway_observe(Gateway *gateway, const Observer *observer) {
        gateway->observer = *observer;
}

static void tell_observer(const Work *work) {
        const Observer *observer = &work->gateway->observer;
        const char *route = work->resource ? work->resource->path : work->match.route ? work->match.route->path : "";

        if (observer->function)
                observer->function(work->exchange, route, work->resource && work->resource->is_endless,
                                   observer->userdata);
}

static void on_end(Exchange *exchange) {
        Work *work = exchange->work;

        tell_observer(work);
        if (exchange->on_gone)
                exchange->on_gone(exchange);
        upstream_cancel(&work->call);
        if (work->list)
                list_leave(work->list);
        text_done(&work->message);
        free(work);
}

/* ---- what can be said from the header alone ---- */

static void add_allow(Exchange *exchange, unsigned verbs) {
        exchange_add_header(exchange, MHD_HTTP_HEADER_ALLOW, "%s%s%s%sOPTIONS",
                            verbs & 1U << VERB_GET ? "GET, HEAD, " : "", verbs & 1U << VERB_PUT ? "PUT, " : "",
                            verbs & 1U << VERB_POST ? "POST, " : "", verbs & 1U << VERB_DELETE ? "DELETE, " : "");
}

static void answer_other_verb(Exchange *exchange, unsigned verbs) {
        add_allow(exchange, verbs);
        if (exchange->verb == VERB_OPTIONS)
                exchange_answer_static(exchange, MHD_HTTP_NO_CONTENT, NULL, SPAN(""));
        else
                problem_answer(exchange, MHD_HTTP_METHOD_NOT_ALLOWED, "The address has other methods: see Allow.");
}

/* 0: *work says what is at the address. Otherwise it is answered. */
static int find(Exchange *exchange, Work *work) {
        bool is_get = exchange->verb == VERB_GET || exchange->verb == VERB_HEAD;
        unsigned verbs = 0;
        int r;

        for (work->resource = work->gateway->resources; work->resource; work->resource = work->resource->next)
                if (span_is(exchange->path, work->resource->path)) {
                        if (is_get)
                                return 0;
                        answer_other_verb(exchange, 1U << VERB_GET);
                        return -1;
                }
        r = route_find(exchange->path, exchange->verb, &work->match, &verbs);
        if (r == ROUTE_E_NO_VERB)
                answer_other_verb(exchange, verbs);
        else if (r != 0)
                problem_answer(exchange, MHD_HTTP_NOT_FOUND, "There is no such address. See /openapi.json.");
        return r;
}

static Right right_of(const Work *work) {
        if (work->resource)
                return work->resource->right;
        return work->match.route->verb == VERB_GET ? RIGHT_INSPECT : RIGHT_MANAGE;
}

static int check_right(Exchange *exchange, const Work *work) {
        const Access *access = work->gateway->access;
        Right right = right_of(work);

        if (exchange->caller->right >= right)
                return 0;
        problem_answer(exchange, access ? access_refuse(access, exchange) : MHD_HTTP_FORBIDDEN,
                       "The caller, %s, has no right to %s.", exchange->caller->name,
                       right == RIGHT_INSPECT ? "look at anything" : "change anything");
        return -1;
}

static int choose_type(Exchange *exchange, Work *work) {
        const char *const *types = work->resource                    ? work->resource->types :
                                   work->match.route->answer == LIST ? list_types :
                                                                       other_types;

        work->type = accept_choose(exchange_header(exchange, MHD_HTTP_HEADER_ACCEPT), types);
        if (work->type)
                return 0;
        problem_answer(exchange, MHD_HTTP_NOT_ACCEPTABLE, "The answer can only be of the type %s%s%s.", types[0],
                       types[1] ? " or " : "", types[1] ?: "");
        return -1;
}

static int check_body(Exchange *exchange, const Work *work) {
        const char *type;

        if (!exchange->has_body)
                return 0;
        if (work->resource || !work->match.route->body) {
                problem_answer(exchange, MHD_HTTP_BAD_REQUEST, "This request has no body.");
                return -1;
        }
        type = exchange_header(exchange, MHD_HTTP_HEADER_CONTENT_TYPE);
        if (!type || !accept_is_json(type) || exchange_header(exchange, MHD_HTTP_HEADER_CONTENT_ENCODING)) {
                problem_answer(exchange, MHD_HTTP_UNSUPPORTED_MEDIA_TYPE,
                               "The body must be application/json, in UTF-8, and not encoded otherwise.");
                return -1;
        }
        return 0;
}

/* Who sets one must not believe that it was looked at. */
static int check_conditions(Exchange *exchange, const Work *work) {
        static const char *const names[] = { MHD_HTTP_HEADER_IF_NONE_MATCH, MHD_HTTP_HEADER_IF_UNMODIFIED_SINCE };

        if (work->resource || work->match.route->verb == VERB_GET)
                return 0;
        for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
                if (exchange_header(exchange, names[i])) {
                        problem_answer_parameter(exchange, MHD_HTTP_BAD_REQUEST, span_of(names[i]),
                                                 "This request knows no such condition.");
                        return -1;
                }
        return 0;
}

static void begin(Exchange *exchange, void *userdata) {
        Work *work = calloc(1, sizeof(*work));

        if (!work) {
                exchange_abort(exchange);
                return;
        }
        work->gateway = userdata;
        work->exchange = exchange;
        exchange->work = work;
        exchange->on_end = on_end;
        if (work->gateway->access)
                access_identify(work->gateway->access, exchange, &work->caller);
        if (find(exchange, work) != 0 || check_right(exchange, work) < 0 || choose_type(exchange, work) < 0 ||
            check_conditions(exchange, work) < 0)
                return;
        (void) check_body(exchange, work);
}

/* ---- the call ---- */

static void on_reply(UpstreamCall *call, UpstreamOutcome outcome, const UpstreamReply *reply) {
        Work *work = (Work *) ((char *) call - offsetof(Work, call));
        const Route *route = work->match.route;

        switch (outcome) {
        case UPSTREAM_PART:
                if (work->list)
                        list_add(work->list, reply, /* is_last= */ false);
                else
                        work->list = list_start(work->exchange, call, route->member,
                                                strcmp(work->type, TYPE_NDJSON) == 0, reply);
                break;
        case UPSTREAM_REPLY:
                if (work->list)
                        list_add(work->list, reply, /* is_last= */ true);
                else
                        answer_reply(work->exchange, route, work->type, work->kind.is_dry_run, reply);
                break;
        default:
                if (work->list)
                        list_break(work->list);
                else if (outcome == UPSTREAM_ERROR)
                        problem_answer_error(work->exchange, reply);
                else
                        problem_answer_outcome(work->exchange, outcome);
        }
}

static int map(Exchange *exchange, Work *work) {
        const RequestInput input = {
                .match = &work->match,
                .query = exchange->query,
                .body = { .text = exchange->body.text, .size = exchange->body.size },
                .if_match = exchange_header(exchange, MHD_HTTP_HEADER_IF_MATCH),
                .caller = exchange->caller,
        };
        Mistake mistake;
        int r;

        r = request_map(&input, &work->message, &work->kind, &mistake);
        if (r == REQUEST_E_MISTAKE && mistake.parameter)
                problem_answer_parameter(exchange, mistake.status,
                                         (Span) { mistake.parameter, mistake.parameter_size }, mistake.detail);
        else if (r == REQUEST_E_MISTAKE)
                problem_answer(exchange, mistake.status, "%s", mistake.detail);
        else if (r < 0)
                problem_answer_outcome(exchange, UPSTREAM_BUSY);
        return r;
}

static void serve(Exchange *exchange, void *userdata) {
        Work *work = exchange->work;

        (void) userdata;
        if (work->resource) {
                work->resource->serve(exchange, work->type, work->resource->userdata);
                return;
        }
        if (work->match.route->answer == EVENTS) {
                problem_answer(exchange, MHD_HTTP_NOT_FOUND, "There are no events here.");
                return;
        }
        if (map(exchange, work) != 0)
                return;
        work->call.message = (Span) { .text = work->message.text, .size = work->message.size };
        work->call.is_stream = work->kind.is_stream;
        work->call.is_repeatable = work->match.route->verb == VERB_GET;
        work->call.function = on_reply;
        upstream_call(work->gateway->upstream, &work->call);
}

static void refuse(Exchange *exchange, unsigned status, const char *why, void *userdata) {
        (void) userdata;
        problem_answer(exchange, status, "%s", why);
}

HttpHandler gateway_handler(Gateway *gateway) {
        return (HttpHandler) { .begin = begin, .serve = serve, .refuse = refuse, .userdata = gateway };
}
