/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* privmemctl: what a person, or a script, asks of privmemd. */

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "arguments.h"
#include "session.h"
#include "verb.h"

static const Verb verbs[] = {
#define VERB_ROW(name, usage, summary) { #name, usage, summary, verb_##name },
        VERBS(VERB_ROW)
#undef VERB_ROW
};

static const size_t n_verbs = sizeof(verbs) / sizeof(verbs[0]);

static void print_usage(const Verb *verb) {
        printf("  privmemctl %s%s", verb->name, *verb->usage ? " " : "");
        for (const char *c = verb->usage; *c; c++)
                if (*c == '\n')
                        printf("\n          ");
                else
                        putchar(*c);
        printf("\n      %s\n", verb->summary);
}

static void print_options(void) {
        puts("\nOptions, before or behind the verb:\n"
             "  --socket=PATH  where privmemd listens\n"
             "  --json         print JSON: one document, or one a line for streams\n"
             "  --help         print this\n"
             "  --version      print the version\n"
             "\n"
             "SIZE is a number of bytes, or one with the suffix K, M, G or T (1024 each).\n"
             "Exit status: 0 success, 1 an error, 2 a wrong command line, 3 cannot connect;\n"
             "run: that of the command, 126 if it cannot be executed, 127 if it is not there.");
}

static void print_help(void) {
        puts("Usage: privmemctl [OPTION…] VERB …\n\nTalks to privmemd about the memory of KVM guests.\n");
        for (size_t i = 0; i < n_verbs; i++)
                print_usage(&verbs[i]);
        print_options();
}

static void print_version(void) {
        printf("privmemctl %s\n", privmem_version());
}

int verb_parse(Session *s, const Verb *verb, char **arguments, const Option *options, size_t least, size_t most,
               Arguments *ret) {
        int r;

        r = arguments_parse(s, arguments, options, /* only_front= */ false, ret);
        if (r != EXIT_OK)
                return r;

        if (ret->help) {
                puts("Usage:");
                print_usage(verb);
                print_options();
        }
        if (ret->version)
                print_version();
        ret->answered = ret->help || ret->version;
        if (ret->answered)
                return EXIT_OK;

        if (ret->n < least || ret->n > most) {
                complain("%s takes %s arguments; see privmemctl %s --help.", verb->name,
                         ret->n < least ? "more" : "fewer", verb->name);
                return EXIT_USAGE;
        }
        if (ret->command && strcmp(verb->name, "run") != 0 && strcmp(verb->name, "upgrade") != 0) {
                complain("%s takes nothing behind --.", verb->name);
                return EXIT_USAGE;
        }
        return EXIT_OK;
}

static int dispatch(Session *s, char **arguments) {
        for (size_t i = 0; i < n_verbs; i++)
                if (strcmp(verbs[i].name, arguments[0]) == 0)
                        return verbs[i].function(s, &verbs[i], arguments + 1);

        complain("there is no verb \"%s\"; see privmemctl --help.", arguments[0]);
        return EXIT_USAGE;
}

static int run(Session *s, char **arguments) {
        Arguments a;
        int r;

        r = arguments_parse(s, arguments, /* options= */ NULL, /* only_front= */ true, &a);
        if (r != EXIT_OK)
                return r;

        if (a.help) {
                print_help();
                return EXIT_OK;
        }
        if (a.version) {
                print_version();
                return EXIT_OK;
        }
        if (a.n == 0) {
                complain("what shall it do? See privmemctl --help.");
                return EXIT_USAGE;
        }

        return dispatch(s, a.items);
}

/* Else a socket or guest memory becomes somebody's standard output. */
static bool open_standard_fds(void) {
        int fd;

        do
                fd = open("/dev/null", O_RDWR | O_CLOEXEC);
        while (fd >= 0 && fd <= 2);

        if (fd >= 0)
                close(fd);
        return fd >= 0;
}

int main(int argc, char **argv) {
        Session s = {};
        int r;

        if (!open_standard_fds())
                return EXIT_ERROR;

        r = argc > 0 ? run(&s, argv + 1) : EXIT_USAGE;
        session_done(&s);

        if (fflush(stdout) != 0 && r == EXIT_OK) {
                complain("cannot write to standard output.");
                r = EXIT_ERROR;
        }
        return r;
}
