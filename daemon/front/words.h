/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Enums of the core and their words on the wire, one table each. */

#include "core/advice.h"
#include "core/slot.h"
#include "core/survival.h"
#include "core/vm.h"

const char *backing_kind_word(BackingKind kind);
const char *backing_origin_word(BackingOrigin origin);
const char *numa_policy_word(NumaPolicy policy); /* NULL for NUMA_POLICY_NONE */
const char *exit_policy_word(ExitPolicy policy);
const char *alias_policy_word(AliasPolicy policy);
const char *vm_type_word(VMType type);
const char *mapped_kind_word(MappedKind value);
const char *vm_state_word(VMState state);
const char *outcome_word(Outcome outcome);
const char *advice_kind_word(AdviceKind kind);
const char *slot_rule_word(SlotRule rule); /* NULL for RULE_NONE */
/* What the rule says, for people: a clause without a full stop. */
const char *slot_rule_sentence(SlotRule rule);
/* What to do about a refusal by it: sentences, or NULL if the clause says it. */
const char *slot_rule_remedy(SlotRule rule);

#define SLOT_FLAGS 3U /* bits of SlotSpec.flags */
const char *slot_flag_word(unsigned bit);
/* 0 if the word is none of them. */
uint32_t slot_flag_of(const char *word);

const char *access_word(bool read_only);
const char *custody_word(Custody custody);
const char *survival_reason_word(SurvivalReason reason);
const char *survival_reason_sentence(SurvivalReason reason);

/* What a claim is called, by its id. */
typedef char ClaimWord[24];
const char *claim_word(uint64_t id, ClaimWord buffer);
/* 0 if no claim is called so. */
uint64_t claim_id_of(const char *word);

/* -1 if the word is none of them; NULL gives the fallback. */
int backing_kind_of(const char *word, int fallback);
int numa_policy_of(const char *word, int fallback);
int exit_policy_of(const char *word, int fallback);
int alias_policy_of(const char *word, int fallback);
int vm_type_of(const char *word, int fallback);
