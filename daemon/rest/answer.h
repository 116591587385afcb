/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A reply of privmemd becomes the answer to a request, by its row in api/operations.def. */

#include "rest/http.h"
#include "rest/route.h"
#include "rest/upstream.h"

/* The whole reply of a call that has none but this. What a dry run would have made has no address. */
void answer_reply(Exchange *exchange, const Route *route, const char *type, bool is_dry_run,
                  const UpstreamReply *reply);

#define TYPE_JSON   "application/json"
#define TYPE_NDJSON "application/x-ndjson"
