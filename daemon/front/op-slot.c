/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* SetSlot, SetSlots, CheckSlots. */

#include <string.h>

#include "api/interface.h"
#include "core/cleanup.h"
#include "front/call.h"
#include "front/format.h"
#include "front/words.h"

#define _cleanup_json_ _cleanup_(sd_json_variant_unrefp)

/* All verdicts of one reply list at most this many conflicts together: about 3 MiB of the 16 that a message may have. */
#define CONFLICTS_PER_REPLY 8192U

typedef struct SlotParameters {
        uint32_t id, as_id;
        uint64_t gpa, size, hva, offset, guest_memfd_offset;
        const char *backing, *backing_vm, *guest_memfd;
        sd_json_variant *flags;
} SlotParameters;

static const sd_json_dispatch_field slot_table[] = {
        { "slotId", SD_JSON_VARIANT_UNSIGNED, sd_json_dispatch_uint32, offsetof(SlotParameters, id),
          SD_JSON_MANDATORY },
        { "addressSpace", SD_JSON_VARIANT_UNSIGNED, sd_json_dispatch_uint32, offsetof(SlotParameters, as_id),
          SD_JSON_NULLABLE },
        { "flags", SD_JSON_VARIANT_ARRAY, sd_json_dispatch_variant_noref, offsetof(SlotParameters, flags),
          SD_JSON_NULLABLE },
        { "guestPhysAddr", _SD_JSON_VARIANT_TYPE_INVALID, sd_json_dispatch_uint64, offsetof(SlotParameters, gpa),
          SD_JSON_MANDATORY },
        { "memorySize", _SD_JSON_VARIANT_TYPE_INVALID, sd_json_dispatch_uint64, offsetof(SlotParameters, size),
          SD_JSON_MANDATORY },
        { "userspaceAddr", _SD_JSON_VARIANT_TYPE_INVALID, sd_json_dispatch_uint64, offsetof(SlotParameters, hva),
          SD_JSON_NULLABLE },
        { "backing", SD_JSON_VARIANT_STRING, sd_json_dispatch_const_string, offsetof(SlotParameters, backing),
          SD_JSON_NULLABLE },
        { "backingVM", SD_JSON_VARIANT_STRING, sd_json_dispatch_const_string, offsetof(SlotParameters, backing_vm),
          SD_JSON_NULLABLE },
        { "backingOffset", _SD_JSON_VARIANT_TYPE_INVALID, sd_json_dispatch_uint64, offsetof(SlotParameters, offset),
          SD_JSON_NULLABLE },
        { "guestMemfd", SD_JSON_VARIANT_STRING, sd_json_dispatch_const_string, offsetof(SlotParameters, guest_memfd),
          SD_JSON_NULLABLE },
        { "guestMemfdOffset", _SD_JSON_VARIANT_TYPE_INVALID, sd_json_dispatch_uint64,
          offsetof(SlotParameters, guest_memfd_offset), SD_JSON_NULLABLE },
        {},
};

/* The IDL knows the words already, so an unknown one does not get here. */
static uint32_t parse_flags(sd_json_variant *flags) {
        uint32_t bits = 0;

        for (size_t i = 0; flags && i < sd_json_variant_elements(flags); i++)
                bits |= slot_flag_of(sd_json_variant_string(sd_json_variant_by_index(flags, i)));
        return bits;
}

/* A slot may show another VM's backing only if the caller owns that VM too, or if the backing is shared with the
 * slot's VM; or else it could occupy the other's guest frames. Whoever may not is not told whether there is one. */
static int find_shared_side(Call *call, const SlotParameters *p, Backing **ret, Failure *f) {
        VM *vm = vm_whole(call->vm);

        if (p->backing_vm) {
                vm = registry_find_vm(call->registry, p->backing_vm);
                if (!vm)
                        return fail_no_such_vm(f, p->backing_vm);
                if (!call_may_see(call, vm)) {
                        *ret = vm_find_backing(vm, p->backing);
                        return *ret && backing_is_shared_with(*ret, vm_whole(call->vm)) ?
                                       0 :
                                       fail_not_permitted_vm(f, vm->name, call->uid);
                }
        }
        return find_backing(vm, p->backing, ret, f);
}

