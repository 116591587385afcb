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

/* ---- enums ---- */

static SD_VARLINK_DEFINE_ENUM_TYPE(
                BackingKind,
                DOC("Ordinary anonymous shared memory, memfd_create(2)."),
                VALUE(memfd),
                DOC("A memfd of huge pages, reserved from the host's pool when it is allocated."),
                VALUE(hugetlb),
                DOC("A KVM guest_memfd. Only the VMM can create one; it is adopted, never allocated."),
                VALUE(guest_memfd));

static SD_VARLINK_DEFINE_ENUM_TYPE(
                BackingOrigin,
                DOC("privmemd created the file."),
                VALUE(allocated),
                DOC("A VMM created the file and donated a duplicate."),
                VALUE(adopted));

static SD_VARLINK_DEFINE_ENUM_TYPE(
                Access,
                DOC("The file descriptor can be mapped for reading and writing."),
                VALUE(read_write),
                DOC("The file descriptor can only be mapped for reading, and another uid than the owner cannot turn it into more."),
                VALUE(read_only));

static SD_VARLINK_DEFINE_ENUM_TYPE(
                ExitPolicy,
                DOC("When the VMM exits, the VM is unregistered and its memory freed; but if a slot of another VM shows some of it, the VM is retained."),
                VALUE(release),
                DOC("When the VMM exits, its slots are withdrawn and its backings are kept until they are released."),
                VALUE(retain));

static SD_VARLINK_DEFINE_ENUM_TYPE(
                AliasPolicy,
                DOC("An alias that no rule allows is refused."),
                VALUE(enforce),
                DOC("An alias that no rule allows is recorded and reported, but the slot is set."),
                VALUE(observe));

static SD_VARLINK_DEFINE_ENUM_TYPE(
                NumaPolicy,
                DOC("Pages come from the given nodes only."),
                VALUE(bind),
                DOC("Pages come from the given node while it has any, then from the others."),
                VALUE(preferred),
                DOC("Pages come from the given nodes in turn."),
                VALUE(interleave));

static SD_VARLINK_DEFINE_ENUM_TYPE(
                VMState,
                DOC("Registered; no VMM has attached yet."),
                VALUE(registered),
                DOC("A living VMM is attached."),
                VALUE(attached),
                DOC("The VMM has exited and the memory is kept."),
                VALUE(retained));

static SD_VARLINK_DEFINE_ENUM_TYPE(
                SlotFlag,
                DOC("KVM_MEM_LOG_DIRTY_PAGES"),
                VALUE(log_dirty_pages),
                DOC("KVM_MEM_READONLY"),
                VALUE(readonly),
                DOC("KVM_MEM_GUEST_MEMFD: guestMemfd and guestMemfdOffset name the private side of the slot."),
                VALUE(guest_memfd));

static SD_VARLINK_DEFINE_ENUM_TYPE(
                Outcome,
                DOC("No page of the slot appears anywhere else."),
                VALUE(ok),
                DOC("Pages appear elsewhere too, and a rule allows it."),
                VALUE(allowed),
                DOC("KVM would refuse the slot, or pages appear elsewhere and no rule allows it."),
                VALUE(refused));

