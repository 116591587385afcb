/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Pages of a list: one message with a bounded number of objects, and where the next one goes on.
 *
 * Nothing is kept between two pages. The cursor says what a stream knows between two messages: the last object that was
 * sent, by name and number. It is the client's to bring, so it is looked at like any parameter and gives no right: each
 * list asks of each VM and backing whether the caller may see it. */

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/slot.h"
#include "front/call.h"

#define PAGE_MAX 1024U

/* Kind, VM, backing, flags, address space, slot id, address. No name has a '~', and no URL needs an escape for it. */
#define CURSOR_FORMAT   "%c~%s~%s~%u~%" PRIu32 "~%" PRIu32 "~%" PRIu64
#define CURSOR_TEXT_MAX (2 * NAME_LENGTH_MAX + 64)

#define IN_VM       UINT64_C(1)
#define IN_OUTGOING UINT64_C(2)

static void write_cursor(const Stream *stream, char text[static CURSOR_TEXT_MAX]) {
        uint64_t flags = (stream->in_vm ? IN_VM : 0) | (stream->in_outgoing ? IN_OUTGOING : 0);

        snprintf(text, CURSOR_TEXT_MAX, CURSOR_FORMAT, (char) stream->kind, stream->vm, stream->backing,
                 (unsigned) flags, stream->as_id, stream->id, stream->from);
}

/* The part of the text up to the next '~', or the last one; false if it is too long. */
static bool read_part(const char **text, char buffer[static CURSOR_TEXT_MAX]) {
        size_t n = strcspn(*text, "~");

        if (n >= CURSOR_TEXT_MAX)
                return false;
        memcpy(buffer, *text, n);
        buffer[n] = 0;
        *text += (*text)[n] == '~' ? n + 1 : n;
        return true;
}

static bool read_kind(const char **text, ListKind kind) {
        char part[CURSOR_TEXT_MAX];

        return read_part(text, part) && part[0] == (char) kind;
}

static bool read_name(const char **text, Cursor name) {
        char part[CURSOR_TEXT_MAX];

        if (!read_part(text, part) || (part[0] && !name_is_valid(part)))
                return false;
        strcpy(name, part);
        return true;
}

static bool read_number(const char **text, uint64_t max, uint64_t *ret) {
        char part[CURSOR_TEXT_MAX];

        if (!read_part(text, part))
                return false;
        *ret = strtoull(part, NULL, 10);
        return *ret <= max;
}

/* Only what this list, with its filters, could have come to. */
static bool could_be(const Stream *stream) {
        if (!stream->vm[0] || (stream->only_vm[0] && strcmp(stream->only_vm, stream->vm) != 0))
                return false;
        if ((stream->backing[0] != 0) != (stream->kind == LIST_BACKINGS))
                return false;
        if (stream->kind == LIST_CLAIMS)
                return true;
        if (stream->kind != LIST_SLOTS_IN_RANGE && stream->kind != LIST_MEMORY)
                return stream->from == 0;
        return stream->from >= stream->start && stream->from <= stream->end;
}

static bool read_cursor(Stream *stream, const char *text) {
        const char *rest = text;
        char again[CURSOR_TEXT_MAX];
        uint64_t flags, as_id, id;

        if (!read_kind(&rest, stream->kind) || !read_name(&rest, stream->vm) || !read_name(&rest, stream->backing) ||
            !read_number(&rest, IN_VM | IN_OUTGOING, &flags) || !read_number(&rest, ADDRESS_SPACES_MAX - 1, &as_id) ||
            !read_number(&rest, UINT32_MAX, &id) || !read_number(&rest, UINT64_MAX, &stream->from))
                return false;
        stream->in_vm = flags & IN_VM;
        stream->in_outgoing = flags & IN_OUTGOING;
        stream->as_id = (uint32_t) as_id;
        stream->id = (uint32_t) id;
        /* As it would be written, and in no other way. */
        write_cursor(stream, again);
        return strcmp(text, again) == 0 && could_be(stream);
}

int page_begin(const Call *call, const PageParameters *p, Stream *stream, Failure *f) {
        if (call_has(call, "limit")) {
                if (p->limit < 1 || p->limit > PAGE_MAX)
                        return fail_invalid_value(f, "limit", p->limit, 1, PAGE_MAX, 0);
                stream->page = p->limit;
        }
        return !p->cursor || read_cursor(stream, p->cursor) ? 0 : -EINVAL;
}

int page_finish(const Stream *stream, const char *field, sd_json_variant *array, bool is_last, sd_json_variant **ret,
                bool *ret_last) {
        bool has_next = stream->page > 0 && !is_last;
        char cursor[CURSOR_TEXT_MAX];

        write_cursor(stream, cursor);
        *ret_last = is_last || has_next;
        return sd_json_buildo(ret, SD_JSON_BUILD_PAIR_CONDITION(array != NULL, field, SD_JSON_BUILD_VARIANT(array)),
                              SD_JSON_BUILD_PAIR_CONDITION(array == NULL, field, SD_JSON_BUILD_EMPTY_ARRAY),
                              SD_JSON_BUILD_PAIR_CONDITION(has_next, "nextCursor", SD_JSON_BUILD_STRING(cursor)));
}
