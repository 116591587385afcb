/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "interface.h"

#define FIELD SD_VARLINK_DEFINE_FIELD
#define FIELD_OF SD_VARLINK_DEFINE_FIELD_BY_TYPE
#define INPUT SD_VARLINK_DEFINE_INPUT
#define INPUT_OF SD_VARLINK_DEFINE_INPUT_BY_TYPE
#define OUTPUT SD_VARLINK_DEFINE_OUTPUT
#define OUTPUT_OF SD_VARLINK_DEFINE_OUTPUT_BY_TYPE
#define VALUE SD_VARLINK_DEFINE_ENUM_VALUE
#define DOC SD_VARLINK_FIELD_COMMENT

#define INT SD_VARLINK_INT
#define STRING SD_VARLINK_STRING
#define BOOL SD_VARLINK_BOOL
#define OPTIONAL SD_VARLINK_NULLABLE
#define ARRAY SD_VARLINK_ARRAY

#include "types.def"

/* ---- methods ---- */

#define DRY_RUN \
        DOC("True: everything is checked, and the reply or error is that of the same call without it, but nothing is changed, kept or told to subscribers. Only whether privmemd could keep it (CustodyFull) is not found out."), \
                INPUT(dryRun, BOOL, OPTIONAL)

#define IF_GENERATION \
        DOC("What the VM's generation must be when the call comes, or it is VMChanged and nothing is done; null: any."), \
                INPUT(ifGeneration, INT, OPTIONAL)

/* Of a list. */
#define PAGE \
        DOC("At most so many, 1 to 1024, in one message, whether with more or without; null: all."), \
                INPUT(limit, INT, OPTIONAL), \
                DOC("What nextCursor of the page before was, with the same filters."), \
                INPUT(cursor, STRING, OPTIONAL)
#define NEXT_PAGE \
        DOC("With limit: what to ask the next page with; null if this is the last one. It names the last object of this page, so that what comes or goes in between makes no other be missed or sent twice. Good over a restart of privmemd too."), \
                OUTPUT(nextCursor, STRING, OPTIONAL)

static SD_VARLINK_DEFINE_METHOD(
                GetHost,
                DOC("Version of privmemd."),
                OUTPUT(version, STRING, 0),
                DOC("Release of the running kernel."),
                OUTPUT(kernelRelease, STRING, 0),
                DOC("Bytes of an ordinary page."),
                OUTPUT(pageSize, INT, 0),
                DOC("What this kernel can do."),
                OUTPUT_OF(features, HostFeatures, 0),
                DOC("Pools of huge pages: one entry a page size for the host, and one a NUMA node."),
                OUTPUT_OF(hugePagePools, HugePagePool, ARRAY),
                DOC("Upper limits that privmemd sets."),
                OUTPUT_OF(limits, HostLimits, 0),
                DOC("Where its file descriptors are while privmemd does not run."),
                OUTPUT_OF(custody, Custody, 0),
                DOC("Registered VMs, their backings and slots, on the whole host."),
                OUTPUT(vms, INT, 0),
                DOC("Their backings."),
                OUTPUT(backings, INT, 0),
                DOC("Their slots."),
                OUTPUT(slots, INT, 0),
                DOC("Sum of the sizes of all backings, in bytes."),
                OUTPUT(promisedBytes, INT, 0),
                DOC("Bytes of them that are in memory now."),
                OUTPUT(residentBytes, INT, 0));

static SD_VARLINK_DEFINE_METHOD(
                RegisterVM,
                DOC("Name, unique on the host: 1 to 64 characters from A-Z a-z 0-9 . _ : - and a letter or digit first."),
                INPUT(name, STRING, 0),
                DOC("UUID, for people and other programs; 32 hexadecimal digits."),
                INPUT(uuid, STRING, OPTIONAL),
                DOC("Owner; the caller if not given. Only root, and who has the right to manage, may name another uid."),
                INPUT(ownerUID, INT, OPTIONAL),
                DOC("What becomes of the memory when the VMM exits. If not given: what a VM of this name has already, else what privmemd.conf says, else release."),
                INPUT_OF(exitPolicy, ExitPolicy, OPTIONAL),
                DOC("With the exit policy retain only: for how long, in microseconds, up to 100 years; 0: until a VMM attaches or the VM is unregistered. If not given: what a VM of this name has already, else 0."),
                INPUT(retainUSec, INT, OPTIONAL),
                DOC("With the exit policy retain only: keeps guest_memfds as well, so that they can be read; else they are released when their VMM exits, because no kernel can bind them to another VM. If not given: what a VM of this name has already, else false."),
                INPUT(retainGuestMemfd, BOOL, OPTIONAL),
                DOC("What a refused alias does. If not given: what a VM of this name has already, else what privmemd.conf says, else enforce."),
                INPUT_OF(aliasPolicy, AliasPolicy, OPTIONAL),
                DOC("What its VMM asks KVM_CREATE_VM for; undeclared if not given. A VM that was registered with a type does not differ from one without."),
                INPUT_OF(type, VMType, OPTIONAL),
                IF_GENERATION,
                DOC("The VM as it is now."),
                OUTPUT_OF(vm, VM, 0),
                DOC("False if the same VM was already registered."),
                OUTPUT(created, BOOL, 0));

