/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The marked steps at which the tests kill privmemd. Only the build of tests/kill has them; see there. */

#ifdef PRIVMEMD_STEPS
void step_reached(const char *name);
#define STEP(name) step_reached(name)
#else
#define STEP(name) ((void) 0)
#endif