static int resolve_slot(Call *call, const SlotParameters *p, SlotSpec *ret, Failure *f) {
        int r;

        *ret = (SlotSpec) {
                .id = p->id,
                .as_id = p->as_id,
                .flags = parse_flags(p->flags),
                .gpa = p->gpa,
                .size = p->size,
                .hva = p->hva,
                .offset = p->offset,
                .guest_memfd_offset = p->guest_memfd_offset,
        };
        if (!p->backing && (p->backing_vm || p->offset != 0))
                return fail_invalid_value(f, "backingOffset without backing", p->offset, 0, 0, 0);
        if (p->guest_memfd && !(ret->flags & SLOT_GUEST_MEMFD))
                return fail_not_supported(f, "guestMemfd needs the flag guest_memfd");
        if (p->backing) {
                r = find_shared_side(call, p, &ret->backing, f);
                if (r != 0)
                        return r;
        }
        return p->guest_memfd ? find_backing(vm_whole(call->vm), p->guest_memfd, &ret->guest_memfd, f) : 0;
}

/* Returns 0, API_E_…, or negative; *ret_bad is the field that could not be read, if any. */
static int parse_slot(Call *call, sd_json_variant *v, SlotSpec *ret, Failure *f, const char **ret_bad) {
        SlotParameters p = {};
        int r;

        *ret_bad = NULL;
        r = sd_json_dispatch_full(v, slot_table, /* bad= */ NULL, 0, &p, ret_bad);
        if (r < 0) {
                if (!*ret_bad)
                        *ret_bad = "slot";
                return r;
        }
        r = resolve_slot(call, &p, ret, f);
        return r != 0 ? r : service_look_at_slot(call->vm, ret);
}

static int reply_parse_error(Call *call, int r, const Failure *f, const char *bad) {
        if (r < 0 && bad)
                return sd_varlink_error_invalid_parameter_name(call->link, bad);
        return failure_reply(call->link, r, f);
}

static void publish_slot(Call *call, const SlotSpec *spec, const Verdict *verdict, bool changed) {
        Event event = { .vm = call->vm, .backing = spec->backing, .slot = spec, .verdict = verdict };

        if (changed || verdict_denies(verdict, call->vm->alias_policy))
                (void) verdict_count(vm_whole(call->vm), verdict, changed);
        if (!changed && verdict->outcome != OUTCOME_REFUSED)
                return;
        if (!changed)
                event.kind = EVENT_SLOT_REFUSED;
        else if (spec->size == 0)
                event.kind = EVENT_SLOT_DELETED;
        else if (verdict->outcome != OUTCOME_OK)
                event.kind = EVENT_ALIAS_REPORTED;
        else
                event.kind = EVENT_SLOT_SET;
        if (changed && event.kind == EVENT_ALIAS_REPORTED)
                front_publish(
                        call->front,
                        &(Event) { .kind = EVENT_SLOT_SET, .vm = call->vm, .backing = spec->backing, .slot = spec });
        front_publish(call->front, &event);
}

/* Most verdicts are one and the same object, so its reply is kept too. */
static int reply_verdict(sd_varlink *link, sd_json_variant *verdict) {
        static sd_json_variant *reply, *in_reply; /* the former holds the latter */
        sd_json_variant *made = NULL;
        int r;

        if (verdict != in_reply) {
                r = sd_json_buildo(&made, SD_JSON_BUILD_PAIR_VARIANT("verdict", verdict));
                if (r < 0)
                        return sd_varlink_error_errno(link, r);
                sd_json_variant_unref(reply);
                reply = made;
                in_reply = verdict;
        }
        return sd_varlink_reply(link, reply);
}

static int reply_slot(Call *call, const SlotSpec *spec, const Verdict *verdict, bool was_set) {
        _cleanup_json_ sd_json_variant *object = NULL;
        int r;

        r = format_verdict(call->vm, spec, verdict, VERDICT_CONFLICTS_MAX, service_advice_facts(call->service),
                           &object);
        if (r < 0)
                return sd_varlink_error_errno(call->link, r);
        if (was_set)
                return reply_verdict(call->link, object);
        return sd_varlink_errorbo(
                call->link, PRIVMEMD_INTERFACE ".SlotRefused",
                SD_JSON_BUILD_PAIR_STRING("message", sd_json_variant_string(sd_json_variant_by_key(object, "reason"))),
                SD_JSON_BUILD_PAIR_STRING("vm", call->vm->name), SD_JSON_BUILD_PAIR_UNSIGNED("slotId", spec->id),
                SD_JSON_BUILD_PAIR_UNSIGNED("addressSpace", spec->as_id),
                SD_JSON_BUILD_PAIR_VARIANT("verdict", object));
}