static SD_VARLINK_DEFINE_METHOD(
                AttachVM,
                DOC("The VM."),
                INPUT(vm, STRING, 0),
                DOC("Index of a pidfd of the VMM in the file descriptors of this call; the calling process if not given. The process must run as the VM's owner uid, or the caller must be root."),
                INPUT(pidFileDescriptor, INT, OPTIONAL),
                IF_GENERATION,
                DOC("The VM as it is now."),
                OUTPUT_OF(vm, VM, 0),
                DOC("Of a retained VM: processes that privmemd may not look at, so that it cannot say whether they have the memory. It needs root or CAP_SYS_PTRACE for those of other users. Null if there are none."),
                OUTPUT(unreadable, INT, OPTIONAL));

static SD_VARLINK_DEFINE_METHOD(
                HandOverVM,
                DOC("The VM; its VMM lives."),
                INPUT(vm, STRING, 0),
                DOC("Index of a pidfd of the successor in the file descriptors of this call. Not given: there is to be none any more. The process must run as the VM's owner uid, or the caller must be root."),
                INPUT(pidFileDescriptor, INT, OPTIONAL),
                IF_GENERATION,
                DOC("The VM as it is now."),
                OUTPUT_OF(vm, VM, 0));

static SD_VARLINK_DEFINE_METHOD(
                UnregisterVM,
                DOC("The VM."),
                INPUT(vm, STRING, 0),
                IF_GENERATION,
                DOC("Resident bytes that were given back to the host."),
                OUTPUT(freedBytes, INT, 0));

static SD_VARLINK_DEFINE_METHOD_FULL(
                ListVMs,
                SD_VARLINK_SUPPORTS_MORE,
                DOC("Only this VM; it is an error if it does not exist."),
                INPUT(vm, STRING, OPTIONAL),
                PAGE,
                DOC("The VMs, in order of name."),
                OUTPUT_OF(vms, VM, ARRAY),
                NEXT_PAGE);

static SD_VARLINK_DEFINE_METHOD(
                AllocateBacking,
                DOC("The VM."),
                INPUT(vm, STRING, 0),
                DOC("Name, unique in the VM; the same characters as a VM's name."),
                INPUT(name, STRING, 0),
                DOC("Bytes; a multiple of the page size of the file, and not 0."),
                INPUT(size, INT, 0),
                DOC("memfd or hugetlb; memfd if not given, hugetlb if pageSize is a huge page."),
                INPUT_OF(kind, BackingKind, OPTIONAL),
                DOC("Bytes of a page: the host's page size for memfd; 2 MiB (if not given) or 1 GiB for hugetlb."),
                INPUT(pageSize, INT, OPTIONAL),
                DOC("NUMA policy of the file, set before any page exists; needs numaNodes."),
                INPUT_OF(numaPolicy, NumaPolicy, OPTIONAL),
                DOC("NUMA nodes, 0 to 63; exactly one for preferred."),
                INPUT(numaNodes, INT, ARRAY | OPTIONAL),
                DOC("False: the reply carries no file descriptor, and who has the right to manage may call. True if not given."),
                INPUT(open, BOOL, OPTIONAL),
                DRY_RUN,
                IF_GENERATION,
                DOC("Index of the file descriptor of the memory in this reply; null if open is false, or dryRun true."),
                OUTPUT(fileDescriptor, INT, OPTIONAL),
                DOC("False if the same backing was already there."),
                OUTPUT(created, BOOL, 0));

static SD_VARLINK_DEFINE_METHOD(
                AdoptBacking,
                DOC("The VM."),
                INPUT(vm, STRING, 0),
                DOC("Name, unique in the VM; the same characters as a VM's name."),
                INPUT(name, STRING, 0),
                DOC("Index of the donated file descriptor. Without it the call only asks for admission: whether kind and size would be taken under that name."),
                INPUT(fileDescriptor, INT, OPTIONAL),
                DOC("With a file descriptor: what it must be, or the call fails."),
                INPUT_OF(kind, BackingKind, OPTIONAL),
                DOC("Bytes. With a file descriptor: what its size must be, or the call fails."),
                INPUT(size, INT, OPTIONAL),
                IF_GENERATION,
                DOC("The backing; null if only admission was asked for. A file that is already a backing, of this VM or of another VM of the same owner (for root: of any VM), stays that backing and keeps its name."),
                OUTPUT_OF(backing, Backing, OPTIONAL),
                DOC("True if the file was not yet known."),
                OUTPUT(created, BOOL, 0));

static SD_VARLINK_DEFINE_METHOD(
                ShareBacking,
                DOC("The VM that owns the backing."),
                INPUT(vm, STRING, 0),
                DOC("The name of the backing."),
                INPUT(backing, STRING, 0),
                DOC("The VM that may show it from now on; its owner may be another uid."),
                INPUT(peer, STRING, 0),
                DOC("What the peer may do; read_write if not given."),
                INPUT_OF(access, Access, OPTIONAL),
                IF_GENERATION,
                DOC("False if it was shared with the peer already, with the same access."),
                OUTPUT(created, BOOL, 0));

