/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* ListLedger. What is in a ledger was written by privmemd, but it may be damaged: nothing in it is trusted here. */

#include <inttypes.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "core/cleanup.h"
#include "core/record-fields.h"
#include "front/call.h"
#include "front/format.h"
#include "front/words.h"

#define _cleanup_json_ _cleanup_(sd_json_variant_unrefp)

/* Records in one message: about 60 KiB. */
#define CHUNK 128

/* What the records so far call the VM or the backing of an id. */
typedef struct Named {
        uint64_t id;
        uint64_t vm; /* of a backing */
        char name[NAME_LENGTH_MAX + 1];
} Named;

typedef struct Listing {
        LedgerList *list;
        LedgerSummary summary;
        Custody custody;
        void *names; /* tsearch(3) of Named */
        LedgerEntry next;
        bool has_next;
} Listing;

static void listing_free(void *work) {
        Listing *listing = work;

        if (!listing)
                return;
        service_close_ledger(listing->list);
        tdestroy(listing->names, free);
        free(listing);
}

/* ---- names ---- */

static int compare_named(const void *a, const void *b) {
        const Named *x = a, *y = b;

        return x->id < y->id ? -1 : x->id > y->id;
}

static const Named *find_named(const Listing *listing, uint64_t id) {
        void *found = id > 0 ? tfind(&(Named) { .id = id }, &listing->names, compare_named) : NULL;

        return found ? *(const Named **) found : NULL;
}

/* An id that comes twice has the name that came last. */
static int remember(Listing *listing, uint64_t id, uint64_t vm, const char *name) {
        Named *named = malloc(sizeof(*named)), **place;

        if (!named)
                return -ENOMEM;
        named->id = id;
        named->vm = vm;
        strcpy(named->name, name);
        place = tsearch(named, &listing->names, compare_named);
        if (!place) {
                free(named);
                return -ENOMEM;
        }
        if (*place != named) {
                **place = *named;
                free(named);
        }
        return 0;
}

/* ---- fields ---- */

/* One record on its way into JSON. */
typedef struct Shown {
        sd_json_variant *fields;
        uint64_t vm, backing; /* ids, or 0 */
        char name[NAME_LENGTH_MAX + 1];
} Shown;

static const char *word_of(const RecordField *field) {
        uint64_t value = field->value;

        switch (field->kind) {
        case RECORD_FIELD_BOOL:
                return value ? "true" : "false";
        case RECORD_FIELD_EXIT_POLICY:
                return value < _EXIT_POLICY_MAX ? exit_policy_word((ExitPolicy) value) : NULL;
        case RECORD_FIELD_ALIAS_POLICY:
                return value < _ALIAS_POLICY_MAX ? alias_policy_word((AliasPolicy) value) : NULL;
        case RECORD_FIELD_VM_TYPE:
                return value < _VM_TYPE_MAX ? vm_type_word((VMType) value) : NULL;
        case RECORD_FIELD_VM_STATE:
                return value < _VM_STATE_MAX ? vm_state_word((VMState) value) : NULL;
        case RECORD_FIELD_BACKING_KIND:
                return value < _BACKING_KIND_MAX ? backing_kind_word((BackingKind) value) : NULL;
        case RECORD_FIELD_BACKING_ORIGIN:
                return value < _BACKING_ORIGIN_MAX ? backing_origin_word((BackingOrigin) value) : NULL;
        case RECORD_FIELD_NUMA_POLICY:
                return value == NUMA_POLICY_NONE ? "none" :
                       value < _NUMA_POLICY_MAX  ? numa_policy_word((NumaPolicy) value) :
                                                   NULL;
        default:
                return NULL;
        }
}

static void put_hex(char *text, const uint8_t *bytes, size_t size) {
        static const char digits[] = "0123456789abcdef";

        for (size_t i = 0; i < size; i++) {
                *text++ = digits[bytes[i] >> 4];
                *text++ = digits[bytes[i] & 15];
        }
        *text = 0;
}

#define VALUE_BYTES_MAX 64U

