/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <string.h>
#include <time.h>

#include "core/cleanup.h"
#include "front/event.h"
#include "front/format.h"
#include "front/tally.h"
#include "front/words.h"

static const char *const kinds[] = {
        [EVENT_SUBSCRIBED] = "subscribed",
        [EVENT_GAP] = "gap",
        [EVENT_VM_REGISTERED] = "vm_registered",
        [EVENT_VM_ATTACHED] = "vm_attached",
        [EVENT_SUCCESSOR_NAMED] = "successor_named",
        [EVENT_VMM_EXITED] = "vmm_exited",
        [EVENT_VM_EXPIRED] = "vm_expired",
        [EVENT_VM_UNREGISTERED] = "vm_unregistered",
        [EVENT_BACKING_ALLOCATED] = "backing_allocated",
        [EVENT_BACKING_ADOPTED] = "backing_adopted",
        [EVENT_BACKING_PUNCHED] = "backing_punched",
        [EVENT_BACKING_RELEASED] = "backing_released",
        [EVENT_BACKING_LOST] = "backing_lost",
        [EVENT_BACKING_GRANTED] = "backing_granted",
        [EVENT_BACKING_SHARED] = "backing_shared",
        [EVENT_BACKING_RECLAIMED] = "backing_reclaimed",
        [EVENT_SLOT_SET] = "slot_set",
        [EVENT_SLOT_DELETED] = "slot_deleted",
        [EVENT_ALIAS_REPORTED] = "alias_reported",
        [EVENT_SLOT_REFUSED] = "slot_refused",
        [EVENT_CLAIM_CREATED] = "claim_created",
        [EVENT_CLAIM_REDEEMED] = "claim_redeemed",
        [EVENT_CLAIM_EXPIRED] = "claim_expired",
        [EVENT_CLAIM_DELETED] = "claim_deleted",
};
_Static_assert(ELEMENTSOF(kinds) == _EVENT_KIND_MAX, "an EventKind has no word");

static const char *const reasons[] = {
        [END_NONE] = NULL,
        [END_REQUESTED] = "requested",
        [END_VMM_EXITED] = "vmm_exited",
        [END_EXPIRED] = "expired",
        [END_CANNOT_BE_BOUND] = "cannot_be_bound",
};
_Static_assert(ELEMENTSOF(reasons) == _END_REASON_MAX, "an EndReason has no word");

typedef char Name[NAME_LENGTH_MAX + 1];

typedef struct Record {
        uint64_t timestamp; /* CLOCK_REALTIME, µs */
        EventKind kind;
        uid_t owner, peer_owner; /* who may see it; the same uid if there is no peer VM */
        bool has_slot, has_peer, has_freed;
        uid_t peer;
        uint64_t claim; /* its id, or 0 */
        pid_t pid;
        uint64_t freed;
        EndReason reason;
        const char *access;
        uint64_t first_lost, last_lost; /* EVENT_GAP; first_lost 0: nobody knows */
        sd_json_variant *verdict;
        SlotView slot; /* its names point into the three below */
        Name vm, backing, peer_vm;
        Name slot_backing, slot_backing_vm, slot_guest_memfd;
} Record;

struct EventLog {
        uint64_t first; /* the number before that of the first event ever */
        uint64_t newest;
        uint64_t counts[_EVENT_KIND_MAX];
        Record *records; /* that of sequence s is at s % EVENTS_KEPT */
};

int event_log_new(EventLog **ret) {
        _cleanup_free_ EventLog *log = NULL;

        log = calloc(1, sizeof(*log));
        if (!log)
                return -ENOMEM;
        /* Untouched pages of it cost nothing. */
        log->records = calloc(EVENTS_KEPT, sizeof(*log->records));
        if (!log->records)
                return -ENOMEM;
        log->first = log->newest = usec_of(CLOCK_REALTIME);
        *ret = TAKE_PTR(log);
        return 0;
}

