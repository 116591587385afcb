/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/cleanup.h"
#include "front/words.h"

static const char *const backing_kinds[] = {
        [BACKING_MEMFD] = "memfd",
        [BACKING_HUGETLB] = "hugetlb",
        [BACKING_GUEST_MEMFD] = "guest_memfd",
};
static const char *const backing_origins[] = {
        [BACKING_ALLOCATED] = "allocated",
        [BACKING_ADOPTED] = "adopted",
};
static const char *const numa_policies[] = {
        [NUMA_POLICY_NONE] = NULL,
        [NUMA_POLICY_BIND] = "bind",
        [NUMA_POLICY_PREFERRED] = "preferred",
        [NUMA_POLICY_INTERLEAVE] = "interleave",
};
static const char *const exit_policies[] = {
        [EXIT_POLICY_RELEASE] = "release",
        [EXIT_POLICY_RETAIN] = "retain",
};
static const char *const alias_policies[] = {
        [ALIAS_POLICY_ENFORCE] = "enforce",
        [ALIAS_POLICY_OBSERVE] = "observe",
};
static const char *const vm_types[] = {
        [VM_TYPE_UNDECLARED] = "undeclared",
        [VM_TYPE_ORDINARY] = "ordinary",
        [VM_TYPE_SW_PROTECTED] = "sw_protected",
        [VM_TYPE_SEV] = "sev",
        [VM_TYPE_SEV_ES] = "sev_es",
        [VM_TYPE_SNP] = "snp",
        [VM_TYPE_TDX] = "tdx",
};
static const char *const vm_states[] = {
        [VM_REGISTERED] = "registered",
        [VM_ATTACHED] = "attached",
        [VM_RETAINED] = "retained",
};
static const char *const mapped_kinds[] = {
        [MAPPED_MEMORY] = "memory",
        [MAPPED_COPY] = "copy",
        [MAPPED_FILE] = "file",
        [MAPPED_GUEST_MEMFD] = "guest_memfd",
};
static const char *const outcomes[] = {
        [OUTCOME_OK] = "ok",
        [OUTCOME_ALLOWED] = "allowed",
        [OUTCOME_REFUSED] = "refused",
};

static const char *const advice_kinds[] = {
        [ADVICE_HUGE_PAGES_MISALIGNED] = "huge_pages_misaligned",
        [ADVICE_SMALL_PAGES] = "small_pages",
        [ADVICE_FLAGS_LIMIT_BACKING] = "flags_limit_backing",
};

/* Bit n of SlotSpec.flags. */
static const char *const slot_flags[] = { "log_dirty_pages", "readonly", "guest_memfd" };

#define DELETE_FIRST "Delete the slot first, with memorySize 0, then set it anew."

