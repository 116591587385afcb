/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What the front asks of the manager: everything that needs an fd, a process or /sys, and every
 * change of who owns what. The files daemon/manager*.c have the functions; the front knows no more of them than this
 * header.
 *
 * Return values: 0 done; API_E_…, positive, with the Failure filled; a negative errno, unexpected. */

#include "core/advice.h"
#include "core/claim.h"
#include "core/holder.h"
#include "core/slot.h"
#include "core/survival.h"
#include "core/vm.h"
#include "front/failure.h"

typedef struct Service Service;

/* Huge pages of one size, as HugePagePool on the wire. */
typedef struct PoolReport {
        uint64_t page_size, total, free, reserved; /* bytes */
        int node;                                  /* -1: the host */
} PoolReport;

typedef struct HostReport {
        bool kvm, guest_memfd, cachestat, noexec_seal;
        uint64_t guest_memfd_flags;
        PoolReport *pools; /* free with free() */
        size_t n_pools;
} HostReport;

Registry *service_registry(Service *service);
int service_host_report(Service *service, HostReport *ret);

/* What advice goes by; looked up anew every ten seconds at most, and only when somebody asks. */
const AdviceFacts *service_advice_facts(Service *service);

/* Whether files that this process creates can be given to that uid. */
bool service_can_own(uid_t uid);
/* Where our file descriptors are while we do not run. */
Custody service_custody(Service *service);

/* The pid of the attached VMM, or 0. For people. */
pid_t service_vmm_pid(const VM *vm);
/* *ret_created is false if *ret is the VM of that name, whoever owns it and whatever it is like. */
int service_register(Service *service, const VMSpec *spec, VM **ret, bool *ret_created, Failure *f);
/* Whom the VMM has named as its successor, if that process lives, or 0. For people. */
pid_t service_successor_pid(const VM *vm);
/* Names the process behind pidfd (borrowed), which may take over then; negative: nobody. peer: the uid of the caller. */
int service_hand_over(Service *service, VM *vm, int pidfd, uid_t peer, Failure *f);
/* What a claim has given; it is used up. */
typedef struct Redemption {
        VM *vm;
        uint64_t claim;
        bool read_only;
        size_t n_grants;
        struct {
                const Backing *backing;
                int fd;
        } grants[]; /* whoever takes an fd leaves a negative one */
} Redemption;

/* What an attempt to attach, or to redeem, has come to. */
typedef struct AttachResult {
        VM *vm;
        size_t unreadable;      /* processes that could not be looked at: each may have the memory */
        Redemption *redemption; /* the manager's; NULL if there was no claim */
} AttachResult;

/* Tells what was not known at once: 0, API_E_… or a negative errno, as below. All is borrowed; result is NULL if there
 * is none. */
typedef void (*AttachDone)(int r, const AttachResult *result, const Failure *f, void *userdata);

/* Makes the process behind pidfd (borrowed) the VM's VMM; a success as well if it is already. peer: the uid of the
 * caller. On 0 *ret_later says whether that is still to be found out: done is called then, from the event loop. */
int service_attach(Service *service, VM *vm, int pidfd, uid_t peer, AttachDone done, void *userdata, bool *ret_later,
                   Failure *f);
/* ---- claims: manager-claim.c ---- */

/* Of the spec, id, digest and expiry are not looked at. token is nowhere else. peer: the uid of the caller. */
int service_create_claim(Service *service, VM *vm, const ClaimSpec *spec, uint64_t lifetime_usec, uid_t peer,
                         Claim **ret, char token[static CLAIM_TOKEN_LENGTH + 1], Failure *f);
void service_delete_claim(Service *service, Claim *claim);

typedef struct RedeemRequest {
        const char *vm, *token; /* as they were given */
        int pidfd;              /* of the process to attach, borrowed; negative: none */
        uid_t uid;              /* who redeems */
        pid_t pid;              /* for people; 0: not known */
} RedeemRequest;

/* Calls done once: before it returns, or from the event loop. */
void service_redeem(Service *service, const RedeemRequest *request, AttachDone done, void *userdata);

/* ---- */

/* Releases all backings and frees the VM. */
int service_unregister(Service *service, VM *vm, uint64_t *ret_freed, Failure *f);

/* Creates the file and the backing. spec->dev and ->ino are not looked at. *ret_created is false if the same
 * backing was there. */
int service_allocate(Service *service, VM *vm, const BackingSpec *spec, Backing **ret, bool *ret_created, Failure *f);
/* What service_allocate() would say, without effect. The file is made, for only the kernel knows whether it can be, and
 * goes again. */