static SD_VARLINK_DEFINE_ENUM_TYPE(
                SlotRule,
                DOC("KVM: the slot id or the address space is out of range."),
                VALUE(slot_id),
                DOC("KVM: a flag is unknown, or the flags exclude each other."),
                VALUE(flags),
                DOC("KVM: memorySize is not a multiple of the page size, or too large."),
                VALUE(memory_size),
                DOC("KVM: guestPhysAddr is not a multiple of the page size, or the range wraps around or ends above what a guest can address."),
                VALUE(guest_phys_addr),
                DOC("KVM: userspaceAddr is not a multiple of the page size, or the range does not lie in user space."),
                VALUE(userspace_addr),
                DOC("KVM: guestMemfdOffset is not a multiple of the page size, or the range wraps around."),
                VALUE(guest_memfd_offset),
                DOC("KVM: there is no such slot to delete."),
                VALUE(no_such_slot),
                DOC("KVM: a slot with a guest_memfd can only be deleted."),
                VALUE(guest_memfd_immutable),
                DOC("KVM: size, user space address, READONLY and GUEST_MEMFD of a live slot cannot change; delete it first."),
                VALUE(slot_immutable),
                DOC("KVM: the guest physical range overlaps another slot of the same address space."),
                VALUE(gfn_overlap),
                DOC("KVM: guestMemfd does not name a guest_memfd."),
                VALUE(not_guest_memfd),
                DOC("KVM: a guest_memfd can only be bound in the VM that it was created for."),
                VALUE(foreign_guest_memfd),
                DOC("The range does not lie inside the file. KVM up to 7.1 lets some of these pass."),
                VALUE(beyond_backing),
                DOC("KVM: the range of the guest_memfd is already bound by another slot of the VM."),
                VALUE(binding_overlap),
                DOC("Alias rule 1: the same guest address in another address space of the same VM is no alias."),
                VALUE(same_frame),
                DOC("Alias rule 2: private memory must not appear twice."),
                VALUE(private_alias),
                DOC("Alias rule 3: both slots are read-only."),
                VALUE(rom_shadow),
                DOC("Alias rule 4: the VMM shows its own device memory twice, through one mapping."),
                VALUE(vmm_window),
                DOC("Alias rule 5: one mapping of guest memory in two address spaces of the same VM."),
                VALUE(address_space_transit),
                DOC("Alias rule 6: the SMRAM window of a q35 machine."),
                VALUE(smram_window),
                DOC("Alias rule 7: the owner of the backing declared the share."),
                VALUE(declared_share),
                DOC("Alias rule 8: one page at two guest frames, and nothing allows it."),
                VALUE(undeclared_alias),
                DOC("Each alias alone would be allowed, but there are more than aliasesPerSlot of them."),
                VALUE(too_many_aliases));

static SD_VARLINK_DEFINE_ENUM_TYPE(
                EventKind,
                DOC("The first message of a subscription: sequence is that of the newest event so far."),
                VALUE(subscribed),
                DOC("Events between since and this one are lost: list everything again."),
                VALUE(gap),
                DOC("A VM was registered."),
                VALUE(vm_registered),
                DOC("A VMM was attached to the VM; pid says which."),
                VALUE(vm_attached),
                DOC("The VMM's process has ended; the exit policy has been applied."),
                VALUE(vmm_exited),
                DOC("A VM was forgotten; freedBytes says what it gave back."),
                VALUE(vm_unregistered),
                DOC("privmemd created a backing."),
                VALUE(backing_allocated),
                DOC("A VMM donated a backing."),
                VALUE(backing_adopted),
                DOC("A range of a backing was given back."),
                VALUE(backing_punched),
                DOC("A backing was given back and forgotten."),
                VALUE(backing_released),
                DOC("A file descriptor of the backing was handed out; access and peerUID say how and to whom."),
                VALUE(backing_granted),
                DOC("A slot was created, moved, or got other flags."),
                VALUE(slot_set),
                DOC("A slot was deleted."),
                VALUE(slot_deleted),
                DOC("A slot was set although pages of it appear elsewhere: a rule or the alias policy observe allows it."),
                VALUE(alias_reported),
                DOC("A slot was refused; the verdict says why."),
                VALUE(slot_refused));

/* ---- structs ---- */

static SD_VARLINK_DEFINE_STRUCT_TYPE(
                HugePagePool,
                DOC("Page size in bytes."),
                FIELD(pageSize, INT, 0),
                DOC("NUMA node, or null for the sum over the host."),
                FIELD(node, INT, OPTIONAL),
                DOC("Bytes in the pool, in use or not."),
                FIELD(total, INT, 0),
                DOC("Bytes that no page table or file uses."),
                FIELD(free, INT, 0),
                DOC("Bytes of the free ones that are promised to somebody; known for the host only."),
                FIELD(reserved, INT, OPTIONAL));

static SD_VARLINK_DEFINE_STRUCT_TYPE(
                HostFeatures,
                DOC("/dev/kvm can be opened by privmemd."),
                FIELD(kvm, BOOL, 0),
                DOC("KVM_CAP_GUEST_MEMFD"),
                FIELD(guestMemfd, BOOL, 0),
                DOC("KVM_CAP_GUEST_MEMFD_FLAGS: bit 0 mmap, bit 1 initially shared."),
                FIELD(guestMemfdFlags, INT, 0),
                DOC("cachestat(2), which the resident bytes of a guest_memfd come from; without it they are 0."),
                FIELD(cachestat, BOOL, 0),
                DOC("memfds are sealed against execution (MFD_NOEXEC_SEAL)."),
                FIELD(noexecSeal, BOOL, 0),
                DOC("Huge page sizes that the kernel knows, in bytes."),
                FIELD(hugePageSizes, INT, ARRAY));