static const struct {
        const char *word, *sentence, *remedy;
} slot_rules[] = {
        [RULE_NONE] = {},
        [RULE_SLOT_ID] = { "slot_id", "this KVM has no slot of that id or address space",
                           "Choose one that it has; GetHost says how many there are." },
        [RULE_FLAGS] = { "flags", "KVM does not take these flags together, or not for a VM of this type",
                         "guest_memfd goes with no other flag and needs a kernel that has it, see GetHost; readonly is not for sev_es, snp and tdx." },
        [RULE_MEMORY_SIZE] = { "memory_size", "memorySize must be a multiple of the page size and below 2^31 pages",
                               NULL },
        [RULE_GUEST_PHYS_ADDR] = { "guest_phys_addr",
                                   "guestPhysAddr must be a multiple of the page size and the slot must end where a guest can address it",
                                   NULL },
        [RULE_USERSPACE_ADDR] = { "userspace_addr",
                                  "userspaceAddr must be a multiple of the page size and the range must lie in user space",
                                  NULL },
        [RULE_GUEST_MEMFD_OFFSET] = { "guest_memfd_offset",
                                      "guestMemfdOffset must be a multiple of the page size and the range must not wrap around",
                                      NULL },
        [RULE_NO_SUCH_SLOT] = { "no_such_slot", "memorySize 0 deletes a slot, and there is none of that id",
                                "ListSlots names those that there are." },
        [RULE_GUEST_MEMFD_IMMUTABLE] = { "guest_memfd_immutable", "a slot with a guest_memfd can only be deleted",
                                         DELETE_FIRST },
        [RULE_SLOT_IMMUTABLE] = { "slot_immutable",
                                  "size, user space address, readonly and guest_memfd of a live slot cannot change",
                                  DELETE_FIRST },
        [RULE_GFN_OVERLAP] = { "gfn_overlap", "another slot already has these guest addresses",
                               "Choose other guest addresses, or delete or move that slot first." },
        [RULE_NOT_GUEST_MEMFD] = { "not_guest_memfd", "guestMemfd must name a backing of kind guest_memfd",
                                   "Adopt the guest_memfd first, with AdoptBacking." },
        [RULE_FOREIGN_GUEST_MEMFD] = { "foreign_guest_memfd",
                                       "a guest_memfd can only be bound by the VMM that made it; no kernel can bind it to another VM",
                                       "Create one in this VMM and adopt it." },
        [RULE_BEYOND_BACKING] = { "beyond_backing", "the range does not lie inside the backing, on a page of it",
                                  "Choose a range inside it." },
        [RULE_BINDING_OVERLAP] = { "binding_overlap", "this range of the guest_memfd is already bound by another slot",
                                   "Choose another range, or delete that slot first." },
        [RULE_SHARE_READ_ONLY] = { "share_read_only",
                                   "the owner shares this backing for reading only, so the slot needs the flag readonly",
                                   "Set the flag, or let the owner reclaim the backing and share it for writing." },
        [RULE_MAPPING_MISMATCH] = { "mapping_mismatch",
                                    "what the VMM has mapped at userspaceAddr is not what was declared",
                                    "Map the declared range there, with MAP_SHARED, before the slot is set; or declare what is mapped." },
        [RULE_SAME_FRAME] = { "same_frame", "the same guest address in another address space is no alias", NULL },
        [RULE_PRIVATE_ALIAS] = { "private_alias", "private memory must not appear twice",
                                 "Choose another range, or delete that slot first." },
        [RULE_ROM_SHADOW] = { "rom_shadow", "both slots are read-only", NULL },
        [RULE_VMM_WINDOW] = { "vmm_window", "the VMM shows its own device memory twice, through one mapping", NULL },
        [RULE_ADDRESS_SPACE_TRANSIT] = { "address_space_transit", "one mapping is shown in two address spaces", NULL },
        [RULE_SMRAM_WINDOW] = { "smram_window", "this is the SMRAM window of a q35 machine", NULL },
        [RULE_DECLARED_SHARE] = { "declared_share", "the owner of the backing declared the share", NULL },
        [RULE_HAND_OVER] = { "hand_over", "the former VMM of the VM hands the memory over to the new one", NULL },
        [RULE_TOO_MANY_ALIASES] = { "too_many_aliases", "more than 256 other slots would show the same memory",
                                    "Delete some of them first." },
        [RULE_UNDECLARED_ALIAS] = { "undeclared_alias",
                                    "the same memory would appear at two guest frames, and nothing allows it",
                                    "Choose other memory, or delete that slot first." },
};

static const char *const custodies[] = {
        [CUSTODY_NONE] = "none",
        [CUSTODY_RUNTIME_FILE] = "runtime_file",
        [CUSTODY_FD_STORE] = "fd_store",
};
static const struct {
        const char *word, *sentence;
} survival_reasons[] = {
        [SURVIVAL_RETAINED] = { "retained",
                                "the exit policy of the VM is retain: the memory is kept until it is released" },
        [SURVIVAL_SHARED_FILE] = { "shared_file",
                                   "the VMM hands the VM over, and the next one maps the same file; what a VMM maps privately is not in it" },
        [SURVIVAL_IN_FD_STORE] = { "in_fd_store",
                                   "the service manager keeps the file descriptors of privmemd in the fd store" },
        [SURVIVAL_FOUND_IN_VMM] = { "found_in_vmm",
                                    "privmemd takes a file descriptor from the living VMM, if that has the memory open or mapped" },
        [SURVIVAL_RELEASED] = { "released",
                                "the exit policy of the VM is release: the memory is freed, unless a slot of another VM shows some of the VM's" },
        [SURVIVAL_BOUND_TO_ONE_VM] = { "bound_to_one_vm",
                                       "KVM binds a guest_memfd to one VM, which ends with its VMM; no released kernel can bind it to the next" },
        [SURVIVAL_NOT_KEPT] = { "not_kept",
                                "nobody keeps the file descriptors of privmemd while it does not run; a VMM that runs goes on with its memory" },
        [SURVIVAL_NO_LIVING_VMM] = { "no_living_vmm",
                                     "no VMM is attached from which privmemd could take a file descriptor" },
        [SURVIVAL_KIND_NOT_PRESERVED] = { "kind_not_preserved",
                                          "the live update of the kernel preserves memfds of ordinary pages only" },
        [SURVIVAL_NOT_HANDED_TO_KERNEL] = { "not_handed_to_kernel",
                                            "a live update takes what lies in the fd store by itself; the file descriptors of privmemd lie in the queue of a socket there" },
};

