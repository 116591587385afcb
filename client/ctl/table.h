/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A table of text: cells are added in order, and a row is full when every column has one. */

#include <stdbool.h>
#include <stddef.h>

#define TABLE_COLUMNS_MAX 12

typedef struct Table {
        size_t n_columns;
        bool right[TABLE_COLUMNS_MAX];
        bool failed; /* a cell could not be made */
        char **cells;
        size_t n_cells;
        size_t allocated;
} Table;

/* Titles end with NULL; one that begins with '>' stands over a column that is aligned to the right. A table
 * whose titles are all empty prints no line for them. */
void table_init(Table *t, ...) __attribute__((sentinel));
void table_done(Table *t);

/* The cell becomes the table's. NULL means that it could not be made. */
void table_add(Table *t, char *cell);
void table_add_text(Table *t, const char *cell);

/* Prints and frees it. Returns an exit code. */
int table_print(Table *t);
