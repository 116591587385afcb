/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* SetMemoryAttributes, ListMemory.
 *
 * ListMemory says of each piece of guest memory how much of it is resident on its shared side, on its private side, and
 * on both at once. The kernel counts the resident pages of a range of a file, and nothing else (cachestat(2)). So a
 * range is halved until one side of it has none, or all: then what both have is the lesser of the two counts. Counting
 * walks the page cache; what one message may cost is bounded, and a piece that costs more is cut where the bound was
 * reached. The rest of it comes in the next message, after others have had their turn. */

#include <string.h>

#include "core/attributes.h"
#include "core/cleanup.h"
#include "core/range.h"
#include "front/call.h"
#include "front/format.h"

#define _cleanup_json_ _cleanup_(sd_json_variant_unrefp)

/* Pieces in one message. */
#define CHUNK 128

/* What one message may cost: resident bytes that were counted, and COUNT_COST for each count. About 2 ms. */
#define COST_MAX   (UINT64_C(512) << 20)
#define COUNT_COST (UINT64_C(256) << 10)
/* The ranges that are counted at once: they begin with the least, and grow twofold while no one has to be halved. So
 * neither does a page among many cost a walk over all of them, nor an empty terabyte a count for each megabyte. */
#define COUNT_MIN  (UINT64_C(1) << 20)
#define COUNT_MAX  (UINT64_C(256) << 20)

/* ---- SetMemoryAttributes ---- */

typedef struct AttributesParameters {
        const char *vm;
        uint64_t gpa, size;
        int private;
} AttributesParameters;

/* The private parts of a range, for whoever has to undo the call. */
static int format_private(const VM *vm, uint64_t gpa, uint64_t size, sd_json_variant **ret) {
        uint64_t start, length, end = gpa + size;
        int r;

        r = sd_json_build(ret, SD_JSON_BUILD_EMPTY_ARRAY);
        while (r >= 0 && gpa < end && attributes_next_private(&vm->private_ranges, gpa, end - gpa, &start, &length)) {
                r = sd_json_variant_append_arraybo(ret, SD_JSON_BUILD_PAIR_UNSIGNED("guestPhysAddr", start),
                                                   SD_JSON_BUILD_PAIR_UNSIGNED("memorySize", length));
                gpa = start + length;
        }
        return r;
}

static int set_attributes(Call *call, const AttributesParameters *p, sd_json_variant **ret_before, Failure *f) {
        int r;

        if (p->private > 0 && call->vm->type != VM_TYPE_UNDECLARED && !vm_type_has_private_memory(call->vm->type))
                return fail_not_supported(
                        f, "a VM of this type has no private memory; those of type sw_protected, snp and tdx have");
        if (range_valid(p->gpa, p->size)) {
                r = format_private(call->vm, p->gpa, p->size, ret_before);
                if (r < 0)
                        return r;
        }
        r = service_set_attributes(call->service, call->vm, p->gpa, p->size, p->private > 0, f);
        /* Of which there is no event. */
        if (r == 0)
                vm_changed(vm_whole(call->vm));
        return r;
}

int op_set_memory_attributes(Call *call) {
        static const sd_json_dispatch_field table[] = {
                { "vm", SD_JSON_VARIANT_STRING, sd_json_dispatch_const_string, offsetof(AttributesParameters, vm),
                  SD_JSON_MANDATORY },
                { "guestPhysAddr", _SD_JSON_VARIANT_TYPE_INVALID, sd_json_dispatch_uint64,
                  offsetof(AttributesParameters, gpa), SD_JSON_MANDATORY },
                { "memorySize", _SD_JSON_VARIANT_TYPE_INVALID, sd_json_dispatch_uint64,
                  offsetof(AttributesParameters, size), SD_JSON_MANDATORY },
                { "private", SD_JSON_VARIANT_BOOLEAN, sd_json_dispatch_tristate,
                  offsetof(AttributesParameters, private), SD_JSON_MANDATORY },
                {},
        };
        _cleanup_json_ sd_json_variant *before = NULL;
        AttributesParameters p = {};
        Failure f = {};
        int r;

        r = sd_varlink_dispatch(call->link, call->parameters, table, &p);
        if (r != 0)
                return r;
        call->vm = call_declaring_vm(call);
        r = set_attributes(call, &p, &before, &f);
        if (r != 0)
                return failure_reply(call->link, r, &f);
        return sd_varlink_replybo(call->link, SD_JSON_BUILD_PAIR_VARIANT("wasPrivate", before));
}

