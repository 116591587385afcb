/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Bearer tokens (RFC 6750) of callers over TLS. The file has a line for each: name, right, expiry and the SHA-256 of the
 * token, so that who reads the file cannot use it. A token is 256 random bits, and is looked for in the same time whether
 * and where it is found. */

#include <stddef.h>
#include <stdint.h>

#include "rest/caller.h"

#define TOKEN_NAME_MAX 64U
#define TOKEN_HASH     32U

typedef struct Token {
        char name[TOKEN_NAME_MAX + 1];
        Right right;
        int64_t expires; /* seconds since 1970 */
        uint8_t hash[TOKEN_HASH];
} Token;

typedef struct Tokens {
        size_t n;
        Token token[];
} Tokens;

/* LINES_E_BAD with a message, or a negative errno. */
int tokens_read(const char *path, Tokens **ret, char **ret_message);

/* NULL if there is none such, or it has expired at now. */
const Token *tokens_find(const Tokens *tokens, const char *text, size_t size, int64_t now);

/* The token of an Authorization: header; NULL if it is none of type Bearer, or not as RFC 6750 has it. */
const char *token_of_header(const char *header, size_t *ret_size);

/* description is NAME,inspect|manage,DURATION. Prints the token, which is kept nowhere, and the line for the file. */
int token_print_new(const char *description, int64_t now, char **ret_message);
