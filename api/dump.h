/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The program dump prints what is derived from the contract. Each of these prints one thing, and returns 0 or a negative
 * errno; whether the writing went well is for the caller to see. */

#include <stdio.h>

/* The varlink IDL. */
int dump_idl(FILE *out);

/* The sections of io.privmemd.Memory(7) about methods, types and errors. */
int dump_manual(FILE *out);

/* The types of the input fields that REST takes, for a table of daemon/rest. */
int dump_rest_fields(FILE *out);

/* The OpenAPI document of REST. */
int dump_openapi(FILE *out);

/* The same as a C string, openapi_json, for daemon/rest. */
int dump_openapi_header(FILE *out);
