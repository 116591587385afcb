/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* RegisterVM, AttachVM, HandOverVM, UnregisterVM. */

#include <inttypes.h>
#include <string.h>
#include <systemd/sd-id128.h>

#include "core/cleanup.h"
#include "front/call.h"
#include "front/format.h"
#include "front/words.h"

#define _cleanup_json_ _cleanup_(sd_json_variant_unrefp)

typedef struct RegisterParameters {
        const char *name, *uuid, *exit_policy, *alias_policy, *type;
        uint32_t owner;
        uint64_t retain_usec;   /* UNSAID: not given */
        int retain_guest_memfd; /* negative: not given */
} RegisterParameters;

#define UNSAID UINT64_MAX

/* What was said, and not what it falls back to. */
static int check_retention(const RegisterParameters *p, ExitPolicy exit_policy, Failure *f) {
        if (p->retain_usec != UNSAID && p->retain_usec > RETAIN_USEC_MAX)
                return fail_invalid_value(f, "retainUSec", p->retain_usec, 0, RETAIN_USEC_MAX, 0);
        if (exit_policy == EXIT_POLICY_RETAIN)
                return 0;
        if (p->retain_usec != UNSAID && p->retain_usec > 0)
                return fail_not_supported(f, "retainUSec needs the exit policy retain");
        return p->retain_guest_memfd > 0 ? fail_not_supported(f, "retainGuestMemfd needs the exit policy retain") : 0;
}

typedef struct Policies {
        ExitPolicy exit_policy;
        uint64_t retain_usec;
        bool retain_guest_memfd;
        AliasPolicy alias_policy;
} Policies;

/* What a client means that does not say. One that registers its VM again means the VM that is there, even if the
 * settings have changed in between. */
static Policies unsaid_policies(const Call *call, const char *name) {
        const FrontSettings *settings = front_settings(call->front);
        const VM *known = registry_find_vm(call->registry, name);

        if (known)
                return (Policies) { known->exit_policy, known->retain_usec, known->retain_guest_memfd,
                                    known->alias_policy };
        return (Policies) { .exit_policy = settings->exit_policy, .alias_policy = settings->alias_policy };
}

/* The IDL has checked the words already; the names and the owner are ours to check. */
static int parse_register(Call *call, const RegisterParameters *p, VMSpec *ret, Failure *f) {
        sd_id128_t uuid = SD_ID128_NULL;
        Policies fallback;

        if (!name_is_valid(p->name))
                return fail_invalid_name(f, "name", p->name);
        if (p->uuid && sd_id128_from_string(p->uuid, &uuid) < 0)
                return fail_invalid_name(f, "uuid", p->uuid);
        if (p->owner != call->uid && !call_manages(call)) {
                fail_not_permitted(f, "a VM of another uid", call->uid);
                f->managers_may = true;
                return f->error;
        }
        if (!service_can_own(p->owner))
                return fail_not_supported(
                        f, "this privmemd runs as an ordinary user, and files of another uid need root or CAP_CHOWN");
        fallback = unsaid_policies(call, p->name);
        *ret = (VMSpec) {
                .name = p->name,
                .has_uuid = p->uuid != NULL,
                .owner = p->owner,
                .exit_policy = (ExitPolicy) exit_policy_of(p->exit_policy, (int) fallback.exit_policy),
                .retain_usec = p->retain_usec == UNSAID ? fallback.retain_usec : p->retain_usec,
                .retain_guest_memfd = p->retain_guest_memfd < 0 ? fallback.retain_guest_memfd :
                                                                  p->retain_guest_memfd > 0,
                .alias_policy = (AliasPolicy) alias_policy_of(p->alias_policy, (int) fallback.alias_policy),
                .type = (VMType) vm_type_of(p->type, VM_TYPE_UNDECLARED),
        };
        memcpy(ret->uuid, uuid.bytes, sizeof(ret->uuid));
        return check_retention(p, ret->exit_policy, f);
}

