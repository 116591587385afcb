/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* GetHost, Subscribe and the lists: what only looks. */

#include <string.h>

#include "core/cleanup.h"
#include "core/range.h"
#include "front/call.h"
#include "front/format.h"

/* Objects in one message of a list: about 30 KiB of slots. */
#define CHUNK 128

#define _cleanup_json_ _cleanup_(sd_json_variant_unrefp)

int op_get_host(Call *call) {
        static const sd_json_dispatch_field nothing[] = { {} };
        _cleanup_json_ sd_json_variant *reply = NULL;
        int r;

        r = sd_varlink_dispatch(call->link, call->parameters, nothing, NULL);
        if (r != 0)
                return r;
        r = format_host(call->front, call->service, &reply);
        if (r < 0)
                return sd_varlink_error_errno(call->link, r);
        return sd_varlink_reply(call->link, reply);
}

/* The next VM of the host after the one that the stream's cursor is at, or NULL. */
static VM *next_vm_of_any(Stream *stream) {
        if (stream->only_vm[0])
                return strcmp(stream->vm, stream->only_vm) != 0 ?
                               registry_find_vm(stream->front->registry, stream->only_vm) :
                               NULL;
        return registry_next_vm(stream->front->registry, stream->vm[0] ? stream->vm : NULL);
}

/* The same of the VMs that the caller may see. */
static VM *next_vm(Stream *stream) {
        VM *vm = next_vm_of_any(stream);

        while (vm && !stream_may_see(stream, vm))
                vm = stream->only_vm[0] ? NULL : registry_next_vm(stream->front->registry, vm->name);
        return vm;
}

static void enter_vm(Stream *stream, const VM *vm) {
        strcpy(stream->vm, vm->name);
        stream->backing[0] = 0;
        stream->in_vm = false;
        stream->in_outgoing = false;
}

/* Adds one object to the message and drops our reference to it. */
static int append(sd_json_variant **array, sd_json_variant *object) {
        int r;

        r = sd_json_variant_append_array(array, object);
        sd_json_variant_unref(object);
        return r;
}

/* One object a VM. */
static int fill_by_vm(Stream *stream, const char *name,
                      int (*format)(Service *service, const VM *vm, sd_json_variant **ret), sd_json_variant **ret,
                      bool *ret_last) {
        _cleanup_json_ sd_json_variant *array = NULL;
        size_t n = 0;
        VM *vm;
        int r;

        while (n < page_size(stream, CHUNK) && (vm = next_vm(stream))) {
                sd_json_variant *object = NULL;

                r = format(stream->front->service, vm, &object);
                if (r >= 0)
                        r = append(&array, object);
                if (r < 0)
                        return r;
                enter_vm(stream, vm);
                n++;
        }
        return page_finish(stream, name, array, !next_vm(stream), ret, ret_last);
}

static int fill_vms(Stream *stream, sd_json_variant **ret, bool *ret_last) {
        return fill_by_vm(stream, "vms", format_vm, ret, ret_last);
}

static int fill_metrics(Stream *stream, sd_json_variant **ret, bool *ret_last) {
        return fill_by_vm(stream, "metrics", format_vm_metrics, ret, ret_last);
}

/* The next backing after the stream's cursor, in this VM or a later one; moves the cursor to it. Each VM may have one
 * that is shared with the caller. */
static Backing *next_backing(Stream *stream) {
        Backing *backing;
        VM *vm;

        vm = stream->vm[0] ? registry_find_vm(stream->front->registry, stream->vm) : NULL;
        for (;;) {
                if (vm) {
                        backing = vm_next_backing(vm, stream->backing[0] ? stream->backing : NULL);
                        while (backing && !uid_may_see_backing(stream->sees_as, backing))
                                backing = vm_next_backing(vm, backing->name);
                        if (backing) {
                                strcpy(stream->backing, backing->name);
                                return backing;
                        }
                }
                vm = next_vm_of_any(stream);
                if (!vm)
                        return NULL;
                enter_vm(stream, vm);
        }
}

/* The only one, if it has not been sent. */
static Backing *only_backing_of(Stream *stream) {
        Backing *backing;
        VM *vm;

        if (stream->backing[0])
                return NULL;
        vm = registry_find_vm(stream->front->registry, stream->of_vm);
        backing = vm ? vm_find_backing(vm, stream->only_backing) : NULL;
        if (!backing || !uid_may_see_backing(stream->sees_as, backing))
                return NULL;
        enter_vm(stream, vm);
        strcpy(stream->backing, backing->name);
        return backing;
}

