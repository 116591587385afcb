/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "replay.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "core/backing.h"
#include "core/registry.h"
#include "core/vm.h"

/* A spec as the model takes it, and as the core does. */
typedef struct Request {
        ModelSpec model;
        SlotSpec core;
        bool looked;
        ModelPage seen[MODEL_SLOT_PAGES_MAX];
        Mapping mapping;
        MappedRun runs[MODEL_SLOT_PAGES_MAX];
} Request;

typedef struct Replay {
        Registry *registry;
        VM *vms[MODEL_VMS];
        Backing *backings[MODEL_BACKINGS];
        Model model;
        ModelVerdict expected; /* large: one for all */
        bool ends;             /* the model cannot say how the sequence goes on */
        char *difference;
        size_t difference_size;
} Replay;

size_t replay_decided[_RULE_MAX];

__attribute__((format(printf, 2, 3))) static bool differs(Replay *replay, const char *format, ...) {
        va_list ap;

        va_start(ap, format);
        vsnprintf(replay->difference, replay->difference_size, format, ap);
        va_end(ap);
        return false;
}

/* ---- objects ---- */

static ino_t identity_of(int file) {
        return (ino_t) file + 1;
}

static bool make_backing(Replay *replay, int index) {
        const ModelBacking *model = &replay->model.backings[index];
        char name[] = { 'b', (char) ('0' + index), '\0' };
        BackingSpec spec = {
                .name = name,
                .kind = model->kind,
                .size = model->size,
                .page_size = MODEL_PAGE,
                .dev = 1,
                .ino = identity_of(index),
        };
        int r;

        r = backing_new(replay->vms[model->vm], &spec, &replay->backings[index]);
        return r == 0 || differs(replay, "backing_new(): %d", r);
}

static bool make_vm(Replay *replay, int index) {
        char name[] = { 'v', 'm', (char) ('0' + index), '\0' };
        int r;

        r = vm_new(replay->registry, &(VMSpec) { .name = name }, &replay->vms[index]);
        if (r != 0)
                return differs(replay, "vm_new(): %d", r);

        for (int b = 0; b < MODEL_BACKINGS; b++)
                if (replay->model.backings[b].vm == index && !make_backing(replay, b))
                        return false;
        return true;
}

static int index_of_vm(const Replay *replay, const VM *vm) {
        for (int i = 0; i < MODEL_VMS; i++)
                if (replay->vms[i] == vm)
                        return i;
        return MODEL_NONE;
}

static int index_of_backing(const Replay *replay, const Backing *backing) {
        for (int i = 0; i < MODEL_BACKINGS; i++)
                if (backing && replay->backings[i] == backing)
                        return i;
        return MODEL_NONE;
}

/* MODEL_FILES, which is none, if the file is not what the core takes it for. */
static int index_of_file(const Replay *replay, const Conflict *c) {
        int file = c->backing ? index_of_backing(replay, c->backing) : (int) c->ino - 1;

        if (!c->backing && file != MODEL_NONE &&
            (c->dev != 1 || (file < MODEL_BACKINGS && replay->model.backings[file].exists)))
                return MODEL_FILES;
        return file;
}

static SlotSpec spec_to_core(const Replay *replay, const ModelSpec *spec) {
        return (SlotSpec) {
                .id = spec->id,
                .as_id = spec->as_id,
                .flags = spec->flags,
                .gpa = spec->gpa,
                .size = spec->size,
                .hva = spec->hva,
                .backing = spec->backing == MODEL_NONE ? NULL : replay->backings[spec->backing],
                .offset = spec->offset,
                .guest_memfd = spec->guest_memfd == MODEL_NONE ? NULL : replay->backings[spec->guest_memfd],
                .guest_memfd_offset = spec->guest_memfd_offset,
        };
}

/* ---- comparing tables ---- */

static bool same_spec(Replay *replay, const Slot *slot, const ModelSpec *model) {
        SlotSpec is = slot_spec(slot), want = spec_to_core(replay, model);

        if (is.id == want.id && is.as_id == want.as_id && is.flags == want.flags && is.gpa == want.gpa &&
            is.size == want.size && is.hva == want.hva && is.backing == want.backing && is.offset == want.offset &&
            is.guest_memfd == want.guest_memfd && is.guest_memfd_offset == want.guest_memfd_offset)
                return true;
        return differs(replay, "the table has another slot than as %" PRIu32 " id %" PRIu32, want.as_id, want.id);
}