/* present and requested value of the field that vm_differs() named */
static int fail_vm_conflict(Failure *f, const VM *vm, const VMSpec *spec, const char *field) {
        char present[40], requested[40];
        sd_id128_t a, b;

        if (strcmp(field, "ownerUID") == 0) {
                snprintf(present, sizeof(present), "%u", (unsigned) vm->owner);
                snprintf(requested, sizeof(requested), "%u", (unsigned) spec->owner);
        } else if (strcmp(field, "exitPolicy") == 0)
                return fail_vm_differs(f, vm, field, exit_policy_word(vm->exit_policy),
                                       exit_policy_word(spec->exit_policy));
        else if (strcmp(field, "retainUSec") == 0) {
                snprintf(present, sizeof(present), "%" PRIu64, vm->retain_usec);
                snprintf(requested, sizeof(requested), "%" PRIu64, spec->retain_usec);
        } else if (strcmp(field, "retainGuestMemfd") == 0)
                return fail_vm_differs(f, vm, field, vm->retain_guest_memfd ? "true" : "false",
                                       spec->retain_guest_memfd ? "true" : "false");
        else if (strcmp(field, "aliasPolicy") == 0)
                return fail_vm_differs(f, vm, field, alias_policy_word(vm->alias_policy),
                                       alias_policy_word(spec->alias_policy));
        else if (strcmp(field, "type") == 0)
                return fail_vm_differs(f, vm, field, vm_type_word(vm->type), vm_type_word(spec->type));
        else {
                memcpy(a.bytes, vm->uuid, sizeof(vm->uuid));
                memcpy(b.bytes, spec->uuid, sizeof(spec->uuid));
                sd_id128_to_uuid_string(a, present);
                sd_id128_to_uuid_string(b, requested);
                if (!vm->has_uuid)
                        strcpy(present, "none");
        }
        return fail_vm_differs(f, vm, field, present, requested);
}

static int register_vm(Call *call, const VMSpec *spec, VM **ret, bool *ret_created, Failure *f) {
        VM *known = registry_find_vm(call->registry, spec->name);
        const char *field;
        int r;

        /* Of somebody else's VM the generation is not told either. */
        r = !known || call_may_see(call, known) ? call_check_generation(call, spec->name, known, f) : 0;
        if (r != 0)
                return r;
        r = service_register(call->service, spec, ret, ret_created, f);
        if (r != 0 || *ret_created)
                return r;
        /* Somebody else's VM: say no more of it than that the name is taken. */
        if (!call_may_see(call, *ret))
                return fail_not_permitted_vm(f, (*ret)->name, call->uid);
        field = vm_differs(*ret, spec);
        return field ? fail_vm_conflict(f, *ret, spec, field) : 0;
}

static int reply_vm(Call *call, VM *vm, const bool *created) {
        _cleanup_json_ sd_json_variant *object = NULL;
        int r;

        r = format_vm(call->service, vm, &object);
        if (r < 0)
                return sd_varlink_error_errno(call->link, r);
        return sd_varlink_replybo(
                call->link, SD_JSON_BUILD_PAIR_VARIANT("vm", object),
                SD_JSON_BUILD_PAIR_CONDITION(created != NULL, "created", SD_JSON_BUILD_BOOLEAN(created && *created)));
}

/* Whoever has hung up meanwhile is not told. */
static void reply_attached(int r, const AttachResult *result, const Failure *f, void *userdata) {
        _cleanup_(sd_varlink_unrefp) sd_varlink *link = userdata;
        _cleanup_json_ sd_json_variant *object = NULL;
        Front *front;

        if (!link)
                return;
        front = sd_varlink_get_userdata(link);
        if (r == 0)
                r = format_vm(front->service, result->vm, &object);
        if (r != 0) {
                (void) failure_reply(link, r, f);
                return;
        }
        (void) sd_varlink_replybo(link, SD_JSON_BUILD_PAIR_VARIANT("vm", object),
                                  SD_JSON_BUILD_PAIR_CONDITION(result->unreadable > 0, "unreadable",
                                                               SD_JSON_BUILD_UNSIGNED(result->unreadable)));
}

