/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PRIVMEM_H
#define PRIVMEM_H

/* libprivmem: guest memory from privmemd, for the program that runs a KVM guest.
 *
 * What a VMM does with it, in this order:
 *
 *         privmem_connect(NULL, &p);
 *         privmem_vm_register(p, "web1", NULL, &vm, NULL);
 *         privmem_vm_attach(vm, -1);
 *         privmem_backing_allocate(vm, "ram0", size, NULL, &fd, NULL);
 *         address = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
 *         privmem_slot_set(vm, kvm_vm_fd, &slot);
 *
 * Return values. Functions that return int return 0, or a negative errno; after a negative one
 * privmem_error_message() says in a sentence what was wrong. Arguments named ret_… are set only on success,
 * come last, and may be NULL if they are not wanted, unless their description says otherwise.
 *
 * Units. Sizes, offsets and addresses are bytes in uint64_t.
 *
 * File descriptors. Those the library returns are the caller's to close and are close-on-exec. Those the
 * caller passes in stay the caller's: the library sends a duplicate and closes nothing.
 *
 * Memory. Strings and structures that the caller passes in are read during the call only.
 *
 * Threads. A handle (privmem, and every privmem_vm made from it) is used by one thread at a time. Several
 * handles are independent of each other. After fork() only one of the two processes may go on using a handle.
 *
 * Blocking. A call waits until privmemd has answered. Signal handlers run, and the wait goes on after them.
 * SIGPIPE is never raised. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#pragma GCC visibility push(default)

/* Version of the library that runs, "0.1.0". */
const char *privmem_version(void);

/* ---- connection ---------------------------------------------------------------------------------------- */

/* A connection to privmemd. */
typedef struct privmem privmem;

/* Where privmemd listens for this process, in this order: $PRIVMEM_SOCKET if it is set and not empty (and the
 * program is not set-uid); if the caller is not root, $XDG_RUNTIME_DIR/privmemd/io.privmemd.Memory if there is
 * one; /run/privmemd/io.privmemd.Memory. The caller frees *ret with free(). -ENOMEM. */
int privmem_default_path(char **ret);

/* Connects to the unix socket at path; NULL means that of privmem_default_path(). ret must not be NULL.
 *
 * -ENOENT, -ECONNREFUSED: privmemd does not run there. -EACCES: the socket is not for this user.
 * -ENAMETOOLONG: the path does not fit a socket address. -ENOMEM, -EMFILE. */
int privmem_connect(const char *path, privmem **ret);

/* Uses a socket that is connected already, such as one end of a socketpair(). On success the handle owns fd. */
int privmem_connect_fd(int fd, privmem **ret);

/* Closes the connection and frees the handle. Nothing that was registered or allocated is lost by it. Every
 * privmem_vm made from it must have been freed before. NULL is allowed. Returns NULL. */
privmem *privmem_close(privmem *p);

/* The socket, for poll(2) after privmem_subscribe(). It stays the handle's. */
int privmem_fd(const privmem *p);

/* About the last call on the handle that failed. The strings are the handle's and valid until its next call.
 *
 * name     the varlink error, such as "io.privmemd.Memory.SlotRefused"; NULL if the error did not come from
 *          privmemd, but from the library or from KVM.
 * message  one sentence for people; never NULL.
 * json     the error's parameters as a JSON object, such as the verdict with every conflict; NULL if there
 *          are none.
 *
 * Every error of io.privmemd.Memory has one errno: NoSuchVM, NoSuchBacking and NoSuchClaim -ENOENT, NotPermitted
 * and ClaimInvalid -EACCES, NameConflict -EEXIST, InvalidName, InvalidValue and InvalidRange -EINVAL, WrongFds -EBADF, NotMemory
 * -EMEDIUMTYPE, NotSealed -EPERM, NoCapacity -ENOSPC, LimitExceeded -EDQUOT, BackingInUse, VMInUse and Fenced -EBUSY,
 * NotSupported -EOPNOTSUPP, SlotRefused and SlotsRefused -ERANGE, HostFailure -EIO. Of the others,
 * InvalidParameter is -EINVAL, PermissionDenied -EACCES, a missing method or interface -EOPNOTSUPP,
 * io.systemd.System the errno that it carries, and an error unknown to this version -EREMOTEIO.
 *
 * -ECONNRESET: privmemd closed the connection. -EPROTO: its answer makes no sense. -EMSGSIZE: a call or an
 * answer is larger than 16 MiB. -EMFILE: the answer's file descriptors did not fit into this process. After
 * these, and whenever the connection was lost, every further call is -ENOTCONN: close and connect again. */
