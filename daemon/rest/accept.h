/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Which of some media types a client takes (RFC 9110, 12.5.1), and what the body of a request is said to be. */

#include <stdbool.h>

/* Of types, the best first and NULL behind the last. NULL: none will do. header NULL: any will. */
const char *accept_choose(const char *header, const char *const *types);

/* "application/json", in UTF-8 if anything is said about that. */
bool accept_is_json(const char *content_type);
