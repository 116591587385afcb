/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What was seen at a slot's hva against what was declared for it.
 *
 * Addresses that are mapped nowhere say nothing: KVM takes them, and the VMM may map what it declared a moment later.
 * Everything else that is not the declared byte of the declared file is a mismatch: another file, another byte of it,
 * memory without a file, and a private mapping too, for what the guest writes there never reaches the file. */

#include <assert.h>

#include "core/core-private.h"

bool mapped_run_is_file(const MappedRun *run) {
        return run->kind == MAPPED_FILE || run->kind == MAPPED_GUEST_MEMFD;
}

static bool is_as_declared(const SlotSpec *spec, const MappedRun *run) {
        return mapped_run_is_file(run) && run->dev == spec->backing->dev && run->ino == spec->backing->ino &&
               run->offset - spec->offset == run->hva - spec->hva;
}

static const MappedRun *first_mismatch(const SlotSpec *spec) {
        for (size_t i = 0; i < spec->mapping->n_runs; i++)
                if (!is_as_declared(spec, &spec->mapping->runs[i]))
                        return &spec->mapping->runs[i];
        return NULL;
}

/* The only shared mapping of a file, if it is all of the slot; *ret_n says how many there are. */
static const MappedRun *only_file(const SlotSpec *spec, size_t *ret_n) {
        const MappedRun *whole = NULL;

        *ret_n = 0;
        for (size_t i = 0; i < spec->mapping->n_runs; i++) {
                const MappedRun *run = &spec->mapping->runs[i];

                *ret_n += mapped_run_is_file(run);
                if (mapped_run_is_file(run) && run->size == spec->size)
                        whole = run;
        }
        return whole;
}

void slot_spec_resolve(Registry *registry, SlotSpec *spec) {
        const MappedRun *run;
        size_t n_files;

        if (!spec->mapping)
                return;
        if (spec->backing) {
                if (!first_mismatch(spec))
                        spec->mapping = NULL;
                return;
        }

        run = only_file(spec, &n_files);
        if (run) {
                spec->backing = registry_find_file(registry, run->dev, run->ino);
                spec->offset = spec->backing ? run->offset : 0;
        }
        if (spec->backing || n_files == 0)
                spec->mapping = NULL;
}

int mapping_judge(VM *vm, const SlotSpec *spec, Verdict *verdict) {
        const MappedRun *run = first_mismatch(spec);
        Conflict conflict = {
                .rule = RULE_MAPPING_MISMATCH,
                .vm = vm,
                .id = spec->id,
                .as_id = spec->as_id,
        };

        if (!run)
                return 0;

        verdict_note(verdict, OUTCOME_REFUSED, RULE_MAPPING_MISMATCH, /* kernel_errno= */ 0);
        conflict.gpa = conflict.requested_gpa = spec->gpa + (run->hva - spec->hva);
        conflict.size = run->size;
        conflict.mapped = run->kind;
        if (run->kind != MAPPED_MEMORY) {
                conflict.offset = run->offset;
                conflict.backing = registry_find_file(vm->registry, run->dev, run->ino);
                if (!conflict.backing) {
                        conflict.dev = run->dev;
                        conflict.ino = run->ino;
                }
        }
        return verdict_add_conflict(verdict, &conflict);
}
