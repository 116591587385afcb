/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <assert.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

#include "api/interface.h"
#include "core/cleanup.h"
#include "front/failure.h"

static const char *const error_id[_API_E_MAX] = {
#define ERROR(name, errno_value, status, sentence) [API_E_##name] = PRIVMEMD_INTERFACE "." #name,
#include "api/errors.def"
};

int fail_no_such_vm(Failure *f, const char *vm) {
        *f = (Failure) { .error = API_E_NoSuchVM, .object = vm };
        return f->error;
}

int fail_no_such_backing(Failure *f, const char *vm, const char *backing) {
        *f = (Failure) { .error = API_E_NoSuchBacking, .object = vm, .backing = backing };
        return f->error;
}

int fail_no_such_claim(Failure *f, const char *vm, const char *claim) {
        *f = (Failure) { .error = API_E_NoSuchClaim, .object = vm, .claim = claim };
        return f->error;
}

int fail_claim_invalid(Failure *f, const char *vm) {
        *f = (Failure) { .error = API_E_ClaimInvalid, .object = vm };
        return f->error;
}

int fail_not_permitted(Failure *f, const char *object, uid_t peer) {
        *f = (Failure) { .error = API_E_NotPermitted, .object = object, .peer = peer };
        return f->error;
}

int fail_not_permitted_vm(Failure *f, const char *vm, uid_t peer) {
        fail_not_permitted(f, vm, peer);
        f->is_vm = true;
        f->managers_may = true;
        return f->error;
}

int fail_not_permitted_host(Failure *f, const char *object, uid_t peer) {
        fail_not_permitted(f, object, peer);
        f->managers_may = true;
        return f->error;
}

int fail_no_fds(Failure *f, const char *vm, uid_t peer, bool manages) {
        fail_not_permitted(f, vm, peer);
        f->is_vm = true;
        f->manages = manages;
        return f->error;
}

int fail_vm_differs(Failure *f, const VM *vm, const char *field, const char *present, const char *requested) {
        *f = (Failure) { .error = API_E_NameConflict, .object = vm->name, .field = field };
        snprintf(f->present, sizeof(f->present), "%s", present);
        snprintf(f->requested, sizeof(f->requested), "%s", requested);
        return f->error;
}

int fail_backing_differs(Failure *f, const Backing *backing, const char *field, const char *present,
                         const char *requested) {
        fail_vm_differs(f, backing->vm, field, present, requested);
        f->backing = backing->name;
        return f->error;
}

int fail_share_differs(Failure *f, const Backing *backing, const VM *peer, const char *present,
                       const char *requested) {
        fail_backing_differs(f, backing, "access", present, requested);
        f->peer_vm = peer->name;
        return f->error;
}

int fail_vm_changed(Failure *f, const char *vm, const VM *present, uint64_t requested) {
        *f = (Failure) {
                .error = API_E_VMChanged,
                .object = vm,
                .generation = present ? present->generation : 0,
                .requested_generation = requested,
        };
        return f->error;
}

int fail_invalid_name(Failure *f, const char *field, const char *value) {
        *f = (Failure) { .error = API_E_InvalidName, .field = field, .object = value };
        return f->error;
}

int fail_invalid_value(Failure *f, const char *field, uint64_t value, uint64_t min, uint64_t max, uint64_t alignment) {
        *f = (Failure) {
                .error = API_E_InvalidValue,
                .field = field,
                .value = value,
                .minimum = min,
                .maximum = max,
                .alignment = alignment,
        };
        return f->error;
}

int fail_invalid_range(Failure *f, const Backing *backing, uint64_t offset, uint64_t size) {
        *f = (Failure) {
                .error = API_E_InvalidRange,
                .object = backing->vm->name,
                .backing = backing->name,
                .offset = offset,
                .size = size,
                .backing_size = backing->size,
                .page_size = backing->page_size,
        };
        return f->error;
}

int fail_not_memory(Failure *f, const char *found) {
        *f = (Failure) { .error = API_E_NotMemory, .field = found };
        return f->error;
}

int fail_not_sealed(Failure *f, unsigned missing) {
        *f = (Failure) { .error = API_E_NotSealed, .seals = missing };
        return f->error;
}

int fail_no_capacity(Failure *f, uint64_t page_size, int node, uint64_t needed, uint64_t available) {
        *f = (Failure) {
                .error = API_E_NoCapacity,
                .page_size = page_size,
                .node = node,
                .needed = needed,
                .available = available,
        };
        return f->error;
}

int fail_limit(Failure *f, const char *limit, uint64_t maximum) {
        *f = (Failure) { .error = API_E_LimitExceeded, .field = limit, .maximum = maximum };
        return f->error;
}