static SD_VARLINK_DEFINE_METHOD(
                ReclaimBacking,
                DOC("The VM that owns the backing."),
                INPUT(vm, STRING, 0),
                DOC("The name of the backing."),
                INPUT(backing, STRING, 0),
                DOC("The VM that it was shared with."),
                INPUT(peer, STRING, 0),
                IF_GENERATION,
                DOC("False if it was not shared with the peer."),
                OUTPUT(reclaimed, BOOL, 0));

static SD_VARLINK_DEFINE_METHOD(
                OpenBacking,
                DOC("The VM that owns the backing."),
                INPUT(vm, STRING, 0),
                DOC("The name of the backing."),
                INPUT(backing, STRING, 0),
                DOC("read_write if not given. A guest_memfd has no read-only form. The owner of a VM that the backing is shared with gets no more than the share allows."),
                INPUT_OF(access, Access, OPTIONAL),
                DOC("The backing as it is now."),
                OUTPUT_OF(backing, Backing, 0),
                DOC("Index of the file descriptor of the memory in this reply."),
                OUTPUT(fileDescriptor, INT, 0));

static SD_VARLINK_DEFINE_METHOD(
                CreateClaim,
                DOC("The VM that owns the backings."),
                INPUT(vm, STRING, 0),
                DOC("The names of 1 to 253 backings. If not given: all that the VM has now, but no guest_memfd, for no other VMM can bind one."),
                INPUT(backings, STRING, ARRAY | OPTIONAL),
                DOC("What the file descriptors shall do; read_write if not given. A guest_memfd has no read-only form."),
                INPUT_OF(access, Access, OPTIONAL),
                DOC("For how long, in microseconds: 1 to one day; 5 minutes if not given."),
                INPUT(lifetimeUSec, INT, OPTIONAL),
                IF_GENERATION,
                DOC("What the claim is called: for ListClaims, DeleteClaim, events and logs. It is no secret, and opens nothing."),
                OUTPUT(claim, STRING, 0),
                DOC("The token: who has it gets the memory. privmemd keeps its SHA-256 alone, so nobody is told it again."),
                OUTPUT(token, STRING, 0),
                DOC("CLOCK_REALTIME, microseconds: when the claim ends by itself."),
                OUTPUT(expiresUSec, INT, 0),
                DOC("Path of the socket on which the claim can be redeemed. Null if privmemd does not know it."),
                OUTPUT(socket, STRING, OPTIONAL));

static SD_VARLINK_DEFINE_METHOD_FULL(
                ListClaims,
                SD_VARLINK_SUPPORTS_MORE,
                DOC("The VM that owns the backings."),
                INPUT(vm, STRING, 0),
                PAGE,
                DOC("The claims that can still be redeemed, in order of their creation."),
                OUTPUT_OF(claims, Claim, ARRAY),
                NEXT_PAGE);

static SD_VARLINK_DEFINE_METHOD(
                DeleteClaim,
                DOC("The VM that owns the backings."),
                INPUT(vm, STRING, 0),
                DOC("What CreateClaim has called the claim."),
                INPUT(claim, STRING, 0),
                IF_GENERATION);

static SD_VARLINK_DEFINE_METHOD(
                RedeemClaim,
                DOC("The VM that the claim is for."),
                INPUT(vm, STRING, 0),
                DOC("The token that CreateClaim gave."),
                INPUT(token, STRING, 0),
                DOC("True: the calling process becomes the VM's VMM as by AttachVM, with all that may refuse it; then the claim stays good. False if not given."),
                INPUT(attach, BOOL, OPTIONAL),
                DOC("The VM as it is now."),
                OUTPUT_OF(vm, VM, 0),
                DOC("The backings, in the order of the claim, each with its file descriptor."),
                OUTPUT_OF(backings, RedeemedBacking, ARRAY),
                DOC("As of AttachVM: processes that privmemd may not look at. Null if there are none."),
                OUTPUT(unreadable, INT, OPTIONAL));

static SD_VARLINK_DEFINE_METHOD(
                ReleaseBacking,
                DOC("The VM."),
                INPUT(vm, STRING, 0),
                DOC("The name of the backing."),
                INPUT(backing, STRING, 0),
                IF_GENERATION,
                DOC("Resident bytes that were given back to the host."),
                OUTPUT(freedBytes, INT, 0));

static SD_VARLINK_DEFINE_METHOD(
                PunchBacking,
                DOC("The VM."),
                INPUT(vm, STRING, 0),
                DOC("The name of the backing."),
                INPUT(backing, STRING, 0),
                DOC("First byte; a multiple of the page size of the backing."),
                INPUT(offset, INT, 0),
                DOC("Bytes; a multiple of the page size of the backing, and not 0."),
                INPUT(size, INT, 0),
                IF_GENERATION,
                DOC("Resident bytes that were given back to the host."),
                OUTPUT(freedBytes, INT, 0));

