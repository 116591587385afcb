/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A verdict in words, for people who have not read the rules: what is wrong and with which objects, what KVM itself
 * says, and what to do about it. docs/slots.md shows one of each refusal. */

#include "core/slot.h"
#include "core/vm.h"

/* vm: whose slot was asked for. The verdict has a rule. Returns NULL if there is no memory; free() it. */
char *reason_of(const VM *vm, const SlotSpec *spec, const Verdict *verdict);