int fail_backing_in_use(Failure *f, const Backing *backing, pid_t pid) {
        *f = (Failure) {
                .error = API_E_BackingInUse,
                .object = backing->vm->name,
                .backing = backing->name,
                .slots = backing->n_slots,
                .pid = pid,
        };
        return f->error;
}

int fail_backing_in_use_by(Failure *f, const Backing *backing, const VM *peer, size_t slots) {
        fail_backing_in_use(f, backing, 0);
        f->peer_vm = peer->name;
        f->slots = slots;
        return f->error;
}

int fail_vm_in_use(Failure *f, const char *vm, pid_t pid) {
        *f = (Failure) { .error = API_E_VMInUse, .object = vm, .pid = pid };
        return f->error;
}

int fail_hand_over_under_way(Failure *f, const char *vm, pid_t pid) {
        *f = (Failure) { .error = API_E_VMInUse, .object = vm, .pid = pid, .hand_over = true };
        return f->error;
}

int fail_fenced(Failure *f, const char *vm, const HolderReport *report) {
        *f = (Failure) { .error = API_E_Fenced, .object = vm, .report = report };
        return f->error;
}

int fail_not_supported(Failure *f, const char *feature) {
        *f = (Failure) { .error = API_E_NotSupported, .field = feature };
        return f->error;
}

int fail_custody_full(Failure *f, const char *what, int errnum) {
        *f = (Failure) { .error = API_E_CustodyFull, .field = what, .errnum = errnum };
        return f->error;
}

int fail_host(Failure *f, const char *operation, int errnum) {
        *f = (Failure) { .error = API_E_HostFailure, .field = operation, .errnum = errnum < 0 ? -errnum : errnum };
        return f->error;
}

/* Control characters and all that is not ASCII become '?', and a long text is cut: it goes to terminals and logs. */
static const char *safe(const char *text, char buffer[static 80]) {
        size_t n = strnlen(text ?: "", 76);

        for (size_t i = 0; i < n; i++)
                buffer[i] = text[i] >= ' ' && text[i] <= '~' ? text[i] : '?';
        strcpy(buffer + n, text && text[n] ? "…" : "");
        return buffer;
}

#define STRING(name, value)           SD_JSON_BUILD_PAIR_STRING(name, value)
#define UNSIGNED(name, value)         SD_JSON_BUILD_PAIR_UNSIGNED(name, value)
#define GIVEN(condition, name, value) SD_JSON_BUILD_PAIR_CONDITION(condition, name, SD_JSON_BUILD_UNSIGNED(value))

/* Sends the error with its message and fields. */
#define SEND(link, f, fmt_and_args, ...) \
        ({ \
                _cleanup_free_ char *_message = format fmt_and_args; \
                _message ? \
                        sd_varlink_errorbo((link), error_id[(f)->error], STRING("message", _message), __VA_ARGS__) : \
                        sd_varlink_error_errno((link), -ENOMEM); \
        })

__attribute__((format(printf, 1, 2))) static char *format(const char *fmt, ...) {
        char *text;
        va_list ap;

        va_start(ap, fmt);
        if (vasprintf(&text, fmt, ap) < 0)
                text = NULL;
        va_end(ap);
        return text;
}

/* Sizes and addresses are read as powers of two, numbers of things are counted. */
static void describe_number(const Failure *f, uint64_t value, char buffer[static 24]) {
        bool is_bytes = f->alignment > 0 || f->maximum > UINT32_MAX;

        snprintf(buffer, 24, is_bytes ? "0x%" PRIx64 : "%" PRIu64, value);
}

static int reply_invalid_value(sd_varlink *link, const Failure *f) {
        char value[24], minimum[24], maximum[24], alignment[24], wanted[100];

        describe_number(f, f->value, value);
        describe_number(f, f->minimum, minimum);
        describe_number(f, f->maximum, maximum);
        describe_number(f, f->alignment, alignment);
        if (f->minimum == f->maximum)
                snprintf(wanted, sizeof(wanted), "%s", minimum);
        else
                snprintf(wanted, sizeof(wanted), "%s to %s%s%s", minimum, maximum,
                         f->alignment > 0 ? ", in multiples of " : "", f->alignment > 0 ? alignment : "");
        return SEND(link, f, ("%s is %s; it must be %s.", f->field, value, wanted), STRING("field", f->field),
                    UNSIGNED("value", f->value), UNSIGNED("minimum", f->minimum), UNSIGNED("maximum", f->maximum),
                    GIVEN(f->alignment > 0, "alignment", f->alignment));
}