const char *privmem_error_name(const privmem *p);
const char *privmem_error_message(const privmem *p);
const char *privmem_error_json(const privmem *p);

/* The parameters of the last answer, as a JSON object: everything that the typed calls below leave out. NULL
 * before the first one. The handle's, and valid until its next call. */
const char *privmem_reply_json(privmem *p);

/* Calls any method. A method without a dot is one of io.privmemd.Memory.
 *
 * parameters    JSON object, or NULL for none.
 * fds, n_fds    file descriptors to send, at most 253; parameters refer to them by index.
 * ret_reply     the answer's parameters as a JSON object; the caller frees it with free(). On failure it is
 *               not set; see privmem_error_json().
 * ret_fds       array for file descriptors of the answer, in the order of the answer's indexes.
 * n_ret_fds     in: room in ret_fds; out: how many there are. NULL is no room. More file descriptors than
 *               there is room for are closed, and the connection is closed with -EPROTO.
 *
 * -EINVAL: parameters is no JSON object or not UTF-8. -EBUSY: the handle is subscribed. */
int privmem_call(privmem *p, const char *method, const char *parameters, const int *fds, size_t n_fds,
                 char **ret_reply, int *ret_fds, size_t *n_ret_fds);

/* Gets one part of a streamed answer. The reply is valid during the call only. Must not use the handle.
 * Another value than 0 ends the stream. */
typedef int (*privmem_reply_func)(const char *reply, void *userdata);

/* Calls a method that answers with a stream ("more"), and calls callback for each part, the last one too.
 * Returns 0 at the end of the stream. If callback returns another value than 0, that value is returned, and
 * unless it was the last part the connection is closed: there is no other way to stop a stream. */
int privmem_call_more(privmem *p, const char *method, const char *parameters, privmem_reply_func callback,
                      void *userdata);

/* ---- VM ------------------------------------------------------------------------------------------------ */

/* A VM by its name, on one connection, which must stay open as long as this handle. */
typedef struct privmem_vm privmem_vm;

/* What becomes of the memory when the VMM exits. */
typedef enum privmem_exit_policy {
        PRIVMEM_EXIT_POLICY_DEFAULT = 0, /* leave it to privmemd: release */
        PRIVMEM_EXIT_POLICY_RELEASE = 1, /* its memory is freed */
        PRIVMEM_EXIT_POLICY_RETAIN = 2,  /* its memory is kept until it is released, or for retain_usec */
} privmem_exit_policy;

/* What happens to a slot that shows memory which appears elsewhere, when no rule allows it. */
typedef enum privmem_alias_policy {
        PRIVMEM_ALIAS_POLICY_DEFAULT = 0, /* leave it to privmemd: enforce */
        PRIVMEM_ALIAS_POLICY_ENFORCE = 1, /* it is refused */
        PRIVMEM_ALIAS_POLICY_OBSERVE = 2, /* it is reported and set */
} privmem_alias_policy;

/* What KVM_CREATE_VM is asked for. Some of KVM's rules for slots depend on it. */
typedef enum privmem_vm_type {
        PRIVMEM_VM_TYPE_UNDECLARED = 0,   /* say nothing: privmemd refuses nothing that one of the others could have */
        PRIVMEM_VM_TYPE_ORDINARY = 1,     /* KVM_X86_DEFAULT_VM */
        PRIVMEM_VM_TYPE_SW_PROTECTED = 2, /* KVM_X86_SW_PROTECTED_VM */
        PRIVMEM_VM_TYPE_SEV = 3,          /* KVM_X86_SEV_VM */
        PRIVMEM_VM_TYPE_SEV_ES = 4,       /* KVM_X86_SEV_ES_VM */
        PRIVMEM_VM_TYPE_SNP = 5,          /* KVM_X86_SNP_VM */
        PRIVMEM_VM_TYPE_TDX = 6,          /* KVM_X86_TDX_VM */
} privmem_vm_type;