static Backing *next_backing_asked_for(Stream *stream) {
        return stream->only_backing[0] ? only_backing_of(stream) : next_backing(stream);
}

static int fill_backings(Stream *stream, sd_json_variant **ret, bool *ret_last) {
        _cleanup_json_ sd_json_variant *array = NULL;
        Backing *backing = NULL;
        Stream ahead;
        int r;

        for (size_t n = 0; n < page_size(stream, CHUNK) && (backing = next_backing_asked_for(stream)); n++) {
                sd_json_variant *object = NULL;

                r = format_backing(stream->front->service, backing, stream->sees_as, &object);
                if (r >= 0)
                        r = append(&array, object);
                if (r < 0)
                        return r;
        }
        ahead = *stream;
        return page_finish(stream, "backings", array, !backing || !next_backing_asked_for(&ahead), ret, ret_last);
}

static Slot *next_by_id(Stream *stream, VM *vm) {
        Slot *slot;

        if (stream->has_only_as_id && stream->has_only_id)
                slot = stream->in_vm ? NULL : slot_find(vm, stream->only_as_id, stream->only_id);
        else
                slot = stream->in_vm ? slot_next(vm, stream->as_id, stream->id) : slot_first(vm);
        if (!slot)
                return NULL;
        stream->in_vm = true;
        stream->as_id = slot->spec.as_id;
        stream->id = slot->spec.id;
        return slot;
}

static Slot *next_in_range(Stream *stream, VM *vm) {
        if (!stream->in_vm) {
                stream->in_vm = true;
                stream->as_id = 0;
                stream->from = stream->start;
        }
        for (; stream->as_id < ADDRESS_SPACES_MAX; stream->as_id++, stream->from = stream->start) {
                IntervalCursor cursor;
                uint64_t slot_end;
                Slot *slot;

                if (stream->from == stream->end)
                        continue;
                slot = slot_first_at_gpa(vm, stream->as_id, stream->from, stream->end - stream->from, &cursor);
                if (!slot)
                        continue;
                slot_end = slot->spec.gpa + slot->spec.size;
                stream->from = slot_end < stream->end ? slot_end : stream->end;
                return slot;
        }
        return NULL;
}

static Slot *next_in_part(Stream *stream, VM *part) {
        return stream->has_range ? next_in_range(stream, part) : next_by_id(stream, part);
}

/* The slots of the outgoing part come behind the VM's own. */
static Slot *next_in_vm(Stream *stream, VM *vm) {
        Slot *slot = stream->in_outgoing ? NULL : next_in_part(stream, vm);

        if (slot || !vm->outgoing)
                return slot;
        if (!stream->in_outgoing) {
                stream->in_outgoing = true;
                stream->in_vm = false;
        }
        return next_in_part(stream, vm->outgoing);
}

static Slot *next_slot(Stream *stream) {
        Slot *slot;
        VM *vm;

        /* By now the name may be another one's VM, and a cursor is what the caller says. */
        vm = stream->vm[0] ? registry_find_vm(stream->front->registry, stream->vm) : NULL;
        if (vm && !stream_may_see(stream, vm))
                vm = NULL;
        for (;;) {
                if (vm) {
                        slot = next_in_vm(stream, vm);
                        if (slot)
                                return slot;
                }
                vm = next_vm(stream);
                if (!vm)
                        return NULL;
                enter_vm(stream, vm);
        }
}

/* A list of the slots that show one backing goes through all VMs, since any may. */
static bool shows(const Slot *slot, const Stream *stream, const Backing *backing) {
        if ((stream->has_only_as_id && slot->spec.as_id != stream->only_as_id) ||
            (stream->has_only_id && slot->spec.id != stream->only_id))
                return false;
        return !stream->only_backing[0] ||
               (backing && (slot->spec.backing == backing || slot_guest_memfd(slot) == backing));
}

static Backing *only_backing(Stream *stream, const char *of_vm) {
        VM *vm;

        vm = registry_find_vm(stream->front->registry, of_vm);
        return vm ? vm_find_backing(vm, stream->only_backing) : NULL;
}

static int append_slot(sd_json_variant **array, const Slot *slot) {
        _cleanup_json_ sd_json_variant *inner = NULL;
        SlotSpec spec = slot_spec(slot);
        SlotView view = slot_view(slot->vm, &spec);
        int r;

        r = format_slot(&view, &inner);
        if (r < 0)
                return r;
        return sd_json_variant_append_arraybo(
                array, SD_JSON_BUILD_PAIR_STRING("vm", slot->vm->name),
                SD_JSON_BUILD_PAIR_CONDITION(slot->vm->heir != NULL, "outgoing", SD_JSON_BUILD_BOOLEAN(true)),
                SD_JSON_BUILD_PAIR_VARIANT("slot", inner));
}

