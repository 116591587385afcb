/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* In order of their starts, ranges that overlap lie side by side: one walk over an index finds all slots that have
 * anything in common with another one, and only those are judged. Most indexes have none, which is found out without
 * looking at any slot. */

#include <search.h>

#include "core/core-private.h"

typedef struct Audit {
        void (*found)(const Slot *slot, const Verdict *verdict, void *userdata);
        void *userdata;
        int r;
} Audit;

static void judge(Audit *audit, const Slot *slot) {
        Verdict verdict;
        int r;

        verdict_init(&verdict);
        r = alias_judge(slot, slot, &verdict);
        if (r < 0)
                audit->r = r;
        else if (verdict_denies(&verdict, slot->vm->alias_policy))
                audit->found(slot, &verdict, audit->userdata);
        verdict_done(&verdict);
}

/* Where a walk stands: among ranges of which each overlaps one before it, but for the first. */
typedef struct Cluster {
        const Slot *first; /* not judged yet; NULL if it is, and before the walk */
        uint64_t last;     /* the greatest */
        bool begun;
} Cluster;

/* Whether the range where the cursor stands overlaps one before it. */
static bool cluster_add(Cluster *cluster, const IntervalCursor *cursor, const Slot *slot) {
        if (cluster->begun && cursor->found_start <= cluster->last) {
                if (cursor->found_last > cluster->last)
                        cluster->last = cursor->found_last;
                return true;
        }
        *cluster = (Cluster) { .first = slot, .last = cursor->found_last, .begun = true };
        return false;
}

static void look(Audit *audit, Cluster *cluster, const IntervalCursor *cursor, const Slot *slot) {
        if (!cluster_add(cluster, cursor, slot))
                return;
        if (cluster->first)
                judge(audit, cluster->first);
        cluster->first = NULL;
        judge(audit, slot);
}

static void audit_file(Audit *audit, const File *file) {
        IntervalCursor cursor;
        Cluster cluster = {};
        SlotShowing s;

        if (!interval_has_overlap(&file->showings))
                return;
        for (s = file_first_showing(file, 0, UINT64_MAX, &cursor); s.slot; s = showing_next(&cursor))
                look(audit, &cluster, &cursor, s.slot);
}

static void audit_mm(Audit *audit, const Mm *mm) {
        IntervalCursor cursor;
        Cluster cluster = {};

        if (!interval_has_overlap(&mm->slots))
                return;
        for (const Slot *slot = slot_first_at_hva(mm, 0, UINT64_MAX, &cursor); slot; slot = slot_next_at_hva(&cursor))
                look(audit, &cluster, &cursor, slot);
}

static void audit_shared_mm(const void *node, VISIT which, void *userdata) {
        if (which == postorder || which == leaf)
                audit_mm(userdata, *(Mm *const *) node);
}

static void audit_frames(Audit *audit, VM *vm, uint32_t as_id) {
        IntervalCursor cursor;
        Cluster cluster = {};

        if (!interval_has_overlap(&vm->slots->by_gpa[as_id]))
                return;
        for (const Slot *slot = slot_first_at_gpa(vm, as_id, 0, UINT64_MAX, &cursor); slot;
             slot = slot_next_at_gpa(&cursor))
                if (cluster_add(&cluster, &cursor, slot))
                        audit->found(slot,
                                     &(Verdict) {
                                             .outcome = OUTCOME_REFUSED,
                                             .rule = RULE_GFN_OVERLAP,
                                             .kernel_errno = EEXIST,
                                     },
                                     audit->userdata);
}

int registry_audit(Registry *registry, void (*found)(const Slot *slot, const Verdict *verdict, void *userdata),
                   void *userdata) {
        Audit audit = { .found = found, .userdata = userdata };
        VM *vm;

        TAILQ_FOREACH(vm, &registry->vms, vms) {
                for (uint32_t as_id = 0; as_id < ADDRESS_SPACES_MAX; as_id++)
                        audit_frames(&audit, vm, as_id);
                if (vm->mm == vm->own_mm)
                        audit_mm(&audit, vm->mm);
        }
        twalk_r(registry->mms_by_id, audit_shared_mm, &audit);
        for (size_t i = 0; i < registry->files.n_buckets; i++)
                for (const File *file = registry->files.buckets[i]; file; file = file->next)
                        audit_file(&audit, file);
        return audit.r;
}