/* Set it to zeroes first: a zero is the default of each. */
struct privmem_vm_options {
        const char *uuid; /* usual form; NULL for none */
        privmem_exit_policy exit_policy;
        privmem_alias_policy alias_policy;
        privmem_vm_type type;
        bool set_owner;          /* false: the caller is the owner */
        bool retain_guest_memfd; /* with PRIVMEM_EXIT_POLICY_RETAIN: guest_memfds too, for reading; nobody can bind them */
        uint32_t owner_uid;      /* only root may name another uid */
        uint64_t retain_usec; /* with PRIVMEM_EXIT_POLICY_RETAIN: microseconds; 0: until a VMM attaches */
        uint64_t reserved[3];
};

/* Registers a VM. The same request again succeeds; a different one under the name is -EEXIST.
 *
 * name         1 to 64 characters from A-Z a-z 0-9 . _ : - and a letter or digit first.
 * options      NULL for the defaults.
 * ret          the handle; must not be NULL. Free it with privmem_vm_free().
 * ret_created  false if the VM was registered already. */
int privmem_vm_register(privmem *p, const char *name, const struct privmem_vm_options *options, privmem_vm **ret,
                        bool *ret_created);

/* A handle of a VM that somebody has registered. Does not ask privmemd: whether there is such a VM shows in
 * the first call. ret must not be NULL. -EINVAL: the name is empty or NULL. */
int privmem_vm_new(privmem *p, const char *name, privmem_vm **ret);

/* Frees the handle; the VM stays registered. NULL is allowed. Returns NULL. */
privmem_vm *privmem_vm_free(privmem_vm *vm);

const char *privmem_vm_name(const privmem_vm *vm);

/* Makes a process the VM's VMM. privmemd applies the exit policy when it ends; the binding survives exec.
 *
 * pidfd  of the process, or -1 for the caller. It must run as the VM's owner, unless the caller is root.
 *
 * -EBUSY: another VMM is attached and lives, and has not named this process in privmem_vm_hand_over(); or
 * the VM is retained and other processes have its memory open or mapped, which privmem_error_message() names. */
int privmem_vm_attach(privmem_vm *vm, int pidfd);

/* Names the process that may take over from the VM's living VMM, by privmem_vm_attach(). It gets the VM with no slots,
 * while the former VMM and its slots go on until it exits; its own declarations still go to its own slots. If the new VMM
 * exits first, the VM is the former one's again. Memory that both show is no refused alias, but a guest_memfd cannot be
 * handed over. Another name takes the place of the first one.
 *
 * pidfd  of the successor, or -1 for none any more. It must run as the VM's owner, unless the caller is root.
 *
 * -EOPNOTSUPP: the VM has no living VMM, or the process is that VMM itself. -EBUSY: the former VMM of the last hand-over
 * has not exited yet. */
int privmem_vm_hand_over(privmem_vm *vm, int pidfd);

/* Forgets the VM and releases its backings. The handle stays valid and can only be freed, or used after
 * somebody has registered the VM again. -EBUSY: a VMM is attached.
 *
 * ret_freed  resident bytes that were given back to the host. */
int privmem_vm_unregister(privmem_vm *vm, uint64_t *ret_freed);

/* ---- backings ------------------------------------------------------------------------------------------ */

/* What kind of file a backing is. */
typedef enum privmem_kind {
        PRIVMEM_KIND_DEFAULT = 0,     /* memfd; hugetlb if the page size is one of huge pages */
        PRIVMEM_KIND_MEMFD = 1,       /* memfd_create(2) */
        PRIVMEM_KIND_HUGETLB = 2,     /* memfd of huge pages, reserved from the host's pool */
        PRIVMEM_KIND_GUEST_MEMFD = 3, /* KVM_CREATE_GUEST_MEMFD; adopted, never allocated */
} privmem_kind;

/* Where the pages of a file come from, as set_mempolicy(2) has it. */
typedef enum privmem_numa_policy {
        PRIVMEM_NUMA_DEFAULT = 0,
        PRIVMEM_NUMA_BIND = 1,
        PRIVMEM_NUMA_PREFERRED = 2,
        PRIVMEM_NUMA_INTERLEAVE = 3,
} privmem_numa_policy;

