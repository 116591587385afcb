/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What stands behind a verb on the command line. Functions that return int return an exit code. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <json-c/json.h>

#include "session.h"

#define OPTION_VALUES_MAX 64

/* One "--name" or "--name=VALUE" of a verb: exactly one of the pointers is set. */
typedef struct Option {
        const char *name;
        bool *flag;
        const char **value;
        struct Values *values; /* may be given several times */
} Option;

typedef struct Values {
        const char *items[OPTION_VALUES_MAX];
        size_t n;
} Values;

/* The rest of the command line: what is no option, in order. */
typedef struct Arguments {
        char **items;
        size_t n;
        char **command; /* what stands behind "--", up to a NULL; NULL if there is no "--" */
        bool help;
        bool version;
        bool answered; /* one of the two, and verb_parse() has printed it: nothing is left to do */
} Arguments;

/* Sorts arguments, which end with NULL, in place. The options --json, --socket=, --help and --version are known
 * everywhere. options end with one without a name.
 *
 * only_front  stop at the first that is no option, and leave it and all behind it in items. */
int arguments_parse(Session *s, char **arguments, const Option *options, bool only_front, Arguments *ret);

/* "256M": a number of bytes with the binary suffix K, M, G or T. */
int arguments_size(const char *what, const char *text, uint64_t *ret);

/* "90", "90s": a time in seconds, or with the suffix ms, s, min, h or d; at least a microsecond. */
int arguments_time(const char *what, const char *text, uint64_t *ret_usec);

/* "0x100000+2M": an address, and how many bytes from there on; 1 if there is no '+'. An address is hexadecimal with 0x
 * in front, or else a size as above. */
int arguments_range(const char *what, const char *text, uint64_t *ret_start, uint64_t *ret_size);

/* The guest addresses that a list of the VM is confined to: *ret is new parameters with its name and, unless guest is
 * NULL, that range. *ret may be NULL on EXIT_OK, if there is no memory. */
int arguments_guest(const char *vm, const char *guest, json_object **ret);

/* A decimal number of at most maximum. */
int arguments_number(const char *what, const char *text, uint64_t maximum, uint64_t *ret);

/* A user's name or number. */
int arguments_user(const char *text, uint32_t *ret);

#define NUMA_NODES_MAX 1024

typedef struct Numa {
        char policy[16];
        privmem_numa_policy value;
        uint32_t nodes[NUMA_NODES_MAX];
        size_t n_nodes;
} Numa;

/* "bind:0-3+5": bind, preferred or interleave, and nodes; '+' and ',' separate them. */
int arguments_numa(const char *text, Numa *ret);

/* A page size or kind that the library knows. */
int arguments_kind(const char *text, privmem_kind *ret);