static SD_VARLINK_DEFINE_STRUCT_TYPE(
                HostLimits,
                DOC("VMs of one owner uid."),
                FIELD(vmsPerUID, INT, 0),
                DOC("Backings of one VM."),
                FIELD(backingsPerVM, INT, 0),
                DOC("Slots of one VM in one address space, as KVM_CAP_NR_MEMSLOTS has it."),
                FIELD(slotsPerAddressSpace, INT, 0),
                DOC("Address spaces of a VM."),
                FIELD(addressSpaces, INT, 0),
                DOC("Slots that may show memory of one slot too, where a rule allows it."),
                FIELD(aliasesPerSlot, INT, 0),
                DOC("Slots in one call of SetSlots or CheckSlots."),
                FIELD(slotsPerCall, INT, 0),
                DOC("Connections of one uid."),
                FIELD(connectionsPerUID, INT, 0),
                DOC("Subscriptions of one uid."),
                FIELD(subscribersPerUID, INT, 0));

static SD_VARLINK_DEFINE_STRUCT_TYPE(
                VM,
                DOC("Name, unique in what it belongs to."),
                FIELD(name, STRING, 0),
                DOC("UUID in the usual form, if the client gave one."),
                FIELD(uuid, STRING, OPTIONAL),
                DOC("The uid that may have the VM's file descriptors and set its slots."),
                FIELD(ownerUID, INT, 0),
                DOC("Whether a VMM runs it."),
                FIELD_OF(state, VMState, 0),
                DOC("What becomes of the memory when the VMM exits."),
                FIELD_OF(exitPolicy, ExitPolicy, 0),
                DOC("What a refused alias does."),
                FIELD_OF(aliasPolicy, AliasPolicy, 0),
                DOC("Process id of the attached VMM, as privmemd sees it. For people; privmemd itself holds a pidfd."),
                FIELD(pid, INT, OPTIONAL),
                DOC("Number of backings."),
                FIELD(backings, INT, 0),
                DOC("Number of slots in all address spaces."),
                FIELD(slots, INT, 0),
                DOC("Sum of the sizes of the backings, in bytes."),
                FIELD(promisedBytes, INT, 0),
                DOC("Bytes of them that are in memory now."),
                FIELD(residentBytes, INT, 0));

static SD_VARLINK_DEFINE_STRUCT_TYPE(
                Backing,
                DOC("The VM that owns the backing."),
                FIELD(vm, STRING, 0),
                DOC("Name, unique in what it belongs to."),
                FIELD(name, STRING, 0),
                DOC("What kind of file it is."),
                FIELD_OF(kind, BackingKind, 0),
                DOC("Who created the file."),
                FIELD_OF(origin, BackingOrigin, 0),
                DOC("Bytes; it never changes."),
                FIELD(size, INT, 0),
                DOC("Bytes of one page of the file."),
                FIELD(pageSize, INT, 0),
                DOC("st_dev and st_ino: the identity of the file while privmemd holds it, and what /proc/PID/maps shows."),
                FIELD(device, INT, 0),
                DOC("st_ino; see device."),
                FIELD(inode, INT, 0),
                DOC("Seals on the file: seal, shrink, grow, write, future_write, exec. Empty for a guest_memfd, whose size cannot change anyway."),
                FIELD(seals, STRING, ARRAY),
                DOC("NUMA policy set on the file, if one was asked for."),
                FIELD_OF(numaPolicy, NumaPolicy, OPTIONAL),
                DOC("The nodes of that policy."),
                FIELD(numaNodes, INT, ARRAY | OPTIONAL),
                DOC("Bytes that are in memory now."),
                FIELD(residentBytes, INT, 0),
                DOC("Number of slots that show the backing."),
                FIELD(slots, INT, 0));

