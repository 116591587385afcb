/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Sequences of operations on the core, each compared with the model. */

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "model.h"

enum {
        OPERATION_SPECS_MAX = 4,
        OPERATION_LOOKS_MAX = 3,
};

typedef enum OperationKind {
        OPERATION_SET,
        OPERATION_SET_MANY, /* all or nothing */
        OPERATION_CHECK,    /* the same as a dry run */
        OPERATION_SHARE,    /* or take it back */
        OPERATION_ATTACH,
        OPERATION_DETACH,
        OPERATION_POLICY,
        OPERATION_RELEASE, /* a backing, or make it anew */
        OPERATION_REBIRTH, /* free the VM and register it again */
        _OPERATION_KIND_MAX,
} OperationKind;

/* Fields that are taken from the slot of that id, if there is one. */
enum {
        KEEP_GPA = 1 << 0,
        KEEP_SIZE = 1 << 1,
        KEEP_HVA = 1 << 2,
        KEEP_FLAGS = 1 << 3,
        KEEP_BACKING = 1 << 4,
};

/* What was seen at some pages of a slot. As declared is nowhere if nothing is declared. */
typedef struct Look {
        bool as_declared;
        ModelPage first; /* else; the pages of a file follow each other */
        size_t n_pages;
} Look;

typedef struct Operation {
        OperationKind kind;
        int vm;
        int backing; /* SHARE, RELEASE */
        size_t n_specs;
        ModelSpec specs[OPERATION_SPECS_MAX];
        unsigned keep[OPERATION_SPECS_MAX];
        Look looks[OPERATION_SPECS_MAX][OPERATION_LOOKS_MAX]; /* in turn, from the slot's start to its end */
        size_t n_looks[OPERATION_SPECS_MAX];                  /* 0: nobody looked */
} Operation;

/* Any bytes are a sequence of operations. Returns how many there are, at most max. */
size_t replay_decode(const uint8_t *data, size_t size, Operation *operations, size_t max);

/* Runs the sequence on an empty registry. Returns the number of operations if the core and the model agree after each
 * of them, else the index of the first after which they do not, and what differs in difference. It ends before an
 * operation that the core may refuse for its number of aliases, which the model does not count as the core does. */
size_t replay_run(const Operation *operations, size_t n, char *difference, size_t difference_size);

/* How often each rule has decided so far. */
extern size_t replay_decided[_RULE_MAX];

void replay_print(FILE *f, const Operation *operation);
