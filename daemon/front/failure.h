/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A typed error of the API on its way to the caller: which one, and the numbers and objects that explain it.
 * errors.def lists them; failure_reply() writes the sentence and the fields. */

#include <stdarg.h>
#include <stdint.h>
#include <sys/types.h>
#include <systemd/sd-varlink.h>

#include "core/holder.h"
#include "core/slot.h"
#include "core/vm.h"

typedef enum ApiError {
        API_E_NONE,
#define ERROR(name, errno_value, status, sentence) API_E_##name,
#include "api/errors.def"
        _API_E_MAX,
} ApiError;

/* What an error carries; each constructor below sets what its error needs. Strings are borrowed from the caller's
 * parameters, from static storage or from objects that live until the reply is written. */
typedef struct Failure {
        ApiError error;
        const char *object; /* the VM, or what a permission is about */
        bool is_vm;         /* that is the name of a VM */
        const char *backing;
        const char *peer_vm;
        const char *claim;
        const char *field; /* a parameter, a limit, a feature, an operation, what was found */
        char present[40];  /* NameConflict */
        char requested[40];
        uint64_t value, minimum, maximum, alignment; /* InvalidValue; UINT64_MAX: not given (minimum: 0) */
        uint64_t offset, size, backing_size;
        uint64_t needed, available, page_size;
        uint64_t generation, requested_generation; /* VMChanged; 0: there is no such VM */
        int node;
        size_t slots;
        pid_t pid;
        const HolderReport *report; /* Fenced */
        bool hand_over;             /* VMInUse: pid is the outgoing VMM's */
        uid_t peer;
        bool managers_may, manages; /* NotPermitted: the right to manage would be enough; or the caller has it */
        unsigned seals;             /* NotSealed: those that are missing */
        int errnum;                 /* HostFailure, CustodyFull: positive */
} Failure;

/* Each returns API_E_…, positive, for "return fail_…()". */
int fail_no_such_vm(Failure *f, const char *vm);
int fail_no_such_backing(Failure *f, const char *vm, const char *backing);
int fail_no_such_claim(Failure *f, const char *vm, const char *claim);
/* Whatever is wrong; vm: as it was given. */
int fail_claim_invalid(Failure *f, const char *vm);
int fail_not_permitted(Failure *f, const char *object, uid_t peer);
/* Of a VM, which the message calls one, to who does not even manage. */
int fail_not_permitted_vm(Failure *f, const char *vm, uid_t peer);
/* Of what is no VM's. */
int fail_not_permitted_host(Failure *f, const char *object, uid_t peer);
/* Who asks for a file descriptor, or brings one, and owns nothing; it may have the right to manage. */
int fail_no_fds(Failure *f, const char *vm, uid_t peer, bool manages);
int fail_vm_differs(Failure *f, const VM *vm, const char *field, const char *present, const char *requested);
int fail_backing_differs(Failure *f, const Backing *backing, const char *field, const char *present,
                         const char *requested);
/* The VM has the share with the other access. */
int fail_share_differs(Failure *f, const Backing *backing, const VM *peer, const char *present, const char *requested);
/* present: the VM of that name, or NULL. */
int fail_vm_changed(Failure *f, const char *vm, const VM *present, uint64_t requested);
int fail_invalid_name(Failure *f, const char *field, const char *value);
/* alignment 0: none. */
int fail_invalid_value(Failure *f, const char *field, uint64_t value, uint64_t min, uint64_t max, uint64_t alignment);
int fail_invalid_range(Failure *f, const Backing *backing, uint64_t offset, uint64_t size);
int fail_not_memory(Failure *f, const char *found);
int fail_not_sealed(Failure *f, unsigned missing);
int fail_no_capacity(Failure *f, uint64_t page_size, int node, uint64_t needed, uint64_t available);
int fail_limit(Failure *f, const char *limit, uint64_t maximum);
int fail_backing_in_use(Failure *f, const Backing *backing, pid_t pid);
/* By that many slots of another VM. */
int fail_backing_in_use_by(Failure *f, const Backing *backing, const VM *peer, size_t slots);
int fail_vm_in_use(Failure *f, const char *vm, pid_t pid);
/* pid: the VMM that hands it over and has not exited yet. */
int fail_hand_over_under_way(Failure *f, const char *vm, pid_t pid);
/* report: the processes that are in the way, each once; borrowed until the reply is written. */
int fail_fenced(Failure *f, const char *vm, const HolderReport *report);
int fail_not_supported(Failure *f, const char *feature);
/* what: ledger, bag, fds in flight; errnum: positive */
int fail_custody_full(Failure *f, const char *what, int errnum);
/* errnum may be negative, as a return value is. */
int fail_host(Failure *f, const char *operation, int errnum);

/* Sends the error. r is what an operation returned: API_E_… with f filled, or a negative errno, which becomes
 * io.systemd.System. Returns what sd_varlink_error() does. */
int failure_reply(sd_varlink *link, int r, const Failure *f);