static int reply_name_conflict(sd_varlink *link, const Failure *f) {
        _cleanup_free_ char *message = NULL;

        if (f->peer_vm)
                message = format(
                        "Backing %s of VM %s is shared with VM %s already, with access %s where %s was asked for. Reclaim it first.",
                        f->backing, f->object, f->peer_vm, f->present, f->requested);
        else if (f->backing)
                message = format(
                        "Backing %s of VM %s is there already, with %s %s where %s was asked for. Use another name, or release it first.",
                        f->backing, f->object, f->field, f->present, f->requested);
        else
                message = format(
                        "VM %s is registered already, with %s %s where %s was asked for. Use another name, or unregister it first.",
                        f->object, f->field, f->present, f->requested);
        if (!message)
                return sd_varlink_error_errno(link, -ENOMEM);
        return sd_varlink_errorbo(link, error_id[f->error], STRING("message", message),
                                  STRING("name", f->backing ?: f->object), STRING("field", f->field),
                                  STRING("present", f->present), STRING("requested", f->requested));
}

static int reply_limit(sd_varlink *link, const Failure *f) {
        static const struct {
                const char *limit, *remedy;
        } remedies[] = {
                { "vmsPerUID", "Unregister one first." },
                { "backingsPerVM", "Release one of the VM first." },
                { "claimsPerVM", "Delete one of the VM first; each ends by itself in time." },
                { "claimsPerUID", "Delete one of the owner's VMs first; each ends by itself in time." },
                { "sharesPerBacking", "Reclaim one of the backing first." },
                { "privateRangesPerVM",
                  "Declare neighbouring guest addresses alike, so that there are fewer ranges." },
                { "slotsPerCall", "Set them in several calls." },
                { "subscribersPerUID", "End one first, by closing its connection." },
                { "vmsPerSubscription", "Subscribe to fewer VMs, or to all." },
        };
        const char *remedy = "Release something first.";

        for (size_t i = 0; i < ELEMENTSOF(remedies); i++)
                if (strcmp(remedies[i].limit, f->field) == 0)
                        remedy = remedies[i].remedy;
        return SEND(link, f, ("The limit %s of %" PRIu64 " is reached. %s", f->field, f->maximum, remedy),
                    STRING("limit", f->field), UNSIGNED("maximum", f->maximum));
}

static int reply_no_capacity(sd_varlink *link, const Failure *f) {
        char node[32] = "the host";

        if (f->node >= 0)
                snprintf(node, sizeof(node), "NUMA node %d", f->node);
        return SEND(link, f,
                    ("The pool of %" PRIu64 "-byte pages of %s has %" PRIu64 " bytes available, but %" PRIu64
                     " are needed. Enlarge the pool or ask for less.",
                     f->page_size, node, f->available, f->needed),
                    UNSIGNED("pageSize", f->page_size), GIVEN(f->node >= 0, "node", (uint64_t) f->node),
                    UNSIGNED("needed", f->needed), UNSIGNED("available", f->available));
}

static int reply_backing_in_use(sd_varlink *link, const Failure *f) {
        if (f->pid > 0)
                return SEND(
                        link, f,
                        ("Backing %s of VM %s is still mapped by its VMM, process %d. Unmap it or stop the VMM first.",
                         f->backing, f->object, (int) f->pid),
                        STRING("vm", f->object), STRING("backing", f->backing), UNSIGNED("slots", f->slots),
                        UNSIGNED("pid", (uint64_t) f->pid));
        if (f->peer_vm)
                return SEND(
                        link, f,
                        ("Backing %s of VM %s is still shown by %zu slot%s of VM %s. Delete them first; ListSlots names them.",
                         f->backing, f->object, f->slots, f->slots == 1 ? "" : "s", f->peer_vm),
                        STRING("vm", f->object), STRING("backing", f->backing), UNSIGNED("slots", f->slots),
                        STRING("peer", f->peer_vm));
        return SEND(link, f,
                    ("Backing %s of VM %s is still shown by %zu slot%s. Delete them first; ListSlots names them.",
                     f->backing, f->object, f->slots, f->slots == 1 ? "" : "s"),
                    STRING("vm", f->object), STRING("backing", f->backing), UNSIGNED("slots", f->slots));
}

/* At most so many are listed, and so many of these are in the sentence. */
#define FENCE_LISTED_MAX 64U
#define FENCE_NAMED_MAX  3U

