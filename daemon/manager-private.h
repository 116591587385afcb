/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What the files of the manager share among themselves and with nobody else. service_…() are for the front, and are
 * declared in front/service.h.
 *
 * Each change of who owns what goes through one function:
 *  - a VM is registered by service_register(), attached by service_attach() or by what that leads to, and ends in
 *    manager_drop_vm();
 *  - a VM's successor is named by service_hand_over();
 *  - an exit of a VMM is seen by manager_vmm_exited(), which retains the VM or ends it; when the time that it is retained
 *    for runs out, manager_watch_expiry()'s timer ends it;
 *  - a backing comes into custody by custody_enter() and leaves it by custody_leave();
 *  - a share is given by service_share() and taken back by service_reclaim();
 *  - a claim is made by service_create_claim(), and ends in claim_use_up(), service_delete_claim(), claim_expire(), or
 *    with a backing in claims_end_with(). */

#include "core/backing.h"
#include "core/cleanup.h"
#include "front/front.h"
#include "host/flight.h"
#include "host/kvm.h"
#include "host/mapping.h"
#include "host/memory-file.h"
#include "host/process.h"
#include "host/step.h"
#include "keeper.h"
#include "manager.h"

typedef struct Attempt Attempt;
typedef struct HolderDesk HolderDesk;

struct Service {
        sd_event *event;
        Registry *registry;
        Front *front;
        Keeper keeper;
        Flight flight;
        MemoryHost memory;
        KVMHost kvm;
        HolderDesk *holders;
        TAILQ_HEAD(, Attempt) attempts; /* to attach a process to a retained VM */
        uint64_t next_mm_id;
        AdviceFacts advice;
        uint64_t advice_looked_up; /* CLOCK_MONOTONIC, µs; 0: not yet */
        sd_event_source *expiry;   /* when the next VM that is retained for a time ends, or the next claim */
};

/* ---- custody: manager-backing.c ---- */

/* Every backing comes into custody here, whoever made its file, and is kept when this returns. fd is taken on success.
 * 0 or API_E_…: it must have been admitted. */
int custody_enter(Manager *manager, VM *vm, const BackingSpec *spec, int fd, Backing **ret, Failure *f);
/* A backing that a ledger named gets its fd back, which is taken. */
void custody_restore(Backing *backing, int fd);
/* Every backing that privmemd gives up leaves here: its memory is freed and its shares are returned. No slot may show
 * it. Returns how many bytes that freed. */
uint64_t custody_leave(Manager *manager, Backing *backing, EndReason reason);
/* The same for a backing of a VM that is gone from the ledger already. */
uint64_t custody_drop(Manager *manager, Backing *backing, EndReason reason);
/* A share ends that the ledger does not know any more. */
void custody_unshare(Manager *manager, Backing *backing, VM *peer);
/* Closes our fd and touches neither the memory nor the backing: privmemd is about to end. */
void custody_close(Backing *backing);
/* Borrowed; -EBADF before custody_restore(). */
int custody_fd(const Backing *backing);

/* ---- VMs: manager-vm.c ---- */

/* Gives the VM's memory back and forgets it. Its own slots go; slots of other VMs must not show its backings. Returns
 * how many bytes that freed. */
uint64_t manager_drop_vm(Manager *manager, VM *vm, EndReason reason);
/* Every exit of a VMM comes here. The VM may be gone afterwards. */
void manager_vmm_exited(Manager *manager, VM *vm, pid_t pid);

/* ---- claims: manager-claim.c ---- */

/* A claim that is about to be redeemed, and by whom. */
typedef struct ClaimUse {
        uint64_t claim; /* its id; 0: none */
        uid_t uid;
        pid_t pid;
} ClaimUse;

/* Opens what the claim is for, if it is still good: API_E_ClaimInvalid, or why it cannot be opened. */
int claim_open(Manager *manager, VM *vm, const ClaimUse *use, Redemption **ret, Failure *f);
/* The claim, whose redemption is open, is gone when this returns, and everybody is told. API_E_CustodyFull: it is not, for
 * it could be redeemed again after a restart; f is NULL where that is too late to say. */
int claim_use_up(Manager *manager, const Redemption *redemption, const ClaimUse *use, Failure *f);
/* Closes what nobody has taken. Accepts NULL, returns NULL. */
Redemption *redemption_free(Redemption *redemption);
/* Its time is over. */
void claim_expire(Manager *manager, Claim *claim);
/* The backing is about to go, and with it every claim to it, which the ledger knows already. */
void claims_end_with(Manager *manager, const Backing *backing, EndReason reason);

/* ---- attaching: manager-attach.c ---- */

/* service_attach(), and the claim is used up with it; done is called once, now or later. */
void attach_with_claim(Manager *manager, VM *vm, int pidfd, const ClaimUse *use, AttachDone done, void *userdata);

/* Ends all attempts to attach to the VM, which is about to go; NULL: all there are, for privmemd is. */
void attempts_end(Manager *manager, const VM *vm);

/* ---- what ends by itself: VMs that are retained for a time, and claims: manager-expiry.c ---- */

/* CLOCK_BOOTTIME, µs. */
uint64_t manager_now_usec(void);

/* Makes the timer, which is off at first. */
int manager_expiry_open(Manager *manager);
/* Begins the time of a VM that is retained for one, and records it, for the caller to commit; of another it does
 * nothing. */
void manager_retain(Manager *manager, VM *vm);
/* Sets the timer to the first that ends. To be called when a VM is retained or a claim is made; one that is no more costs
 * a needless look. */
void manager_watch_expiry(Manager *manager);
/* A backing that a slot of another VM shows, or NULL; *ret_peer is that VM. */
Backing *manager_shown_elsewhere(VM *vm, VM **ret_peer);

/* ---- VMMs: manager-vmm.c ---- */

/* Fills ret with a process that peer may make the VM's VMM. 0 or API_E_… */
int vmm_open_process(int pidfd, const VM *vm, uid_t peer, Process *ret, Failure *f);
/* Attaches the process, which is taken on success; a VM that has a VMM is handed over to it. 0 or API_E_… */
int vmm_new(Manager *manager, VM *vm, Process *process, Failure *f);
/* The VMM of a VM, or of its outgoing part, which a ledger named, has been found again; process is taken on success. */
int vmm_restore(Manager *manager, VM *vm, Process *process);
/* vm->userdata has come from another part of the VM. */
void vmm_follow(VM *vm);
/* Lets go of the VM's VMM, and of the outgoing one, if it has one; the VM's state is left alone. */
void vmm_close(VM *vm);
/* A VMM of the VM that maps the backing, or 0. One counts as well if its mappings cannot be read. */
pid_t vmm_that_maps(const Backing *backing);
/* Who may take over from the VM's VMM, which it must have. The process is taken; NULL: nobody. */
int vmm_set_successor(VM *vm, Process *process, Failure *f);
/* The successor, which a ledger named, has been found again; process is taken on success. */
int vmm_restore_successor(VM *vm, Process *process);
/* Whether that is the process, which lives. */
bool vmm_is_successor(const VM *vm, const Process *process);

/* ---- the start: manager-restore.c ---- */

/* Makes the empty registry what it was before the restart; see keeper_open() for directory. Backings that are gone are
 * reported by name, and VMMs that have exited meanwhile are seen to have. */
int manager_restore(Manager *manager, PassedFds *passed, const char *directory);
/* ---- who has the memory: manager-holders.c ---- */

int holder_desk_new(sd_event *event, HolderDesk **ret);
/* Nobody is told any more. Accepts NULL, returns NULL. */
HolderDesk *holder_desk_free(HolderDesk *desk);
