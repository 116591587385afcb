/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The program dump: see dump.h. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "api/dump.h"
#include "api/interface.h"

#define ELEMENTSOF(array) (sizeof(array) / sizeof((array)[0]))

static const struct {
        const char *name;
        int (*dump)(FILE *out);
} products[] = {
        { "idl", dump_idl },
        { "manual", dump_manual },
        { "openapi", dump_openapi },
        { "openapi-header", dump_openapi_header },
        { "rest-fields", dump_rest_fields },
};

int dump_idl(FILE *out) {
        char *text;
        int r;

        r = sd_varlink_idl_format(&vl_interface_io_privmemd_Memory, &text);
        if (r < 0)
                return r;
        fputs(text, out);
        free(text);
        return 0;
}

static int usage(void) {
        fputs("usage: dump WHAT [--output FILE]\nWHAT is one of:", stderr);
        for (size_t i = 0; i < ELEMENTSOF(products); i++)
                fprintf(stderr, " %s", products[i].name);
        fputs("\n", stderr);
        return 2;
}

int main(int argc, char *argv[]) {
        int (*dump)(FILE *out) = NULL;
        FILE *out = stdout;
        int r;

        for (size_t i = 0; argc >= 2 && i < ELEMENTSOF(products); i++)
                if (strcmp(argv[1], products[i].name) == 0)
                        dump = products[i].dump;
        if (!dump || (argc != 2 && (argc != 4 || strcmp(argv[2], "--output") != 0)))
                return usage();
        if (argc == 4)
                out = fopen(argv[3], "we");
        if (!out) {
                fprintf(stderr, "dump: cannot write %s: %s\n", argv[3], strerror(errno));
                return EXIT_FAILURE;
        }
        r = dump(out);
        if (fflush(out) != 0 || ferror(out))
                r = -EIO;
        if (r < 0) {
                fprintf(stderr, "dump: %s\n", strerror(-r));
                return EXIT_FAILURE;
        }
        return EXIT_SUCCESS;
}
