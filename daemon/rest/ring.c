/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "rest/ring.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rest/scan.h"

struct Ring {
        RingSettings settings;
        RingEntry **entries; /* number n is at n % settings.entries */
        uint64_t first, end; /* numbers of the entries that there are */
        size_t bytes;
        bool has_begun;
        uint64_t newest; /* of privmemd; the entries may not be there yet */
        uint64_t origin; /* what was up to it was never here, and 0 stands for it */
        uint64_t base;   /* what was up to it is not here any more */
        uint64_t last;   /* that of the last entry */
        unsigned n_kinds;
        Span kinds[RING_KINDS_MAX];
};

static void split_kinds(Ring *ring, const char *words) {
        while (*words && ring->n_kinds < RING_KINDS_MAX) {
                size_t n = strcspn(words, " ");

                ring->kinds[ring->n_kinds++] = (Span) { .text = words, .size = n };
                words += n + strspn(words + n, " ");
        }
}

int ring_new(const RingSettings *settings, Ring **ret) {
        Ring *ring;

        ring = calloc(1, sizeof(*ring));
        if (!ring)
                return -ENOMEM;
        ring->settings = *settings;
        ring->entries = calloc(settings->entries, sizeof(*ring->entries));
        if (!ring->entries) {
                free(ring);
                return -ENOMEM;
        }
        split_kinds(ring, settings->kinds);
        *ret = ring;
        return 0;
}

RingEntry *ring_entry_unref(RingEntry *entry) {
        if (entry && --entry->references == 0)
                free(entry);
        return NULL;
}

static RingEntry **place_of(const Ring *ring, uint64_t number) {
        return &ring->entries[number % ring->settings.entries];
}

static void drop_first(Ring *ring) {
        RingEntry **place = place_of(ring, ring->first++);

        ring->bytes -= (*place)->size;
        ring->base = (*place)->sequence;
        *place = ring_entry_unref(*place);
}

Ring *ring_free(Ring *ring) {
        if (!ring)
                return NULL;
        while (ring->first < ring->end)
                drop_first(ring);
        free(ring->entries);
        free(ring);
        return NULL;
}

void ring_begin(Ring *ring, uint64_t newest) {
        ring->has_begun = true;
        ring->newest = newest;
}

bool ring_has_begun(const Ring *ring) {
        return ring->has_begun;
}

uint64_t ring_newest(const Ring *ring) {
        return ring->newest;
}

uint64_t ring_last(const Ring *ring) {
        return ring->last;
}

size_t ring_bytes(const Ring *ring) {
        return ring->bytes;
}

/* ---- entries ---- */

RingEntry *ring_entry_new(uint64_t id, Span kind, Span json) {
        char head[128];
        RingEntry *entry;
        int n;

        n = snprintf(head, sizeof(head), "id: %llu\nevent: %.*s\ndata: ", (unsigned long long) id,
                     (int) (kind.size < 64 ? kind.size : 64), kind.text);
        entry = malloc(sizeof(*entry) + (size_t) n + json.size + 2);
        if (!entry)
                return NULL;
        *entry = (RingEntry) {
                .references = 1,
                .sequence = id,
                .kind = RING_KINDS_MAX,
                .json = (size_t) n,
                .size = (size_t) n + json.size + 2,
        };
        memcpy(entry->text, head, (size_t) n);
        memcpy(entry->text + n, json.text, json.size);
        memcpy(entry->text + n + json.size, "\n\n", 2);
        return entry;
}

static unsigned find_kind(const Ring *ring, Span word) {
        unsigned kind = 0;

        while (kind < ring->n_kinds && !span_equal(ring->kinds[kind], word))
                kind++;
        return kind < ring->n_kinds ? kind : RING_KINDS_MAX;
}

/* Of the object in the entry, so that the span stays with it. */
static Span name_in(Span event, const char *key) {
        Span value, name;

        return scan_find(event, key, &value) && scan_plain_string(value, &name) ? name : (Span) {};
}

static int parse(const Ring *ring, Span event, RingEntry **ret) {
        Span value, kind, inside;
        uint64_t sequence;
        RingEntry *entry;

        if (!scan_find(event, "sequence", &value) || !scan_uint64(value, &sequence) ||
            !scan_find(event, "kind", &value) || !scan_plain_string(value, &kind) || kind.size > 64 ||
            memchr(event.text, '\n', event.size) || memchr(event.text, '\r', event.size))
                return -EBADMSG;
        entry = ring_entry_new(sequence, kind, event);
        if (!entry)
                return -ENOMEM;
        inside = (Span) { .text = entry->text + entry->json, .size = event.size };
        entry->kind = find_kind(ring, kind);
        entry->vm = name_in(inside, "vm");
        entry->peer = name_in(inside, "peer");
        *ret = entry;
        return 0;
}

