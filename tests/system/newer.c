/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What makes a privmemd a newer one: each ledger that it begins has a record that nobody else knows. */

#include <string.h>

#include "core/cleanup.h"
#include "core/record-buffer.h"
#include "host/ledger.h"

#define RECORD_OF_TOMORROW 0x7777U

static const char message[] = "what only the newer privmemd knows";

int __real_ledger_complete(Ledger *ledger);
int __wrap_ledger_complete(Ledger *ledger);

int __wrap_ledger_complete(Ledger *ledger) {
        _cleanup_(record_buffer_done) RecordBuffer records = {};
        int r;

        record_buffer_begin(&records, RECORD_OF_TOMORROW, 1);
        record_buffer_put(&records, message, strlen(message));
        r = record_buffer_end(&records);
        if (r == 0)
                r = ledger_reserve(ledger, records.size);
        if (r == 0)
                r = ledger_append(ledger, records.bytes, records.size);
        return r == 0 ? __real_ledger_complete(ledger) : r;
}
