/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What names in a certificate may do. The file has a line for each name: "URI spiffe://example/one = manage", with DNS
 * and CN likewise. Names are compared whole, without wildcards; a certificate has the highest right of its names. */

#include <gnutls/x509.h>
#include <stdbool.h>
#include <stddef.h>

#include "rest/caller.h"

/* The longest name in the file, and of a caller. */
#define RIGHTS_NAME_MAX 255U

/* inspect or manage. */
bool right_parse(const char *text, Right *ret);
const char *right_name(Right right);

typedef struct Rights Rights;

/* LINES_E_BAD with a message, or a negative errno. */
int rights_read(const char *path, Rights **ret, char **ret_message);
Rights *rights_free(Rights *rights);

/* ret_name: the name that has this right, as "URI spiffe://example/one"; empty for RIGHT_NONE. */
Right rights_of(const Rights *rights, gnutls_x509_crt_t certificate, char ret_name[static RIGHTS_NAME_MAX + 1]);