static SD_VARLINK_DEFINE_STRUCT_TYPE(
                Slot,
                DOC("Slot id, 0 to 32763: bits 0 to 15 of KVM's slot."),
                FIELD(slotId, INT, 0),
                DOC("Address space, 0 or 1: bits 16 to 31 of KVM's slot. 0 if not given; 1 is x86 SMM."),
                FIELD(addressSpace, INT, OPTIONAL),
                DOC("Flags; none if not given."),
                FIELD_OF(flags, SlotFlag, ARRAY | OPTIONAL),
                DOC("Guest physical address of the first byte; a multiple of the page size."),
                FIELD(guestPhysAddr, INT, 0),
                DOC("Bytes; a multiple of the page size. 0 deletes the slot."),
                FIELD(memorySize, INT, 0),
                DOC("Address of the first byte in the VMM; a multiple of the page size. 0 if not given."),
                FIELD(userspaceAddr, INT, OPTIONAL),
                DOC("The backing that is mapped at userspaceAddr. Null for memory that no backing holds, such as a video window."),
                FIELD(backing, STRING, OPTIONAL),
                DOC("The VM that owns that backing; the slot's own VM if not given."),
                FIELD(backingVM, STRING, OPTIONAL),
                DOC("Byte of the backing that userspaceAddr shows. 0 if not given."),
                FIELD(backingOffset, INT, OPTIONAL),
                DOC("The backing of kind guest_memfd that holds the private side; with the flag guest_memfd only."),
                FIELD(guestMemfd, STRING, OPTIONAL),
                DOC("Byte of the guest_memfd at guestPhysAddr. 0 if not given."),
                FIELD(guestMemfdOffset, INT, OPTIONAL));

static SD_VARLINK_DEFINE_STRUCT_TYPE(
                ListedSlot,
                DOC("The VM that the slot belongs to."),
                FIELD(vm, STRING, 0),
                DOC("The slot as it was set."),
                FIELD_OF(slot, Slot, 0));

static SD_VARLINK_DEFINE_STRUCT_TYPE(
                Conflict,
                DOC("The rule for this pair of slots."),
                FIELD_OF(rule, SlotRule, 0),
                DOC("The other slot."),
                FIELD(vm, STRING, 0),
                DOC("Its slot id."),
                FIELD(slotId, INT, 0),
                DOC("Its address space."),
                FIELD(addressSpace, INT, 0),
                DOC("Where the other slot shows the bytes in question to its guest."),
                FIELD(guestPhysAddr, INT, 0),
                DOC("Where the slot asked for would show them."),
                FIELD(requestedGuestPhysAddr, INT, 0),
                DOC("Number of bytes in question."),
                FIELD(size, INT, 0),
                DOC("The backing they lie in, and where; null for memory that is known by its mapping alone."),
                FIELD(backing, STRING, OPTIONAL),
                DOC("The VM that owns that backing."),
                FIELD(backingVM, STRING, OPTIONAL),
                DOC("First byte of them in the backing."),
                FIELD(backingOffset, INT, OPTIONAL));

static SD_VARLINK_DEFINE_STRUCT_TYPE(
                Verdict,
                DOC("The short form."),
                FIELD_OF(outcome, Outcome, 0),
                DOC("The rule that decided; null if nothing was to decide."),
                FIELD_OF(rule, SlotRule, OPTIONAL),
                DOC("One sentence for people."),
                FIELD(reason, STRING, OPTIONAL),
                DOC("The errno KVM gives for the same slot; 0 if KVM alone would accept it."),
                FIELD(kernelErrno, INT, 0),
                DOC("Every slot in conflict, or allowed to share pages."),
                FIELD_OF(conflicts, Conflict, ARRAY));

