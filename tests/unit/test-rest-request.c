/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A request becomes the text of a call: each kind of row of api/operations.def, and each mistake. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "rest/accept.h"
#include "rest/request.h"
#include "rest/scan.h"

#define CALL(method, parameters) "{\"method\":\"io.privmemd.Memory." method "\",\"parameters\":" parameters "}"
#define STREAM(method, parameters) \
        "{\"method\":\"io.privmemd.Memory." method "\",\"parameters\":" parameters ",\"more\":true}"

static const Caller local = { .right = RIGHT_MANAGE, .has_uid = true, .uid = 1000, .name = "uid 1000" };
static const Caller remote = { .right = RIGHT_MANAGE, .name = "CN orchestrator" };

typedef struct Case {
        Verb verb;
        const char *address; /* with the query */
        const char *body, *if_match;
        const Caller *caller;
        const char *call;      /* or NULL, and then: */
        unsigned status;       /* of the mistake */
        const char *parameter; /* that it names, or NULL */
} Case;

static int map(const Case *c, Text *message, Mistake *mistake) {
        const char *query = strchr(c->address, '?');
        RouteMatch match;
        RequestInput input = {
                .match = &match,
                .query = query ? span_of(query + 1) : (Span) {},
                .body = c->body ? span_of(c->body) : (Span) {},
                .if_match = c->if_match,
                .caller = c->caller ?: &local,
        };
        Span path = { .text = c->address, .size = query ? (size_t) (query - c->address) : strlen(c->address) };
        unsigned verbs;
        RequestKind kind;

        assert_int_equal(route_find(path, c->verb, &match, &verbs), 0);
        return request_map(&input, message, &kind, mistake);
}

static void run_case(const Case *c) {
        Text message = {};
        Mistake mistake = {};
        int r = map(c, &message, &mistake);

        if (c->call) {
                if (r != 0 || strcmp(message.text, c->call) != 0)
                        fail_msg("%s %s: %s; wanted %s", c->address, c->body ?: "", r ? mistake.detail : message.text,
                                 c->call);
                assert_int_equal(message.size, strlen(c->call) + 1);
        } else {
                if (r != REQUEST_E_MISTAKE || mistake.status != c->status)
                        fail_msg("%s %s: %d %u", c->address, c->body ?: "", r, mistake.status);
                if (c->parameter &&
                    (!mistake.parameter || strncmp(mistake.parameter, c->parameter, mistake.parameter_size) ||
                     strlen(c->parameter) != mistake.parameter_size))
                        fail_msg("%s %s names %.*s", c->address, c->body ?: "", (int) mistake.parameter_size,
                                 mistake.parameter ?: "");
                assert_non_null(strchr(mistake.detail, '.'));
        }
        text_done(&message);
}

