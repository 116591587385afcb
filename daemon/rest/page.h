/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What is there besides the API: a page for people, whether the program lives and whether privmemd answers, and the
 * description of the API. */

#include "rest/gateway.h"

typedef struct Pages Pages;

int pages_new(Gateway *gateway, Upstream *upstream, Pages **ret);

/* The gateway must not be used any more. */
Pages *pages_free(Pages *pages);