typedef enum privmem_access {
        PRIVMEM_ACCESS_READ_WRITE = 0,
        PRIVMEM_ACCESS_READ_ONLY = 1,
} privmem_access;

/* Set it to zeroes first: a zero is the default of each. */
struct privmem_backing_options {
        privmem_kind kind;
        uint64_t page_size; /* 0, the host's page size, or that of a huge page */
        privmem_numa_policy numa_policy;
        const uint32_t *numa_nodes; /* nodes of the policy; needed with one */
        size_t n_numa_nodes;
        uint64_t reserved[4];
};

/* Longest name of a VM or backing, in characters. */
#define PRIVMEM_NAME_MAX 64

/* A backing, as privmemd describes it. */
struct privmem_backing {
        char vm[PRIVMEM_NAME_MAX + 1];   /* the VM that owns it */
        char name[PRIVMEM_NAME_MAX + 1]; /* its name there */
        privmem_kind kind;
        bool adopted; /* a VMM made the file, not privmemd */
        bool created; /* this call made it; false: it was there already */
        uint64_t size;
        uint64_t page_size;
        uint64_t device; /* st_dev and st_ino, as fstat(2) and /proc/PID/maps show them */
        uint64_t inode;
        uint64_t resident; /* bytes in memory now */
        uint64_t slots;    /* slots that show it, of every VM */
        uint64_t reserved[8];
};

/* Allocates guest memory: a file of that size, mode 0600 and owned by the VM's owner, sealed against a change
 * of its size. Nothing is populated: pages are charged to the cgroup of whoever touches them first. The same
 * request again gives the same memory; a different one under the name is -EEXIST.
 *
 * name     1 to 64 characters, as a VM's name; unique in the VM.
 * size     a multiple of the page size of the file, and not 0.
 * options  NULL for a memfd without NUMA policy.
 * ret_fd   opened for reading and writing, and the caller's to close; NULL if it is not wanted. fstat(2) tells size
 *          and identity.
 * ret_created  false if it was there already. May be NULL.
 *
 * -ENOSPC: the pool of huge pages is too small; privmem_error_json() has page size, node, needed and
 * available bytes. */
int privmem_backing_allocate(privmem_vm *vm, const char *name, uint64_t size,
                             const struct privmem_backing_options *options, int *ret_fd, bool *ret_created);

/* Donates memory that the VMM made itself. privmemd keeps a duplicate of fd. A memfd must be sealed with
 * F_SEAL_SHRINK and F_SEAL_GROW, opened for writing and owned by the VM's owner; its mode becomes 0600. A file
 * that is a backing already stays that backing and keeps its name: see ret.
 *
 * kind  what the file must be; PRIVMEM_KIND_DEFAULT for any.
 * size  what its size must be; 0 for any. */
int privmem_backing_adopt(privmem_vm *vm, const char *name, int fd, privmem_kind kind, uint64_t size,
                          struct privmem_backing *ret);

/* Asks whether privmem_backing_adopt() would take such memory under that name. Changes nothing. */
int privmem_backing_admit(privmem_vm *vm, const char *name, privmem_kind kind, uint64_t size);

/* Lets another VM, of the same or of another owner, show the backing in its slots, and its owner open it: on a handle
 * of the owner's VM, made by privmem_vm_new(). The same again succeeds. With PRIVMEM_ACCESS_READ_ONLY the peer's slots
 * need PRIVMEM_SLOT_READONLY.
 *
 * peer         name of the other VM.
 * ret_created  false if it was shared with the peer already.
 *
 * -EEXIST: it is shared with the peer already, with the other access. -EBUSY: it is to be for reading only, and a slot
 * of the peer shows it without PRIVMEM_SLOT_READONLY. -EOPNOTSUPP: a guest_memfd, or the VM itself. -EDQUOT. */
int privmem_backing_share(privmem_vm *vm, const char *name, const char *peer, privmem_access access,
                          bool *ret_created);

/* Takes a share back. A file descriptor that the peer has got, and what it has mapped, cannot be taken back: it stays
 * good until the peer lets go of it, or until the backing is released. -EBUSY: a slot of the peer shows it.
 *
 * ret_reclaimed  false if it was not shared with the peer. */
int privmem_backing_reclaim(privmem_vm *vm, const char *name, const char *peer, bool *ret_reclaimed);

