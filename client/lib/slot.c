/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "slot.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "words.h"

static json_object *make_flags(uint32_t flags) {
        static const char *const words[] = { "log_dirty_pages", "readonly", "guest_memfd" };
        json_object *array = json_object_new_array();

        for (size_t i = 0; array && i < N_WORDS(words); i++) {
                json_object *word;

                if (!(flags & 1u << i))
                        continue;
                word = json_object_new_string(words[i]);
                if (!word || json_object_array_add(array, word) < 0) {
                        json_object_put(word);
                        json_object_put(array);
                        return NULL;
                }
        }
        return array;
}

/* The API's Slot; NULL: out of memory. */
static json_object *make_slot(const struct privmem_slot *s) {
        json_object *o = json_object_new_object();
        bool made;

        made = json_add_uint64(o, "slotId", s->slot_id) && json_add_uint64(o, "addressSpace", s->address_space) &&
               json_add(o, "flags", make_flags(s->flags)) && json_add_uint64(o, "guestPhysAddr", s->guest_phys_addr) &&
               json_add_uint64(o, "memorySize", s->memory_size) &&
               json_add_uint64(o, "userspaceAddr", s->userspace_addr);
        if (made && s->backing)
                made = json_add_string(o, "backing", s->backing) && json_add_string(o, "backingVM", s->backing_vm) &&
                       json_add_uint64(o, "backingOffset", s->backing_offset);
        if (made && s->flags & PRIVMEM_SLOT_GUEST_MEMFD)
                made = json_add_string(o, "guestMemfd", s->guest_memfd) &&
                       json_add_uint64(o, "guestMemfdOffset", s->guest_memfd_offset);
        if (!made) {
                json_object_put(o);
                return NULL;
        }
        return o;
}

static int read_verdict(privmem *p, json_object *verdict, struct privmem_verdict *ret) {
        struct privmem_verdict v = {};
        const char *rule = json_get_string(verdict, "rule");
        int outcome = value_of(outcome_words, json_get_string(verdict, "outcome"));
        uint64_t code;

        if (outcome < 0 || !json_get_uint64(verdict, "kernelErrno", &code) || code > 4095)
                return connection_malformed(p, "a verdict is incomplete");

        v.outcome = (privmem_outcome) outcome;
        v.kernel_errno = (int) code;
        snprintf(v.rule, sizeof(v.rule), "%s", rule ? rule : "");
        if (ret)
                *ret = v;
        return 0;
}

static int check_flags(privmem_vm *vm, const struct privmem_slot *slot) {
        if (slot->flags & ~(uint32_t) SLOT_FLAGS_ALL)
                return error_set(&vm->p->error, -EINVAL, "The flags 0x%x of slot %u are none of a slot.",
                                 slot->flags & ~(uint32_t) SLOT_FLAGS_ALL, slot->slot_id);
        return 0;
}

/* object is consumed. */
static int call_set_slot(privmem_vm *vm, json_object *object, struct privmem_verdict *ret) {
        json_object *q = vm_parameters(vm), *reply = NULL;
        int r;

        if (!json_add(q, "slot", object)) {
                json_object_put(q);
                q = NULL;
        }

        r = connection_call(vm->p, "SetSlot", q, /* fds= */ NULL, /* n_fds= */ 0, /* max_fds= */ 0, &reply);
        if (r < 0)
                return r;
        return read_verdict(vm->p, json_get_object(reply, "verdict"), ret);
}

/* object is consumed. The table is told last, and of what privmemd has accepted only; when there is no memory
 * for that, it is loaded again before its next use. */
static int declare(privmem_vm *vm, uint32_t address_space, uint32_t slot_id, json_object *object,
                   struct privmem_verdict *ret) {
        const char *text;
        int r;

        r = call_set_slot(vm, object ? json_object_get(object) : NULL, ret);
        if (r >= 0) {
                text = json_text(object, NULL);
                if (!text || slot_table_put(&vm->slots, address_space, slot_id, text) < 0)
                        slot_table_done(&vm->slots);
        }

        json_object_put(object);
        return r;
}

int privmem_slot_withdraw(privmem_vm *vm, uint32_t address_space, uint32_t slot_id) {
        const struct privmem_slot none = { .slot_id = slot_id, .address_space = address_space };
        int r;

        r = call_set_slot(vm, make_slot(&none), /* ret= */ NULL);
        if (r < 0)
                return r;

        slot_table_remove(&vm->slots, address_space, slot_id);
        return 0;
}