static int fill_slots(Stream *stream, sd_json_variant **ret, bool *ret_last) {
        _cleanup_json_ sd_json_variant *array = NULL;
        Backing *backing = NULL;
        Slot *slot = NULL;
        Stream ahead;
        int r;

        if (stream->only_backing[0])
                backing = only_backing(stream, stream->of_vm);
        for (size_t n = 0; n < page_size(stream, CHUNK) && (slot = next_slot(stream));) {
                if (!shows(slot, stream, backing))
                        continue;
                r = append_slot(&array, slot);
                if (r < 0)
                        return r;
                n++;
        }
        ahead = *stream;
        while (slot && (slot = next_slot(&ahead)) && !shows(slot, stream, backing))
                ;
        return page_finish(stream, "slots", array, !slot, ret, ret_last);
}

/* The VM, and the backing, that a list is confined to must exist. */
static int check_filter(Call *call, StreamFill fill, const char *vm_name, const char *backing_name, Failure *f) {
        const Backing *backing;
        VM *vm;

        if (backing_name && !vm_name)
                return fail_invalid_name(f, "vm", "");
        if (!vm_name)
                return 0;
        vm = registry_find_vm(call->registry, vm_name);
        if (!vm)
                return fail_no_such_vm(f, vm_name);
        if (!call_may_see(call, vm) && (fill != fill_backings || !uid_may_see_a_backing(call->uid, vm)))
                return fail_not_permitted_vm(f, vm->name, call->uid);
        if (!backing_name)
                return 0;
        backing = vm_find_backing(vm, backing_name);
        /* Of somebody else's VM, say no more than what is shared. */
        if (!call_may_see(call, vm) && (!backing || !uid_may_see_backing(call->uid, backing)))
                return fail_not_permitted_vm(f, vm->name, call->uid);
        return backing ? 0 : fail_no_such_backing(f, vm->name, backing_name);
}

int call_parse_range(const Call *call, uint64_t gpa, uint64_t size, Stream *stream, Failure *f) {
        if (!call_has(call, "memorySize"))
                size = UINT64_MAX - gpa;
        if (!range_valid(gpa, size))
                return fail_invalid_value(f, "memorySize", size, 1, UINT64_MAX - gpa, 0);
        stream->has_range = call_has(call, "guestPhysAddr") || call_has(call, "memorySize");
        stream->start = gpa;
        stream->end = gpa + size;
        return 0;
}

typedef struct ListParameters {
        const char *vm, *backing;
        uint64_t gpa, size;
        uint32_t as_id, id;
        PageParameters page;
} ListParameters;

static const sd_json_dispatch_field list_table[] = {
        { "vm", SD_JSON_VARIANT_STRING, sd_json_dispatch_const_string, offsetof(ListParameters, vm),
          SD_JSON_NULLABLE },
        { "backing", SD_JSON_VARIANT_STRING, sd_json_dispatch_const_string, offsetof(ListParameters, backing),
          SD_JSON_NULLABLE },
        { "guestPhysAddr", _SD_JSON_VARIANT_TYPE_INVALID, sd_json_dispatch_uint64, offsetof(ListParameters, gpa),
          SD_JSON_NULLABLE },
        { "memorySize", _SD_JSON_VARIANT_TYPE_INVALID, sd_json_dispatch_uint64, offsetof(ListParameters, size),
          SD_JSON_NULLABLE },
        { "addressSpace", SD_JSON_VARIANT_UNSIGNED, sd_json_dispatch_uint32, offsetof(ListParameters, as_id),
          SD_JSON_NULLABLE },
        { "slotId", SD_JSON_VARIANT_UNSIGNED, sd_json_dispatch_uint32, offsetof(ListParameters, id),
          SD_JSON_NULLABLE },
        PAGE_FIELDS(ListParameters, page),
        {},
};

/* The VM and the backing exist, so they fit. */
static void confine(const Call *call, const ListParameters *p, Stream *stream) {
        if (p->backing) {
                strcpy(stream->only_backing, p->backing);
                strcpy(stream->of_vm, p->vm);
        } else if (p->vm)
                strcpy(stream->only_vm, p->vm);
        stream->has_only_as_id = call_has(call, "addressSpace");
        stream->only_as_id = p->as_id;
        stream->has_only_id = call_has(call, "slotId");
        stream->only_id = p->id;
}