/* "process 71 (vhost-device), process 72 (cat) and 3 more" */
static void name_holders(const HolderReport *report, char buffer[static 160]) {
        size_t named = report->n_holders < FENCE_NAMED_MAX ? report->n_holders : FENCE_NAMED_MAX, n = 0;

        for (size_t i = 0; i < named; i++)
                n += (size_t) snprintf(buffer + n, 160 - n, "%sprocess %d (%s)", i > 0 ? ", " : "",
                                       (int) report->holders[i].pid, report->holders[i].command);
        if (report->n_holders > named)
                snprintf(buffer + n, 160 - n, " and %zu more", report->n_holders - named);
}

static int reply_fenced(sd_varlink *link, const Failure *f) {
        _cleanup_(sd_json_variant_unrefp) sd_json_variant *holders = NULL;
        const HolderReport *report = f->report;
        char names[160];
        int r;

        for (size_t i = 0; i < report->n_holders && i < FENCE_LISTED_MAX; i++) {
                r = sd_json_variant_append_arraybo(&holders, UNSIGNED("pid", (uint64_t) report->holders[i].pid),
                                                   STRING("command", report->holders[i].command));
                if (r < 0)
                        return sd_varlink_error_errno(link, r);
        }
        name_holders(report, names);
        return SEND(
                link, f,
                ("VM %s is fenced, since its memory is still open or mapped: by %s. End them, or have them let go of it, and attach again. ListHolders says what each has.",
                 f->object, names),
                STRING("vm", f->object), SD_JSON_BUILD_PAIR_VARIANT("holders", holders),
                UNSIGNED("count", report->n_holders), UNSIGNED("unreadable", report->n_unreadable));
}

static int reply_not_sealed(sd_varlink *link, const Failure *f) {
        char *missing[3] = {};
        size_t n = 0;

        if (f->seals & F_SEAL_SHRINK)
                missing[n++] = (char *) "shrink";
        if (f->seals & F_SEAL_GROW)
                missing[n++] = (char *) "grow";
        return SEND(
                link, f,
                ("The memfd can still change its size: add the seals F_SEAL_SHRINK and F_SEAL_GROW and donate it again."),
                SD_JSON_BUILD_PAIR_STRV("missing", missing));
}

static int reply_vm_changed(sd_varlink *link, const Failure *f) {
        char present[48] = "there is no such VM";

        if (f->generation > 0)
                snprintf(present, sizeof(present), "it has %" PRIu64, f->generation);
        return SEND(link, f,
                    ("VM %s does not have generation %" PRIu64
                     ": %s. Nothing was done; list the VM again, and decide anew.",
                     f->object, f->requested_generation, present),
                    STRING("vm", f->object), GIVEN(f->generation > 0, "present", f->generation),
                    UNSIGNED("requested", f->requested_generation));
}

/* The errors that say which object is missing, taken or in the way. */
static int reply_about_object(sd_varlink *link, const Failure *f) {
        char a[80], b[80];

        switch (f->error) {
        case API_E_NoSuchVM:
                return SEND(link, f,
                            ("There is no VM %s. Register it first; ListVMs names those that there are.",
                             safe(f->object, a)),
                            STRING("vm", safe(f->object, a)));
        case API_E_NoSuchBacking:
                return SEND(
                        link, f,
                        ("VM %s has no backing %s. Allocate or adopt it first; ListBackings names those that there are.",
                         f->object, safe(f->backing, b)),
                        STRING("vm", f->object), STRING("backing", safe(f->backing, b)));
        case API_E_NoSuchClaim:
                return SEND(
                        link, f,
                        ("VM %s has no claim %s: it was redeemed, has expired or was deleted. ListClaims names those that there are.",
                         f->object, safe(f->claim, b)),
                        STRING("vm", f->object), STRING("claim", safe(f->claim, b)));
        case API_E_ClaimInvalid:
                return SEND(
                        link, f,
                        ("Nothing of VM %s can be redeemed with this token: it is unknown, used, expired or for another VM. Ask for a new claim.",
                         safe(f->object, a)),
                        STRING("vm", safe(f->object, a)));
        case API_E_NotPermitted:
                return SEND(link, f,
                            ("uid %u may %s %s%s: only its owner%s may. Call as one of them%s.", (unsigned) f->peer,
                             f->manages ? "manage, but neither give nor get file descriptors of" : "not do this to",
                             f->is_vm ? "VM " : "", safe(f->object, a),
                             f->managers_may ? ", root and who has the right to manage" : " and root",
                             f->manages ? ", or let the VMM do it" : ""),
                            STRING("object", safe(f->object, a)), UNSIGNED("peerUID", f->peer));
        case API_E_NameConflict:
                return reply_name_conflict(link, f);
        case API_E_VMChanged:
                return reply_vm_changed(link, f);
        case API_E_BackingInUse:
                return reply_backing_in_use(link, f);
        case API_E_Fenced:
                return reply_fenced(link, f);
        case API_E_VMInUse:
                if (f->hand_over)
                        return SEND(
                                link, f,
                                ("VM %s is being handed over already: its former VMM, process %d, has not exited yet. Wait until it has.",
                                 f->object, (int) f->pid),
                                STRING("vm", f->object), UNSIGNED("pid", (uint64_t) f->pid));
                return SEND(
                        link, f,
                        ("A living VMM, process %d, is attached to VM %s. Stop it first.", (int) f->pid, f->object),
                        STRING("vm", f->object), UNSIGNED("pid", (uint64_t) f->pid));
        default:
                return 0;
        }
}

