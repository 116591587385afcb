/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "rest/page.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "openapi.h"
#include "rest/answer.h"
#include "rest/problem.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

#define READY_USEC (2 * LOOP_SEC)

static const char page_html[] =
        "<!DOCTYPE html>\n"
        "<html lang=\"en\"><meta charset=\"utf-8\"><title>privmem-rest</title>\n"
        "<h1>privmem-rest</h1>\n"
        "<p>The memory of every KVM guest on this host: version " PRIVMEMD_VERSION
        " of privmemd's REST interface.</p>\n"
        "<ul>\n"
        "<li><a href=\"/v1/host\">/v1/host</a>: what this host can do\n"
        "<li><a href=\"/v1/vms\">/v1/vms</a>, <a href=\"/v1/backings\">/v1/backings</a>,\n"
        "    <a href=\"/v1/slots\">/v1/slots</a>: what there is\n"
        "<li><a href=\"/v1/events\">/v1/events</a>: what happens\n"
        "<li><a href=\"/openapi.json\">/openapi.json</a>: every address, parameter and answer (OpenAPI 3.1)\n"
        "<li><a href=\"/metrics\">/metrics</a>: numbers for Prometheus\n"
        "<li><a href=\"/healthz\">/healthz</a>, <a href=\"/readyz\">/readyz</a>: whether this program lives, and whether\n"
        "    privmemd answers it\n"
        "</ul>\n"
        "<p>The manual: privmem-rest(8).</p>\n"
        "</html>\n";

static const char page_text[] = "privmem-rest " PRIVMEMD_VERSION ": the memory of every KVM guest on this host.\n"
                                "\n"
                                "  /v1/host        what this host can do\n"
                                "  /v1/vms         its VMs; /v1/backings, /v1/slots: what they have\n"
                                "  /v1/events      what happens\n"
                                "  /openapi.json   every address, parameter and answer (OpenAPI 3.1)\n"
                                "  /metrics        numbers for Prometheus\n"
                                "  /healthz        whether this program lives; /readyz: whether privmemd answers it\n"
                                "\n"
                                "The manual: privmem-rest(8).\n";

#define TYPE_TEXT "text/plain; charset=utf-8"
#define TYPE_HTML "text/html; charset=utf-8"

struct Pages {
        Upstream *upstream;
        Resource resources[4];
};

/* One look at privmemd; exchange->state. */
typedef struct Look {
        Exchange *exchange;
        Text message;
        UpstreamCall call;
} Look;

static void serve_front(Exchange *exchange, const char *type, void *userdata) {
        (void) userdata;
        /* The names that a client asks for have no charset. */
        if (strcmp(type, "text/html") == 0)
                exchange_answer_static(exchange, MHD_HTTP_OK, TYPE_HTML, SPAN(page_html));
        else
                exchange_answer_static(exchange, MHD_HTTP_OK, TYPE_TEXT, SPAN(page_text));
}

static void serve_openapi(Exchange *exchange, const char *type, void *userdata) {
        (void) type;
        (void) userdata;
        exchange_answer_static(exchange, MHD_HTTP_OK, TYPE_JSON, SPAN(openapi_json));
}

static void serve_health(Exchange *exchange, const char *type, void *userdata) {
        (void) type;
        (void) userdata;
        exchange_answer_static(exchange, MHD_HTTP_OK, TYPE_TEXT, SPAN("alive\n"));
}

/* ---- readyz ---- */

static void on_gone(Exchange *exchange) {
        Look *look = exchange->state;

        upstream_cancel(&look->call);
        text_done(&look->message);
        free(look);
}

static void on_host(UpstreamCall *call, UpstreamOutcome outcome, const UpstreamReply *reply) {
        Look *look = (Look *) ((char *) call - offsetof(Look, call));

        (void) reply;
        if (outcome == UPSTREAM_REPLY)
                exchange_answer_static(look->exchange, MHD_HTTP_OK, TYPE_TEXT, SPAN("ready\n"));
        else
                problem_answer(look->exchange, MHD_HTTP_SERVICE_UNAVAILABLE, "privmemd does not answer.");
}

static void serve_ready(Exchange *exchange, const char *type, void *userdata) {
        Pages *pages = userdata;
        Look *look = calloc(1, sizeof(*look));

        (void) type;
        if (!look) {
                exchange_abort(exchange);
                return;
        }
        look->exchange = exchange;
        exchange->state = look;
        exchange->on_gone = on_gone;
        upstream_message_begin(&look->message, "GetHost");
        upstream_message_end(&look->message, /* is_stream= */ false);
        if (look->message.failed) {
                exchange_abort(exchange);
                return;
        }
        look->call = (UpstreamCall) {
                .message = { .text = look->message.text, .size = look->message.size },
                .is_repeatable = true,
                .usec = READY_USEC,
                .wait_usec = READY_USEC,
                .function = on_host,
        };
        upstream_call(pages->upstream, &look->call);
}

int pages_new(Gateway *gateway, Upstream *upstream, Pages **ret) {
        static const char *const page_types[] = { "text/html", "text/plain", NULL };
        static const char *const text_types[] = { "text/plain", NULL };
        static const char *const json_types[] = { TYPE_JSON, NULL };
        Pages *pages = calloc(1, sizeof(*pages));

        if (!pages)
                return -ENOMEM;
        pages->upstream = upstream;
        pages->resources[0] = (Resource) { .path = "/", .types = page_types, .serve = serve_front };
        pages->resources[1] = (Resource) { .path = "/healthz", .types = text_types, .serve = serve_health };
        pages->resources[2] = (Resource) { .path = "/readyz", .types = text_types, .serve = serve_ready };
        pages->resources[3] = (Resource) { .path = "/openapi.json", .types = json_types, .serve = serve_openapi };
        for (size_t i = 0; i < COUNT(pages->resources); i++) {
                pages->resources[i].userdata = pages;
                gateway_add(gateway, &pages->resources[i]);
        }
        *ret = pages;
        return 0;
}

Pages *pages_free(Pages *pages) {
        free(pages);
        return NULL;
}