static SD_VARLINK_DEFINE_STRUCT_TYPE(
                Event,
                DOC("Grows by one with each event, also over a restart of privmemd, after which it goes on far above. The first message has that of the newest event."),
                FIELD(sequence, INT, 0),
                DOC("CLOCK_REALTIME, microseconds."),
                FIELD(timestampUSec, INT, 0),
                DOC("What happened."),
                FIELD_OF(kind, EventKind, 0),
                DOC("The VM that it happened to."),
                FIELD(vm, STRING, OPTIONAL),
                DOC("The backing that it happened to."),
                FIELD(backing, STRING, OPTIONAL),
                DOC("The slot that was asked for."),
                FIELD_OF(slot, Slot, OPTIONAL),
                DOC("The verdict on it, if it says more than ok."),
                FIELD_OF(verdict, Verdict, OPTIONAL),
                DOC("What the handed-out file descriptor can do."),
                FIELD_OF(access, Access, OPTIONAL),
                DOC("The uid of the caller."),
                FIELD(peerUID, INT, OPTIONAL),
                DOC("The process id of the VMM."),
                FIELD(pid, INT, OPTIONAL),
                DOC("Bytes freed by a punch, a release or an exit."),
                FIELD(freedBytes, INT, OPTIONAL));

/* ---- methods ---- */

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
                DOC("Owner; the caller if not given. Only root may name another uid."),
                INPUT(ownerUID, INT, OPTIONAL),
                DOC("What becomes of the memory when the VMM exits; release if not given."),
                INPUT_OF(exitPolicy, ExitPolicy, OPTIONAL),
                DOC("enforce if not given."),
                INPUT_OF(aliasPolicy, AliasPolicy, OPTIONAL),
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
                DOC("The VM as it is now."),
                OUTPUT_OF(vm, VM, 0));

static SD_VARLINK_DEFINE_METHOD(
                UnregisterVM,
                DOC("The VM."),
                INPUT(vm, STRING, 0),
                DOC("Resident bytes that were given back to the host."),
                OUTPUT(freedBytes, INT, 0));

static SD_VARLINK_DEFINE_METHOD_FULL(
                ListVMs,
                SD_VARLINK_SUPPORTS_MORE,
                DOC("Only this VM; it is an error if it does not exist."),
                INPUT(vm, STRING, OPTIONAL),
                DOC("The VMs, in order of name."),
                OUTPUT_OF(vms, VM, ARRAY));

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
                DOC("Index of the file descriptor of the memory in this reply."),
                OUTPUT(fileDescriptor, INT, 0),
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
                DOC("The backing; null if only admission was asked for. A file that is already a backing, of this VM or of another VM of the same owner (for root: of any VM), stays that backing and keeps its name."),
                OUTPUT_OF(backing, Backing, OPTIONAL),
                DOC("True if the file was not yet known."),
                OUTPUT(created, BOOL, 0));

static SD_VARLINK_DEFINE_METHOD(
                OpenBacking,
                DOC("The VM."),
                INPUT(vm, STRING, 0),
                DOC("The name of the backing."),
                INPUT(backing, STRING, 0),
                DOC("read_write if not given. A guest_memfd has no read-only form."),
                INPUT_OF(access, Access, OPTIONAL),
                DOC("The backing as it is now."),
                OUTPUT_OF(backing, Backing, 0),
                DOC("Index of the file descriptor of the memory in this reply."),
                OUTPUT(fileDescriptor, INT, 0));

static SD_VARLINK_DEFINE_METHOD(
                ReleaseBacking,
                DOC("The VM."),
                INPUT(vm, STRING, 0),
                DOC("The name of the backing."),
                INPUT(backing, STRING, 0),
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
                DOC("Resident bytes that were given back to the host."),
                OUTPUT(freedBytes, INT, 0));

static SD_VARLINK_DEFINE_METHOD_FULL(
                ListBackings,
                SD_VARLINK_SUPPORTS_MORE,
                DOC("Only this VM's; it is an error if it does not exist."),
                INPUT(vm, STRING, OPTIONAL),
                DOC("The backings, in order of VM and name."),
                OUTPUT_OF(backings, Backing, ARRAY));

static SD_VARLINK_DEFINE_METHOD(
                SetSlot,
                DOC("The VM."),
                INPUT(vm, STRING, 0),
                DOC("The slot."),
                INPUT_OF(slot, Slot, 0),
                DOC("ok or allowed; refused only under the alias policy observe."),
                OUTPUT_OF(verdict, Verdict, 0));

static SD_VARLINK_DEFINE_METHOD(
                SetSlots,
                DOC("The VM."),
                INPUT(vm, STRING, 0),
                DOC("Applied in this order, all or none."),
                INPUT_OF(slots, Slot, ARRAY),
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
                DOC("The slots."),
                OUTPUT_OF(slots, ListedSlot, ARRAY));