/* Judges the slots, and sets them if apply. */
static int judge(Call *call, bool apply, const SlotSpec *specs, size_t n, Verdict *verdicts, bool *changed,
                 bool *ret_accepted, Failure *f) {
        if (apply)
                return service_set_slots(call->service, call->vm, specs, n, verdicts, changed, ret_accepted, f);
        return slot_set_many(call->vm, specs, n, /* apply_all= */ false, verdicts, changed, ret_accepted);
}

int op_set_slot(Call *call) {
        struct {
                const char *vm;
                sd_json_variant *slot;
                int dry_run;
        } p = {};
        static const sd_json_dispatch_field table[] = {
                { "vm", SD_JSON_VARIANT_STRING, sd_json_dispatch_const_string, offsetof(typeof(p), vm),
                  SD_JSON_MANDATORY },
                { "slot", SD_JSON_VARIANT_OBJECT, sd_json_dispatch_variant_noref, offsetof(typeof(p), slot),
                  SD_JSON_MANDATORY },
                { "dryRun", SD_JSON_VARIANT_BOOLEAN, sd_json_dispatch_tristate, offsetof(typeof(p), dry_run),
                  SD_JSON_NULLABLE },
                {},
        };
        _cleanup_(verdict_done) Verdict verdict;
        _cleanup_(service_forget_look) SlotSpec spec = {};
        const char *bad;
        bool changed, accepted;
        Failure f = {};
        int r;

        verdict_init(&verdict);
        r = sd_varlink_dispatch(call->link, call->parameters, table, &p);
        if (r != 0)
                return r;
        call->vm = call_declaring_vm(call);
        r = parse_slot(call, p.slot, &spec, &f, &bad);
        if (r != 0)
                return reply_parse_error(call, r, &f, bad);
        r = judge(call, p.dry_run <= 0, &spec, 1, &verdict, &changed, &accepted, &f);
        if (r != 0)
                return failure_reply(call->link, r, &f);
        if (p.dry_run <= 0)
                publish_slot(call, &spec, &verdict, changed);
        return reply_slot(call, &spec, &verdict, accepted);
}

/* A table of slots on its way through SetSlots or CheckSlots. */
typedef struct Batch {
        size_t n;
        SlotSpec *specs;
        Verdict *verdicts;
        bool *changed;
        bool accepted;
} Batch;

static void batch_done(Batch *batch) {
        for (size_t i = 0; batch->verdicts && i < batch->n; i++)
                verdict_done(&batch->verdicts[i]);
        for (size_t i = 0; batch->specs && i < batch->n; i++)
                service_forget_look(&batch->specs[i]);
        free(batch->specs);
        free(batch->verdicts);
        free(batch->changed);
}

static int batch_parse(Call *call, sd_json_variant *slots, Batch *batch, Failure *f, const char **ret_bad) {
        int r;

        *ret_bad = NULL;
        batch->n = sd_json_variant_elements(slots);
        if (batch->n > SLOTS_PER_CALL_MAX)
                return fail_limit(f, "slotsPerCall", SLOTS_PER_CALL_MAX);
        batch->specs = calloc(batch->n ?: 1, sizeof(*batch->specs));
        batch->verdicts = calloc(batch->n ?: 1, sizeof(*batch->verdicts));
        batch->changed = calloc(batch->n ?: 1, sizeof(*batch->changed));
        if (!batch->specs || !batch->verdicts || !batch->changed)
                return -ENOMEM;
        for (size_t i = 0; i < batch->n; i++)
                verdict_init(&batch->verdicts[i]);
        for (size_t i = 0; i < batch->n; i++) {
                r = parse_slot(call, sd_json_variant_by_index(slots, i), &batch->specs[i], f, ret_bad);
                if (r != 0)
                        return r;
        }
        return 0;
}