int service_check_allocation(Service *service, VM *vm, const BackingSpec *spec, bool *ret_created, Failure *f);
/* Takes a duplicate of fd (borrowed). kind: -1 if any will do; size: 0 if any will do. */
int service_adopt(Service *service, VM *vm, const char *name, int fd, int kind, uint64_t size, uid_t peer,
                  Backing **ret, bool *ret_created, Failure *f);
/* A new fd of the backing, which the caller owns. */
int service_open(Service *service, Backing *backing, bool read_only, int *ret_fd, Failure *f);
int service_release(Service *service, Backing *backing, uint64_t *ret_freed, Failure *f);
/* *ret_created is false if the backing was shared with the VM already, for the same access. */
int service_share(Service *service, Backing *backing, VM *peer, bool read_only, bool *ret_created, Failure *f);
/* It must be shared with the VM. */
void service_reclaim(Service *service, Backing *backing, VM *peer);
int service_punch(Service *service, Backing *backing, uint64_t offset, uint64_t size, uint64_t *ret_freed, Failure *f);

/* Looks what the VM's VMM has mapped at the slot, if it has one whose mappings can be read, and resolves the spec;
 * what is left to judge is in spec->mapping until service_forget_look(). */
int service_look_at_slot(VM *vm, SlotSpec *spec);
void service_forget_look(SlotSpec *spec);

/* slot_set_many(): what changed is kept when this returns. 0, API_E_…, negative. */
int service_set_slots(Service *service, VM *vm, const SlotSpec *specs, size_t n, Verdict *verdicts, bool *changed,
                      bool *ret_accepted, Failure *f);
/* attributes_set() of the VM, the same. Returns 0, API_E_…, or negative. */
int service_set_attributes(Service *service, VM *vm, uint64_t gpa, uint64_t size, bool private, Failure *f);

/* Bytes in memory now; 0 if the kernel does not say. */
uint64_t service_resident(Service *service, const Backing *backing);
/* Whether the kernel counts resident bytes of a part of a file; never of huge pages. */
bool service_can_count_ranges(Service *service);
/* Bytes of [offset, offset + size) in memory now. -EOPNOTSUPP if the kernel does not say. */
int service_resident_range(Service *service, const Backing *backing, uint64_t offset, uint64_t size, uint64_t *ret);
/* F_SEAL_… */
unsigned service_seals(const Backing *backing);

/* ---- who has the memory: manager-holders.c ---- */

/* Somebody's question, until it is answered or taken back. */
typedef struct HolderScan HolderScan;

/* The answer; the question is gone by now. error: 0, or a negative errno, and then the report is empty. The report is
 * borrowed, but holders may be taken: TAKE_PTR(report->holders), free with free(). May ask again, or cancel others. */
typedef void (*HolderScanDone)(int error, HolderReport *report, void *userdata);

/* Asks which processes, other than privmemd, have one of the files open or mapped. The look begins after this returns,
 * and done is called later from the event loop: after a few milliseconds for a hundred processes. files: copied. */
int service_scan_holders(Service *service, const HolderFile *files, size_t n_files, HolderScanDone done,
                         void *userdata, HolderScan **ret);
/* Takes the question back: done will not be called. Accepts NULL, returns NULL. */
HolderScan *service_cancel_scan(HolderScan *scan);
/* Whether the process that was found is the VM's VMM, or the outgoing one. */
bool service_is_vmm(const VM *vm, const Holder *holder);

/* ---- what is written down: manager-ledger.c ---- */

/* A list of what the ledger says, as it was when the list began, whatever is written meanwhile. */
typedef struct LedgerList LedgerList;

typedef enum LedgerEntryKind {
        LEDGER_ENTRY_RECORD,
        LEDGER_ENTRY_DAMAGED, /* bytes that are no frame, or missing ones, though something was acknowledged there */
        LEDGER_ENTRY_TORN,    /* the last frame is not whole; it was never acknowledged */
} LedgerEntryKind;

typedef struct LedgerEntry {
        LedgerEntryKind kind;
        uint64_t sequence; /* of the frame */
        uint64_t offset;   /* in the ledger */
        uint64_t size;     /* of the body of a record, else of what is damaged or torn */
        uint64_t n_lost;   /* of what is damaged: frames that are missing */
        uint16_t type, version;
        const void *body; /* valid until the next call */
} LedgerEntry;

typedef struct LedgerSummary {
        uint64_t generation; /* 0: there is no ledger, and the list is empty */
        uint64_t size;       /* bytes */
        uint64_t n_frames;
} LedgerSummary;

int service_list_ledger(Service *service, LedgerSummary *ret_summary, LedgerList **ret);
/* 1: *ret is the next one; 0: that was the last. */
int service_next_in_ledger(LedgerList *list, LedgerEntry *ret);
/* Accepts NULL, returns NULL. */
LedgerList *service_close_ledger(LedgerList *list);