static bool is_gap(const Ring *ring, const RingEntry *entry) {
        return entry->kind < ring->n_kinds && span_is(ring->kinds[entry->kind], "gap");
}

/* The first of a life of privmemd: all that it has comes, or begins with a gap. */
static void begin_with(Ring *ring, const RingEntry *entry) {
        while (ring->first < ring->end)
                drop_first(ring);
        ring->origin = ring->base = is_gap(ring, entry) ? 0 : entry->sequence - 1;
}

int ring_add(Ring *ring, Span event) {
        RingEntry *entry = NULL;
        int r;

        r = parse(ring, event, &entry);
        if (r < 0)
                return r;
        /* The latter where the clock was set back between two lives. */
        if (ring->end == 0 || entry->sequence <= ring->last)
                begin_with(ring, entry);
        while (ring->first < ring->end &&
               (ring->end - ring->first == ring->settings.entries || ring->bytes + entry->size > ring->settings.bytes))
                drop_first(ring);
        ring->bytes += entry->size;
        ring->last = entry->sequence;
        if (ring->newest < entry->sequence)
                ring->newest = entry->sequence;
        *place_of(ring, ring->end++) = entry;
        return 0;
}

/* ---- readers ---- */

bool ring_filter_add_kind(const Ring *ring, RingFilter *filter, Span word) {
        unsigned kind = find_kind(ring, word);

        if (kind == RING_KINDS_MAX)
                return false;
        filter->kinds |= UINT64_C(1) << kind;
        return true;
}

static bool is_one_of(Span name, const RingFilter *filter) {
        for (size_t i = 0; i < filter->n_vms; i++)
                if (span_equal(name, filter->vms[i]))
                        return true;
        return false;
}

bool ring_filter_takes(const RingFilter *filter, const RingEntry *entry) {
        if (filter->kinds != 0 && !(filter->kinds & UINT64_C(1) << entry->kind))
                return false;
        return filter->n_vms == 0 || is_one_of(entry->vm, filter) || is_one_of(entry->peer, filter);
}

RingCursor ring_end(const Ring *ring) {
        return (RingCursor) { .next = ring->end, .sequence = ring->newest };
}

RingCursor ring_seek(const Ring *ring, uint64_t since) {
        RingCursor cursor = { .next = ring->first, .sequence = since };

        while (cursor.next < ring->end && (*place_of(ring, cursor.next))->sequence <= since)
                cursor.next++;
        return cursor;
}

static bool has_lost(const Ring *ring, const RingCursor *cursor) {
        uint64_t known = cursor->sequence > 0 ? cursor->sequence : ring->origin;

        return known > ring->newest || (ring->end > 0 && known < ring->base);
}

static int tell_loss(const Ring *ring, RingCursor *cursor, uint64_t *ret_first_lost) {
        uint64_t known = cursor->sequence > 0 ? cursor->sequence : ring->origin;

        *ret_first_lost = known > 0 && known < ring->newest ? known + 1 : 0;
        if (cursor->next < ring->first)
                cursor->next = ring->first;
        if (cursor->next > ring->first)
                cursor->sequence = (*place_of(ring, cursor->next - 1))->sequence;
        else
                cursor->sequence = ring->end > 0 ? ring->base : ring->newest;
        return RING_GAP;
}

int ring_next(const Ring *ring, const RingFilter *filter, RingCursor *cursor, RingEntry **ret,
              uint64_t *ret_first_lost) {
        if (has_lost(ring, cursor))
                return tell_loss(ring, cursor, ret_first_lost);
        while (cursor->next < ring->end) {
                RingEntry *entry = *place_of(ring, cursor->next++);

                /* Who came before privmemd had sent all that it has may know it. */
                if (entry->sequence <= cursor->sequence)
                        continue;
                cursor->sequence = entry->sequence;
                if (!ring_filter_takes(filter, entry) && !is_gap(ring, entry))
                        continue;
                entry->references++;
                *ret = entry;
                return RING_ENTRY;
        }
        return RING_NOTHING;
}
