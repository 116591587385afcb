/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The newest events, once for all who read them. A reader is a cursor and holds nothing of it but the entry that it is
 * sending, so that a slow one costs neither the others nor the ring anything: it falls off, and is told what it missed.
 *
 * Sequence numbers rise from entry to entry. Those of entries need not be neighbours, since privmemd tells of a gap by an
 * entry of its own; where they fall, after a restart with the clock set back, what was before is dropped. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rest/text.h"

#define RING_KINDS_MAX 63U

typedef struct Ring Ring;

/* One event in both forms: the whole text is a message of text/event-stream, and from json on, less the last line feed,
 * it is one of application/x-ndjson. */
typedef struct RingEntry {
        unsigned references;
        uint64_t sequence;
        unsigned kind; /* RING_KINDS_MAX: none that we know */
        Span vm, peer; /* in the text; empty if there is none */
        size_t json, size;
        char text[];
} RingEntry;

typedef struct RingSettings {
        size_t entries, bytes;
        const char *kinds; /* all words that "kind" may have, with spaces between */
} RingSettings;

#define RING_SETTINGS_DEFAULT ((RingSettings) { .entries = 4096, .bytes = (size_t) 8 * 1024 * 1024 })

int ring_new(const RingSettings *settings, Ring **ret);
Ring *ring_free(Ring *ring);

/* What privmemd says is its newest event, before it sends any, and again whenever it begins anew. */
void ring_begin(Ring *ring, uint64_t newest);
bool ring_has_begun(const Ring *ring);
/* An object of type Event. -EBADMSG: it is none; -ENOMEM: it is lost, and all readers will see a gap. */
int ring_add(Ring *ring, Span event);
/* Number of the newest event. */
uint64_t ring_newest(const Ring *ring);
/* That of the last one that has come; 0: none has. */
uint64_t ring_last(const Ring *ring);
size_t ring_bytes(const Ring *ring);

typedef struct RingFilter {
        uint64_t kinds; /* a bit each; 0: all */
        Span *vms;      /* an event is of a VM or its peer; n_vms 0: all */
        size_t n_vms;
} RingFilter;

/* False: there is no such kind. */
bool ring_filter_add_kind(const Ring *ring, RingFilter *filter, Span word);
bool ring_filter_takes(const RingFilter *filter, const RingEntry *entry);

typedef struct RingCursor {
        uint64_t next;     /* how many entries there were before the one to look at */
        uint64_t sequence; /* the reader knows what happened up to that event; 0: since privmemd started */
} RingCursor;

/* Behind all there is; or behind the event of that number, 0: before all since privmemd started. */
RingCursor ring_end(const Ring *ring);
RingCursor ring_seek(const Ring *ring, uint64_t since);

enum {
        RING_NOTHING,
        RING_ENTRY, /* *ret is referenced */
        RING_GAP,   /* *ret_first_lost to cursor->sequence are not there any more; 0: nobody knows from where on */
};

/* Gaps are for every reader, whatever it filters. */
int ring_next(const Ring *ring, const RingFilter *filter, RingCursor *cursor, RingEntry **ret,
              uint64_t *ret_first_lost);

/* A message that is not of the ring. kind is a word. NULL: no memory. */
RingEntry *ring_entry_new(uint64_t id, Span kind, Span json);
RingEntry *ring_entry_unref(RingEntry *entry);
