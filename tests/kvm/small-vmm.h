/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What small-vmm's guest leaves where; the test that looks for it includes this too. */

#define SENTENCE "A guest was here."

#define RAM_SIZE          0x10000u
#define RAM_GUEST_ADDRESS 0x0u
#define CODE_AT           0x1000u
#define SENTENCE_AT       0x1800u
#define RAM_OFFSET        0x2000u /* of the sentence, in ram0 and in guest memory */

#define PRIVATE_SIZE          0x10000u
#define PRIVATE_GUEST_ADDRESS 0x40000u
#define PRIVATE_OFFSET        0x0u /* of the sentence, in private0 */

#define ALIAS_SIZE          0x1000u
#define ALIAS_GUEST_ADDRESS 0x80000u