static SD_VARLINK_DEFINE_METHOD_FULL(
                Subscribe,
                SD_VARLINK_REQUIRES_MORE,
                DOC("Send the events after this sequence number first, as far as they are still kept; 0: all since privmemd started. Only new ones if not given."),
                INPUT(since, INT, OPTIONAL),
                DOC("The event."),
                OUTPUT_OF(event, Event, 0));

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
                FIELD(pid, INT, OPTIONAL));
static SD_VARLINK_DEFINE_ERROR(
                VMInUse,
                MESSAGE,
                DOC("The VM."),
                FIELD(vm, STRING, 0),
                DOC("The process id of its VMM."),
                FIELD(pid, INT, 0));
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
                TYPE(NumaPolicy, "Where the pages of a file come from, as set_mempolicy(2) has it."),
                TYPE(VMState, "Life cycle of a VM."),
                TYPE(SlotFlag, "Flags of a KVM memslot."),
                TYPE(Outcome, "The short form of a verdict."),
                TYPE(SlotRule, "The rule that decided about a slot."),
                TYPE(EventKind, "What happened."),
                TYPE(HugePagePool, "The huge pages of one size, on one NUMA node or on all."),
                TYPE(HostFeatures, "What this kernel can do."),
                TYPE(HostLimits, "Upper limits that privmemd sets."),
                TYPE(VM, "One guest."),
                TYPE(Backing, "One file of guest memory."),
                TYPE(Slot, "A KVM memslot, as KVM_SET_USER_MEMORY_REGION2 takes it, with files named instead of numbered."),
                TYPE(ListedSlot, "A live slot and its VM."),
                TYPE(Conflict, "One other slot that shows the same guest frames, or the same bytes of memory."),
                TYPE(Verdict, "What became of a slot, or would, and why."),
                TYPE(Event, "Something that happened."),

                METHOD(GetHost, "What this host can do and how much guest memory it has promised."),
                METHOD(RegisterVM, "Makes a VM known. The same request again succeeds; another one under the same name is NameConflict."),
                METHOD(AttachVM, "Makes a process the VM's VMM. privmemd holds its pidfd and applies the exit policy when it ends."),
                METHOD(UnregisterVM, "Forgets a VM and releases its backings. VMInUse while a VMM is attached."),
                METHOD(ListVMs, "Lists the VMs that the caller may see: its own, or all for root. Without more, a list that does not fit one message is the error org.varlink.service.ExpectedMore."),
                METHOD(AllocateBacking, "Creates a memfd or hugetlb memfd of that size: mode 0600, owned by the VM's owner, sealed against change of size; nothing is populated. The same request again gives the same memory. The reply is short, since the file itself says its size, seals and identity (fstat, F_GET_SEALS); ListBackings has the rest."),
                METHOD(AdoptBacking, "Takes a duplicate of a memfd or guest_memfd that the VMM made. A memfd must be sealed against shrinking and growing, opened for writing and owned by the VM's owner; its mode becomes 0600."),
                METHOD(OpenBacking, "Hands out a file descriptor of a backing."),
                METHOD(ReleaseBacking, "Gives a backing's memory back to the host at once and forgets it. BackingInUse while a slot shows it or the VMM maps it."),
                METHOD(PunchBacking, "Gives a range of a backing's memory back to the host. The guest reads zeroes there afterwards."),
                METHOD(ListBackings, "Lists the backings that the caller may see, as ListVMs does."),
                METHOD(SetSlot, "Declares a slot: creates it, moves it, changes its flags, or deletes it (memorySize 0). Call it before the ioctl for a create and after the ioctl for a delete, so that this table always covers KVM's."),
                METHOD(SetSlots, "Declares a whole table of slots, all or nothing."),
                METHOD(CheckSlots, "The verdicts that SetSlots would give, without any effect."),
                METHOD(ListSlots, "Lists the slots that the caller may see, in order of VM name, address space and slot id."),
                METHOD(Subscribe, "Streams events of the VMs that the caller may see. The first message is an event of kind subscribed."),

#define ERROR(name, errno_value, sentence) SD_VARLINK_SYMBOL_COMMENT(sentence), &vl_error_##name,
#include "errors.def"
#undef ERROR
                NULL,
        },
};
