/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What this process may do beyond its uid, capabilities(7). */

#include <stdbool.h>

/* Whether a CAP_… of <linux/capability.h> is in effect. */
bool capability_have(unsigned capability);