int op_register_vm(Call *call) {
        RegisterParameters p = { .owner = call->uid, .retain_usec = UNSAID, .retain_guest_memfd = -1 };
        const sd_json_dispatch_field table[] = {
                { "name", SD_JSON_VARIANT_STRING, sd_json_dispatch_const_string, offsetof(RegisterParameters, name),
                  SD_JSON_MANDATORY },
                { "uuid", SD_JSON_VARIANT_STRING, sd_json_dispatch_const_string, offsetof(RegisterParameters, uuid),
                  SD_JSON_NULLABLE },
                { "ownerUID", SD_JSON_VARIANT_UNSIGNED, sd_json_dispatch_uint32, offsetof(RegisterParameters, owner),
                  SD_JSON_NULLABLE },
                { "exitPolicy", SD_JSON_VARIANT_STRING, sd_json_dispatch_const_string,
                  offsetof(RegisterParameters, exit_policy), SD_JSON_NULLABLE },
                { "retainUSec", _SD_JSON_VARIANT_TYPE_INVALID, sd_json_dispatch_uint64,
                  offsetof(RegisterParameters, retain_usec), SD_JSON_NULLABLE },
                { "retainGuestMemfd", SD_JSON_VARIANT_BOOLEAN, sd_json_dispatch_tristate,
                  offsetof(RegisterParameters, retain_guest_memfd), SD_JSON_NULLABLE },
                { "aliasPolicy", SD_JSON_VARIANT_STRING, sd_json_dispatch_const_string,
                  offsetof(RegisterParameters, alias_policy), SD_JSON_NULLABLE },
                { "type", SD_JSON_VARIANT_STRING, sd_json_dispatch_const_string, offsetof(RegisterParameters, type),
                  SD_JSON_NULLABLE },
                {},
        };
        VMSpec spec;
        Failure f = {};
        bool created = false;
        VM *vm;
        int r;

        r = sd_varlink_dispatch(call->link, call->parameters, table, &p);
        if (r != 0)
                return r;
        r = parse_register(call, &p, &spec, &f);
        if (r == 0)
                r = register_vm(call, &spec, &vm, &created, &f);
        if (r != 0)
                return failure_reply(call->link, r, &f);
        return reply_vm(call, vm, &created);
}

/* The pidfd that the call carries, or else the caller's own; borrowed. */
static int vmm_pidfd(Call *call, uint64_t index, Failure *f, int *ret_pidfd) {
        int fd, r;

        r = call_peek_fd(call, index, f, &fd);
        if (r != 0)
                return r;
        if (index == NO_FD)
                fd = sd_varlink_get_peer_pidfd(call->link);
        if (fd < 0)
                return fail_not_supported(
                        f,
                        "this kernel does not say which process is calling (SO_PEERPIDFD, Linux 6.5); pass a pidfd");
        *ret_pidfd = fd;
        return 0;
}

typedef struct AttachParameters {
        const char *vm;
        uint64_t pidfd;
} AttachParameters;

static const sd_json_dispatch_field attach_table[] = {
        { "vm", SD_JSON_VARIANT_STRING, sd_json_dispatch_const_string, offsetof(AttachParameters, vm),
          SD_JSON_MANDATORY },
        { "pidFileDescriptor", SD_JSON_VARIANT_UNSIGNED, sd_json_dispatch_uint64, offsetof(AttachParameters, pidfd),
          SD_JSON_NULLABLE },
        {},
};

int op_attach_vm(Call *call) {
        AttachParameters p = { .pidfd = NO_FD };
        sd_varlink *waiting;
        Failure f = {};
        int pidfd = -EBADF, r;
        bool later = false;

        r = sd_varlink_dispatch(call->link, call->parameters, attach_table, &p);
        if (r != 0)
                return r;
        r = vmm_pidfd(call, p.pidfd, &f, &pidfd);
        /* No reply must be sent to a call that wants none: it would be that to the next one. */
        waiting = call->oneway ? NULL : sd_varlink_ref(call->link);
        if (r == 0)
                r = service_attach(call->service, call->vm, pidfd, call->uid, reply_attached, waiting, &later, &f);
        if (r == 0 && later)
                return 0;
        sd_varlink_unref(waiting);
        if (r != 0)
                return failure_reply(call->link, r, &f);
        return reply_vm(call, call->vm, /* created= */ NULL);
}

int op_hand_over_vm(Call *call) {
        AttachParameters p = { .pidfd = NO_FD };
        Failure f = {};
        int pidfd = -EBADF, r;

        r = sd_varlink_dispatch(call->link, call->parameters, attach_table, &p);
        if (r != 0)
                return r;
        r = call_peek_fd(call, p.pidfd, &f, &pidfd);
        if (r == 0)
                r = service_hand_over(call->service, call->vm, pidfd, call->uid, &f);
        if (r != 0)
                return failure_reply(call->link, r, &f);
        return reply_vm(call, call->vm, /* created= */ NULL);
}

int op_unregister_vm(Call *call) {
        const char *name = NULL;
        const sd_json_dispatch_field table[] = {
                { "vm", SD_JSON_VARIANT_STRING, sd_json_dispatch_const_string, 0, SD_JSON_MANDATORY },
                {},
        };
        uint64_t freed;
        Failure f = {};
        int r;

        r = sd_varlink_dispatch(call->link, call->parameters, table, &name);
        if (r != 0)
                return r;
        r = service_unregister(call->service, call->vm, &freed, &f);
        if (r != 0)
                return failure_reply(call->link, r, &f);
        return sd_varlink_replybo(call->link, SD_JSON_BUILD_PAIR_UNSIGNED("freedBytes", freed));
}
