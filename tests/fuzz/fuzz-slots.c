/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The fuzzer chooses the operations; the core and the model must agree after each of them. */

#include <stdlib.h>

#include "replay.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        static Operation operations[256];
        char difference[256];
        size_t n, failed;

        n = replay_decode(data, size, operations, sizeof(operations) / sizeof(operations[0]));
        failed = replay_run(operations, n, difference, sizeof(difference));
        if (failed == n)
                return 0;

        for (size_t i = 0; i <= failed; i++)
                replay_print(stderr, &operations[i]);
        fprintf(stderr, "then: %s\n", difference);
        abort();
}