/* A name that is none is shown as the bytes that it has. */
static void put_value(const RecordField *field, Shown *shown, char text[static 2 * VALUE_BYTES_MAX + 1]) {
        const char *word = word_of(field);
        size_t size = field->size < VALUE_BYTES_MAX ? field->size : VALUE_BYTES_MAX;

        if (word)
                strcpy(text, word);
        else if (field->kind == RECORD_FIELD_NAME && field->size <= NAME_LENGTH_MAX) {
                memcpy(text, field->bytes, field->size);
                text[field->size] = 0;
                if (strlen(text) == field->size && name_is_valid(text))
                        strcpy(shown->name, text);
                else
                        put_hex(text, field->bytes, size);
        } else if (field->bytes)
                put_hex(text, field->bytes, size);
        else if (field->kind == RECORD_FIELD_DEVICE)
                sprintf(text, "%u:%u", major(field->value), minor(field->value));
        else
                sprintf(text, field->kind == RECORD_FIELD_HEX ? "0x%" PRIx64 : "%" PRIu64, field->value);
}

static int show_field(const RecordField *field, void *userdata) {
        char name[64], text[2 * VALUE_BYTES_MAX + 1];
        Shown *shown = userdata;

        put_value(field, shown, text);
        if (field->kind == RECORD_FIELD_VM)
                shown->vm = field->value;
        if (field->kind == RECORD_FIELD_BACKING)
                shown->backing = field->value;
        if (field->list)
                snprintf(name, sizeof(name), "%s[%u]%s%s", field->list, field->index, field->name ? "." : "",
                         field->name ?: "");
        else
                snprintf(name, sizeof(name), "%s", field->name);
        return sd_json_variant_append_arraybo(&shown->fields, SD_JSON_BUILD_PAIR_STRING("name", name),
                                              SD_JSON_BUILD_PAIR_STRING("value", text));
}

static int learn_name(Listing *listing, const LedgerEntry *entry, const Shown *shown) {
        if (!shown->name[0])
                return 0;
        if (entry->type == RECORD_VM)
                return remember(listing, shown->vm, 0, shown->name);
        if (entry->type == RECORD_BACKING)
                return remember(listing, shown->backing, shown->vm, shown->name);
        return 0;
}

/* ---- the answer ---- */

static int show_record(Listing *listing, const LedgerEntry *entry, Shown *shown) {
        int r;

        switch (entry->kind) {
        case LEDGER_ENTRY_RECORD:
                r = record_show(entry->type, entry->version, entry->body, entry->size, show_field, shown);
                return r < 0 ? r : learn_name(listing, entry, shown);
        case LEDGER_ENTRY_DAMAGED:
                return show_field(&(RecordField) { .name = "missing_frames", .value = entry->n_lost }, shown);
        case LEDGER_ENTRY_TORN:
        default:
                return 0;
        }
}

/* "DAMAGED" and "TORN" are no records; one that is not known is named by its number. */
static const char *type_of(const LedgerEntry *entry, char number[static 8]) {
        const char *name;

        switch (entry->kind) {
        case LEDGER_ENTRY_DAMAGED:
                return "DAMAGED";
        case LEDGER_ENTRY_TORN:
                return "TORN";
        case LEDGER_ENTRY_RECORD:
        default:
                name = record_type_name(entry->type, entry->version);
                snprintf(number, 8, "%u", (unsigned) entry->type);
                return name ?: number;
        }
}

