/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* ListHolders. Looking at all processes takes milliseconds, so the manager does it in the background, and the answer is
 * a stream that waits for it. */

#include <string.h>

#include "core/backing.h"
#include "core/cleanup.h"
#include "front/call.h"
#include "front/format.h"

#define _cleanup_json_ _cleanup_(sd_json_variant_unrefp)

/* Holders in one message. */
#define CHUNK 128

/* One backing that was asked for. */
typedef struct Asked {
        Cursor name;
        HolderFile file;
} Asked;

typedef struct HolderList {
        Front *front;
        Cursor vm;
        Asked *asked; /* in order of name */
        size_t n_asked;
        Stream *stream;
        HolderScan *scan; /* NULL once it is done */
        HolderReport report;
        size_t n_sent;
} HolderList;

static void holder_list_free(void *work) {
        HolderList *list = work;

        if (!list)
                return;
        service_cancel_scan(list->scan);
        free(list->report.holders);
        free(list->asked);
        free(list);
}

/* ---- the answer ---- */

/* The VMs that the process runs: those that the caller may see, and those that the backing is shared with. */
static int format_vms(const HolderList *list, const Holder *holder, sd_json_variant **ret) {
        Registry *registry = list->front->registry;
        VM *owner = registry_find_vm(registry, list->vm), *vm;
        const Backing *backing = owner ? vm_find_backing(owner, list->asked[holder->file].name) : NULL;
        int r = 0;

        for (vm = registry_next_vm(registry, NULL); r >= 0 && vm; vm = registry_next_vm(registry, vm->name))
                if (service_is_vmm(vm, holder) &&
                    (stream_may_see(list->stream, vm) || (backing && backing_is_shared_with(backing, vm))))
                        r = sd_json_variant_append_arrayb(ret, SD_JSON_BUILD_STRING(vm->name));
        return r;
}

static int append_holder(const HolderList *list, const Holder *holder, sd_json_variant **array) {
        _cleanup_json_ sd_json_variant *vms = NULL;
        int r;

        r = format_vms(list, holder, &vms);
        if (r < 0)
                return r;
        return sd_json_variant_append_arraybo(
                array, SD_JSON_BUILD_PAIR_STRING("backing", list->asked[holder->file].name),
                SD_JSON_BUILD_PAIR_UNSIGNED("pid", (uint64_t) holder->pid),
                SD_JSON_BUILD_PAIR_STRING("command", holder->command), SD_JSON_BUILD_PAIR_UNSIGNED("uid", holder->uid),
                SD_JSON_BUILD_PAIR_CONDITION(vms != NULL, "vmmOf", SD_JSON_BUILD_VARIANT(vms)),
                SD_JSON_BUILD_PAIR_UNSIGNED("fileDescriptors", holder->n_fds),
                SD_JSON_BUILD_PAIR_UNSIGNED("sharedBytes", holder->shared_bytes),
                SD_JSON_BUILD_PAIR_UNSIGNED("privateBytes", holder->private_bytes),
                SD_JSON_BUILD_PAIR_BOOLEAN("writable", holder->writable),
                SD_JSON_BUILD_PAIR_BOOLEAN("copiesOnWrite", holder->copies));
}

static int fill_holders(Stream *stream, sd_json_variant **ret, bool *ret_last) {
        HolderList *list = stream->work;
        _cleanup_json_ sd_json_variant *array = NULL;
        int r;

        r = sd_json_build(&array, SD_JSON_BUILD_EMPTY_ARRAY);
        for (size_t n = 0; r >= 0 && n < CHUNK && list->n_sent < list->report.n_holders; n++)
                r = append_holder(list, &list->report.holders[list->n_sent++], &array);
        if (r < 0)
                return r;
        *ret_last = list->n_sent == list->report.n_holders;
        return sd_json_buildo(ret, SD_JSON_BUILD_PAIR_VARIANT("holders", array),
                              SD_JSON_BUILD_PAIR_BOOLEAN("complete", list->report.is_complete),
                              SD_JSON_BUILD_PAIR_UNSIGNED("unreadable", list->report.n_unreadable));
}

static int compare_holders(const void *a, const void *b) {
        const Holder *x = a, *y = b;

        if (x->file != y->file)
                return x->file < y->file ? -1 : 1;
        return x->pid < y->pid ? -1 : x->pid > y->pid;
}

