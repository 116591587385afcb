/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Declarations of slots: what privmem_slot_set() in kvm.c needs beyond privmem.h. */

#include "vm.h"

#define SLOT_FLAGS_ALL (PRIVMEM_SLOT_LOG_DIRTY_PAGES | PRIVMEM_SLOT_READONLY | PRIVMEM_SLOT_GUEST_MEMFD)

/* Makes the handle's table true, if it is not yet. */
int slot_load_table(privmem_vm *vm);

/* Declares the slot again that this text, once in the table, describes. */
int slot_declare_text(privmem_vm *vm, uint32_t address_space, uint32_t slot_id, const char *text);