static bool same_table(Replay *replay, int vm) {
        Slot *slot = slot_first(replay->vms[vm]);
        size_t n = model_count(&replay->model, vm);

        if (slot_count(replay->vms[vm]) != n)
                return differs(replay, "VM %d has %zu slots, expected %zu", vm, slot_count(replay->vms[vm]), n);

        for (size_t i = 0; i < replay->model.n_slots; i++) {
                const ModelSlot *want = &replay->model.slots[i];

                if (want->vm != vm)
                        continue;
                if (!slot)
                        return differs(replay, "the walk over VM %d ends early", vm);
                if (!same_spec(replay, slot, &want->spec))
                        return false;
                if (slot_find(replay->vms[vm], want->spec.as_id, want->spec.id) != slot)
                        return differs(replay, "slot_find() does not find what the walk finds");
                slot = slot_next(replay->vms[vm], slot->spec.as_id, slot->spec.id);
        }

        return !slot || differs(replay, "the walk over VM %d does not end", vm);
}

static bool same_state(Replay *replay) {
        for (int vm = 0; vm < MODEL_VMS; vm++)
                if (!same_table(replay, vm))
                        return false;
        for (int b = 0; b < MODEL_BACKINGS; b++) {
                size_t n = model_count_showing(&replay->model, b);

                if (replay->model.backings[b].exists && replay->backings[b]->n_slots != n)
                        return differs(replay, "backing %d has n_slots %zu, expected %zu", b,
                                       replay->backings[b]->n_slots, n);
        }

        return replay->registry->n_slots == replay->model.n_slots ||
               differs(replay, "the registry has n_slots %zu, expected %zu", replay->registry->n_slots,
                       replay->model.n_slots);
}

/* ---- comparing verdicts ---- */

static int compare_u64(uint64_t a, uint64_t b) {
        return a < b ? -1 : a > b;
}

static int compare_common(const void *a, const void *b) {
        const ModelCommon *x = a, *y = b;
        int r;

        r = compare_u64(x->rule, y->rule);
        if (r == 0)
                r = compare_u64((uint64_t) x->vm << 32 | x->id, (uint64_t) y->vm << 32 | y->id);
        if (r == 0)
                r = compare_u64(x->as_id, y->as_id);
        if (r == 0)
                r = compare_u64(x->gpa, y->gpa);
        if (r == 0)
                r = compare_u64(x->requested_gpa, y->requested_gpa);
        if (r == 0)
                r = compare_u64((uint64_t) (x->file + 1), (uint64_t) (y->file + 1));
        if (r == 0)
                r = compare_u64(x->mapped, y->mapped);
        return r != 0 ? r : compare_u64(x->offset, y->offset);
}

static size_t sort_common(ModelCommon *common, size_t n) {
        size_t kept = 0;

        qsort(common, n, sizeof(ModelCommon), compare_common);
        for (size_t i = 0; i < n; i++)
                if (kept == 0 || compare_common(&common[kept - 1], &common[i]) != 0)
                        common[kept++] = common[i];
        return kept;
}

/* Makes one entry a page of the conflicts. Returns how many, or 0 if they are too many. */
static size_t expand(const Replay *replay, const Verdict *verdict, ModelCommon *ret) {
        size_t n = 0;

        for (size_t i = 0; i < verdict->n_conflicts; i++) {
                const Conflict *c = &verdict->conflicts[i];
                int file = index_of_file(replay, c);

                for (uint64_t at = 0; at < c->size; at += MODEL_PAGE) {
                        if (n == MODEL_COMMON_MAX)
                                return 0;
                        ret[n++] = (ModelCommon) {
                                .rule = c->rule,
                                .vm = index_of_vm(replay, c->vm),
                                .id = c->id,
                                .as_id = c->as_id,
                                .gpa = c->gpa + at,
                                .requested_gpa = c->requested_gpa + at,
                                .file = file,
                                .offset = file != MODEL_NONE ? c->offset + at : c->offset,
                                .mapped = c->mapped,
                        };
                }
        }

        return n;
}

static bool same_conflicts(Replay *replay, const Verdict *verdict) {
        static ModelCommon is[MODEL_COMMON_MAX];
        ModelCommon *want = replay->expected.common;
        size_t n_want = replay->expected.n_common, n_is = expand(replay, verdict, is);

        n_is = sort_common(is, n_is);
        n_want = sort_common(want, n_want);
        if (n_is != n_want)
                return differs(replay, "%zu pages in conflict, expected %zu", n_is, n_want);
        for (size_t i = 0; i < n_is; i++)
                if (compare_common(&is[i], &want[i]) != 0)
                        return differs(replay, "rule %d at gpa 0x%" PRIx64 ", expected %d at 0x%" PRIx64, is[i].rule,
                                       is[i].gpa, want[i].rule, want[i].gpa);
        return true;
}

