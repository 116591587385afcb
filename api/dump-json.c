/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <inttypes.h>

#include "api/dump-json.h"

void json_quote(FILE *out, const char *text) {
        fputc('"', out);
        for (const char *at = text; *at; at++) {
                if (*at == '\n')
                        fputs("\\n", out);
                else if (*at == '"' || *at == '\\')
                        fprintf(out, "\\%c", *at);
                else if ((unsigned char) *at < 0x20)
                        fprintf(out, "\\u%04x", (unsigned char) *at);
                else
                        fputc(*at, out);
        }
        fputc('"', out);
}

static void new_line(Json *j) {
        fputc('\n', j->out);
        for (unsigned i = 0; i < j->depth; i++)
                fputs("  ", j->out);
}

static void begin_member(Json *j, const char *key) {
        if (j->depth == 0)
                return;
        if (j->has_members)
                fputc(',', j->out);
        new_line(j);
        j->has_members = true;
        if (key) {
                json_quote(j->out, key);
                fputs(": ", j->out);
        }
}

void json_open(Json *j, const char *key, char bracket) {
        begin_member(j, key);
        fputc(bracket, j->out);
        j->depth++;
        j->has_members = false;
}

void json_close(Json *j, char bracket) {
        j->depth--;
        if (j->has_members)
                new_line(j);
        fputc(bracket, j->out);
        j->has_members = true;
        if (j->depth == 0)
                fputc('\n', j->out);
}

void json_string(Json *j, const char *key, const char *text) {
        begin_member(j, key);
        json_quote(j->out, text);
}

void json_bool(Json *j, const char *key, bool value) {
        json_raw(j, key, value ? "true" : "false");
}

void json_unsigned(Json *j, const char *key, uint64_t value) {
        begin_member(j, key);
        fprintf(j->out, "%" PRIu64, value);
}

void json_raw(Json *j, const char *key, const char *text) {
        begin_member(j, key);
        fputs(text, j->out);
}

void json_members(Json *j, const char *text) {
        begin_member(j, NULL);
        fputs(text, j->out);
}

void json_ref(Json *j, const char *key, const char *kind, const char *name) {
        begin_member(j, key);
        fprintf(j->out, "{\"$ref\": \"#/components/%s/%s\"}", kind, name);
}
