/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The fields of the contract as JSON Schema, and examples of them. */

#include "api/dump-json.h"
#include "api/dump-rows.h"

/* Whether a field of the symbol is in the object. NULL: all are. */
typedef bool (*FieldFilter)(const sd_varlink_field *field, const void *userdata);

/* The schema of a field's value. without_null: it is there or is left out, as a parameter of an address is. */
void schema_field(Json *j, const char *key, const sd_varlink_symbol *symbol, const sd_varlink_field *field,
                  bool without_null);

/* The members "properties" and "required" of an object. Returns how many are required. */
size_t schema_fields(Json *j, const sd_varlink_symbol *symbol, sd_varlink_field_direction_t direction,
                     FieldFilter filter, const void *userdata);

/* Every struct and enum. */
void schema_types(Json *j);

/* What a field's comments say, as one text for the member description. */
void schema_description(Json *j, const sd_varlink_symbol *symbol, const sd_varlink_field *field);

/* The text of a comment without what it says of varlink alone. */
void schema_text(Json *j, const char *key, const char *comment, bool first_sentence);

/* An example of each field that is required, and of each that has a row of its own in values.def: members of an object,
 * with commas between and before. Returns whether there is any. */
bool example_fields(FILE *out, const sd_varlink_symbol *symbol, sd_varlink_field_direction_t direction,
                    FieldFilter filter, const void *userdata, const char *separator);
void example_value(FILE *out, const sd_varlink_symbol *symbol, const sd_varlink_field *field);
void example_struct(FILE *out, const sd_varlink_symbol *type);