static bool conflicts_in_order(Replay *replay, const Verdict *verdict) {
        for (size_t i = 0; i < verdict->n_conflicts; i++) {
                /* What is mapped is compared with what was declared first; the list says nothing of these two rules. */
                if (i == 0 && verdict->conflicts[0].rule != verdict->rule && verdict->rule != RULE_BEYOND_BACKING &&
                    verdict->rule != RULE_SHARE_READ_ONLY)
                        return differs(replay, "the first conflict is not of the verdict's rule");
                if (i > 0 && model_outcome(verdict->conflicts[i].rule) > model_outcome(verdict->conflicts[i - 1].rule))
                        return differs(replay, "a refused conflict comes after an allowed one");
        }

        return true;
}

static bool same_verdict(Replay *replay, const Verdict *is) {
        const ModelVerdict *want = &replay->expected;

        replay_decided[want->rule]++;
        if (is->n_conflicts == VERDICT_CONFLICTS_MAX && is->outcome == want->outcome)
                return conflicts_in_order(replay, is); /* not all are listed, nor even looked for */
        if (is->outcome != want->outcome || is->rule != want->rule || is->kernel_errno != want->kernel_errno)
                return differs(replay, "outcome %d rule %d errno %d, expected outcome %d rule %d errno %d",
                               is->outcome, is->rule, is->kernel_errno, want->outcome, want->rule, want->kernel_errno);
        return conflicts_in_order(replay, is) && same_conflicts(replay, is);
}

/* ---- operations ---- */

static void see(const Operation *operation, size_t i, Request *request) {
        const ModelSpec *spec = &request->model;
        size_t n = spec->size / MODEL_PAGE, at = 0;

        if (operation->n_looks[i] == 0 || spec->size % MODEL_PAGE != 0 || n > MODEL_SLOT_PAGES_MAX)
                return;

        request->looked = true;
        for (size_t k = 0; at < n; k = (k + 1) % operation->n_looks[i]) {
                const Look *look = &operation->looks[i][k];

                for (size_t page = 0; page < look->n_pages && at < n; page++, at++) {
                        request->seen[at] = look->first;
                        request->seen[at].page += (uint32_t) page;
                        if (look->as_declared)
                                request->seen[at] = (ModelPage) {
                                        .kind = spec->backing == MODEL_NONE ? SEEN_NOWHERE : SEEN_FILE,
                                        .file = spec->backing,
                                        .page = (uint32_t) (spec->offset / MODEL_PAGE % INT32_MAX + at),
                                };
                }
        }
}

static MappedRun run_of_page(const ModelSpec *spec, const ModelPage *page, size_t at) {
        MappedRun run = { .kind = MAPPED_MEMORY, .hva = spec->hva + at * MODEL_PAGE, .size = MODEL_PAGE };

        if (page->kind == SEEN_MEMORY)
                return run;
        run.kind = page->kind == SEEN_COPY          ? MAPPED_COPY :
                   model_is_guest_memfd(page->file) ? MAPPED_GUEST_MEMFD :
                                                      MAPPED_FILE;
        run.dev = 1;
        run.ino = identity_of(page->file);
        run.offset = page->page * MODEL_PAGE;
        return run;
}

static bool run_goes_on(const MappedRun *run, const MappedRun *next) {
        return run->kind == next->kind && run->hva + run->size == next->hva && run->ino == next->ino &&
               (run->kind == MAPPED_MEMORY || run->offset + run->size == next->offset);
}

/* The core is told of as few runs as there are, like by the kernel. */
static void map(Request *request) {
        size_t n = 0;

        for (size_t at = 0; at < request->model.size / MODEL_PAGE; at++) {
                MappedRun run;

                if (request->seen[at].kind == SEEN_NOWHERE)
                        continue;
                run = run_of_page(&request->model, &request->seen[at], at);
                if (n > 0 && run_goes_on(&request->runs[n - 1], &run))
                        request->runs[n - 1].size += run.size;
                else
                        request->runs[n++] = run;
        }
        request->mapping = (Mapping) { .n_runs = n, .runs = request->runs };
        request->core.mapping = &request->mapping;
}

