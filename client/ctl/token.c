/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "token.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "session.h"

/* No token is as long by far. */
#define LINE_MAX_BYTES 512

static int read_line(const char *path, char line[static LINE_MAX_BYTES]) {
        FILE *file = fopen(path, "re");
        int error = errno;

        if (file) {
                errno = 0;
                if (!fgets(line, LINE_MAX_BYTES, file))
                        line[0] = 0;
                error = ferror(file) ? errno : 0;
                fclose(file);
        }
        if (!file || error != 0) {
                complain("cannot read the claim from %s: %s.", path, strerror(error));
                return EXIT_USAGE;
        }
        return EXIT_OK;
}

/* Cuts it to what stands between blanks. */
static const char *strip(char *line) {
        static const char blanks[] = " \t\r\n";
        size_t n;

        line += strspn(line, blanks);
        for (n = strlen(line); n > 0 && strchr(blanks, line[n - 1]); n--)
                line[n - 1] = 0;
        return line;
}

int token_read(const char *text, char **ret) {
        char line[LINE_MAX_BYTES] = "";
        const char *token = text;
        int r;

        if (text[0] == '@') {
                r = read_line(text + 1, line);
                if (r != EXIT_OK)
                        return r;
                token = strip(line);
        }
        if (!*token) {
                complain("the claim is empty: give a token, or @FILE with a token in its first line.");
                return EXIT_USAGE;
        }
        *ret = strdup(token);
        return *ret ? EXIT_OK : out_of_memory();
}

#define VARIABLE "PRIVMEM_CLAIM"

const char *token_from_environment(void) {
        const char *text = getenv(VARIABLE);

        return text && *text ? text : NULL;
}

void token_forget_environment(void) {
        unsetenv(VARIABLE);
}