/* The errors that say what is wrong with a parameter or a donated fd. */
static int reply_about_input(sd_varlink *link, const Failure *f) {
        char a[80];

        switch (f->error) {
        case API_E_InvalidName:
                if (strcmp(f->field, "uuid") == 0)
                        return SEND(
                                link, f,
                                ("uuid is \"%s\"; it must be 32 hexadecimal digits, with hyphens as usual or without.",
                                 safe(f->object, a)),
                                STRING("field", f->field));
                return SEND(
                        link, f,
                        ("%s is \"%s\"; it must be 1 to %u characters from A-Z a-z 0-9 . _ : - and start with a letter or a digit.",
                         f->field, safe(f->object, a), NAME_LENGTH_MAX),
                        STRING("field", f->field));
        case API_E_InvalidValue:
                return reply_invalid_value(link, f);
        case API_E_InvalidRange:
                return SEND(link, f,
                            ("Range 0x%" PRIx64 "+0x%" PRIx64
                             " is not in backing %s of VM %s: ask for whole pages of 0x%" PRIx64
                             " bytes inside its 0x%" PRIx64 " bytes.",
                             f->offset, f->size, f->backing, f->object, f->page_size, f->backing_size),
                            STRING("backing", f->backing), UNSIGNED("offset", f->offset), UNSIGNED("size", f->size),
                            UNSIGNED("backingSize", f->backing_size));
        case API_E_WrongFds:
                return SEND(link, f,
                            ("The call carried %" PRIu64 " file descriptors; it takes %s%" PRIu64
                             ", and an index must name one of them.",
                             f->value, f->minimum == f->maximum ? "" : "at most ", f->maximum),
                            UNSIGNED("received", f->value), UNSIGNED("expected", f->maximum));
        case API_E_NotMemory:
                return SEND(
                        link, f,
                        ("The file descriptor is a %s; only a memfd, hugetlb memfd or guest_memfd that fits the request can be adopted.",
                         f->field),
                        STRING("found", f->field));
        case API_E_NotSealed:
                return reply_not_sealed(link, f);
        default:
                return 0;
        }
}

/* The errors that say what the host lacks. */
static int reply_about_host(sd_varlink *link, const Failure *f) {
        switch (f->error) {
        case API_E_NoCapacity:
                return reply_no_capacity(link, f);
        case API_E_LimitExceeded:
                return reply_limit(link, f);
        case API_E_NotSupported:
                return SEND(link, f, ("Not possible here: %s.", f->field), STRING("feature", f->field));
        case API_E_CustodyFull:
                return SEND(link, f,
                            ("privmemd cannot keep this through a restart of its own, so nothing was done: %s: %s. "
                             "Raise that limit, or release something first.",
                             f->field, strerror(f->errnum)),
                            STRING("what", f->field), SD_JSON_BUILD_PAIR_INTEGER("errno", f->errnum),
                            STRING("errnoName", strerrorname_np(f->errnum) ?: "unknown"));
        case API_E_HostFailure:
                return SEND(link, f, ("The kernel refused %s: %s.", f->field, strerror(f->errnum)),
                            STRING("operation", f->field), SD_JSON_BUILD_PAIR_INTEGER("errno", f->errnum),
                            STRING("errnoName", strerrorname_np(f->errnum) ?: "unknown"));
        default:
                return 0;
        }
}

int failure_reply(sd_varlink *link, int r, const Failure *f) {
        int sent;

        if (r < 0)
                return sd_varlink_error_errno(link, r);
        assert(f->error != API_E_NONE && (int) f->error == r);
        sent = reply_about_object(link, f);
        if (sent == 0)
                sent = reply_about_input(link, f);
        if (sent == 0)
                sent = reply_about_host(link, f);
        assert(sent != 0);
        return sent;
}
