/* SPDX-License-Identifier: LGPL-2.1-or-later */

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

static const struct {
        const char *word, *sentence;
} slot_rules[] = {
        [RULE_NONE] = { NULL, NULL },
        [RULE_SLOT_ID] = { "slot_id", "KVM has no slot of that id or address space" },
        [RULE_FLAGS] = { "flags", "KVM does not take these flags together" },
        [RULE_MEMORY_SIZE] = { "memory_size", "memorySize must be a multiple of the page size and below 2^31 pages" },
        [RULE_GUEST_PHYS_ADDR] = { "guest_phys_addr",
                                   "guestPhysAddr must be a multiple of the page size and the slot must end where a guest can address it" },
        [RULE_USERSPACE_ADDR] = { "userspace_addr",
                                  "userspaceAddr must be a multiple of the page size and the range must lie in user space" },
        [RULE_GUEST_MEMFD_OFFSET] = { "guest_memfd_offset",
                                      "guestMemfdOffset must be a multiple of the page size and the range must not wrap around" },
        [RULE_NO_SUCH_SLOT] = { "no_such_slot", "there is no such slot to delete" },
        [RULE_GUEST_MEMFD_IMMUTABLE] = { "guest_memfd_immutable", "a slot with a guest_memfd can only be deleted" },
        [RULE_SLOT_IMMUTABLE] = { "slot_immutable",
                                  "size, user space address, readonly and guest_memfd of a live slot cannot change; delete it first" },
        [RULE_GFN_OVERLAP] = { "gfn_overlap", "another slot already has these guest addresses" },
        [RULE_NOT_GUEST_MEMFD] = { "not_guest_memfd", "guestMemfd must name a backing of kind guest_memfd" },
        [RULE_FOREIGN_GUEST_MEMFD] = { "foreign_guest_memfd",
                                       "a guest_memfd can only be bound by the VMM that made it; no kernel can bind it to another VM" },
        [RULE_BEYOND_BACKING] = { "beyond_backing", "the range does not lie inside the backing, on a page of it" },
        [RULE_BINDING_OVERLAP] = { "binding_overlap",
                                   "this range of the guest_memfd is already bound by another slot" },
        [RULE_SHARE_READ_ONLY] = { "share_read_only",
                                   "the owner shares this backing for reading only, so the slot needs the flag readonly" },
        [RULE_MAPPING_MISMATCH] = { "mapping_mismatch",
                                    "what the VMM has mapped at userspaceAddr is not what was declared" },
        [RULE_SAME_FRAME] = { "same_frame", "the same guest address in another address space is no alias" },
        [RULE_PRIVATE_ALIAS] = { "private_alias", "private memory must not appear twice" },
        [RULE_ROM_SHADOW] = { "rom_shadow", "both slots are read-only" },
        [RULE_VMM_WINDOW] = { "vmm_window", "the VMM shows its own device memory twice, through one mapping" },
        [RULE_ADDRESS_SPACE_TRANSIT] = { "address_space_transit", "one mapping is shown in two address spaces" },
        [RULE_SMRAM_WINDOW] = { "smram_window", "this is the SMRAM window of a q35 machine" },
        [RULE_DECLARED_SHARE] = { "declared_share", "the owner of the backing declared the share" },
        [RULE_HAND_OVER] = { "hand_over", "the former VMM of the VM hands the memory over to the new one" },
        [RULE_TOO_MANY_ALIASES] = { "too_many_aliases", "more than 256 other slots would show the same memory" },
        [RULE_UNDECLARED_ALIAS] = { "undeclared_alias",
                                    "the same memory would appear at two guest frames, and nothing allows it" },
};

static const struct {
        const char *word, *sentence;
} survival_reasons[] = {
        [SURVIVAL_RETAINED] = { "retained",
                                "the exit policy of the VM is retain: the memory is kept until it is released" },
        [SURVIVAL_SHARED_FILE] = { "shared_file",
                                   "the next VMM maps the same file; what a VMM maps privately is not in it" },
        [SURVIVAL_IN_FD_STORE] = { "in_fd_store",
                                   "the service manager keeps the file descriptors of privmemd in the fd store" },
        [SURVIVAL_FOUND_IN_VMM] = { "found_in_vmm",
                                    "the living VMM has the memory, and privmemd takes a file descriptor from it" },
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

const char *access_word(bool read_only) {
        return read_only ? "read_only" : "read_write";
}

const char *survival_reason_word(SurvivalReason reason) {
        return survival_reasons[reason].word;
}

const char *survival_reason_sentence(SurvivalReason reason) {
        return survival_reasons[reason].sentence;
}