/* Opens a backing of the VM, or one that is shared with a VM of the caller's. A guest_memfd has no read-only form:
 * -EOPNOTSUPP. A memfd of another owner cannot be opened again through /proc/self/fd. ret_fd must not be NULL. */
int privmem_backing_open(privmem_vm *vm, const char *name, privmem_access access, int *ret_fd,
                         struct privmem_backing *ret);

/* Gives the backing's memory back to the host at once, whoever still holds a file descriptor of it, and
 * forgets it. -EBUSY: a slot shows it, or the living VMM maps it.
 *
 * ret_freed  resident bytes that were given back. */
int privmem_backing_release(privmem_vm *vm, const char *name, uint64_t *ret_freed);

/* Gives a range back to the host; the guest reads zeroes there afterwards.
 *
 * offset, size  multiples of the backing's page size, inside the backing; size is not 0. */
int privmem_backing_punch(privmem_vm *vm, const char *name, uint64_t offset, uint64_t size, uint64_t *ret_freed);

/* ---- claims -------------------------------------------------------------------------------------------- */

/* A backing that a claim has given. */
struct privmem_redeemed {
        char name[PRIVMEM_NAME_MAX + 1];
        privmem_kind kind;
        privmem_access access; /* what the file descriptor can do */
        int fd;                /* close-on-exec */
        uint64_t size;
        uint64_t reserved[4];
};

/* Fetches the memory that somebody has made a claim for: the VM's owner, root, or who manages VMs through REST. The token
 * is all that it needs; the caller may run as any user. It is good once: when this has returned 0, or the connection was
 * lost meanwhile, it is used up, and if privmemd has refused it is not.
 *
 * token   what CreateClaim gave.
 * attach  also makes the calling process the VM's VMM, as privmem_vm_attach() would: it must run as the VM's owner, or
 *         as root.
 * ret     *ret_n backings, in the order of the claim. The caller frees them with privmem_redeemed_free(), which closes
 *         the file descriptors that are not negative: set those to -1 that are to stay open. Neither may be NULL.
 *
 * -EACCES: the token is unknown, used, expired or for another VM; or the caller may not redeem, or not attach. -EBUSY: as
 * of privmem_vm_attach(). */
int privmem_claim_redeem(privmem_vm *vm, const char *token, bool attach, struct privmem_redeemed **ret, size_t *ret_n);

/* NULL is allowed. Returns NULL. */
struct privmem_redeemed *privmem_redeemed_free(struct privmem_redeemed *redeemed, size_t n_redeemed);

/* ---- who has the memory -------------------------------------------------------------------------------- */

/* A process, and what it has of one backing of a VM. */
struct privmem_holder {
        char backing[PRIVMEM_NAME_MAX + 1];
        char command[32];      /* its name, as ps(1) shows it */
        int32_t pid;           /* for people: it may be another process's by now */
        uint32_t uid;          /* the real one */
        bool is_vmm;           /* it is the VM's VMM */
        bool writable;         /* it can write into the file: by an fd that is open for writing, or a shared mapping */
        bool copies_on_write;  /* a private mapping that it can write: what is written is not in the file */
        uint64_t fds;          /* open file descriptors of the backing */
        uint64_t shared_bytes; /* sum of the shared mappings */
        uint64_t private_bytes; /* sum of the private mappings */
        uint64_t reserved[4];
};

/* Gets one of them, valid during the call. Must not use the handle. Another value than 0 ends the list. */
typedef int (*privmem_holder_func)(const struct privmem_holder *holder, void *userdata);

/* Asks which processes have a backing of the VM open or mapped, privmemd itself left out, and calls callback for each, in
 * order of backing and pid. privmemd looks at every process of the host; that takes milliseconds. If callback returns
 * another value than 0, that value is returned, and unless it was in the last part of the answer the connection is
 * closed.
 *
 * backing         only this one; NULL for all of the VM.
 * ret_complete    false: somebody may have the memory who was not listed.
 * ret_unreadable  processes that privmemd may not look at.
 *
 * -ENOENT: no such VM or backing. -EDQUOT: too many such calls of this user are being answered. */
int privmem_vm_holders(privmem_vm *vm, const char *backing, privmem_holder_func callback, void *userdata,
                       bool *ret_complete, uint64_t *ret_unreadable);