/* ---- what is resident ---- */

/* A piece on its way to be counted, and what one message has cost. */
typedef struct Census {
        Service *service;
        const Backing *shared, *private; /* NULL: not counted */
        uint64_t shared_offset, private_offset;
        uint64_t page_size;
        uint64_t in_shared, in_private, in_both; /* bytes */
        uint64_t cost;
        uint64_t window; /* COUNT_MIN to COUNT_MAX */
        bool halved;     /* the last one had to be */
        bool progressed; /* something has been finished at this cost */
} Census;

static int count(Census *c, const Backing *backing, uint64_t offset, uint64_t size, uint64_t *ret) {
        int r;

        *ret = 0;
        if (!backing)
                return 0;
        c->cost += COUNT_COST;
        r = service_resident_range(c->service, backing, offset, size, ret);
        if (r < 0)
                return r;
        /* The guest may touch pages while we count. */
        if (*ret > size)
                *ret = size;
        c->cost += *ret;
        return 0;
}

/* Counts the bytes [at, at + size) of the piece, from left to right. *ret_done: how many of them before it became too
 * much. */
static int count_range(Census *c, uint64_t at, uint64_t size, uint64_t *ret_done) {
        uint64_t in_shared, in_private, half, done;
        int r;

        *ret_done = 0;
        if (c->cost > COST_MAX && c->progressed)
                return 0;
        r = count(c, c->shared, c->shared_offset + at, size, &in_shared);
        if (r >= 0)
                r = count(c, c->private, c->private_offset + at, size, &in_private);
        if (r < 0)
                return r;
        if (in_shared == 0 || in_private == 0 || in_shared == size || in_private == size || size <= c->page_size) {
                c->in_shared += in_shared;
                c->in_private += in_private;
                c->in_both += in_shared < in_private ? in_shared : in_private;
                c->progressed = true;
                *ret_done = size;
                return 0;
        }

        c->halved = true;
        half = (size / 2) & ~(c->page_size - 1);
        r = count_range(c, at, half, ret_done);
        if (r < 0 || *ret_done < half)
                return r;
        r = count_range(c, at + half, size - half, &done);
        *ret_done += done;
        return r;
}

/* Which sides of the piece's slot the kernel can count. Without a guest_memfd there are no two sides, and huge pages it
 * does not count by range. A slot whose two sides are the same bytes of a file has them once. */
static void census_begin(Census *c, const GuestPiece *piece) {
        SlotSpec spec = piece->slot ? slot_spec(piece->slot) : (SlotSpec) {};
        uint64_t from = piece->gpa - spec.gpa;

        c->shared = c->private = NULL;
        c->in_shared = c->in_private = c->in_both = 0;
        if (!spec.guest_memfd || !service_can_count_ranges(c->service))
                return;
        c->private = spec.guest_memfd;
        c->private_offset = spec.guest_memfd_offset + from;
        if (!spec.backing || spec.backing->kind == BACKING_HUGETLB ||
            (spec.backing == spec.guest_memfd && spec.offset == spec.guest_memfd_offset))
                return;
        c->shared = spec.backing;
        c->shared_offset = spec.offset + from;
}

/* Counts the piece, and cuts it where it became too much. */
static int census(Census *c, GuestPiece *piece) {
        uint64_t done = 0, part, part_done;
        int r;

        census_begin(c, piece);
        while (c->private && done < piece->size) {
                part = piece->size - done < c->window ? piece->size - done : c->window;
                c->halved = false;
                r = count_range(c, done, part, &part_done);
                if (r < 0)
                        return r;
                done += part_done;
                c->window = c->halved ? COUNT_MIN : c->window < COUNT_MAX ? 2 * c->window : COUNT_MAX;
                if (part_done < part) {
                        piece->size = done;
                        return 0;
                }
        }
        c->progressed = true;
        return 0;
}

/* ---- ListMemory ---- */

/* The first piece from the stream's cursor on. */
static bool next_piece(const Stream *stream, VM *vm, GuestPiece *ret) {
        uint64_t from = stream->from;

        for (uint32_t as_id = stream->as_id; as_id < ADDRESS_SPACES_MAX; as_id++, from = stream->start)
                if (from < stream->end && guest_piece_next(vm, as_id, from, stream->end, ret))
                        return true;
        return false;
}