/* The number of the newest event that is not kept. */
static uint64_t forgotten(const EventLog *log) {
        return log->newest - log->first > EVENTS_KEPT ? log->newest - EVENTS_KEPT : log->first;
}

EventLog *event_log_free(EventLog *log) {
        if (!log)
                return NULL;
        for (uint64_t sequence = forgotten(log); sequence < log->newest;)
                sd_json_variant_unref(log->records[++sequence % EVENTS_KEPT].verdict);
        free(log->records);
        free(log);
        return NULL;
}

static const char *copy_name(Name name, const char *from) {
        if (!from)
                return NULL;
        memcpy(name, from, strlen(from) + 1);
        return name;
}

static void copy_slot(Record *record, const Event *event) {
        record->has_slot = event->slot != NULL;
        if (!event->slot)
                return;
        record->slot = slot_view(event->vm, event->slot);
        record->slot.backing = copy_name(record->slot_backing, record->slot.backing);
        record->slot.backing_vm = copy_name(record->slot_backing_vm, record->slot.backing_vm);
        record->slot.guest_memfd = copy_name(record->slot_guest_memfd, record->slot.guest_memfd);
}

void event_log_record(EventLog *log, const Event *event) {
        Record *record = &log->records[++log->newest % EVENTS_KEPT];

        record->verdict = sd_json_variant_unref(record->verdict);
        record->timestamp = usec_of(CLOCK_REALTIME);
        record->kind = event->kind;
        record->owner = event->vm->owner;
        record->peer_owner = event->peer_vm ? event->peer_vm->owner : record->owner;
        record->has_peer = event->peer != NULL;
        record->peer = event->peer ? *event->peer : 0;
        record->has_freed = event->freed != NULL;
        record->freed = event->freed ? *event->freed : 0;
        record->claim = event->claim ? event->claim->id : 0;
        record->pid = event->pid;
        record->reason = event->reason;
        record->access = event->access;
        copy_name(record->vm, event->vm->name);
        record->backing[0] = record->peer_vm[0] = 0;
        if (event->backing)
                copy_name(record->backing, event->backing->name);
        if (event->peer_vm)
                copy_name(record->peer_vm, event->peer_vm->name);
        copy_slot(record, event);
        if (event->verdict && event->verdict->outcome != OUTCOME_OK &&
            format_verdict(event->vm, event->slot, event->verdict, EVENT_CONFLICTS_MAX, /* facts= */ NULL,
                           &record->verdict) < 0) {
                record->kind = EVENT_GAP;
                record->first_lost = record->last_lost = log->newest;
        }
        log->counts[record->kind]++;
}

uint64_t event_log_newest(const EventLog *log) {
        return log->newest;
}

uint64_t event_log_count(const EventLog *log, EventKind kind) {
        return log->counts[kind];
}

const char *event_kind_word(EventKind kind) {
        return kinds[kind];
}

