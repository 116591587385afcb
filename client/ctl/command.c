/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "command.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- memory -------------------------------------------------------------------------------------------- */

static int parse_property(Memory *m, const char *key, const char *value) {
        int r;

        if (strcmp(key, "kind") == 0)
                return arguments_kind(value, &m->options.kind);
        if (strcmp(key, "page-size") == 0)
                return arguments_size("the page size", value, &m->options.page_size);
        if (strcmp(key, "numa") == 0) {
                r = arguments_numa(value, &m->numa);
                m->options.numa_policy = m->numa.value;
                m->options.numa_nodes = m->numa.nodes;
                m->options.n_numa_nodes = m->numa.n_nodes;
                return r;
        }

        complain("a backing has no property \"%s\": kind, page-size or numa.", key);
        return EXIT_USAGE;
}

/* Cuts copy into pieces. */
static int parse_pieces(Memory *m, char *copy) {
        char *rest = NULL, *value;
        int r = EXIT_OK;

        for (char *piece = strtok_r(copy, ",", &rest); piece && r == EXIT_OK; piece = strtok_r(NULL, ",", &rest)) {
                value = strchr(piece, '=');
                if (!value) {
                        complain("\"%s\" in a backing lacks a value.", piece);
                        return EXIT_USAGE;
                }
                *value++ = 0;

                if (piece != copy) {
                        r = parse_property(m, piece, value);
                } else if (strlen(piece) == 0 || strlen(piece) > PRIVMEM_NAME_MAX) {
                        complain("the name of a backing has 1 to %d characters.", PRIVMEM_NAME_MAX);
                        r = EXIT_USAGE;
                } else {
                        strcpy(m->name, piece);
                        r = arguments_size("the size", value, &m->size);
                }
        }
        return r;
}

int memory_parse(const char *text, Memory *ret) {
        char *copy;
        int r;

        *ret = (Memory) { .fd = -EBADF };
        copy = strdup(text);
        if (!copy)
                return out_of_memory();

        r = parse_pieces(ret, copy);
        free(copy);
        if (r == EXIT_OK && !ret->name[0]) {
                complain("\"%s\" is no backing: NAME=SIZE is needed.", text);
                r = EXIT_USAGE;
        }
        return r;
}

/* ---- filling in ---------------------------------------------------------------------------------------- */

/* The length of "{NAME}" or "{NAME.fd}" at text; 0 if there is none. */
static size_t match(const Memory *m, const char *text, bool *ret_number) {
        size_t length = strlen(m->name);

        if (text[0] != '{' || strncmp(text + 1, m->name, length) != 0)
                return 0;

        *ret_number = strncmp(text + 1 + length, ".fd}", 4) == 0;
        if (*ret_number)
                return length + 5;
        return text[1 + length] == '}' ? length + 2 : 0;
}

bool memory_is_used(const Memory *m, char **command) {
        bool number;

        for (; *command; command++)
                for (const char *c = strchr(*command, '{'); c; c = strchr(c + 1, '{'))
                        if (match(m, c, &number) > 0)
                                return true;
        return false;
}

static size_t fill_in_place(FILE *out, const char *text, const Memory *memory, size_t n_memory) {
        for (size_t i = 0; i < n_memory; i++) {
                bool number = false;
                size_t length = match(&memory[i], text, &number);

                if (length > 0) {
                        fprintf(out, "%s%d", number ? "" : "/proc/self/fd/", memory[i].fd);
                        return length;
                }
        }

        fputc(*text, out);
        return 1;
}

static char *fill_in(const char *argument, const Memory *memory, size_t n_memory) {
        char *text = NULL;
        size_t size;
        FILE *out;

        out = open_memstream(&text, &size);
        if (!out)
                return NULL;

        while (*argument)
                argument += fill_in_place(out, argument, memory, n_memory);

        if (ferror(out) | fclose(out)) {
                free(text);
                return NULL;
        }
        return text;
}

char **command_free(char **command) {
        for (char **c = command; c && *c; c++)
                free(*c);
        free(command);
        return NULL;
}

char **command_fill_in(char **command, const Memory *memory, size_t n_memory) {
        size_t n = 0;
        char **filled;

        while (command[n])
                n++;

        filled = calloc(n + 1, sizeof(char *));
        for (size_t i = 0; filled && i < n; i++) {
                filled[i] = fill_in(command[i], memory, n_memory);
                if (!filled[i])
                        return command_free(filled);
        }
        return filled;
}

/* ---- finding ------------------------------------------------------------------------------------------- */

/* 0, or an errno. */
static int check_executable(const char *path) {
        struct stat st;

        if (stat(path, &st) < 0)
                return errno == ENOTDIR ? ENOENT : errno;
        if (!S_ISREG(st.st_mode))
                return EACCES;
        return access(path, X_OK) < 0 ? errno : 0;
}

static int find_in_path(const char *name, char **ret_path) {
        const char *list = getenv("PATH");
        int code = ENOENT;

        for (const char *c = list ? list : "/usr/local/bin:/usr/bin:/bin"; c;
             c = strchr(c, ':') ? strchr(c, ':') + 1 : NULL) {
                int length = (int) strcspn(c, ":"), found;
                char *path;

                if (asprintf(&path, "%.*s%s%s", length, c, length > 0 ? "/" : "./", name) < 0)
                        return ENOMEM;
                found = check_executable(path);
                if (found == 0) {
                        *ret_path = path;
                        return 0;
                }
                if (found != ENOENT)
                        code = found;
                free(path);
        }
        return code;
}

int command_find(const char *name, char **ret_path) {
        char *path = NULL;
        int code;

        if (strchr(name, '/')) {
                code = check_executable(name);
                path = code == 0 ? strdup(name) : NULL;
                if (code == 0 && !path)
                        code = ENOMEM;
        } else {
                code = *name ? find_in_path(name, &path) : ENOENT;
        }

        if (code != 0) {
                complain("cannot execute %s: %s.", name, strerror(code));
                return code == ENOENT ? EXIT_NOT_FOUND : EXIT_CANNOT_EXECUTE;
        }
        *ret_path = path;
        return EXIT_OK;
}