int privmem_slot_declare(privmem_vm *vm, const struct privmem_slot *slot, struct privmem_verdict *ret) {
        int r;

        r = check_flags(vm, slot);
        if (r < 0)
                return r;
        if (slot->memory_size == 0)
                return privmem_slot_withdraw(vm, slot->address_space, slot->slot_id);

        return declare(vm, slot->address_space, slot->slot_id, make_slot(slot), ret);
}

int slot_declare_text(privmem_vm *vm, uint32_t address_space, uint32_t slot_id, const char *text) {
        json_object *object = NULL;
        int r;

        r = json_parse_object(text, strlen(text), &object);
        if (r < 0)
                return r;
        return declare(vm, address_space, slot_id, object, /* ret= */ NULL);
}

/* ---- the table ----------------------------------------------------------------------------------------- */

static int load_slot(privmem_vm *vm, json_object *listed) {
        json_object *slot = json_get_object(listed, "slot");
        uint64_t slot_id, address_space = 0;
        const char *text;

        if (!json_get_uint64(slot, "slotId", &slot_id) || slot_id > UINT16_MAX)
                return connection_malformed(vm->p, "a slot has no id");
        (void) json_get_uint64(slot, "addressSpace", &address_space);
        if (address_space > UINT16_MAX)
                return connection_malformed(vm->p, "a slot has no address space");

        text = json_text(slot, NULL);
        if (!text || slot_table_put(&vm->slots, (uint32_t) address_space, (uint32_t) slot_id, text) < 0)
                return connection_break(vm->p, -ENOMEM, "Out of memory.");
        return 0;
}

static int load_reply(privmem_vm *vm, json_object *reply) {
        json_object *slots = json_get_array(reply, "slots");
        int r = 0;

        if (!slots)
                return connection_malformed(vm->p, "a list of slots is missing");

        for (size_t i = 0; i < json_object_array_length(slots) && r >= 0; i++) {
                json_object *listed = json_object_array_get_idx(slots, i);

                /* That is the former VMM's, which hands the VM over to us. */
                if (!json_get_bool(listed, "outgoing"))
                        r = load_slot(vm, listed);
        }
        return r;
}

int slot_load_table(privmem_vm *vm) {
        bool continues = true;
        int r;

        if (vm->slots.loaded)
                return 0;

        r = connection_call_more(vm->p, "ListSlots", vm_parameters(vm));
        vm->slots.loaded = true;
        while (r >= 0 && continues) {
                json_object *reply = NULL;

                r = connection_next_reply(vm->p, /* timeout_msec= */ -1, &reply, &continues);
                if (r >= 0)
                        r = load_reply(vm, reply);
        }

        if (r < 0)
                slot_table_done(&vm->slots);
        return r;
}

/* ---- a dry run ----------------------------------------------------------------------------------------- */

static json_object *check_parameters(privmem_vm *vm, const struct privmem_slot *slots, size_t n_slots) {
        json_object *q = vm_parameters(vm), *array = json_object_new_array();
        bool made = array;

        for (size_t i = 0; made && i < n_slots; i++) {
                json_object *slot = make_slot(&slots[i]);

                made = slot && json_object_array_add(array, slot) == 0;
                if (!made)
                        json_object_put(slot);
        }

        if (!made) {
                json_object_put(array);
                json_object_put(q);
                return NULL;
        }
        if (!json_add(q, "slots", array)) {
                json_object_put(q);
                return NULL;
        }
        return q;
}

int privmem_slot_check(privmem_vm *vm, const struct privmem_slot *slots, size_t n_slots,
                       struct privmem_verdict *ret_verdicts, bool *ret_accepted) {
        json_object *reply = NULL, *verdicts;
        int r;

        for (size_t i = 0; i < n_slots; i++) {
                r = check_flags(vm, &slots[i]);
                if (r < 0)
                        return r;
        }

        r = connection_call(vm->p, "CheckSlots", check_parameters(vm, slots, n_slots), /* fds= */ NULL, /* n_fds= */ 0,
                            /* max_fds= */ 0, &reply);
        if (r < 0)
                return r;

        verdicts = json_get_array(reply, "verdicts");
        if (!verdicts || json_object_array_length(verdicts) != n_slots)
                return connection_malformed(vm->p, "there is not one verdict a slot");
        for (size_t i = 0; i < n_slots; i++) {
                r = read_verdict(vm->p, json_object_array_get_idx(verdicts, i),
                                 ret_verdicts ? &ret_verdicts[i] : NULL);
                if (r < 0)
                        return r;
        }

        if (ret_accepted)
                *ret_accepted = json_get_bool(reply, "accepted");
        return 0;
}