static SD_VARLINK_DEFINE_METHOD_FULL(
                ListBackings,
                SD_VARLINK_SUPPORTS_MORE,
                DOC("Only this VM's; it is an error if it does not exist, or if the caller may see none of its backings."),
                INPUT(vm, STRING, OPTIONAL),
                DOC("Only this backing of that VM; needs vm. It is an error if it does not exist."),
                INPUT(backing, STRING, OPTIONAL),
                PAGE,
                DOC("The backings, in order of VM and name."),
                OUTPUT_OF(backings, Backing, ARRAY),
                NEXT_PAGE);

static SD_VARLINK_DEFINE_METHOD_FULL(
                ListHolders,
                SD_VARLINK_SUPPORTS_MORE,
                DOC("The VM that owns the backings."),
                INPUT(vm, STRING, 0),
                DOC("Only this backing; all of the VM if not given."),
                INPUT(backing, STRING, OPTIONAL),
                DOC("The processes, in order of backing and process id. A process that has several of the backings has an entry for each. privmemd itself is left out."),
                OUTPUT_OF(holders, Holder, ARRAY),
                DOC("True if every process could be looked at. If not, somebody may have the memory who is not in the list: a process that privmemd may not look at, one that procfs hides from it (hidepid=), or one beyond the first 1024 of a backing."),
                OUTPUT(complete, BOOL, 0),
                DOC("Number of processes that privmemd may not look at: it needs root or CAP_SYS_PTRACE for those of other users."),
                OUTPUT(unreadable, INT, 0));

static SD_VARLINK_DEFINE_METHOD(
                SetSlot,
                DOC("The VM."),
                INPUT(vm, STRING, 0),
                DOC("The slot."),
                INPUT_OF(slot, Slot, 0),
                DRY_RUN,
                IF_GENERATION,
                DOC("ok or allowed; refused only under the alias policy observe."),
                OUTPUT_OF(verdict, Verdict, 0));

static SD_VARLINK_DEFINE_METHOD(
                SetSlots,
                DOC("The VM."),
                INPUT(vm, STRING, 0),
                DOC("Applied in this order, all or none."),
                INPUT_OF(slots, Slot, ARRAY),
                DRY_RUN,
                IF_GENERATION,
                DOC("One for each slot asked for."),
                OUTPUT_OF(verdicts, Verdict, ARRAY));

static SD_VARLINK_DEFINE_METHOD(
                CheckSlots,
                DOC("The VM."),
                INPUT(vm, STRING, 0),
                DOC("Judged in this order, each as if those before it that were not refused had been set."),
                INPUT_OF(slots, Slot, ARRAY),
                DOC("Whether SetSlots would set them."),
                OUTPUT(accepted, BOOL, 0),
                DOC("One for each slot asked for."),
                OUTPUT_OF(verdicts, Verdict, ARRAY));

static SD_VARLINK_DEFINE_METHOD_FULL(
                ListSlots,
                SD_VARLINK_SUPPORTS_MORE,
                DOC("Only this VM's; it is an error if it does not exist."),
                INPUT(vm, STRING, OPTIONAL),
                DOC("Only slots that show this backing of that VM, in whichever VM they are; needs vm."),
                INPUT(backing, STRING, OPTIONAL),
                DOC("Only slots that have a byte in common with the guest addresses from here on; then the slots of one address space come in order of guest address."),
                INPUT(guestPhysAddr, INT, OPTIONAL),
                DOC("Bytes of that range, and not 0; up to the last guest address if not given."),
                INPUT(memorySize, INT, OPTIONAL),
                DOC("Only slots of this address space."),
                INPUT(addressSpace, INT, OPTIONAL),
                DOC("Only slots of this id."),
                INPUT(slotId, INT, OPTIONAL),
                PAGE,
                DOC("The slots."),
                OUTPUT_OF(slots, ListedSlot, ARRAY),
                NEXT_PAGE);

static SD_VARLINK_DEFINE_METHOD(
                SetMemoryAttributes,
                DOC("The VM."),
                INPUT(vm, STRING, 0),
                DOC("Guest physical address of the first byte; a multiple of the page size."),
                INPUT(guestPhysAddr, INT, 0),
                DOC("Bytes; a multiple of the page size, and not 0."),
                INPUT(memorySize, INT, 0),
                DOC("True: KVM_MEMORY_ATTRIBUTE_PRIVATE, which is NotSupported if the VM was registered with a type that has no private memory. False: shared, as all addresses are at first."),
                INPUT(private, BOOL, 0),
                IF_GENERATION,
                DOC("The parts of the range that were private before, in order of address: what to set again if the ioctl fails."),
                OUTPUT_OF(wasPrivate, GuestRange, ARRAY));

static SD_VARLINK_DEFINE_METHOD_FULL(
                ListMemory,
                SD_VARLINK_SUPPORTS_MORE,
                DOC("The VM."),
                INPUT(vm, STRING, 0),
                DOC("Only guest addresses from here on; 0 if not given. The range is widened to whole pages."),
                INPUT(guestPhysAddr, INT, OPTIONAL),
                DOC("Bytes of that range, and not 0; up to the last guest address if not given."),
                INPUT(memorySize, INT, OPTIONAL),
                PAGE,
                DOC("The guest's memory, in order of address space and guest address. Addresses without a slot are left out if they are shared. A page may be shorter than limit, if counting costs much."),
                OUTPUT_OF(memory, GuestMemory, ARRAY),
                NEXT_PAGE);

