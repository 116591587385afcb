/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What happened, kept for those who subscribe late: a ring of the newest EVENTS_KEPT events with sequence numbers
 * that have no hole. They begin behind the time of start in microseconds, so a number from before a restart is lower
 * than all later ones, and whoever resumes with it learns that it has missed something. An event is copied when it is recorded and becomes JSON only when somebody
 * reads it, since most are never read. */

#include <systemd/sd-json.h>

#include "core/claim.h"
#include "core/slot.h"
#include "core/vm.h"

#define EVENTS_KEPT         4096U
/* A kept verdict lists at most this many conflicts. */
#define EVENT_CONFLICTS_MAX 8U

/* The order is that of the enum EventKind on the wire. */
typedef enum EventKind {
        EVENT_SUBSCRIBED,
        EVENT_GAP,
        EVENT_VM_REGISTERED,
        EVENT_VM_ATTACHED,
        EVENT_SUCCESSOR_NAMED,
        EVENT_VMM_EXITED,
        EVENT_VM_EXPIRED,
        EVENT_VM_UNREGISTERED,
        EVENT_BACKING_ALLOCATED,
        EVENT_BACKING_ADOPTED,
        EVENT_BACKING_PUNCHED,
        EVENT_BACKING_RELEASED,
        EVENT_BACKING_LOST,
        EVENT_BACKING_GRANTED,
        EVENT_BACKING_SHARED,
        EVENT_BACKING_RECLAIMED,
        EVENT_SLOT_SET,
        EVENT_SLOT_DELETED,
        EVENT_ALIAS_REPORTED,
        EVENT_SLOT_REFUSED,
        EVENT_CLAIM_CREATED,
        EVENT_CLAIM_REDEEMED,
        EVENT_CLAIM_EXPIRED,
        EVENT_CLAIM_DELETED,
        _EVENT_KIND_MAX,
} EventKind;

/* Why a VM, a backing or a claim has ended. The order is that of the enum EndReason on the wire. */
typedef enum EndReason {
        END_NONE, /* it has not */
        END_REQUESTED,
        END_VMM_EXITED,
        END_EXPIRED,
        END_CANNOT_BE_BOUND,
        _END_REASON_MAX,
} EndReason;

/* Borrowed; what does not apply is 0 or NULL. */
typedef struct Event {
        EventKind kind;
        const VM *vm; /* never NULL */
        const Backing *backing;
        const SlotSpec *slot;
        const Verdict *verdict; /* kept only if it refuses or allows something */
        const char *access;     /* static */
        const VM *peer_vm;      /* its owner may see the event too */
        const uid_t *peer;
        const Claim *claim;
        pid_t pid;
        const uint64_t *freed; /* bytes */
        EndReason reason;
} Event;

typedef struct EventLog EventLog;

int event_log_new(EventLog **ret);
EventLog *event_log_free(EventLog *log);

/* -ENOMEM leaves a hole that readers see as an event of kind gap; there is nothing else to be done about it. */
void event_log_record(EventLog *log, const Event *event);
/* The sequence number of the newest event, or that before the first one. */
uint64_t event_log_newest(const EventLog *log);
/* How many of that kind there were. */
uint64_t event_log_count(const EventLog *log, EventKind kind);
const char *event_kind_word(EventKind kind);
/* What somebody wants to hear of. Gaps are for everybody. */
typedef struct EventFilter {
        uint32_t kinds; /* a bit each; 0: all */
        sd_json_variant
                *vms; /* an array of the names of VMs that an event is of, or in which they are the peer; NULL: all */
} EventFilter;
_Static_assert(_EVENT_KIND_MAX <= 32, "EventFilter.kinds has a bit for each");

/* -1 if the word is none of them. */
int event_kind_of(const char *word);

/* The next event after *sequence (0: from the first one on) that uid may see (root sees all) and the filter takes, as an
 * object of type Event, and sets *sequence to its number. Returns 1; 0 if there is none, with *sequence at the newest; negative errno. Events that have left the
 * ring are answered by one of kind gap. */
int event_log_next(const EventLog *log, uid_t uid, const EventFilter *filter, uint64_t *sequence,
                   sd_json_variant **ret);
/* An event without an object, of kind subscribed. */
int event_log_hello(const EventLog *log, sd_json_variant **ret);
