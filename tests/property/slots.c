/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Random sequences of operations on three VMs, two of which one process may run. After each operation the core must
 * agree with the model in everything that can be seen from outside. A sequence that shows a difference is made as
 * short as it can be before it is printed.
 *
 * PRIVMEMD_SEED repeats a run, PRIVMEMD_OPERATIONS makes it longer. */

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "replay.h"

enum {
        SEQUENCE_LENGTH = 250,
        OPERATION_BYTES = 32, /* on the average less */
};

static uint64_t next_random(uint64_t *state) {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        return *state;
}

static size_t make_sequence(uint64_t seed, Operation *operations) {
        static uint64_t words[SEQUENCE_LENGTH * OPERATION_BYTES / sizeof(uint64_t)];

        seed = seed * UINT64_C(0x9e3779b97f4a7c15) | 1;
        for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
                words[i] = next_random(&seed);

        return replay_decode((const uint8_t *) words, sizeof(words), operations, SEQUENCE_LENGTH);
}

static size_t without(const Operation *operations, size_t n, size_t at, size_t count, Operation *ret) {
        memcpy(ret, operations, at * sizeof(Operation));
        memcpy(ret + at, operations + at + count, (n - at - count) * sizeof(Operation));
        return n - count;
}

/* Leaves out ever smaller pieces as long as a difference remains. What comes after the difference is cut off. */
static size_t shrink(Operation *operations, size_t n, char *difference, size_t size) {
        static Operation candidate[SEQUENCE_LENGTH];
        size_t piece = n, at, shorter, failed;

        while (piece > 0) {
                for (at = 0; at + piece <= n;) {
                        shorter = without(operations, n, at, piece, candidate);
                        failed = replay_run(candidate, shorter, difference, size);
                        if (failed == shorter) {
                                at += piece;
                                continue;
                        }
                        n = failed + 1;
                        memcpy(operations, candidate, n * sizeof(Operation));
                }
                piece /= 2;
        }

        replay_run(operations, n, difference, size);
        return n;
}

static void report(uint64_t seed, Operation *operations, size_t n) {
        char difference[256];

        n = shrink(operations, n, difference, sizeof(difference));
        printf("# PRIVMEMD_SEED=%" PRIu64 " repeats it; the shortest sequence found:\n", seed);
        for (size_t i = 0; i < n; i++) {
                printf("# %zu. ", i + 1);
                replay_print(stdout, &operations[i]);
        }
        printf("# then: %s\n", difference);
}

static uint64_t number_from_environment(const char *name, uint64_t fallback) {
        const char *text = getenv(name);

        return text ? strtoull(text, NULL, 0) : fallback;
}

int main(void) {
        static Operation operations[SEQUENCE_LENGTH];
        uint64_t seed = 0, wanted, done = 0;
        char difference[256];
        bool agreed = true, all_decided = true;

        if (getrandom(&seed, sizeof(uint32_t), 0) < 0)
                seed = 1;
        seed = number_from_environment("PRIVMEMD_SEED", seed);
        wanted = number_from_environment("PRIVMEMD_OPERATIONS", 1000000);
        printf("1..2\n# first PRIVMEMD_SEED=%" PRIu64 "\n", seed);
        fflush(stdout);

        for (; done < wanted && agreed; seed++) {
                size_t n = make_sequence(seed, operations);
                size_t failed = replay_run(operations, n, difference, sizeof(difference));

                done += n;
                agreed = failed == n;
                if (!agreed)
                        report(seed, operations, failed + 1);
        }

        for (SlotRule rule = 0; rule < _RULE_MAX; rule++) {
                printf("%s%zu", rule == 0 ? "# decided, by rule: " : " ", replay_decided[rule]);
                /* So many slots do not fit the few pages of these VMs; tests/unit/test-alias.c has it. Nobody hands a VM
                 * over here; tests/unit/test-hand-over.c does. */
                all_decided = all_decided &&
                              (replay_decided[rule] > 0 || rule == RULE_TOO_MANY_ALIASES || rule == RULE_HAND_OVER);
        }
        printf("\n%s 1 - the core and the model agree on %" PRIu64 " operations\n", agreed ? "ok" : "not ok", done);
        printf("%s 2 - every rule has decided\n", all_decided ? "ok" : "not ok");
        return agreed && all_decided ? EXIT_SUCCESS : EXIT_FAILURE;
}