static void resolve(const Replay *replay, const Operation *operation, size_t i, Request *ret) {
        ModelSpec spec = operation->specs[i];
        int live = model_find(&replay->model, operation->vm, spec.as_id, spec.id);
        unsigned keep = operation->keep[i];

        if (live != MODEL_NONE) {
                const ModelSpec *old = &replay->model.slots[live].spec;

                spec.gpa = keep & KEEP_GPA ? old->gpa : spec.gpa;
                spec.size = keep & KEEP_SIZE ? old->size : spec.size;
                spec.hva = keep & KEEP_HVA ? old->hva : spec.hva;
                spec.flags = keep & KEEP_FLAGS ? old->flags : spec.flags;
                spec.backing = keep & KEEP_BACKING ? old->backing : spec.backing;
                spec.offset = keep & KEEP_BACKING ? old->offset : spec.offset;
        }
        if (spec.backing != MODEL_NONE && !replay->model.backings[spec.backing].exists)
                spec.backing = MODEL_NONE;
        if (spec.guest_memfd != MODEL_NONE && !replay->model.backings[spec.guest_memfd].exists)
                spec.guest_memfd = MODEL_NONE;

        ret->model = spec;
        ret->core = spec_to_core(replay, &spec);
        ret->looked = false;
        see(operation, i, ret);
        if (ret->looked)
                map(ret);
}

static void set_in_model(Replay *replay, int vm, const Request *request) {
        model_set(&replay->model, vm, &request->model, request->looked ? request->seen : NULL, &replay->expected);
}

static bool has_too_many_aliases(Replay *replay) {
        replay->ends = replay->ends || replay->expected.n_allowed > SLOT_ALIASES_MAX;
        return replay->ends;
}

static bool run_set(Replay *replay, const Operation *operation) {
        Verdict verdict, kvm;
        bool changed, same, kvm_accepts;
        Request request;
        int r;

        resolve(replay, operation, 0, &request);
        verdict_init(&kvm);
        kvm_accepts = kvm_rules_accept(replay->vms[operation->vm], &request.core, &kvm);
        verdict_done(&kvm);

        set_in_model(replay, operation->vm, &request);
        if (has_too_many_aliases(replay))
                return true;
        verdict_init(&verdict);
        r = slot_set(replay->vms[operation->vm], &request.core, &verdict, &changed);
        if (r != 0)
                same = differs(replay, "slot_set(): %d", r);
        else if (changed != replay->expected.changed)
                same = differs(replay, "changed is %d, expected %d", changed, replay->expected.changed);
        else if (kvm_accepts != (replay->expected.kernel_errno == 0))
                same = differs(replay, "kvm_rules_accept() is %d", kvm_accepts);
        else
                same = same_verdict(replay, &verdict);
        verdict_done(&verdict);
        return same;
}

/* The specs of one batch are resolved before it, like those of a caller who has seen the table. */
static bool run_many(Replay *replay, const Operation *operation) {
        static Request requests[OPERATION_SPECS_MAX];
        SlotSpec specs[OPERATION_SPECS_MAX];
        Verdict verdicts[OPERATION_SPECS_MAX];
        bool changed[OPERATION_SPECS_MAX], want_changed[OPERATION_SPECS_MAX];
        bool apply = operation->kind == OPERATION_SET_MANY, accepted, want_accepted = true, same = true;
        Model before = replay->model;
        int r;

        for (size_t i = 0; i < operation->n_specs; i++) {
                resolve(replay, operation, i, &requests[i]);
                specs[i] = requests[i].core;
                verdict_init(&verdicts[i]);
        }

        r = slot_set_many(replay->vms[operation->vm], specs, operation->n_specs, apply, verdicts, changed, &accepted);
        if (r != 0)
                same = differs(replay, "slot_set_many(): %d", r);

        for (size_t i = 0; i < operation->n_specs && same; i++) {
                set_in_model(replay, operation->vm, &requests[i]);
                if (has_too_many_aliases(replay))
                        break;
                want_accepted = want_accepted && !replay->expected.denied;
                want_changed[i] = replay->expected.changed;
                same = same_verdict(replay, &verdicts[i]);
        }
        if (!apply || !want_accepted)
                replay->model = before;
        if (same && !replay->ends && accepted != want_accepted)
                same = differs(replay, "accepted is %d, expected %d", accepted, want_accepted);
        for (size_t i = 0; i < operation->n_specs && same && !replay->ends; i++)
                if (changed[i] != (apply && want_accepted && want_changed[i]))
                        same = differs(replay, "changed[%zu] is %d", i, changed[i]);

        for (size_t i = 0; i < operation->n_specs; i++)
                verdict_done(&verdicts[i]);
        return same;
}