static SD_VARLINK_DEFINE_METHOD_FULL(
                ListLedger,
                SD_VARLINK_SUPPORTS_MORE,
                DOC("Where the ledger is; none: there is none, and the list is empty."),
                OUTPUT_OF(custody, Custody, 0),
                DOC("Of the ledger; 0 if there is none."),
                OUTPUT(generation, INT, 0),
                DOC("How far it was written when the list began."),
                OUTPUT(bytes, INT, 0),
                DOC("Frames, each one change, that were written by then."),
                OUTPUT(frames, INT, 0),
                DOC("What they say, in this order."),
                OUTPUT_OF(records, LedgerRecord, ARRAY));

static SD_VARLINK_DEFINE_METHOD_FULL(
                Subscribe,
                SD_VARLINK_REQUIRES_MORE,
                DOC("Send the events after this sequence number first, as far as they are still kept; 0: all since privmemd started. Only new ones if not given."),
                INPUT(since, INT, OPTIONAL),
                DOC("Only events of these VMs, or in which they are the peer: 64 names at most. All if not given or empty. They need not exist. A gap is told to everybody."),
                INPUT(vm, STRING, ARRAY | OPTIONAL),
                DOC("Only events of these kinds; all if not given or empty."),
                INPUT_OF(kind, EventKind, ARRAY | OPTIONAL),
                DOC("The event."),
                OUTPUT_OF(event, Event, 0));

static SD_VARLINK_DEFINE_METHOD(
                GetMetrics,
                DOC("When privmemd started: CLOCK_REALTIME, microseconds."),
                OUTPUT(startedUSec, INT, 0),
                DOC("How often a privmemd began with what the one before it had left. It counts over restarts, but begins anew with the host, and is always 0 where custody is none."),
                OUTPUT(restarts, INT, 0),
                DOC("How much of each limit is used that is not one VM's: by all, and by each uid that the caller may see."),
                OUTPUT_OF(quotas, QuotaUse, ARRAY),
                DOC("Events since privmemd started, of all VMs: one entry a kind. A gap is one that was lost for want of memory."),
                OUTPUT_OF(events, EventCount, ARRAY),
                DOC("Upper bounds of times that calls are counted by, in microseconds and rising order."),
                OUTPUT(boundsUSec, INT, ARRAY),
                DOC("The calls of everybody since privmemd started: one entry a method."),
                OUTPUT_OF(methods, MethodMetrics, ARRAY));

static SD_VARLINK_DEFINE_METHOD_FULL(
                ListMetrics,
                SD_VARLINK_SUPPORTS_MORE,
                DOC("Only this VM's; it is an error if it does not exist."),
                INPUT(vm, STRING, OPTIONAL),
                PAGE,
                DOC("One entry a VM, in order of name."),
                OUTPUT_OF(metrics, VMMetrics, ARRAY),
                NEXT_PAGE);

/* ---- errors ---- */

#define MESSAGE DOC("One sentence for people: what was wrong, which object, what to do."), FIELD(message, STRING, 0)

static SD_VARLINK_DEFINE_ERROR(NoSuchVM, MESSAGE, DOC("The name that was given."), FIELD(vm, STRING, 0));
static SD_VARLINK_DEFINE_ERROR(
                NoSuchBacking,
                MESSAGE,
                DOC("The VM."),
                FIELD(vm, STRING, 0),
                DOC("The name that was given."),
                FIELD(backing, STRING, 0));
static SD_VARLINK_DEFINE_ERROR(
                NoSuchClaim,
                MESSAGE,
                DOC("The VM."),
                FIELD(vm, STRING, 0),
                DOC("What was given."),
                FIELD(claim, STRING, 0));
static SD_VARLINK_DEFINE_ERROR(ClaimInvalid, MESSAGE, DOC("The name that was given."), FIELD(vm, STRING, 0));
static SD_VARLINK_DEFINE_ERROR(
                NotPermitted,
                MESSAGE,
                DOC("What the caller wanted to act on."),
                FIELD(object, STRING, 0),
                DOC("The uid of the caller, as the kernel gave it when it connected."),
                FIELD(peerUID, INT, 0));
static SD_VARLINK_DEFINE_ERROR(
                NameConflict,
                MESSAGE,
                DOC("Name, unique in what it belongs to."),
                FIELD(name, STRING, 0),
                DOC("The first field that differs."),
                FIELD(field, STRING, 0),
                DOC("What is there; a number as a decimal string."),
                FIELD(present, STRING, 0),
                DOC("What was asked for."),
                FIELD(requested, STRING, 0));
static SD_VARLINK_DEFINE_ERROR(
                VMChanged,
                MESSAGE,
                DOC("The VM."),
                FIELD(vm, STRING, 0),
                DOC("Its generation; null if there is no such VM."),
                FIELD(present, INT, OPTIONAL),
                DOC("What ifGeneration was."),
                FIELD(requested, INT, 0));
