/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Random sequences of slot operations: the core must answer each as /dev/kvm does, except where it refuses more, and
 * then for a reason. A sequence that shows a difference is made as short as it can be before it is printed.
 *
 * PRIVMEMD_SEED repeats a run. PRIVMEMD_SEQUENCES is how many, PRIVMEMD_SECONDS how long at most. */

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "front/words.h"
#include "oracle.h"

#define SEQUENCES     UINT64_C(10000)
/* So many meet every rule. */
#define SEQUENCES_MET UINT64_C(2000)

static const char *const reason_words[_ORACLE_REASON_MAX] = {
        [REASON_ALIAS] = "the same memory at two guest frames",
        [REASON_BEYOND_SHARED] = "the declared file does not have these bytes",
        [REASON_READ_ONLY] = "the declared file is shared for reading only",
        [REASON_SIGNED_OFFSETS] = "KVM adds offset and size as signed numbers, up to 7.1",
};

static bool observes(uint64_t seed) {
        return seed % 4 == 3;
}

static size_t without(const Operation *operations, size_t n, size_t at, size_t count, Operation *ret) {
        memcpy(ret, operations, at * sizeof(Operation));
        memcpy(ret + at, operations + at + count, (n - at - count) * sizeof(Operation));
        return n - count;
}

/* Leaves out ever smaller pieces as long as a difference remains. What comes after the difference is cut off. */
static size_t shrink(uint64_t seed, Operation *operations, size_t n, char *difference, size_t size) {
        Operation candidate[ORACLE_LENGTH_MAX];
        size_t piece = n, at, shorter, failed;

        while (piece > 0) {
                for (at = 0; at + piece <= n;) {
                        shorter = without(operations, n, at, piece, candidate);
                        failed = oracle_run(candidate, shorter, observes(seed), difference, size);
                        if (failed == shorter) {
                                at += piece;
                                continue;
                        }
                        n = failed + 1;
                        memcpy(operations, candidate, n * sizeof(Operation));
                }
                piece /= 2;
        }

        return n;
}

/* What plays no part is said in no operation. */
static void simplify(uint64_t seed, Operation *operations, size_t n, char *difference, size_t size) {
        for (size_t i = 0; i < n; i++)
                for (unsigned part = 0; part < 4; part++) {
                        Operation before = operations[i];

                        operations[i].high = part == 0 ? 0 : before.high;
                        operations[i].declared = part == 1 ? DECLARED_NOTHING : before.declared;
                        operations[i].old_ioctl = part == 2 ? false : before.old_ioctl;
                        operations[i].vm = part == 3 ? 0 : before.vm;
                        if (oracle_run(operations, n, observes(seed), difference, size) == n)
                                operations[i] = before;
                }

        oracle_run(operations, n, observes(seed), difference, size);
}

static void report(uint64_t seed, Operation *operations, size_t n) {
        char difference[256];

        n = shrink(seed, operations, n, difference, sizeof(difference));
        simplify(seed, operations, n, difference, sizeof(difference));
        printf("# PRIVMEMD_SEED=%" PRIu64 " repeats it; the shortest sequence found%s:\n", seed,
               observes(seed) ? ", where VM 1 only observes aliases" : "");
        for (size_t i = 0; i < n; i++) {
                printf("# %zu. ", i + 1);
                operation_print(stdout, &operations[i]);
        }
        printf("# then: %s\n", difference);
}

static void print_by_rule(const char *title, const size_t *counts) {
        const char *before = "";

        printf("# %s: ", title);
        for (SlotRule rule = RULE_NONE + 1; rule < _RULE_MAX; rule++)
                if (counts[rule] > 0) {
                        printf("%s%s %zu", before, slot_rule_word(rule), counts[rule]);
                        before = ", ";
                }
        printf("%s\n", *before ? "" : "none");
}

static void print_counts(const OracleCounts *c, uint64_t sequences, double seconds) {
        printf("# %" PRIu64 " sequences, %zu operations, %.1f s: %.0f sequences/s\n", sequences, c->operations,
               seconds, (double) sequences / seconds);
        printf("# taken by both: %zu, %zu of them reported as aliases; unreadable to both: %zu; too large to try: %zu\n",
               c->taken, c->observed, c->unreadable, c->too_large);
        print_by_rule("refused by both, with the same errno", c->refused);
        print_by_rule("refused by privmemd alone", c->more);
        for (OracleReason reason = REASON_NONE + 1; reason < _ORACLE_REASON_MAX; reason++)
                printf("#     because %s: %zu\n", reason_words[reason], c->reasons[reason]);
}

/* Each rule of KVM's has been met. */
static bool all_met(const OracleCounts *c, const KVMRules *kvm) {
        bool met = c->taken > 0 && c->unreadable > 0;

        for (SlotRule rule = RULE_NONE + 1; rule <= RULE_BINDING_OVERLAP; rule++) {
                bool needs_binding = rule >= RULE_NOT_GUEST_MEMFD || rule == RULE_GUEST_MEMFD_OFFSET ||
                                     rule == RULE_GUEST_MEMFD_IMMUTABLE;

                if (c->refused[rule] > 0 || (needs_binding && kvm->guest_memfd != KVM_GUEST_MEMFD_ANY_VM))
                        continue;
                printf("# never met: %s\n", slot_rule_word(rule));
                met = false;
        }
        return met;
}

static uint64_t number_from_environment(const char *name, uint64_t fallback) {
        const char *text = getenv(name);

        return text ? strtoull(text, NULL, 0) : fallback;
}

static double now(void) {
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (double) t.tv_sec + (double) t.tv_nsec / 1e9;
}

int main(void) {
        uint64_t seed = 0, wanted, done, seconds;
        Operation operations[ORACLE_LENGTH_MAX];
        char difference[256];
        bool agreed = true, met = true;
        OracleCounts counts = {};
        const char *why;
        double start;
        KVMRules kvm;

        if (!oracle_open(&kvm, &why)) {
                printf("1..0 # SKIP %s\n", why);
                return EXIT_SUCCESS;
        }

        if (getrandom(&seed, sizeof(uint32_t), 0) < 0)
                seed = 1;
        seed = number_from_environment("PRIVMEMD_SEED", seed);
        wanted = number_from_environment("PRIVMEMD_SEQUENCES", SEQUENCES);
        seconds = number_from_environment("PRIVMEMD_SECONDS", UINT32_MAX);
        printf("1..2\n# first PRIVMEMD_SEED=%" PRIu64 "\n", seed);
        fflush(stdout);

        start = now();
        for (done = 0; done < wanted && agreed && now() - start < (double) seconds; done++, seed++) {
                size_t n = operations_make(seed, &kvm, operations);
                size_t failed = oracle_run(operations, n, observes(seed), difference, sizeof(difference));

                agreed = failed == n;
                if (!agreed)
                        report(seed, operations, failed + 1);
                else
                        counts = oracle_counts;
        }

        print_counts(&counts, done, now() - start);
        printf("%s 1 - the core and KVM agree on %" PRIu64 " sequences\n", agreed ? "ok" : "not ok", done);
        if (agreed && done >= SEQUENCES_MET)
                met = all_met(&counts, &kvm);
        printf("%s 2 - every rule of KVM's has refused something%s\n", met ? "ok" : "not ok",
               agreed && done >= SEQUENCES_MET ? "" : " # SKIP too few sequences");
        return agreed && met ? EXIT_SUCCESS : EXIT_FAILURE;
}