static int append_entry(Listing *listing, const LedgerEntry *entry, sd_json_variant **array) {
        _cleanup_json_ sd_json_variant *fields = NULL;
        const Named *vm, *backing;
        Shown shown = {};
        char number[8];
        int r;

        r = show_record(listing, entry, &shown);
        fields = shown.fields;
        if (r < 0)
                return r;
        backing = find_named(listing, shown.backing);
        /* The VM that it is about goes before the one that has the backing. */
        if (shown.vm == 0 && backing)
                shown.vm = backing->vm;
        vm = find_named(listing, shown.vm);
        return sd_json_variant_append_arraybo(
                array, SD_JSON_BUILD_PAIR_UNSIGNED("sequence", entry->sequence),
                SD_JSON_BUILD_PAIR_UNSIGNED("offset", entry->offset),
                SD_JSON_BUILD_PAIR_STRING("type", type_of(entry, number)),
                SD_JSON_BUILD_PAIR_UNSIGNED("version", entry->version),
                SD_JSON_BUILD_PAIR_UNSIGNED("size", entry->size),
                SD_JSON_BUILD_PAIR_CONDITION(shown.vm != 0, "vmId", SD_JSON_BUILD_UNSIGNED(shown.vm)),
                SD_JSON_BUILD_PAIR_CONDITION(vm != NULL, "vm", SD_JSON_BUILD_STRING(vm ? vm->name : NULL)),
                SD_JSON_BUILD_PAIR_CONDITION(shown.backing != 0, "backingId", SD_JSON_BUILD_UNSIGNED(shown.backing)),
                SD_JSON_BUILD_PAIR_CONDITION(backing != NULL, "backing",
                                             SD_JSON_BUILD_STRING(backing ? backing->name : NULL)),
                SD_JSON_BUILD_PAIR_CONDITION(fields != NULL, "fields", SD_JSON_BUILD_VARIANT(fields)),
                SD_JSON_BUILD_PAIR_CONDITION(fields == NULL, "fields", SD_JSON_BUILD_EMPTY_ARRAY));
}

/* One record is looked at ahead, so that the last message is known to be the last. */
static int look_ahead(Listing *listing) {
        int r = service_next_in_ledger(listing->list, &listing->next);

        listing->has_next = r > 0;
        return r;
}

static int fill_ledger(Stream *stream, sd_json_variant **ret, bool *ret_last) {
        Listing *listing = stream->work;
        _cleanup_json_ sd_json_variant *array = NULL;
        int r;

        r = sd_json_build(&array, SD_JSON_BUILD_EMPTY_ARRAY);
        for (size_t n = 0; r >= 0 && n < CHUNK && listing->has_next; n++) {
                r = append_entry(listing, &listing->next, &array);
                if (r >= 0)
                        r = look_ahead(listing);
        }
        if (r < 0)
                return r;
        *ret_last = !listing->has_next;
        return sd_json_buildo(ret, SD_JSON_BUILD_PAIR_STRING("custody", custody_word(listing->custody)),
                              SD_JSON_BUILD_PAIR_UNSIGNED("generation", listing->summary.generation),
                              SD_JSON_BUILD_PAIR_UNSIGNED("bytes", listing->summary.size),
                              SD_JSON_BUILD_PAIR_UNSIGNED("frames", listing->summary.n_frames),
                              SD_JSON_BUILD_PAIR_VARIANT("records", array));
}

static int begin(Call *call, Listing **ret) {
        Listing *listing = calloc(1, sizeof(*listing));
        int r = -ENOMEM;

        if (listing) {
                listing->custody = service_custody(call->service);
                r = service_list_ledger(call->service, &listing->summary, &listing->list);
        }
        if (r >= 0)
                r = look_ahead(listing);
        if (r < 0) {
                listing_free(listing);
                return r;
        }
        *ret = listing;
        return 0;
}

int op_list_ledger(Call *call) {
        static const sd_json_dispatch_field nothing[] = { {} };
        Stream stream = { .fill = fill_ledger, .cleanup = listing_free, .is_costly = true }, *started;
        Failure f = {};
        int r;

        r = sd_varlink_dispatch(call->link, call->parameters, nothing, NULL);
        if (r != 0 || call->oneway)
                return r;
        if (stream_count(call->front, call->uid, fill_ledger) >= LEDGER_LISTS_PER_UID_MAX)
                return failure_reply(call->link, fail_limit(&f, "ledgerListsPerUID", LEDGER_LISTS_PER_UID_MAX), &f);
        r = begin(call, (Listing **) &stream.work);
        if (r < 0)
                return failure_reply(call->link, fail_host(&f, "reading the ledger", r), &f);
        r = stream_start_later(call, &stream, &started);
        if (r < 0) {
                listing_free(stream.work);
                return failure_reply(call->link, r, &f);
        }
        stream_resume(started);
        return 0;
}