static SD_VARLINK_DEFINE_ERROR(InvalidName, MESSAGE, DOC("The parameter."), FIELD(field, STRING, 0));
static SD_VARLINK_DEFINE_ERROR(
                InvalidValue,
                MESSAGE,
                DOC("The parameter."),
                FIELD(field, STRING, 0),
                DOC("Its value."),
                FIELD(value, INT, OPTIONAL),
                DOC("The least value."),
                FIELD(minimum, INT, OPTIONAL),
                DOC("The greatest value."),
                FIELD(maximum, INT, OPTIONAL),
                DOC("The value must be a multiple of this."),
                FIELD(alignment, INT, OPTIONAL));
static SD_VARLINK_DEFINE_ERROR(
                InvalidRange,
                MESSAGE,
                DOC("The backing."),
                FIELD(backing, STRING, 0),
                DOC("First byte of the range."),
                FIELD(offset, INT, 0),
                DOC("Bytes of the range."),
                FIELD(size, INT, 0),
                DOC("Bytes of the backing."),
                FIELD(backingSize, INT, 0));
static SD_VARLINK_DEFINE_ERROR(
                WrongFds,
                MESSAGE,
                DOC("File descriptors that came."),
                FIELD(received, INT, 0),
                DOC("File descriptors that the method takes, at most."),
                FIELD(expected, INT, 0));
static SD_VARLINK_DEFINE_ERROR(
                NotMemory,
                MESSAGE,
                DOC("What it is: regular file, directory, pipe, socket, device, anonymous inode, memfd, hugetlb, guest_memfd."),
                FIELD(found, STRING, 0));
static SD_VARLINK_DEFINE_ERROR(
                NotSealed,
                MESSAGE,
                DOC("Seals that are missing: shrink, grow."),
                FIELD(missing, STRING, ARRAY));
static SD_VARLINK_DEFINE_ERROR(
                NoCapacity,
                MESSAGE,
                DOC("Page size of the pool, in bytes."),
                FIELD(pageSize, INT, 0),
                DOC("NUMA node, or null if it is the host's sum that is too small."),
                FIELD(node, INT, OPTIONAL),
                DOC("Bytes."),
                FIELD(needed, INT, 0),
                DOC("Bytes that the pool has left."),
                FIELD(available, INT, 0));
static SD_VARLINK_DEFINE_ERROR(
                LimitExceeded,
                MESSAGE,
                DOC("The name of the limit, as GetHost spells it."),
                FIELD(limit, STRING, 0),
                DOC("Its value."),
                FIELD(maximum, INT, 0));
static SD_VARLINK_DEFINE_ERROR(
                BackingInUse,
                MESSAGE,
                DOC("The VM."),
                FIELD(vm, STRING, 0),
                DOC("The backing."),
                FIELD(backing, STRING, 0),
                DOC("Number of slots that show it."),
                FIELD(slots, INT, 0),
                DOC("The living VMM that maps it."),
                FIELD(pid, INT, OPTIONAL),
                DOC("The VM whose slots show it, if only these are counted."),
                FIELD(peer, STRING, OPTIONAL));
static SD_VARLINK_DEFINE_ERROR(
                VMInUse,
                MESSAGE,
                DOC("The VM."),
                FIELD(vm, STRING, 0),
                DOC("The process id of its VMM."),
                FIELD(pid, INT, 0));
static SD_VARLINK_DEFINE_ERROR(
                Fenced,
                MESSAGE,
                DOC("The VM."),
                FIELD(vm, STRING, 0),
                DOC("Processes that have its memory open or mapped, in order of process id: the first 64."),
                FIELD_OF(holders, HoldingProcess, ARRAY),
                DOC("How many there are."),
                FIELD(count, INT, 0),
                DOC("Processes that privmemd may not look at, so that they are not among them, whatever they have."),
                FIELD(unreadable, INT, 0));
static SD_VARLINK_DEFINE_ERROR(NotSupported, MESSAGE, DOC("What is not possible, and why."), FIELD(feature, STRING, 0));
static SD_VARLINK_DEFINE_ERROR(
                SlotRefused,
                MESSAGE,
                DOC("The VM."),
                FIELD(vm, STRING, 0),
                DOC("Its slot id."),
                FIELD(slotId, INT, 0),
                DOC("Its address space."),
                FIELD(addressSpace, INT, 0),
                DOC("Why."),
                FIELD_OF(verdict, Verdict, 0));
static SD_VARLINK_DEFINE_ERROR(
                SlotsRefused,
                MESSAGE,
                DOC("The VM."),
                FIELD(vm, STRING, 0),
                DOC("One for each slot asked for."),
                FIELD_OF(verdicts, Verdict, ARRAY));
static SD_VARLINK_DEFINE_ERROR(
                CustodyFull,
                MESSAGE,
                DOC("What is full: ledger, bag, fds in flight, or file descriptors."),
                FIELD(what, STRING, 0),
                DOC("The errno of the kernel."),
                FIELD(errno, INT, 0),
                DOC("Its name, such as ENOSPC."),
                FIELD(errnoName, STRING, 0));