_Static_assert(ELEMENTSOF(backing_kinds) == _BACKING_KIND_MAX, "a BackingKind has no word");
_Static_assert(ELEMENTSOF(backing_origins) == _BACKING_ORIGIN_MAX, "a BackingOrigin has no word");
_Static_assert(ELEMENTSOF(numa_policies) == _NUMA_POLICY_MAX, "a NumaPolicy has no word");
_Static_assert(ELEMENTSOF(exit_policies) == _EXIT_POLICY_MAX, "an ExitPolicy has no word");
_Static_assert(ELEMENTSOF(alias_policies) == _ALIAS_POLICY_MAX, "an AliasPolicy has no word");
_Static_assert(ELEMENTSOF(vm_types) == _VM_TYPE_MAX, "a VMType has no word");
_Static_assert(ELEMENTSOF(vm_states) == _VM_STATE_MAX, "a VMState has no word");
_Static_assert(ELEMENTSOF(mapped_kinds) == _MAPPED_KIND_MAX, "a MappedKind has no word");
_Static_assert(ELEMENTSOF(outcomes) == _OUTCOME_MAX, "an Outcome has no word");
_Static_assert(ELEMENTSOF(advice_kinds) == _ADVICE_KIND_MAX, "an AdviceKind has no word");
_Static_assert(ELEMENTSOF(slot_rules) == _RULE_MAX, "a SlotRule has no word");
_Static_assert(SLOT_LOG_DIRTY_PAGES == 1 << 0 && SLOT_READONLY == 1 << 1 && SLOT_GUEST_MEMFD == 1 << 2 &&
                       ELEMENTSOF(slot_flags) == SLOT_FLAGS,
               "a flag has no word");
_Static_assert(ELEMENTSOF(custodies) == _CUSTODY_MAX, "a Custody has no word");
_Static_assert(ELEMENTSOF(survival_reasons) == _SURVIVAL_REASON_MAX, "a SurvivalReason has no word");

static int find(const char *const *words, size_t n, const char *word, int fallback) {
        if (!word)
                return fallback;
        for (size_t i = 0; i < n; i++)
                if (words[i] && strcmp(words[i], word) == 0)
                        return (int) i;
        return -1;
}

#define DEFINE_WORD(name, type, table) \
        const char *name##_word(type value) { \
                return table[value]; \
        }
#define DEFINE_OF(name, table) \
        int name##_of(const char *word, int fallback) { \
                return find(table, ELEMENTSOF(table), word, fallback); \
        }

DEFINE_WORD(backing_kind, BackingKind, backing_kinds)
DEFINE_WORD(backing_origin, BackingOrigin, backing_origins)
DEFINE_WORD(numa_policy, NumaPolicy, numa_policies)
DEFINE_WORD(exit_policy, ExitPolicy, exit_policies)
DEFINE_WORD(alias_policy, AliasPolicy, alias_policies)
DEFINE_WORD(vm_type, VMType, vm_types)
DEFINE_WORD(mapped_kind, MappedKind, mapped_kinds)
DEFINE_WORD(vm_state, VMState, vm_states)
DEFINE_WORD(outcome, Outcome, outcomes)
DEFINE_WORD(advice_kind, AdviceKind, advice_kinds)
DEFINE_OF(backing_kind, backing_kinds)
DEFINE_OF(numa_policy, numa_policies)
DEFINE_OF(exit_policy, exit_policies)
DEFINE_OF(alias_policy, alias_policies)
DEFINE_OF(vm_type, vm_types)

const char *slot_rule_word(SlotRule rule) {
        return slot_rules[rule].word;
}

const char *slot_rule_sentence(SlotRule rule) {
        return slot_rules[rule].sentence;
}

const char *slot_rule_remedy(SlotRule rule) {
        return slot_rules[rule].remedy;
}

const char *slot_flag_word(unsigned bit) {
        return slot_flags[bit];
}

uint32_t slot_flag_of(const char *word) {
        int bit = find(slot_flags, SLOT_FLAGS, word, -1);

        return bit < 0 ? 0 : UINT32_C(1) << bit;
}

const char *access_word(bool read_only) {
        return read_only ? "read_only" : "read_write";
}

const char *custody_word(Custody custody) {
        return custodies[custody];
}

const char *survival_reason_word(SurvivalReason reason) {
        return survival_reasons[reason].word;
}

const char *survival_reason_sentence(SurvivalReason reason) {
        return survival_reasons[reason].sentence;
}

const char *claim_word(uint64_t id, ClaimWord buffer) {
        snprintf(buffer, sizeof(ClaimWord), "c%" PRIu64, id);
        return buffer;
}

/* One spelling for each: what the number is spelt as again. */
uint64_t claim_id_of(const char *word) {
        ClaimWord again;
        uint64_t id;

        if (word[0] != 'c')
                return 0;
        id = strtoull(word + 1, NULL, 10);
        return strcmp(claim_word(id, again), word) == 0 ? id : 0;
}