static int format_record(const Record *record, uint64_t sequence, sd_json_variant **ret) {
        _cleanup_(sd_json_variant_unrefp) sd_json_variant *slot = NULL;
        ClaimWord claim;
        int r;

        if (record->has_slot) {
                r = format_slot(&record->slot, &slot);
                if (r < 0)
                        return r;
        }
        return sd_json_buildo(
                ret, SD_JSON_BUILD_PAIR_UNSIGNED("sequence", sequence),
                SD_JSON_BUILD_PAIR_UNSIGNED("timestampUSec", record->timestamp),
                SD_JSON_BUILD_PAIR_STRING("kind", kinds[record->kind]),
                SD_JSON_BUILD_PAIR_CONDITION(record->vm[0] != 0, "vm", SD_JSON_BUILD_STRING(record->vm)),
                SD_JSON_BUILD_PAIR_CONDITION(record->backing[0] != 0, "backing",
                                             SD_JSON_BUILD_STRING(record->backing)),
                SD_JSON_BUILD_PAIR_CONDITION(slot != NULL, "slot", SD_JSON_BUILD_VARIANT(slot)),
                SD_JSON_BUILD_PAIR_CONDITION(record->verdict != NULL, "verdict",
                                             SD_JSON_BUILD_VARIANT(record->verdict)),
                SD_JSON_BUILD_PAIR_CONDITION(record->access != NULL, "access", SD_JSON_BUILD_STRING(record->access)),
                SD_JSON_BUILD_PAIR_CONDITION(record->peer_vm[0] != 0, "peer", SD_JSON_BUILD_STRING(record->peer_vm)),
                SD_JSON_BUILD_PAIR_CONDITION(record->claim > 0, "claim",
                                             SD_JSON_BUILD_STRING(claim_word(record->claim, claim))),
                SD_JSON_BUILD_PAIR_CONDITION(record->has_peer, "peerUID", SD_JSON_BUILD_UNSIGNED(record->peer)),
                SD_JSON_BUILD_PAIR_CONDITION(record->pid > 0, "pid", SD_JSON_BUILD_UNSIGNED((uint64_t) record->pid)),
                SD_JSON_BUILD_PAIR_CONDITION(record->has_freed, "freedBytes", SD_JSON_BUILD_UNSIGNED(record->freed)),
                SD_JSON_BUILD_PAIR_CONDITION(record->reason != END_NONE, "reason",
                                             SD_JSON_BUILD_STRING(reasons[record->reason])),
                SD_JSON_BUILD_PAIR_CONDITION(record->kind == EVENT_GAP && record->first_lost > 0, "firstLost",
                                             SD_JSON_BUILD_UNSIGNED(record->first_lost)),
                SD_JSON_BUILD_PAIR_CONDITION(record->kind == EVENT_GAP, "lastLost",
                                             SD_JSON_BUILD_UNSIGNED(record->last_lost)));
}

int event_log_hello(const EventLog *log, sd_json_variant **ret) {
        Record record = { .timestamp = usec_of(CLOCK_REALTIME), .kind = EVENT_SUBSCRIBED };

        return format_record(&record, log->newest, ret);
}

static int format_gap(uint64_t known, uint64_t next, sd_json_variant **ret) {
        Record record = {
                .timestamp = usec_of(CLOCK_REALTIME),
                .kind = EVENT_GAP,
                .first_lost = known < next ? known + 1 : 0,
                .last_lost = next,
        };

        return format_record(&record, next, ret);
}

int event_kind_of(const char *word) {
        for (int kind = 0; kind < _EVENT_KIND_MAX; kind++)
                if (strcmp(kinds[kind], word) == 0)
                        return kind;
        return -1;
}

static bool is_wanted(const Record *record, const EventFilter *filter) {
        if (record->kind == EVENT_GAP)
                return true;
        if (filter->kinds != 0 && !(filter->kinds & UINT32_C(1) << record->kind))
                return false;
        for (size_t i = 0; i < sd_json_variant_elements(filter->vms); i++) {
                const char *name = sd_json_variant_string(sd_json_variant_by_index(filter->vms, i));

                if (strcmp(name, record->vm) == 0 || (record->peer_vm[0] && strcmp(name, record->peer_vm) == 0))
                        return true;
        }
        return !filter->vms;
}

int event_log_next(const EventLog *log, uid_t uid, const EventFilter *filter, uint64_t *sequence,
                   sd_json_variant **ret) {
        uint64_t known = *sequence == 0 ? log->first : *sequence, next;
        int r;

        /* Too old, or from before a restart; the latter even where the clock has been set back. */
        if (known < forgotten(log) || known > log->newest) {
                next = known > log->newest ? log->newest : forgotten(log);
                r = format_gap(known, next, ret);
                if (r < 0)
                        return r;
                *sequence = next;
                return 1;
        }
        *sequence = known;
        while (*sequence < log->newest) {
                const Record *record = &log->records[++*sequence % EVENTS_KEPT];

                if (uid != 0 && uid != record->owner && uid != record->peer_owner)
                        continue;
                if (!is_wanted(record, filter))
                        continue;
                r = format_record(record, *sequence, ret);
                return r < 0 ? r : 1;
        }
        return 0;
}