static void calls(void **state) {
        static const Case cases[] = {
                { VERB_GET, "/v1/host", .call = CALL("GetHost", "{}") },
                { VERB_GET, "/v1/vms", .call = STREAM("ListVMs", "{}") },
                { VERB_GET, "/v1/vms?limit=5", .call = CALL("ListVMs", "{\"limit\":5}") },
                { VERB_GET, "/v1/vms?limit=5&cursor=a%26b+c",
                  .call = CALL("ListVMs", "{\"limit\":5,\"cursor\":\"a&b c\"}") },
                { VERB_HEAD, "/v1/vms/web1", .call = CALL("ListVMs", "{\"vm\":\"web1\"}") },
                { VERB_GET, "/v1/vms/a%22%5Cb", .call = CALL("ListVMs", "{\"vm\":\"a\\\"\\\\b\"}") },
                { VERB_GET, "/v1/vms/a+b", .call = CALL("ListVMs", "{\"vm\":\"a+b\"}") },
                { VERB_GET, "/v1/slots?", .call = STREAM("ListSlots", "{}") },
                { VERB_GET, "/v1/vms/web1/slots/0/7",
                  .call = CALL("ListSlots", "{\"vm\":\"web1\",\"addressSpace\":0,\"slotId\":7}") },
                { VERB_PUT, "/v1/vms/web1/backings/ram0", "{\"size\":18446744073709551615}",
                  .call = CALL("AllocateBacking",
                               "{\"vm\":\"web1\",\"name\":\"ram0\",\"open\":false,\"size\":18446744073709551615}") },
                { VERB_PUT, "/v1/vms/web1/backings/ram0?dryRun=true", " { \"size\" : 1 , \"kind\" : null } \n",
                  .call = CALL("AllocateBacking", "{\"vm\":\"web1\",\"name\":\"ram0\",\"open\":false,\"size\":1,"
                                                  "\"kind\":null,\"dryRun\":true}") },
                { VERB_PUT, "/v1/vms/web1/slots/1/7", "{\"guestPhysAddr\":0,\"memorySize\":4096,\"slotId\":7}",
                  .call = CALL("SetSlot", "{\"vm\":\"web1\",\"slot\":{\"addressSpace\":1,\"slotId\":7,"
                                          "\"guestPhysAddr\":0,\"memorySize\":4096}}") },
                { VERB_DELETE, "/v1/vms/web1/slots/1/7", .if_match = "\"12\"",
                  .call = CALL("SetSlot", "{\"vm\":\"web1\",\"slot\":{\"addressSpace\":1,\"slotId\":7,"
                                          "\"guestPhysAddr\":0,\"memorySize\":0},\"ifGeneration\":12}") },
                { VERB_PUT, "/v1/vms/web1", .if_match = "*",
                  .call = CALL("RegisterVM", "{\"name\":\"web1\",\"ownerUID\":1000}") },
                { VERB_PUT, "/v1/vms/web1", "{\"ownerUID\":null}",
                  .call = CALL("RegisterVM", "{\"name\":\"web1\",\"ownerUID\":1000}") },
                { VERB_PUT, "/v1/vms/web1", "{\"ownerUID\":7}", .caller = &remote,
                  .call = CALL("RegisterVM", "{\"name\":\"web1\",\"ownerUID\":7}") },
                { VERB_GET, "/v1/host", .if_match = "\"1\"", .call = CALL("GetHost", "{}") },
        };

        (void) state;
        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
                run_case(&cases[i]);
}

static void mistakes(void **state) {
        static const char backing[] = "/v1/vms/web1/backings/ram0";
        const Case cases[] = {
                { VERB_GET, "/v1/vms?x=1", .status = 400, .parameter = "x" },
                { VERB_GET, "/v1/vms?limit", .status = 400, .parameter = "limit" },
                { VERB_GET, "/v1/vms?limit=1&limit=1", .status = 400, .parameter = "limit" },
                { VERB_GET, "/v1/vms?limit=1&%6Cimit=1", .status = 400, .parameter = "%6Cimit" },
                { VERB_GET, "/v1/vms?vm=%", .status = 400, .parameter = "vm" },
                { VERB_GET, "/v1/vms?vm=%4", .status = 400, .parameter = "vm" },
                { VERB_GET, "/v1/vms?vm=%00", .status = 400, .parameter = "vm" },
                { VERB_GET, "/v1/vms/%c0%80", .status = 400, .parameter = "vm" },
                { VERB_GET, "/v1/vms/web1/slots/0/-", .status = 400, .parameter = "slotId" },
                { VERB_DELETE, "/v1/vms/web1/slots/0/01", .status = 400, .parameter = "slotId" },
                { VERB_DELETE, "/v1/vms/web1?ifGeneration=1", .status = 400, .parameter = "ifGeneration" },
                { VERB_PUT, backing, "{\"size\":1}", .if_match = "W/\"1\"", .status = 412, .parameter = "If-Match" },
                { VERB_POST, "/v1/vms/web1/slots/check", "{\"slots\":[]}", .if_match = "\"1\"", .status = 400,
                  .parameter = "If-Match" },
                { VERB_PUT, "/v1/vms/web1", .caller = &remote, .status = 422, .parameter = "ownerUID" },
                { VERB_PUT, backing, "[]", .status = 400 },
                { VERB_PUT, backing, "{\"size\":1", .status = 400 },
                { VERB_PUT, backing, "{\"size\":1,\"size\":1}", .status = 400 },
                { VERB_PUT, backing, "{\"size\":\"1\"}", .status = 422, .parameter = "size" },
                { VERB_PUT, backing, "{\"size\":18446744073709551616}", .status = 422, .parameter = "size" },
                { VERB_PUT, backing, "{\"size\":-9223372036854775809}", .status = 422, .parameter = "size" },
                { VERB_PUT, backing, "{\"open\":false}", .status = 422, .parameter = "open" },
                { VERB_PUT, backing, "{\"dryRun\":true}", .status = 422, .parameter = "dryRun" },
                { VERB_PUT, backing, "{\"name\":\"ram1\"}", .status = 422, .parameter = "name" },
                { VERB_PUT, backing, "{\"kind\":\"hugetl\"}", .status = 422, .parameter = "kind" },
                { VERB_PUT, backing, "{\"slot.x\":1}", .status = 422, .parameter = "slot.x" },
                { VERB_PUT, backing, "{\"numaNodes\":[0,true]}", .status = 422, .parameter = "numaNodes" },
                { VERB_PUT, "/v1/vms/web1/slots/1/7", "{\"slotId\":8}", .status = 422, .parameter = "slotId" },
                { VERB_PUT, "/v1/vms/web1/slots/1/7", "{\"vm\":\"web1\"}", .status = 422, .parameter = "vm" },
                { VERB_PUT, "/v1/vms/web1/slots/1/7", .status = 400 },
                { VERB_POST, "/v1/vms/web1/slots", "{\"slots.slotId\":1}", .status = 422,
                  .parameter = "slots.slotId" },
                { VERB_POST, "/v1/vms/web1/slots", "{\"slots\":{}}", .status = 422, .parameter = "slots" },
                { VERB_POST, "/v1/vms/web1/slots", "{\"slots\":[0]}", .status = 422, .parameter = "slots" },
                { VERB_POST, "/v1/vms/web1/slots", "{\"slots\":[{\"flags\":[1]}]}", .status = 422,
                  .parameter = "flags" },
        };

        (void) state;
        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
                run_case(&cases[i]);
}