/* ---- slots --------------------------------------------------------------------------------------------- */

/* Flags of a slot; the values are KVM's. */
enum {
        PRIVMEM_SLOT_LOG_DIRTY_PAGES = 1 << 0, /* KVM_MEM_LOG_DIRTY_PAGES */
        PRIVMEM_SLOT_READONLY = 1 << 1,        /* KVM_MEM_READONLY */
        PRIVMEM_SLOT_GUEST_MEMFD = 1 << 2,     /* KVM_MEM_GUEST_MEMFD, and KVM_MEM_PRIVATE of the v5 series */
};

/* A KVM memslot. Set it to zeroes first. */
struct privmem_slot {
        uint32_t slot_id;            /* 0 to 32763; bits 0 to 15 of KVM's slot */
        uint32_t address_space;      /* 0, or 1 for x86 SMM; bits 16 to 31 of KVM's slot */
        uint32_t flags;              /* PRIVMEM_SLOT_… */
        int guest_memfd_fd;          /* with PRIVMEM_SLOT_GUEST_MEMFD: the file descriptor that KVM gets */
        uint64_t guest_phys_addr;    /* a multiple of the page size */
        uint64_t memory_size;        /* a multiple of the page size; 0 deletes the slot */
        uint64_t userspace_addr;     /* where the VMM maps the memory; a multiple of the page size */
        const char *backing;         /* the backing mapped there; NULL for memory that no backing holds */
        const char *backing_vm;      /* the VM that owns it; NULL for the slot's own VM */
        uint64_t backing_offset;     /* byte of the backing at userspace_addr */
        const char *guest_memfd;     /* with PRIVMEM_SLOT_GUEST_MEMFD: the backing of the private side */
        uint64_t guest_memfd_offset; /* byte of it at guest_phys_addr; a multiple of the page size */
        uint64_t reserved[4];
};

typedef enum privmem_outcome {
        PRIVMEM_OUTCOME_OK = 0,      /* no page of the slot appears anywhere else */
        PRIVMEM_OUTCOME_ALLOWED = 1, /* pages appear elsewhere too, and a rule allows it */
        PRIVMEM_OUTCOME_REFUSED = 2, /* KVM would refuse the slot, or no rule allows the alias */
} privmem_outcome;

/* What privmemd says about a slot; privmem_reply_json() has the reason and the conflicts. */
struct privmem_verdict {
        privmem_outcome outcome;
        int kernel_errno; /* the errno that KVM gives for the same slot, positive; 0: KVM accepts it */
        char rule[48];    /* the rule that decided, as the API spells it; empty if there was none */
        uint64_t reserved[4];
};

/* Tells privmemd of a slot and does nothing else: for a VMM that keeps the order with the kernel itself. A
 * create, move or change of flags is declared before its ioctl, so that privmemd's table covers KVM's at every
 * instant. -ERANGE: refused; privmem_error_json() has the verdict.
 *
 * ret  PRIVMEM_OUTCOME_REFUSED only if the VM's alias policy is observe. */
int privmem_slot_declare(privmem_vm *vm, const struct privmem_slot *slot, struct privmem_verdict *ret);

/* Takes a declaration back: after the ioctl that deletes the slot, or after a create that failed. */
int privmem_slot_withdraw(privmem_vm *vm, uint32_t address_space, uint32_t slot_id);

/* Asks what privmem_slot_declare() would say about each of these slots in turn, each as if those before it
 * that were not refused had been set. Changes nothing.
 *
 * ret_verdicts  array of n_slots.
 * ret_accepted  whether all of them would be set. */
int privmem_slot_check(privmem_vm *vm, const struct privmem_slot *slots, size_t n_slots,
                       struct privmem_verdict *ret_verdicts, bool *ret_accepted);