/* Much may have happened while the manager looked. */
static int look_up_again(HolderList *list, Failure *f) {
        VM *vm = registry_find_vm(list->front->registry, list->vm);
        HolderReport *report = &list->report;
        size_t n = 0;

        if (!vm)
                return fail_no_such_vm(f, list->vm);
        if (!stream_may_see(list->stream, vm))
                return fail_not_permitted(f, vm->name, list->stream->uid);
        /* A number of a file that was released may be another file's by now. */
        for (size_t i = 0; i < report->n_holders; i++) {
                const Asked *asked = &list->asked[report->holders[i].file];
                const Backing *backing = vm_find_backing(vm, asked->name);

                if (backing && backing->dev == asked->file.dev && backing->ino == asked->file.ino)
                        report->holders[n++] = report->holders[i];
        }
        report->n_holders = n;
        qsort(report->holders, n, sizeof(Holder), compare_holders);
        return 0;
}

static void on_scan_done(int error, HolderReport *report, void *userdata) {
        HolderList *list = userdata;
        Failure f = {};
        int r;

        list->scan = NULL;
        list->report = *report;
        report->holders = NULL;
        r = error < 0 ? fail_host(&f, "looking at all processes", error) : look_up_again(list, &f);
        if (r != 0)
                stream_fail(list->stream, r, &f);
        else
                stream_resume(list->stream);
}

/* ---- the call ---- */

static int ask(HolderList *list, const Backing *backing) {
        Asked *asked;

        asked = reallocarray(list->asked, list->n_asked + 1, sizeof(Asked));
        if (!asked)
                return -ENOMEM;
        list->asked = asked;
        asked = &list->asked[list->n_asked++];
        strcpy(asked->name, backing->name);
        asked->file = (HolderFile) { .dev = backing->dev, .ino = backing->ino };
        return 0;
}

/* Of one backing, or of all that the VM has. */
static int ask_all(HolderList *list, VM *vm, const char *name, Failure *f) {
        const Backing *backing = vm_next_backing(vm, NULL);
        int r = 0;

        if (name) {
                backing = vm_find_backing(vm, name);
                return backing ? ask(list, backing) : fail_no_such_backing(f, vm->name, name);
        }
        for (; r >= 0 && backing; backing = vm_next_backing(vm, backing->name))
                r = ask(list, backing);
        return r;
}

static int start_scan(HolderList *list) {
        HolderFile files[BACKINGS_PER_VM_MAX];

        for (size_t i = 0; i < list->n_asked; i++)
                files[i] = list->asked[i].file;
        return service_scan_holders(list->front->service, files, list->n_asked, on_scan_done, list, &list->scan);
}

/* On success the stream owns the list. */
static int start(Call *call, HolderList *list, const char *backing, Failure *f) {
        const Stream stream = { .fill = fill_holders, .work = list, .cleanup = holder_list_free };
        int r;

        if (stream_count(call->front, call->uid, fill_holders) >= HOLDER_LISTS_PER_UID_MAX)
                return fail_limit(f, "holderListsPerUID", HOLDER_LISTS_PER_UID_MAX);
        list->front = call->front;
        strcpy(list->vm, call->vm->name);
        r = ask_all(list, call->vm, backing, f);
        if (r == 0)
                r = start_scan(list);
        if (r == 0)
                r = stream_start_later(call, &stream, &list->stream);
        return r;
}

int op_list_holders(Call *call) {
        struct {
                const char *vm, *backing;
        } p = {};
        static const sd_json_dispatch_field table[] = {
                { "vm", SD_JSON_VARIANT_STRING, sd_json_dispatch_const_string, offsetof(typeof(p), vm),
                  SD_JSON_MANDATORY },
                { "backing", SD_JSON_VARIANT_STRING, sd_json_dispatch_const_string, offsetof(typeof(p), backing),
                  SD_JSON_NULLABLE },
                {},
        };
        HolderList *list;
        Failure f = {};
        int r;

        r = sd_varlink_dispatch(call->link, call->parameters, table, &p);
        if (r != 0 || call->oneway)
                /* An answer that comes later would go to whatever call is next. */
                return r;
        list = calloc(1, sizeof(*list));
        r = list ? start(call, list, p.backing, &f) : -ENOMEM;
        if (r == 0)
                return 0;
        holder_list_free(list);
        return failure_reply(call->link, r, &f);
}