static bool run_share(Replay *replay, const Operation *operation) {
        ModelBacking *model = &replay->model.backings[operation->backing];
        Backing *backing = replay->backings[operation->backing];
        VM *peer = replay->vms[operation->vm];
        bool read_only = model_shares_read_only(operation->backing, operation->vm);
        int r, want = 0;

        if (!model->exists || model->vm == operation->vm)
                return true;

        if (model->shared_with[operation->vm]) {
                backing_unshare(backing, peer);
                model->shared_with[operation->vm] = false;
        } else {
                if (read_only && model_is_written_by(&replay->model, operation->backing, operation->vm))
                        want = CORE_E_IN_USE;
                r = read_only ? backing_share_read_only(backing, peer) : backing_share(backing, peer);
                if (r != want)
                        return differs(replay, "backing_share() is %d, expected %d", r, want);
                model->shared_with[operation->vm] = r == 0;
        }
        return backing_is_shared_with(backing, peer) == model->shared_with[operation->vm] ||
               differs(replay, "backing_is_shared_with()");
}

/* VM 0 and VM 1 always attach to the same process. */
static bool run_attach(Replay *replay, const Operation *operation) {
        uint64_t mm = operation->vm < 2 ? 1 : 2;

        replay->model.mm[operation->vm] = mm;
        return vm_attach(replay->vms[operation->vm], mm) == 0 || differs(replay, "vm_attach()");
}

static bool run_release(Replay *replay, const Operation *operation) {
        ModelBacking *model = &replay->model.backings[operation->backing];
        bool in_use = model_count_showing(&replay->model, operation->backing) > 0;
        int r;

        if (!model->exists) {
                model->exists = true;
                return make_backing(replay, operation->backing);
        }

        r = backing_release(replay->backings[operation->backing]);
        if (r != (in_use ? CORE_E_IN_USE : 0))
                return differs(replay, "backing_release(): %d", r);
        if (in_use)
                return true;

        replay->backings[operation->backing] = NULL;
        model->exists = false;
        memset(model->shared_with, 0, sizeof(model->shared_with));
        return true;
}

static bool run_rebirth(Replay *replay, const Operation *operation) {
        replay->vms[operation->vm] = vm_free(replay->vms[operation->vm]);
        model_reset_vm(&replay->model, operation->vm);
        return make_vm(replay, operation->vm);
}

static bool run_operation(Replay *replay, const Operation *operation) {
        switch (operation->kind) {
        case OPERATION_SET:
                return run_set(replay, operation);
        case OPERATION_SET_MANY:
        case OPERATION_CHECK:
                return run_many(replay, operation);
        case OPERATION_SHARE:
                return run_share(replay, operation);
        case OPERATION_ATTACH:
                return run_attach(replay, operation);
        case OPERATION_DETACH:
                vm_detach(replay->vms[operation->vm]);
                model_detach(&replay->model, operation->vm);
                return true;
        case OPERATION_POLICY:
                replay->model.observes[operation->vm] = !replay->model.observes[operation->vm];
                replay->vms[operation->vm]->alias_policy = replay->model.observes[operation->vm] ?
                                                                   ALIAS_POLICY_OBSERVE :
                                                                   ALIAS_POLICY_ENFORCE;
                return true;
        case OPERATION_RELEASE:
                return run_release(replay, operation);
        case OPERATION_REBIRTH:
                return run_rebirth(replay, operation);
        default:
                abort();
        }
}

size_t replay_run(const Operation *operations, size_t n, char *difference, size_t difference_size) {
        KVMRules kvm = kvm_rules_of(KVM_GENERATION_DEFAULT);
        static Replay replay;
        size_t i;
        bool same;

        memset(&replay, 0, sizeof(replay));
        replay.difference = difference;
        replay.difference_size = difference_size;
        model_init(&replay.model);
        kvm.max_gpa = MODEL_MAX_GPA;
        if (registry_new(MODEL_PAGE, &kvm, &replay.registry) < 0)
                abort();

        same = true;
        for (int vm = 0; vm < MODEL_VMS && same; vm++)
                same = make_vm(&replay, vm);
        for (i = 0; i < n && same && !replay.ends; i++) {
                same = run_operation(&replay, &operations[i]);
                model_settle(&replay.model);
                same = same && (replay.ends || same_state(&replay));
        }

        registry_free(replay.registry);
        return same ? n : i - 1;
}