/* How a slot is given to KVM. All addresses and sizes are 64 bits in each. */
typedef enum privmem_kvm_abi {
        /* KVM_SET_USER_MEMORY_REGION2 where the VM has KVM_CAP_USER_MEMORY2 (Linux 6.8), else
         * KVM_SET_USER_MEMORY_REGION, which cannot take a guest_memfd. */
        PRIVMEM_KVM_ABI_AUTO = 0,
        /* KVM_SET_USER_MEMORY_REGION with struct kvm_userspace_memory_region, 32 bytes. */
        PRIVMEM_KVM_ABI_REGION = 1,
        /* KVM_SET_USER_MEMORY_REGION2 with struct kvm_userspace_memory_region2, 160 bytes. */
        PRIVMEM_KVM_ABI_REGION2 = 2,
        /* KVM_SET_USER_MEMORY_REGION with struct kvm_userspace_memory_region_ext, 64 bytes, of which the
         * kernel reads the second half if KVM_MEM_PRIVATE is set: "KVM: mm: fd-based approach for supporting
         * KVM guest private memory", v5. For kernels that carry that series. No released kernel does: it
         * takes this for the 32 bytes of before and refuses KVM_MEM_PRIVATE with EINVAL. Never chosen by
         * PRIVMEM_KVM_ABI_AUTO, as that series has no capability to ask for. */
        PRIVMEM_KVM_ABI_EXT = 3,
} privmem_kvm_abi;

/* Chooses the form for privmem_slot_set(). -EINVAL: there is no such form. */
int privmem_vm_set_kvm_abi(privmem_vm *vm, privmem_kvm_abi abi);

/* Sets, moves, changes or deletes a slot in KVM and in privmemd, in the order that keeps privmemd's table
 * covering KVM's:
 *   - create, move, flags: declared first; then the ioctl; if that fails, the declaration becomes what it was
 *     before.
 *   - delete (memory_size 0): the ioctl first; then the declaration is withdrawn. If that fails, KVM's slot
 *     is gone all the same.
 *
 * The first call asks privmemd once for the slots that the VM has; from then on the handle remembers them, so
 * the slots of one VM must be set through one handle.
 *
 * kvm_vm_fd  made by KVM_CREATE_VM in this process: KVM refuses it to any other (EIO).
 *
 * -ERANGE: privmemd refused the slot, KVM was not asked; privmem_error_json() has the verdict.
 * -EBADF: kvm_vm_fd is negative. -EINVAL: the flags or the slot id do not fit KVM's structure.
 * -EOPNOTSUPP: a guest_memfd, and KVM has no REGION2. Otherwise KVM's errno, and privmem_error_name() is
 * NULL. */
int privmem_slot_set(privmem_vm *vm, int kvm_vm_fd, const struct privmem_slot *slot);

/* The structures as KVM takes them, in the machine's byte order. Bytes without meaning are zero.
 *
 *   ret_region   32 bytes, for KVM_SET_USER_MEMORY_REGION (0x4020ae46). -EINVAL with a guest_memfd.
 *   ret_region2  160 bytes, for KVM_SET_USER_MEMORY_REGION2 (0x40a0ae49).
 *   ret_ext      64 bytes, for KVM_SET_USER_MEMORY_REGION (0x4020ae46): region at 0, private_offset at 32,
 *                private_fd at 40.
 *
 * private_fd   written if the slot has PRIVMEM_SLOT_GUEST_MEMFD; slot->guest_memfd_fd is not looked at.
 *
 * -EINVAL: slot id or address space needs more than 16 bits, a flag is unknown, or guest_phys_addr,
 * userspace_addr or guest_memfd_offset plus memory_size wraps around. -EBADF: private_fd is needed and
 * negative. */
int privmem_slot_encode_region(const struct privmem_slot *slot, void *ret_region);
int privmem_slot_encode_region2(const struct privmem_slot *slot, int private_fd, void *ret_region2);
int privmem_slot_encode_ext(const struct privmem_slot *slot, int private_fd, void *ret_ext);

/* ---- guest_memfd --------------------------------------------------------------------------------------- */

/* Flags of a guest_memfd; the values are KVM's. */
enum {
        PRIVMEM_GUEST_MEMFD_MMAP = 1 << 0,        /* GUEST_MEMFD_FLAG_MMAP: it can be mapped */
        PRIVMEM_GUEST_MEMFD_INIT_SHARED = 1 << 1, /* GUEST_MEMFD_FLAG_INIT_SHARED: its pages start as shared */
};

/* Which of these flags the VM's guest_memfds can have: KVM_CAP_GUEST_MEMFD_FLAGS, 0 before Linux 6.18.
 * -EOPNOTSUPP: the VM can have no guest_memfd at all. -EBADF. */