static SD_VARLINK_DEFINE_ERROR(
                HostFailure,
                MESSAGE,
                DOC("What privmemd was doing."),
                FIELD(operation, STRING, 0),
                DOC("The errno of the kernel."),
                FIELD(errno, INT, 0),
                DOC("Its name, such as ENFILE."),
                FIELD(errnoName, STRING, 0));

/* ---- interface ---- */

#define TYPE(name, text) SD_VARLINK_SYMBOL_COMMENT(text), &vl_type_##name
#define METHOD(name, text) SD_VARLINK_SYMBOL_COMMENT(text), &vl_method_##name

/* Written out instead of SD_VARLINK_DEFINE_INTERFACE(), which cannot hold an #include. */
const sd_varlink_interface vl_interface_io_privmemd_Memory = {
        .name = PRIVMEMD_INTERFACE,
        .symbols = {
                SD_VARLINK_INTERFACE_COMMENT("The memory of every KVM guest on this host: who has it, where each guest shows it, and no page of it at two guest frames.\nSizes and addresses are bytes. Each file descriptor travels as an index into those of its call, or of its reply."),

                TYPE(BackingKind, "What kind of file a backing is."),
                TYPE(BackingOrigin, "Who created the file."),
                TYPE(Access, "What a handed-out file descriptor can do."),
                TYPE(ExitPolicy, "What becomes of the memory when the VMM exits."),
                TYPE(AliasPolicy, "What a refused alias does."),
                TYPE(VMType, "What KVM_CREATE_VM is asked for. Some of KVM's rules depend on it."),
                TYPE(NumaPolicy, "Where the pages of a file come from, as set_mempolicy(2) has it."),
                TYPE(VMState, "Life cycle of a VM."),
                TYPE(SlotFlag, "Flags of a KVM memslot."),
                TYPE(Outcome, "The short form of a verdict."),
                TYPE(SlotRule, "The rule that decided about a slot."),
                TYPE(AdviceKind, "What could serve a guest better."),
                TYPE(EventKind, "What happened."),
                TYPE(EndReason, "Why a VM or a backing has ended."),
                TYPE(HugePagePool, "The huge pages of one size, on one NUMA node or on all."),
                TYPE(HostFeatures, "What this kernel can do."),
                TYPE(HostLimits, "Upper limits that privmemd sets."),
                TYPE(VM, "One guest."),
                TYPE(Share, "A VM that the owner of a backing lets show it too."),
                TYPE(Custody, "What outlives privmemd."),
                TYPE(SurvivalReason, "Why a backing outlives an event, or does not."),
                TYPE(Survival, "Whether a backing outlives one event."),
                TYPE(Survivals, "What becomes of a backing in each event, as things are now."),
                TYPE(Backing, "One file of guest memory."),
                TYPE(Claim, "What somebody may fetch who has its token."),
                TYPE(RedeemedBacking, "A backing that a claim has given."),
                TYPE(HoldingProcess, "A process that has memory."),
                TYPE(Holder, "A process, and what it has of one backing."),
                TYPE(Slot, "A KVM memslot, as KVM_SET_USER_MEMORY_REGION2 takes it, with files named instead of numbered."),
                TYPE(ListedSlot, "A live slot and its VM."),
                TYPE(MappedKind, "What a VMM has mapped."),
                TYPE(GuestRange, "A range of guest addresses."),
                TYPE(GuestMemory, "Guest addresses that are alike: one slot or none, and one side live."),
                TYPE(Conflict, "One other slot that shows the same guest frames, or the same bytes of memory."),
                TYPE(Advice, "Something about an accepted slot that costs the guest speed."),
                TYPE(Verdict, "What became of a slot, or would, and why."),
                TYPE(EventCount, "How often something happened."),
                TYPE(QuotaUse, "How much of a limit is used."),
                TYPE(MethodMetrics, "How often a method was called, and how long it took."),
                TYPE(VerdictCount, "How often a rule decided about a slot."),
                TYPE(MemorySum, "The backings of a VM that are alike."),
                TYPE(VMMetrics, "What is counted of a VM."),
                TYPE(LedgerField, "One field of a record."),
                TYPE(LedgerRecord, "A record of the ledger, or a place where none can be read."),
                TYPE(Event, "Something that happened."),

                METHOD(GetHost, "What this host can do and how much guest memory it has promised."),
                METHOD(RegisterVM, "Makes a VM known. The same request again succeeds; another one under the same name is NameConflict."),
                METHOD(AttachVM, "Makes a process the VM's VMM. VMInUse while another one lives, unless HandOverVM has named the process. Fenced while other processes have the memory of a retained VM; those VMMs do not count whose VMs its backings are shared with. privmemd holds its pidfd and applies the exit policy when it ends."),
                METHOD(HandOverVM, "Names the process that may take over from the living VMM: its AttachVM then makes it the VMM at once, with no slots, while the former VMM and its slots go on until it exits. If the new VMM exits first, the VM is the former one's again, with the slots it has. Memory that both show is allowed by the rule hand_over; a guest_memfd is not handed over, for no kernel can bind it to another VM. The same request again succeeds, another one takes its place, and without pidFileDescriptor it is taken back. VMInUse while the former VMM of the last hand-over lives."),
                METHOD(UnregisterVM, "Forgets a VM and releases its backings. VMInUse while a VMM is attached."),
                METHOD(ListVMs, "Lists the VMs that the caller may see: its own, or all for root and who has the right to manage. Without more, a list that does not fit one message is the error org.varlink.service.ExpectedMore."),
                METHOD(AllocateBacking, "Creates a memfd or hugetlb memfd of that size: mode 0600, owned by the VM's owner, sealed against change of size; nothing is populated. The same request again gives the same memory. The reply is short, since the file itself says its size, seals and identity (fstat, F_GET_SEALS); ListBackings has the rest."),
                METHOD(AdoptBacking, "Takes a duplicate of a memfd or guest_memfd that the VMM made. A memfd must be sealed against shrinking and growing, opened for writing and owned by the VM's owner; its mode becomes 0600."),
                METHOD(ShareBacking, "Lets another VM show a backing: a slot of the peer names it by backing and backingVM, which is then no alias, and the peer's owner may open it. The same request again succeeds; another access is NameConflict: reclaim it first. BackingInUse if it is to be for reading only and a slot of the peer shows it without the flag readonly. A guest_memfd cannot be shared."),
                METHOD(ReclaimBacking, "Takes a share back. BackingInUse while a slot of the peer shows the backing. It ends what the peer may ask for from now on, and not what it has: a file descriptor that was handed out, and every mapping of it, stays good until the peer closes it or the backing is released. Only a VMM that has exited is sure to have none."),
                METHOD(OpenBacking, "Hands out a file descriptor of a backing, to the VM's owner or to the owner of a VM that it is shared with."),
                METHOD(CreateClaim, "Makes a token with which any process of this host can fetch file descriptors of the VM's backings, once: so a caller that cannot receive file descriptors, such as a client of REST, can give a VMM its memory. Each call makes another one. A claim ends when it is redeemed, when its time is over, with DeleteClaim, and with its VM or any of its backings; it outlives VMMs, and restarts of privmemd."),
                METHOD(ListClaims, "Lists the claims of a VM, without their tokens."),
                METHOD(DeleteClaim, "Ends a claim. What it has given already is not taken back."),
                METHOD(RedeemClaim, "Gives whoever has the token what the claim is for; the caller needs no other right. Whatever is wrong with VM or token is the one error ClaimInvalid, so that nothing can be found out by trying. The claim is used up as soon as the answer is sent, also if the caller is gone by then. One that has the right to manage by its group alone, and is neither root nor the VM's owner, is NotPermitted: it may make claims for others, and hold no memory itself."),
                METHOD(ReleaseBacking, "Gives a backing's memory back to the host at once and forgets it. BackingInUse while a slot shows it or the VMM maps it."),
                METHOD(PunchBacking, "Gives a range of a backing's memory back to the host. The guest reads zeroes there afterwards."),
                METHOD(ListBackings, "Lists the backings that the caller may see, as ListVMs does, and those that are shared with its VMs."),
                METHOD(ListHolders, "Lists every process that has a backing of the VM open or mapped. All processes of the host are looked at after the call has come, each once and not all at the same moment; others are served meanwhile. Nobody can see a file descriptor that is on its way through a socket or registered with io_uring, nor one in a thread's own table."),
                METHOD(SetSlot, "Declares a slot: creates it, moves it, changes its flags, or deletes it (memorySize 0). Call it before the ioctl for a create and after the ioctl for a delete, so that this table always covers KVM's."),
                METHOD(SetSlots, "Declares a whole table of slots, all or nothing."),
                METHOD(CheckSlots, "The verdicts that SetSlots would give, without any effect."),
                METHOD(ListSlots, "Lists the slots that the caller may see, in order of VM name, address space and slot id. The filters can be combined."),
                METHOD(SetMemoryAttributes, "Declares guest addresses private or shared, as KVM_SET_MEMORY_ATTRIBUTES does, with the same rules: it needs no slot, and outlives slots. Call it before the ioctl. All is shared again when the VMM exits. Nothing is given back to the host by it, neither here nor in KVM."),
                METHOD(ListMemory, "Lists what the guest has at its addresses: which slot, which side is live, and how much memory each side takes. A list that costs the kernel much counting comes in several messages; without more it is the error org.varlink.service.ExpectedMore then."),
                METHOD(GetMetrics, "What privmemd counts of itself, for monitoring."),
                METHOD(ListMetrics, "Lists what is counted of each VM that the caller may see, for monitoring: less than ListBackings says, and cheaper. Without more, a list that does not fit one message is the error org.varlink.service.ExpectedMore."),
                METHOD(ListLedger, "Lists what privmemd has written down to outlive itself, as it lies in the ledger, for people who look for what happened; docs/ledger.md explains it. Records of a ledger may change with a version of privmemd, and so may their fields."),
                METHOD(Subscribe, "Streams events of the VMs that the caller may see. The first message is an event of kind subscribed."),

#define ERROR(name, errno_value, status, sentence) SD_VARLINK_SYMBOL_COMMENT(sentence), &vl_error_##name,
#include "errors.def"
                NULL,
        },
};
