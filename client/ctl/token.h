/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The token of a claim, as it is given on the command line or in the environment. */

/* "@FILE": the first line of the file, without what is blank around it; anything else is the token itself. The caller
 * frees *ret. Returns an exit code. */
int token_read(const char *text, char **ret);

/* What $PRIVMEM_CLAIM has, in the same form; NULL: nothing. */
const char *token_from_environment(void);
/* The command that is executed has no use for it. */
void token_forget_environment(void);
