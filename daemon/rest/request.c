/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "rest/request.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "rest/scan.h"

/* Of a part of a path or query, decoded. No name, number or cursor is that long. */
#define VALUE_MAX 512U

#define QUERY_MAX 16U /* parameters */

typedef struct Mapping {
        const RequestInput *input;
        const Route *route;
        Text *text;
        Mistake *mistake;
        bool is_first;
        /* Where the path's values are in the text. */
        size_t begun[ROUTE_VALUES_MAX], ended[ROUTE_VALUES_MAX];
        bool has_limit, has_owner, is_dry_run;
} Mapping;

__attribute__((format(printf, 4, 5))) static int mistake(Mapping *m, unsigned status, Span parameter, const char *fmt,
                                                         ...) {
        va_list ap;

        m->mistake->status = status;
        m->mistake->parameter = parameter.text;
        m->mistake->parameter_size = parameter.size;
        va_start(ap, fmt);
        (void) vsnprintf(m->mistake->detail, sizeof(m->mistake->detail), fmt, ap);
        va_end(ap);
        return REQUEST_E_MISTAKE;
}

#define NO_PARAMETER ((Span) {})

/* ---- parts ---- */

static int hex(char c) {
        if (c >= '0' && c <= '9')
                return c - '0';
        c |= 0x20;
        return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Undoes %XX, and in a query + for a space. The name is for the mistake. */
static int decode(Mapping *m, Span name, Span text, bool is_query, char buffer[static VALUE_MAX], Span *ret) {
        size_t n = 0;

        for (size_t i = 0; i < text.size; i++) {
                char c = text.text[i];

                if (n == VALUE_MAX)
                        return mistake(m, 400, name, "It is longer than %u bytes.", VALUE_MAX);
                if (c == '%') {
                        int high = i + 2 < text.size ? hex(text.text[i + 1]) : -1;
                        int low = high >= 0 ? hex(text.text[i + 2]) : -1;

                        if (low < 0)
                                return mistake(m, 400, name,
                                               "A %% in an address stands before two hexadecimal digits.");
                        c = (char) (high << 4 | low);
                        i += 2;
                } else if (c == '+' && is_query) {
                        c = ' ';
                }
                if (c == 0)
                        return mistake(m, 400, name, "There is a NUL byte in it.");
                buffer[n++] = c;
        }
        *ret = (Span) { .text = buffer, .size = n };
        return scan_is_utf8(*ret) ? 0 : mistake(m, 400, name, "It is not UTF-8.");
}

static void add_name(Mapping *m, Span name) {
        if (!m->is_first)
                text_add(m->text, ",", 1);
        m->is_first = false;
        text_add(m->text, "\"", 1);
        text_add_span(m->text, name);
        text_add(m->text, "\":", 2);
}

static void add_member(Mapping *m, Span name, Span value) {
        add_name(m, name);
        text_add_span(m->text, value);
}

static bool is_number(Span text) {
        Span digits = text;
        uint64_t value;

        if (!scan_is_integer(text))
                return false;
        if (text.text[0] != '-')
                return scan_uint64(text, &value);
        digits.text++;
        digits.size--;
        return scan_uint64(digits, &value) && value <= UINT64_C(1) << 63;
}

/* A value that was text, as the type of its field has it. */
static int add_value(Mapping *m, const Field *field, Span parameter, Span text) {
        switch (field ? field->type : STRING) {
        case BOOL:
                if (!span_is(text, "true") && !span_is(text, "false"))
                        return mistake(m, 400, parameter, "It must be true or false.");
                text_add_span(m->text, text);
                return 0;
        case INT:
                if (!is_number(text))
                        return mistake(m, 400, parameter, "It must be a decimal number below 2^64.");
                text_add_span(m->text, text);
                return 0;
        default:
                text_add_json(m->text, text.text, text.size);
                return 0;
        }
}

/* ---- the path ---- */

/* "slot.slotId" has the object "slot" and the member "slotId". */
static Span object_of(Span name) {
        const char *dot = memchr(name.text, '.', name.size);

        return dot ? (Span) { .text = name.text, .size = (size_t) (dot - name.text) } : (Span) {};
}

static Span member_of(Span name) {
        Span object = object_of(name);

        if (!object.text)
                return name;
        return (Span) { .text = name.text + object.size + 1, .size = name.size - object.size - 1 };
}

/* Those that are members of the object, or of none. */
static int add_path(Mapping *m, Span object) {
        const RouteMatch *match = m->input->match;
        char buffer[VALUE_MAX];
        int r;

        for (size_t i = 0; i < match->n_values; i++) {
                Span name = match->values[i].field, text;
                const Field *field = route_field(m->route, name);

                if (!span_equal(object_of(name), object))
                        continue;
                r = decode(m, name, match->values[i].text, /* is_query= */ false, buffer, &text);
                if (r != 0)
                        return r;
                add_name(m, member_of(name));
                m->begun[i] = m->text->size;
                r = add_value(m, field, member_of(name), text);
                if (r != 0)
                        return r;
                m->ended[i] = m->text->size;
        }
        return 0;
}

/* -1: the path does not say it. */
static int path_index(const Mapping *m, Span object, Span member) {
        const RouteMatch *match = m->input->match;

        for (size_t i = 0; i < match->n_values; i++) {
                Span of = object_of(match->values[i].field);

                if (span_equal(member_of(match->values[i].field), member) && span_equal(of, object))
                        return (int) i;
        }
        return -1;
}

/* ---- the body ---- */

static int check_body(Mapping *m, Span *ret) {
        static const char *const words[] = {
                [SCAN_E_NOT_JSON] = "is not JSON",
                [SCAN_E_TOO_DEEP] = "is nested too deeply",
                [SCAN_E_DUPLICATE] = "has two members of the same name",
                [SCAN_E_TOO_MANY] = "has an object with too many members",
                [SCAN_E_NUL] = "has a string with a NUL character in it",
        };
        Span body = m->input->body;
        size_t offset;
        int r;

        if (!body.text || body.size == 0) {
                if (m->route->body[0])
                        return mistake(m, 400, NO_PARAMETER, "The request must have a body.");
                *ret = SPAN("{}");
                return 0;
        }
        r = scan_check(body, &offset);
        if (r != 0)
                return mistake(m, 400, NO_PARAMETER, "The body %s; byte %zu shows it.", words[r], offset);
        while (strchr(" \t\r\n", body.text[0]))
                body.text++, body.size--;
        while (strchr(" \t\r\n", body.text[body.size - 1]))
                body.size--;
        if (body.text[0] != '{')
                return mistake(m, 400, NO_PARAMETER, "The body must be a JSON object.");
        *ret = body;
        return 0;
}

static const Field *find_field(const Mapping *m, Span object, Span member) {
        char name[128];
        int n;

        if (object.size == 0)
                return route_field(m->route, member);
        n = snprintf(name, sizeof(name), "%.*s.%.*s", (int) object.size, object.text,
                     (int) (member.size < 64 ? member.size : 64), member.text);
        return route_field(m->route, (Span) { .text = name, .size = (size_t) n });
}

static bool is_word(const char *words, Span text) {
        for (const char *at = words; *at;) {
                size_t size = strcspn(at, " ");

                if (span_equal(text, (Span) { .text = at, .size = size }))
                        return true;
                at += size + (at[size] == ' ');
        }
        return false;
}

/* The JSON library of privmemd is not strict: it takes "1" for 1. */
static int check_type(Mapping *m, const Field *field, Span key, Span value) {
        Span word;

        switch (field->type) {
        case BOOL:
                if (!span_is(value, "true") && !span_is(value, "false"))
                        return mistake(m, 422, key, "It must be true or false.");
                return 0;
        case INT:
                return is_number(value) ? 0 : mistake(m, 422, key, "It must be an integer below 2^64.");
        case STRING:
                return value.text[0] == '"' ? 0 : mistake(m, 422, key, "It must be a string.");
        case ENUM:
                if (!scan_plain_string(value, &word) || !is_word(field->words, word))
                        return mistake(m, 422, key, "It must be one of: %s.", field->words);
                return 0;
        default:
                return 0;
        }
}

static int check_object(Mapping *m, Span object, Span value);

static int check_one(Mapping *m, const Field *field, Span key, Span value) {
        return field->type == OBJECT ? check_object(m, key, value) : check_type(m, field, key, value);
}

static int check_member(Mapping *m, Span object, Span key, Span value) {
        const Field *field = find_field(m, object, key);
        Span element;
        Scan scan;
        int r = 0;

        if (!field || memchr(key.text, '.', key.size))
                return mistake(m, 422, key, "There is no such parameter.");
        if (field->is_nullable && span_is(value, "null"))
                return 0;
        if (!field->is_array)
                return check_one(m, field, key, value);
        if (!scan_open(&scan, value, '['))
                return mistake(m, 422, key, "It must be an array.");
        while (r == 0 && scan_element(&scan, &element) > 0)
                r = check_one(m, field, key, element);
        return r;
}

static int check_object(Mapping *m, Span object, Span value) {
        Span key;
        Scan scan;
        int r = 0;

        if (!scan_open(&scan, value, '{'))
                return mistake(m, 422, object, "It must be an object.");
        while (r == 0 && scan_member(&scan, &key, &value) > 0)
                r = check_member(m, object, key, value);
        return r;
}

static bool is_condition(Span name) {
        return span_is(name, "dryRun") || span_is(name, "ifGeneration");
}

static bool is_fixed(const Mapping *m, Span name) {
        Span key, value;
        Scan scan;

        if (!m->route->fixed || !scan_open(&scan, span_of(m->route->fixed), '{'))
                return false;
        while (scan_member(&scan, &key, &value) > 0)
                if (span_equal(key, name))
                        return true;
        return false;
}

/* The members of the body, or of the object in it, that the path has not said already. */
static int add_body(Mapping *m, Span object, Span body) {
        Span key, value;
        Scan scan;

        if (!scan_open(&scan, body, '{'))
                return -EBADMSG;
        while (scan_member(&scan, &key, &value) > 0) {
                int i = path_index(m, object, key), r;

                if (i >= 0) {
                        Span said = { .text = m->text->text + m->begun[i], .size = m->ended[i] - m->begun[i] };

                        if (!m->text->failed && !span_equal(said, value))
                                return mistake(m, 422, key, "The address says otherwise; leave it out of the body.");
                        continue;
                }
                if (object.size == 0 && (is_condition(key) || is_fixed(m, key)))
                        return mistake(m, 422, key, "It cannot be a member of the body.");
                r = check_member(m, object, key, value);
                if (r != 0)
                        return r;
                if (object.size == 0 && span_is(key, "ownerUID")) {
                        m->has_owner = !span_is(value, "null");
                        if (!m->has_owner)
                                continue;
                }
                add_member(m, key, value);
        }
        return 0;
}

/* What the address stands for: the members of the object, or everything but that. */
static void add_fixed(Mapping *m, Span object, bool is_inside) {
        Span key, value;
        Scan scan, inner;

        if (!m->route->fixed || !scan_open(&scan, span_of(m->route->fixed), '{'))
                return;
        while (scan_member(&scan, &key, &value) > 0) {
                bool is_object = object.text && span_equal(key, object);

                if (!is_object && !is_inside)
                        add_member(m, key, value);
                if (is_object && is_inside && scan_open(&inner, value, '{'))
                        while (scan_member(&inner, &key, &value) > 0)
                                add_member(m, key, value);
        }
}

/* The one input field that path or body have members of; text is NULL if there is none. */
static Span route_object(const Mapping *m) {
        const RouteMatch *match = m->input->match;

        if (m->route->body && m->route->body[0])
                return span_of(m->route->body);
        for (size_t i = 0; i < match->n_values; i++)
                if (object_of(match->values[i].field).text)
                        return object_of(match->values[i].field);
        return (Span) {};
}

static int add_path_and_body(Mapping *m) {
        Span object = route_object(m), body = {};
        int r = 0;

        if (m->route->body)
                r = check_body(m, &body);
        if (r == 0)
                r = add_path(m, (Span) {});
        if (r != 0)
                return r;
        if (object.text) {
                add_name(m, object);
                text_add(m->text, "{", 1);
                m->is_first = true;
                r = add_path(m, object);
                add_fixed(m, object, /* is_inside= */ true);
                if (r == 0 && m->route->body && m->route->body[0])
                        r = add_body(m, object, body);
                text_add(m->text, "}", 1);
                m->is_first = false;
        }
        add_fixed(m, object, /* is_inside= */ false);
        if (r == 0 && m->route->body && !m->route->body[0])
                r = add_body(m, (Span) {}, body);
        return r;
}

/* ---- the query, and what else there is ---- */

static bool may_query(const Mapping *m, Span name, const Field *field) {
        if (!field || field->is_array || field->type == OBJECT || field->type == FLOAT ||
            span_is(name, "ifGeneration") || memchr(name.text, '.', name.size))
                return false;
        if (span_is(name, "dryRun"))
                return true;
        return !m->route->body && path_index(m, (Span) {}, name) < 0 && !is_fixed(m, name);
}

static int add_parameter(Mapping *m, Span raw_name, Span raw_value, const Field *seen[static QUERY_MAX], size_t *n) {
        char name_buffer[VALUE_MAX], buffer[VALUE_MAX];
        Span name, value;
        const Field *field;
        int r;

        r = decode(m, raw_name, raw_name, /* is_query= */ true, name_buffer, &name);
        if (r == 0)
                r = decode(m, raw_name, raw_value, /* is_query= */ true, buffer, &value);
        if (r != 0)
                return r;
        field = route_field(m->route, name);
        if (!may_query(m, name, field))
                return mistake(m, 400, raw_name, "The address has no such parameter.");
        for (size_t i = 0; i < *n; i++)
                if (seen[i] == field)
                        return mistake(m, 400, raw_name, "It is there twice.");
        if (*n == QUERY_MAX)
                return mistake(m, 400, raw_name, "There are more than %u parameters.", QUERY_MAX);
        seen[(*n)++] = field;
        m->has_limit |= span_is(name, "limit");
        m->is_dry_run |= span_is(name, "dryRun") && span_is(value, "true");
        add_name(m, name);
        return add_value(m, field, raw_name, value);
}

static int add_query(Mapping *m) {
        const char *at = m->input->query.text, *end = at + m->input->query.size;
        const Field *seen[QUERY_MAX];
        size_t n = 0;

        while (at < end) {
                const char *next = memchr(at, '&', (size_t) (end - at)) ?: end;
                const char *equal = memchr(at, '=', (size_t) (next - at));
                Span name = { .text = at, .size = (size_t) ((equal ?: next) - at) };
                Span value = { .text = equal ? equal + 1 : next, .size = equal ? (size_t) (next - equal) - 1 : 0 };
                int r = next > at ? add_parameter(m, name, value, seen, &n) : 0;

                if (r != 0)
                        return r;
                at = next < end ? next + 1 : end;
        }
        return 0;
}

/* An entity tag of a VM is its generation in quotes. */
static int add_condition(Mapping *m) {
        const char *given = m->input->if_match;
        Span tag;
        uint64_t generation;

        if (!given || strcmp(given, "*") == 0)
                return 0;
        if (!route_field(m->route, SPAN("ifGeneration"))) {
                if (m->route->verb == VERB_GET)
                        return 0;
                return mistake(m, 400, SPAN("If-Match"), "This request knows no condition.");
        }
        if (!scan_plain_string(span_of(given), &tag) || !scan_uint64(tag, &generation))
                return mistake(m, 412, SPAN("If-Match"), "No version of the VM has this entity tag.");
        add_member(m, SPAN("ifGeneration"), tag);
        return 0;
}

/* privmemd would take us for the owner. */
static int add_owner(Mapping *m) {
        const Caller *caller = m->input->caller;

        if (m->has_owner || !m->route->body || m->route->body[0] || !route_field(m->route, SPAN("ownerUID")))
                return 0;
        if (!caller || !caller->has_uid)
                return mistake(m, 422, SPAN("ownerUID"), "It must be given, for nobody knows the uid of the caller.");
        add_name(m, SPAN("ownerUID"));
        text_add_uint64(m->text, caller->uid);
        return 0;
}

int request_map(const RequestInput *input, Text *message, RequestKind *ret_kind, Mistake *ret_mistake) {
        Mapping m = {
                .input = input,
                .route = input->match->route,
                .text = message,
                .mistake = ret_mistake,
                .is_first = true,
        };
        int r;

        upstream_message_begin(message, m.route->method);
        r = add_path_and_body(&m);
        if (r == 0 && input->query.text)
                r = add_query(&m);
        if (r == 0)
                r = add_condition(&m);
        if (r == 0)
                r = add_owner(&m);
        if (r != 0)
                return r;
        *ret_kind = (RequestKind) {
                .is_stream = m.route->answer == LIST && !m.has_limit,
                .is_dry_run = m.is_dry_run,
        };
        upstream_message_end(message, ret_kind->is_stream);
        return message->failed ? -ENOMEM : 0;
}