static int append_piece(sd_json_variant **array, const GuestPiece *piece, const Census *c) {
        const Slot *slot = piece->slot;

        return sd_json_variant_append_arraybo(
                array, SD_JSON_BUILD_PAIR_UNSIGNED("addressSpace", piece->as_id),
                SD_JSON_BUILD_PAIR_UNSIGNED("guestPhysAddr", piece->gpa),
                SD_JSON_BUILD_PAIR_UNSIGNED("memorySize", piece->size),
                SD_JSON_BUILD_PAIR_BOOLEAN("private", piece->private),
                SD_JSON_BUILD_PAIR_CONDITION(slot != NULL, "slotId", SD_JSON_BUILD_UNSIGNED(slot ? slot->spec.id : 0)),
                SD_JSON_BUILD_PAIR_CONDITION(c->shared != NULL, "residentShared",
                                             SD_JSON_BUILD_UNSIGNED(c->in_shared)),
                SD_JSON_BUILD_PAIR_CONDITION(c->private != NULL, "residentPrivate",
                                             SD_JSON_BUILD_UNSIGNED(c->in_private)),
                SD_JSON_BUILD_PAIR_CONDITION(c->shared != NULL, "residentBoth", SD_JSON_BUILD_UNSIGNED(c->in_both)));
}

static int fill_memory(Stream *stream, sd_json_variant **ret, bool *ret_last) {
        Census c = {
                .service = stream->front->service,
                .page_size = stream->front->registry->page_size,
                .window = COUNT_MIN,
        };
        VM *vm = registry_find_vm(stream->front->registry, stream->only_vm);
        _cleanup_json_ sd_json_variant *array = NULL;
        GuestPiece piece;
        bool more;
        int r;

        if (vm && !stream_may_see(stream, vm))
                vm = NULL;
        r = sd_json_build(&array, SD_JSON_BUILD_EMPTY_ARRAY);
        if (r < 0)
                return r;
        more = vm && next_piece(stream, vm, &piece);
        for (size_t n = 0; more && n < page_size(stream, CHUNK) && (c.cost <= COST_MAX || n == 0); n++) {
                r = census(&c, &piece);
                if (r < 0)
                        return r;
                /* Not a byte of it: it comes next time. */
                if (piece.size == 0)
                        break;
                r = append_piece(&array, &piece, &c);
                if (r < 0)
                        return r;
                stream->as_id = piece.as_id;
                stream->from = piece.gpa + piece.size;
                more = next_piece(stream, vm, &piece);
        }
        return page_finish(stream, "memory", array, !more, ret, ret_last);
}

/* Slots, attributes and what can be counted are made of pages. The last page of all has none of them. */
static void widen_to_pages(Stream *stream, uint64_t page_size) {
        uint64_t end;

        stream->start &= ~(page_size - 1);
        if (!__builtin_add_overflow(stream->end, page_size - 1, &end))
                stream->end = end & ~(page_size - 1);
}

int op_list_memory(Call *call) {
        struct {
                const char *vm;
                uint64_t gpa, size;
                PageParameters page;
        } p = {};
        static const sd_json_dispatch_field table[] = {
                { "vm", SD_JSON_VARIANT_STRING, sd_json_dispatch_const_string, offsetof(typeof(p), vm),
                  SD_JSON_MANDATORY },
                { "guestPhysAddr", _SD_JSON_VARIANT_TYPE_INVALID, sd_json_dispatch_uint64, offsetof(typeof(p), gpa),
                  SD_JSON_NULLABLE },
                { "memorySize", _SD_JSON_VARIANT_TYPE_INVALID, sd_json_dispatch_uint64, offsetof(typeof(p), size),
                  SD_JSON_NULLABLE },
                PAGE_FIELDS(typeof(p), page),
                {},
        };
        Stream stream = { .fill = fill_memory, .kind = LIST_MEMORY, .is_costly = true };
        Failure f = {};
        int r;

        r = sd_varlink_dispatch(call->link, call->parameters, table, &p);
        if (r != 0)
                return r;
        r = call_parse_range(call, p.gpa, p.size, &stream, &f);
        if (r == 0) {
                widen_to_pages(&stream, call->registry->page_size);
                strcpy(stream.only_vm, call->vm->name);
                strcpy(stream.vm, call->vm->name);
                stream.from = stream.start;
                r = page_begin(call, &p.page, &stream, &f);
        }
        if (r == -EINVAL)
                return sd_varlink_error_invalid_parameter_name(call->link, "cursor");
        if (r != 0)
                return failure_reply(call->link, r, &f);
        return stream_start(call, &stream);
}