int privmem_guest_memfd_flags(int kvm_vm_fd, uint64_t *ret_flags);

/* Creates a guest_memfd of the VM and gives privmemd a duplicate: asks for admission, calls
 * KVM_CREATE_GUEST_MEMFD, makes the file descriptor close-on-exec (KVM returns it without; another thread that
 * calls exec in between inherits it), donates. If privmemd refuses, the guest_memfd is closed.
 *
 * size    a multiple of the page size, and not 0.
 * flags   PRIVMEM_GUEST_MEMFD_…; -EINVAL if KVM does not know one.
 * ret_fd  must not be NULL.
 *
 * A guest_memfd belongs to one VM of KVM and to no other, ever: it cannot outlive this VMM (Linux 7.3). */
int privmem_guest_memfd_create(privmem_vm *vm, int kvm_vm_fd, const char *name, uint64_t size, uint64_t flags,
                               int *ret_fd);

/* ---- private and shared memory ------------------------------------------------------------------------- */

/* Attributes of guest addresses; the values are KVM's. */
enum {
        PRIVMEM_MEMORY_ATTRIBUTE_PRIVATE = 1 << 3, /* KVM_MEMORY_ATTRIBUTE_PRIVATE; without it they are shared */
};

/* Makes guest addresses private or shared, in privmemd and in KVM: asks whether the VM can have the attribute, declares
 * it, then calls KVM_SET_MEMORY_ATTRIBUTES; if that fails, the declaration becomes what it was before. The old side
 * keeps its memory: give it back with privmem_backing_punch(), or fallocate(2) on the file.
 *
 * kvm_vm_fd              made by KVM_CREATE_VM in this process.
 * guest_phys_addr, size  multiples of the page size; size is not 0.
 * attributes             0 or PRIVMEM_MEMORY_ATTRIBUTE_PRIVATE.
 *
 * -EBADF: kvm_vm_fd is negative. -EINVAL: another attribute, or the range is empty, not made of pages, or wraps around.
 * -EOPNOTSUPP: this VM cannot have private memory: KVM_CAP_MEMORY_ATTRIBUTES lacks the attribute, which only some types
 * of VMs have; privmemd was told nothing. -EDQUOT: too many separate private ranges. Otherwise KVM's errno, and
 * privmem_error_name() is NULL. */
int privmem_memory_attributes_set(privmem_vm *vm, int kvm_vm_fd, uint64_t guest_phys_addr, uint64_t size,
                                  uint64_t attributes);

/* Tells privmemd alone: for a VMM that calls the ioctl itself, after this. */
int privmem_memory_attributes_declare(privmem_vm *vm, uint64_t guest_phys_addr, uint64_t size, uint64_t attributes);

/* ---- events -------------------------------------------------------------------------------------------- */

/* Something that happened. The strings are the handle's and valid until its next call. */
struct privmem_event {
        uint64_t sequence;       /* grows by one with each event; starts at 1 when privmemd starts */
        uint64_t timestamp_usec; /* CLOCK_REALTIME, microseconds */
        const char *kind;        /* as the API spells it, such as "slot_refused" */
        const char *vm;          /* NULL if it is not about one */
        const char *backing;     /* NULL if it is not about one */
        const char *json;        /* all of it */
        uint64_t reserved[4];
};

/* Turns the connection into a stream of the events of the VMs that the caller may see: from now on only
 * privmem_event_next(), privmem_fd(), the error functions and privmem_close() may be used, everything else is
 * -EBUSY. The first event is of kind "subscribed"; a refusal, such as -EDQUOT, is returned in its place.
 *
 * since  send the events after this sequence number first, as far as they are still kept; negative: none. */
int privmem_subscribe(privmem *p, int64_t since);

/* The next event. In a poll(2) loop call it with 0 until it returns -EAGAIN: more than one event may have
 * arrived at once.
 *
 * timeout_msec  how long to wait; negative: for ever.
 * ret           must not be NULL.
 *
 * -EAGAIN: none arrived in time; the connection is fine. Any other error ends the subscription, and from then
 * on it is -EINVAL: the handle is not subscribed. */
int privmem_event_next(privmem *p, int timeout_msec, struct privmem_event *ret);

#pragma GCC visibility pop

#ifdef __cplusplus
}
#endif

#endif
