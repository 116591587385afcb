/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The command line of a VMM, and the memory that is named in it as {NAME} or {NAME.fd}. Functions that return int
 * return an exit code. */

#include "arguments.h"

/* What "--backing=" asks for. */
typedef struct Memory {
        char name[PRIVMEM_NAME_MAX + 1];
        uint64_t size;
        Numa numa;
        struct privmem_backing_options options; /* refers to numa: do not copy */
        int fd;
        bool created;
} Memory;

/* "ram0=256M,kind=hugetlb,page-size=2M,numa=bind:0" */
int memory_parse(const char *text, Memory *ret);

bool memory_is_used(const Memory *m, char **command);

/* A copy of the command in which {NAME} is the path of the memory's file descriptor, and {NAME.fd} its number.
 * Other braces stay as they are. NULL: out of memory. */
char **command_fill_in(char **command, const Memory *memory, size_t n_memory);
char **command_free(char **command);

/* Where execvp() would find it: 127 if nowhere, 126 if it cannot be executed. */
int command_find(const char *name, char **ret_path);