static int batch_format(const VM *vm, const Batch *batch, const AdviceFacts *facts, sd_json_variant **ret) {
        size_t max_conflicts = batch->n > 0 ? CONFLICTS_PER_REPLY / batch->n : 0;
        int r;

        r = sd_json_build(ret, SD_JSON_BUILD_EMPTY_ARRAY);
        for (size_t i = 0; r >= 0 && i < batch->n; i++) {
                _cleanup_json_ sd_json_variant *verdict = NULL;

                r = format_verdict(vm, &batch->specs[i], &batch->verdicts[i], max_conflicts, facts, &verdict);
                if (r >= 0)
                        r = sd_json_variant_append_array(ret, verdict);
        }
        return r;
}

static int reply_refused_batch(Call *call, const Batch *batch, sd_json_variant *verdicts) {
        char message[160];
        size_t refused = 0;

        for (size_t i = 0; i < batch->n; i++)
                refused += verdict_denies(&batch->verdicts[i], call->vm->alias_policy);
        snprintf(message, sizeof(message),
                 "%zu of %zu slots of VM %s were refused and nothing was changed. Each verdict says why.", refused,
                 batch->n, call->vm->name);
        return sd_varlink_errorbo(
                call->link, PRIVMEMD_INTERFACE ".SlotsRefused", SD_JSON_BUILD_PAIR_STRING("message", message),
                SD_JSON_BUILD_PAIR_STRING("vm", call->vm->name), SD_JSON_BUILD_PAIR_VARIANT("verdicts", verdicts));
}

static int reply_batch(Call *call, const Batch *batch, bool is_check) {
        _cleanup_json_ sd_json_variant *verdicts = NULL;
        int r;

        r = batch_format(call->vm, batch, service_advice_facts(call->service), &verdicts);
        if (r < 0)
                return sd_varlink_error_errno(call->link, r);
        if (!is_check && !batch->accepted)
                return reply_refused_batch(call, batch, verdicts);
        return sd_varlink_replybo(
                call->link, SD_JSON_BUILD_PAIR_CONDITION(is_check, "accepted", SD_JSON_BUILD_BOOLEAN(batch->accepted)),
                SD_JSON_BUILD_PAIR_VARIANT("verdicts", verdicts));
}

/* Of a refused table nothing was set, so only its refusals are told. */
static void publish_batch(Call *call, const Batch *batch) {
        for (size_t i = 0; i < batch->n; i++)
                if (batch->accepted || verdict_denies(&batch->verdicts[i], call->vm->alias_policy))
                        publish_slot(call, &batch->specs[i], &batch->verdicts[i],
                                     batch->accepted && batch->changed[i]);
}

static int set_or_check(Call *call, bool is_check) {
        struct {
                const char *vm;
                sd_json_variant *slots;
                int dry_run;
        } p = { .dry_run = is_check };
        static const sd_json_dispatch_field table[] = {
                { "vm", SD_JSON_VARIANT_STRING, sd_json_dispatch_const_string, offsetof(typeof(p), vm),
                  SD_JSON_MANDATORY },
                { "slots", SD_JSON_VARIANT_ARRAY, sd_json_dispatch_variant_noref, offsetof(typeof(p), slots),
                  SD_JSON_MANDATORY },
                { "dryRun", SD_JSON_VARIANT_BOOLEAN, sd_json_dispatch_tristate, offsetof(typeof(p), dry_run),
                  SD_JSON_NULLABLE },
                {},
        };
        _cleanup_(batch_done) Batch batch = {};
        const char *bad;
        Failure f = {};
        int r;

        r = sd_varlink_dispatch(call->link, call->parameters, table, &p);
        if (r != 0)
                return r;
        call->vm = call_declaring_vm(call);
        r = batch_parse(call, p.slots, &batch, &f, &bad);
        if (r != 0)
                return reply_parse_error(call, r, &f, bad);
        r = judge(call, p.dry_run <= 0, batch.specs, batch.n, batch.verdicts, batch.changed, &batch.accepted, &f);
        if (r != 0)
                return failure_reply(call->link, r, &f);
        if (p.dry_run <= 0)
                publish_batch(call, &batch);
        return reply_batch(call, &batch, is_check);
}

int op_set_slots(Call *call) {
        return set_or_check(call, /* is_check= */ false);
}

int op_check_slots(Call *call) {
        return set_or_check(call, /* is_check= */ true);
}
