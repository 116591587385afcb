/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A list that privmemd sends in parts, on its way to the client. No more than LIST_BUFFER and one part is ever here: while
 * the client does not read, privmemd is not read either. */

#include <stdbool.h>

#include "rest/http.h"
#include "rest/upstream.h"

#define LIST_BUFFER ((size_t) 64 * 1024)

typedef struct List List;

/* Begins the answer to the exchange with the first part. member names the list in the reply. is_lines: one element a line,
 * and nothing else. NULL: out of memory; the exchange has ended then. The call is the one that the parts come from. */
List *list_start(Exchange *exchange, UpstreamCall *call, const char *member, bool is_lines, const UpstreamReply *part);

/* The next part; is_last: the reply that ends the list. */
void list_add(List *list, const UpstreamReply *part, bool is_last);

/* There will be no more: the client must notice. */
void list_break(List *list);

/* The exchange and the call are about to end, and the list must not touch them any more. */
void list_leave(List *list);

/* What the parts are made into. Appends; is_first and is_last may both be true. */
bool list_render(Text *text, const char *member, bool is_lines, bool is_first, bool is_last, Span parameters);
