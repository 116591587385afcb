/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What sd-varlink alone costs: a server that takes the same calls as privmemd, reads the same parameters and knows
 * nothing. It answers one of:
 *
 *   allocate   AllocateBacking with the fd of a new memfd; ReleaseBacking closes the newest
 *   set-slot   SetSlot with the verdict ok, made beforehand, and privmemd's interface to check them by
 *   list       ListBackings with one backing, and privmemd's interface; what privmemd has made beforehand is made so
 *
 * usage: bench-bare-server SOCKET allocate|set-slot|list */

#include <stdbool.h>
#include <stddef.h>
#include <systemd/sd-varlink.h>

#include "api/interface.h"
#include "memory.h"

#define INPUT  SD_VARLINK_DEFINE_INPUT
#define OUTPUT SD_VARLINK_DEFINE_OUTPUT
#define FIELD(type, decode, structure, member, flags) \
        { #member, SD_JSON_VARIANT_##type, sd_json_dispatch_##decode, offsetof(structure, member), SD_JSON_##flags }
#define NUMBER(decode, structure, member, flags) \
        { #member, _SD_JSON_VARIANT_TYPE_INVALID, sd_json_dispatch_##decode, offsetof(structure, member), \
          SD_JSON_##flags }

enum {
        ALLOCATE,
        SET_SLOT,
        LIST,
};

static const char *const works[] = {
        [ALLOCATE] = "allocate",
        [SET_SLOT] = "set-slot",
        [LIST] = "list",
};

static int work = -1;

/* ---- allocate ------------------------------------------------------------------------------------------ */

static SD_VARLINK_DEFINE_METHOD(AllocateBacking, INPUT(vm, SD_VARLINK_STRING, 0), INPUT(name, SD_VARLINK_STRING, 0),
                                INPUT(size, SD_VARLINK_INT, 0), INPUT(kind, SD_VARLINK_STRING, SD_VARLINK_NULLABLE),
                                INPUT(pageSize, SD_VARLINK_INT, SD_VARLINK_NULLABLE),
                                INPUT(numaPolicy, SD_VARLINK_STRING, SD_VARLINK_NULLABLE),
                                INPUT(numaNodes, SD_VARLINK_INT, SD_VARLINK_ARRAY | SD_VARLINK_NULLABLE),
                                OUTPUT(fileDescriptor, SD_VARLINK_INT, 0));

static SD_VARLINK_DEFINE_METHOD(ReleaseBacking, INPUT(vm, SD_VARLINK_STRING, 0), INPUT(backing, SD_VARLINK_STRING, 0),
                                OUTPUT(freedBytes, SD_VARLINK_INT, 0));

static SD_VARLINK_DEFINE_INTERFACE(minimal, PRIVMEMD_INTERFACE, &vl_method_AllocateBacking, &vl_method_ReleaseBacking);

typedef struct Allocation {
        const char *vm, *name, *kind, *numaPolicy;
        uint64_t size, pageSize;
        sd_json_variant *numaNodes;
} Allocation;

static int on_allocate(sd_varlink *link, sd_json_variant *parameters, sd_varlink_method_flags_t flags,
                       void *userdata) {
        static const sd_json_dispatch_field table[] = {
                FIELD(STRING, const_string, Allocation, vm, MANDATORY),
                FIELD(STRING, const_string, Allocation, name, MANDATORY),
                NUMBER(uint64, Allocation, size, MANDATORY),
                FIELD(STRING, const_string, Allocation, kind, NULLABLE),
                NUMBER(uint64, Allocation, pageSize, NULLABLE),
                FIELD(STRING, const_string, Allocation, numaPolicy, NULLABLE),
                FIELD(ARRAY, variant_noref, Allocation, numaNodes, NULLABLE),
                {},
        };
        Allocation p = {};
        int r;

        (void) flags;
        (void) userdata;
        r = sd_varlink_dispatch(link, parameters, table, &p);
        if (r != 0)
                return r;
        r = memory_create(p.name, p.size);
        if (r >= 0)
                r = sd_varlink_push_dup_fd(link, r);
        if (r < 0)
                return sd_varlink_error_errno(link, r);
        return sd_varlink_replybo(link, SD_JSON_BUILD_PAIR_INTEGER("fileDescriptor", r));
}

static int on_release(sd_varlink *link, sd_json_variant *parameters, sd_varlink_method_flags_t flags, void *userdata) {
        int r;

        (void) parameters;
        (void) flags;
        (void) userdata;
        r = memory_release();
        if (r < 0)
                return sd_varlink_error_errno(link, r);
        return sd_varlink_replybo(link, SD_JSON_BUILD_PAIR_UNSIGNED("freedBytes", 0));
}

/* ---- set-slot ------------------------------------------------------------------------------------------ */

typedef struct SlotParameters {
        uint32_t slotId, addressSpace;
        uint64_t guestPhysAddr, memorySize, userspaceAddr, backingOffset, guestMemfdOffset;
        const char *backing, *backingVM, *guestMemfd;
        sd_json_variant *flags;
} SlotParameters;

typedef struct SetSlot {
        const char *vm;
        sd_json_variant *slot;
} SetSlot;

static const sd_json_dispatch_field slot_table[] = {
        FIELD(UNSIGNED, uint32, SlotParameters, slotId, MANDATORY),
        FIELD(UNSIGNED, uint32, SlotParameters, addressSpace, NULLABLE),
        FIELD(ARRAY, variant_noref, SlotParameters, flags, NULLABLE),
        NUMBER(uint64, SlotParameters, guestPhysAddr, MANDATORY),
        NUMBER(uint64, SlotParameters, memorySize, MANDATORY),
        NUMBER(uint64, SlotParameters, userspaceAddr, NULLABLE),
        FIELD(STRING, const_string, SlotParameters, backing, NULLABLE),
        FIELD(STRING, const_string, SlotParameters, backingVM, NULLABLE),
        NUMBER(uint64, SlotParameters, backingOffset, NULLABLE),
        FIELD(STRING, const_string, SlotParameters, guestMemfd, NULLABLE),
        NUMBER(uint64, SlotParameters, guestMemfdOffset, NULLABLE),
        {},
};

static sd_json_variant *verdict_ok;

static int make_verdict(void) {
        return sd_json_buildo(&verdict_ok, SD_JSON_BUILD_PAIR_STRING("outcome", "ok"),
                              SD_JSON_BUILD_PAIR_UNSIGNED("kernelErrno", 0),
                              SD_JSON_BUILD_PAIR_EMPTY_ARRAY("conflicts"));
}

static int on_set_slot(sd_varlink *link, sd_json_variant *parameters, sd_varlink_method_flags_t flags,
                       void *userdata) {
        static const sd_json_dispatch_field table[] = {
                FIELD(STRING, const_string, SetSlot, vm, MANDATORY),
                FIELD(OBJECT, variant_noref, SetSlot, slot, MANDATORY),
                {},
        };
        SlotParameters slot = {};
        SetSlot p = {};
        int r;

        (void) flags;
        (void) userdata;
        r = sd_varlink_dispatch(link, parameters, table, &p);
        if (r != 0)
                return r;
        r = sd_json_dispatch(p.slot, slot_table, 0, &slot);
        if (r < 0)
                return sd_varlink_error_errno(link, r);
        return sd_varlink_replybo(link, SD_JSON_BUILD_PAIR_VARIANT("verdict", verdict_ok));
}

/* ---- list ---------------------------------------------------------------------------------------------- */

static sd_json_variant *survival;

/* As long as what privmemd says of most backings. */
static int make_survival(void) {
        sd_json_variant *one = NULL;
        int r;

        r = sd_json_buildo(
                &one, SD_JSON_BUILD_PAIR_BOOLEAN("survives", false), SD_JSON_BUILD_PAIR_STRING("reason", "not_kept"),
                SD_JSON_BUILD_PAIR_STRING("explanation",
                                          "nobody keeps the file descriptors of privmemd while it does not run; "
                                          "a VMM that runs goes on"));
        if (r >= 0)
                r = sd_json_buildo(&survival, SD_JSON_BUILD_PAIR_VARIANT("vmmCrash", one),
                                   SD_JSON_BUILD_PAIR_VARIANT("vmmUpgrade", one),
                                   SD_JSON_BUILD_PAIR_VARIANT("daemonRestart", one),
                                   SD_JSON_BUILD_PAIR_VARIANT("hostKexec", one));
        sd_json_variant_unref(one);
        return r;
}

typedef struct List {
        const char *vm, *backing;
} List;

static int on_list(sd_varlink *link, sd_json_variant *parameters, sd_varlink_method_flags_t flags, void *userdata) {
        static const sd_json_dispatch_field table[] = {
                FIELD(STRING, const_string, List, vm, NULLABLE),
                FIELD(STRING, const_string, List, backing, NULLABLE),
                {},
        };
        sd_json_variant *array = NULL;
        List p = {};
        int r;

        (void) flags;
        (void) userdata;
        r = sd_varlink_dispatch(link, parameters, table, &p);
        if (r != 0)
                return r;
        r = sd_json_variant_append_arraybo(
                &array, SD_JSON_BUILD_PAIR_STRING("vm", p.vm), SD_JSON_BUILD_PAIR_STRING("name", p.backing),
                SD_JSON_BUILD_PAIR_STRING("kind", "memfd"), SD_JSON_BUILD_PAIR_STRING("origin", "allocated"),
                SD_JSON_BUILD_PAIR_UNSIGNED("size", MEMORY_SIZE), SD_JSON_BUILD_PAIR_UNSIGNED("pageSize", 4096),
                SD_JSON_BUILD_PAIR_UNSIGNED("effectivePageSize", 4096), SD_JSON_BUILD_PAIR_UNSIGNED("device", 1),
                SD_JSON_BUILD_PAIR_UNSIGNED("inode", 1234567),
                SD_JSON_BUILD_PAIR("seals",
                                   SD_JSON_BUILD_ARRAY(SD_JSON_BUILD_STRING("seal"), SD_JSON_BUILD_STRING("shrink"),
                                                       SD_JSON_BUILD_STRING("grow"), SD_JSON_BUILD_STRING("exec"))),
                SD_JSON_BUILD_PAIR_UNSIGNED("residentBytes", 0), SD_JSON_BUILD_PAIR_UNSIGNED("slots", 0),
                SD_JSON_BUILD_PAIR_VARIANT("survival", survival));
        r = r < 0 ? sd_varlink_error_errno(link, r) :
                    sd_varlink_replybo(link, SD_JSON_BUILD_PAIR_VARIANT("backings", array));
        sd_json_variant_unref(array);
        return r;
}

/* ---- both ---------------------------------------------------------------------------------------------- */

static int on_connect(sd_varlink_server *server, sd_varlink *link, void *userdata) {
        (void) server;
        (void) userdata;
        return sd_varlink_set_allow_fd_passing_output(link, true);
}

static int add_methods(sd_varlink_server *server) {
        int r;

        r = sd_varlink_server_add_interface(server, work == ALLOCATE ? &vl_interface_minimal :
                                                                       &vl_interface_io_privmemd_Memory);
        if (r >= 0 && work == LIST)
                return sd_varlink_server_bind_method(server, PRIVMEMD_INTERFACE ".ListBackings", on_list);
        if (r >= 0 && work == SET_SLOT)
                return sd_varlink_server_bind_method(server, PRIVMEMD_INTERFACE ".SetSlot", on_set_slot);
        if (r >= 0)
                r = sd_varlink_server_bind_method(server, PRIVMEMD_INTERFACE ".AllocateBacking", on_allocate);
        if (r >= 0)
                r = sd_varlink_server_bind_method(server, PRIVMEMD_INTERFACE ".ReleaseBacking", on_release);
        return r;
}

static int serve(const char *path) {
        sd_varlink_server *server = NULL;
        sd_event *event = NULL;
        int r;

        r = make_verdict();
        if (r >= 0)
                r = make_survival();
        if (r >= 0)
                r = sd_event_default(&event);
        if (r >= 0)
                r = sd_event_set_signal_exit(event, true);
        if (r >= 0)
                r = sd_varlink_server_new(&server, 0);
        if (r >= 0)
                r = add_methods(server);
        if (r >= 0)
                r = sd_varlink_server_bind_connect(server, on_connect);
        if (r >= 0)
                r = sd_varlink_server_attach_event(server, event, SD_EVENT_PRIORITY_NORMAL);
        if (r >= 0)
                r = sd_varlink_server_listen_address(server, path, 0600);
        if (r >= 0)
                r = sd_event_loop(event);
        sd_varlink_server_unref(server);
        sd_event_unref(event);
        return r;
}

int main(int argc, char *argv[]) {
        int r;

        for (int i = 0; argc == 3 && i <= LIST; i++)
                if (strcmp(argv[2], works[i]) == 0)
                        work = i;
        if (work < 0) {
                fprintf(stderr, "usage: %s SOCKET allocate|set-slot|list\n", argv[0]);
                return 2;
        }
        memory_probe();
        r = serve(argv[1]);
        if (r < 0)
                fprintf(stderr, "%s: %s\n", argv[0], strerror(-r));
        return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
