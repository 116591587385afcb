/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "table.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "session.h"

void table_init(Table *t, ...) {
        va_list titles;
        const char *title;

        *t = (Table) {};
        va_start(titles, t);
        while ((title = va_arg(titles, const char *)) && t->n_columns < TABLE_COLUMNS_MAX) {
                t->right[t->n_columns++] = *title == '>';
                table_add_text(t, *title == '>' ? title + 1 : title);
        }
        va_end(titles);
}

void table_done(Table *t) {
        for (size_t i = 0; i < t->n_cells; i++)
                free(t->cells[i]);
        free(t->cells);
        *t = (Table) {};
}

void table_add(Table *t, char *cell) {
        if (cell && t->n_cells == t->allocated) {
                size_t more = t->allocated == 0 ? 64 : t->allocated * 2;
                char **cells = realloc(t->cells, more * sizeof(char *));

                if (cells) {
                        t->cells = cells;
                        t->allocated = more;
                }
        }

        if (!cell || t->n_cells == t->allocated) {
                free(cell);
                t->failed = true;
                return;
        }
        t->cells[t->n_cells++] = cell;
}

void table_add_text(Table *t, const char *cell) {
        table_add(t, strdup(cell));
}

static void print_row(const Table *t, const size_t *widths, char **row) {
        for (size_t i = 0; i < t->n_columns; i++) {
                int width = (int) widths[i];

                if (i > 0)
                        fputs("  ", stdout);
                if (t->right[i])
                        printf("%*s", width, row[i]);
                else if (i + 1 < t->n_columns)
                        printf("%-*s", width, row[i]);
                else
                        fputs(row[i], stdout);
        }
        putchar('\n');
}

int table_print(Table *t) {
        size_t widths[TABLE_COLUMNS_MAX] = {};
        bool titled = false;

        if (t->failed) {
                table_done(t);
                return out_of_memory();
        }

        for (size_t i = 0; i < t->n_cells; i++) {
                size_t length = strlen(t->cells[i]), column = i % t->n_columns;

                if (length > widths[column])
                        widths[column] = length;
                if (i < t->n_columns && length > 0)
                        titled = true;
        }

        for (size_t i = titled ? 0 : t->n_columns; i + t->n_columns <= t->n_cells; i += t->n_columns)
                print_row(t, widths, t->cells + i);

        table_done(t);
        return EXIT_OK;
}
