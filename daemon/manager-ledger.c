/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The ledger as it is in its file, for whoever asks: a look through an fd of its own, which takes part in nothing that
 * privmemd writes. */

#include <stdlib.h>

#include "manager-private.h"

struct LedgerList {
        LedgerScan *scan;
        LedgerFrame frame; /* whose records are handed out, once what is missing before it has been */
        size_t offset;     /* of the next record in it */
        bool gap_is_due;
        bool ended; /* the frame is none, but what stands for the end */
};

int service_list_ledger(Service *service, LedgerSummary *ret_summary, LedgerList **ret) {
        const Ledger *ledger = service->keeper.ledger;
        LedgerList *list;
        int r;

        list = calloc(1, sizeof(*list));
        if (!list)
                return -ENOMEM;
        *ret_summary = (LedgerSummary) {};
        if (ledger) {
                r = ledger_scan_new(ledger, &list->scan);
                if (r < 0) {
                        free(list);
                        return r;
                }
                ret_summary->generation = ledger_generation(ledger);
                ret_summary->size = ledger_size(ledger);
                ret_summary->n_frames = ledger_frames(ledger);
        }
        *ret = list;
        return 0;
}

LedgerList *service_close_ledger(LedgerList *list) {
        if (!list)
                return NULL;
        ledger_scan_free(list->scan);
        free(list);
        return NULL;
}

/* What lies between two frames and is none, or does not lie there. */
static bool take_gap(LedgerList *list, LedgerEntry *ret) {
        const LedgerFrame *frame = &list->frame;

        if (!list->gap_is_due || (frame->lost == 0 && frame->damaged_bytes == 0))
                return false;
        list->gap_is_due = false;
        *ret = (LedgerEntry) {
                .kind = LEDGER_ENTRY_DAMAGED,
                .sequence = frame->sequence - frame->lost,
                .offset = frame->offset - frame->damaged_bytes,
                .size = frame->damaged_bytes,
                .n_lost = frame->lost,
        };
        return true;
}

static bool take_record(LedgerList *list, LedgerEntry *ret) {
        const LedgerFrame *frame = &list->frame;
        uint64_t offset = frame->offset + frame->size - frame->records_size + list->offset;
        RecordHead head;
        const void *body;

        if (record_next(frame->records, frame->records_size, &list->offset, &head, &body) <= 0)
                return false;
        *ret = (LedgerEntry) {
                .kind = LEDGER_ENTRY_RECORD,
                .sequence = frame->sequence,
                .offset = offset,
                .type = head.type,
                .version = head.version,
                .body = body,
                .size = head.size,
        };
        return true;
}

static bool take_tail(LedgerList *list, LedgerEntry *ret) {
        LedgerFrame *frame = &list->frame;

        if (frame->size == 0)
                return false;
        *ret = (LedgerEntry) {
                .kind = LEDGER_ENTRY_TORN,
                .sequence = frame->sequence,
                .offset = frame->offset,
                .size = frame->size,
        };
        frame->size = 0;
        return true;
}

int service_next_in_ledger(LedgerList *list, LedgerEntry *ret) {
        int r;

        if (!list->scan)
                return 0;
        for (;;) {
                if (take_gap(list, ret))
                        return 1;
                if (list->ended)
                        return take_tail(list, ret);
                if (list->frame.records && take_record(list, ret))
                        return 1;
                list->offset = 0;
                r = ledger_scan_next(list->scan, &list->frame);
                if (r < 0)
                        return r;
                list->gap_is_due = true;
                list->ended = r == 0;
        }
}