static int list(Call *call, StreamFill fill, ListKind kind) {
        Stream stream = { .fill = fill, .kind = kind };
        ListParameters p = {};
        Failure f = {};
        int r;

        r = sd_varlink_dispatch(call->link, call->parameters, list_table, &p);
        if (r != 0)
                return r;
        r = check_filter(call, fill, p.vm, p.backing, &f);
        if (r == 0)
                r = call_parse_range(call, p.gpa, p.size, &stream, &f);
        if (stream.has_range)
                stream.kind = LIST_SLOTS_IN_RANGE;
        if (r == 0) {
                confine(call, &p, &stream);
                r = page_begin(call, &p.page, &stream, &f);
        }
        if (r == -EINVAL)
                return sd_varlink_error_invalid_parameter_name(call->link, "cursor");
        if (r != 0)
                return failure_reply(call->link, r, &f);
        return stream_start(call, &stream);
}

int op_list_vms(Call *call) {
        return list(call, fill_vms, LIST_VMS);
}

int op_list_backings(Call *call) {
        return list(call, fill_backings, LIST_BACKINGS);
}

int op_list_slots(Call *call) {
        return list(call, fill_slots, LIST_SLOTS);
}

int op_list_metrics(Call *call) {
        return list(call, fill_metrics, LIST_METRICS);
}

static int fill_events(Stream *stream, sd_json_variant **ret, bool *ret_last) {
        _cleanup_json_ sd_json_variant *event = NULL;
        int r;

        *ret_last = false;
        if (!stream->greeted) {
                stream->greeted = true;
                r = event_log_hello(stream->front->log, &event);
        } else {
                EventFilter filter = { .kinds = stream->kinds, .vms = stream->work };

                r = event_log_next(stream->front->log, stream->sees_as, &filter, &stream->sequence, &event);
                if (r == 0)
                        return 0;
        }
        if (r < 0)
                return r;
        return sd_json_buildo(ret, SD_JSON_BUILD_PAIR_VARIANT("event", event));
}

size_t count_subscriptions(Front *front, uid_t uid) {
        return stream_count(front, uid, fill_events);
}

/* The IDL knows the words already, so an unknown one does not get here. */
static uint32_t kinds_of(sd_json_variant *words) {
        uint32_t kinds = 0;

        for (size_t i = 0; i < sd_json_variant_elements(words); i++)
                kinds |= UINT32_C(1) << event_kind_of(sd_json_variant_string(sd_json_variant_by_index(words, i)));
        return kinds;
}

static void forget_vms(void *work) {
        sd_json_variant_unref(work);
}

int op_subscribe(Call *call) {
        struct {
                uint64_t since;
                sd_json_variant *vms, *kinds;
        } p = { .since = event_log_newest(call->front->log) };
        static const sd_json_dispatch_field table[] = {
                { "since", _SD_JSON_VARIANT_TYPE_INVALID, sd_json_dispatch_uint64, offsetof(typeof(p), since),
                  SD_JSON_NULLABLE },
                { "vm", SD_JSON_VARIANT_ARRAY, sd_json_dispatch_variant_noref, offsetof(typeof(p), vms),
                  SD_JSON_NULLABLE },
                { "kind", SD_JSON_VARIANT_ARRAY, sd_json_dispatch_variant_noref, offsetof(typeof(p), kinds),
                  SD_JSON_NULLABLE },
                {},
        };
        Stream stream = { .fill = fill_events, .subscriber = true, .cleanup = forget_vms };
        Failure f = {};
        int r;

        r = sd_varlink_dispatch(call->link, call->parameters, table, &p);
        if (r != 0)
                return r;
        if (sd_json_variant_elements(p.vms) > VMS_PER_SUBSCRIPTION_MAX)
                return failure_reply(call->link, fail_limit(&f, "vmsPerSubscription", VMS_PER_SUBSCRIPTION_MAX), &f);
        if (count_subscriptions(call->front, call->uid) >= SUBSCRIBERS_PER_UID_MAX)
                return failure_reply(call->link, fail_limit(&f, "subscribersPerUID", SUBSCRIBERS_PER_UID_MAX), &f);
        stream.sequence = p.since;
        stream.kinds = kinds_of(p.kinds);
        if (sd_json_variant_elements(p.vms) > 0)
                stream.work = sd_json_variant_ref(p.vms);
        r = stream_start(call, &stream);
        if (r < 0)
                forget_vms(stream.work);
        return r;
}
