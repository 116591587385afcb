/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The parts of the OpenAPI document. Private to dump. */

#include "api/dump-json.h"
#include "api/dump-rows.h"

/* The member "paths". */
void openapi_paths(Json *j);

/* Schemas of what the methods answer with, and of problem documents. */
void openapi_replies(Json *j);
void openapi_problems(Json *j);

/* A method's output field in REST: all but file descriptors. */
bool openapi_is_answered(const sd_varlink_field *field, const void *userdata);