/* An address has no two methods, and the fields in it are fields of its method. */
static void addresses(void **state) {
        const Route *route, *other;
        RouteMatch match;
        unsigned verbs = 0;

        (void) state;
        for (size_t i = 0; (route = route_at(i)); i++) {
                for (size_t j = 0; j < i && (other = route_at(j)); j++)
                        assert_false(other->verb == route->verb && strcmp(other->path, route->path) == 0);
                assert_int_equal(route_find(span_of(route->path), route->verb, &match, &verbs), 0);
                assert_ptr_equal(match.route, route);
                for (size_t j = 0; j < match.n_values; j++)
                        assert_non_null(route_field(route, match.values[j].field));
        }
        assert_int_equal(route_find(SPAN("/v1/vms"), VERB_PUT, &match, &verbs), ROUTE_E_NO_VERB);
        assert_int_equal(verbs, 1U << VERB_GET | 1U << VERB_HEAD);
        assert_int_equal(route_find(SPAN("/v1/vms/"), VERB_GET, &match, &verbs), ROUTE_E_NO_PATH);
        assert_int_equal(route_find(SPAN("/v1/vms//slots"), VERB_GET, &match, &verbs), ROUTE_E_NO_PATH);
        assert_int_equal(route_find(SPAN(""), VERB_GET, &match, &verbs), ROUTE_E_NO_PATH);
        assert_int_equal(route_find(SPAN("/"), VERB_GET, &match, &verbs), ROUTE_E_NO_PATH);
}

static void media_types(void **state) {
        static const char *const types[] = { "application/json", "application/x-ndjson", NULL };

        (void) state;
        assert_string_equal(accept_choose(NULL, types), types[0]);
        assert_string_equal(accept_choose("", types), types[0]);
        assert_string_equal(accept_choose("text/*, */*;q=0.1", types), types[0]);
        assert_string_equal(accept_choose("application/x-ndjson , */*;q=0.1", types), types[1]);
        assert_string_equal(accept_choose("application/json;q=0.2,application/x-ndjson;q=0.25", types), types[1]);
        assert_string_equal(accept_choose("application/json; version=1; q=0,application/*", types), types[1]);
        assert_null(accept_choose("application/json;q=0, application/x-ndjson;q=0.000, */*", types));
        assert_null(accept_choose("text/html", types));
        assert_null(accept_choose(",;q=,,", types));
        assert_true(accept_is_json("application/JSON ; Charset=UTF-8"));
        assert_false(accept_is_json("application/json; charset=utf-16"));
        assert_false(accept_is_json("text/json"));
        assert_false(accept_is_json(""));
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(calls),
                cmocka_unit_test(mistakes),
                cmocka_unit_test(addresses),
                cmocka_unit_test(media_types),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
