/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* attach, handover */

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "arguments.h"
#include "lib/json.h"
#include "verb.h"

static int open_process(const char *text, int *ret_pidfd) {
        uint64_t pid;
        int r;

        r = arguments_number("the process id", text, INT32_MAX, &pid);
        if (r != EXIT_OK)
                return r;
        *ret_pidfd = (int) syscall(SYS_pidfd_open, (pid_t) pid, 0);
        if (*ret_pidfd < 0) {
                complain("there is no process %s: %s.", text, strerror(errno));
                return EXIT_ERROR;
        }
        return EXIT_OK;
}

/* pid: NULL for none. */
static int call_with_process(Session *s, const char *method, const char *name, const char *pid, json_object **ret) {
        json_object *q = json_object_new_object();
        int pidfd = -1, r = EXIT_OK;

        if (!json_add_string(q, "vm", name))
                r = out_of_memory();
        if (r == EXIT_OK && pid) {
                r = open_process(pid, &pidfd);
                if (r == EXIT_OK && !json_add_uint64(q, "pidFileDescriptor", 0))
                        r = out_of_memory();
        }
        if (r == EXIT_OK)
                r = session_call_with_fd(s, method, q, pidfd, ret);
        else
                json_object_put(q);
        if (pidfd >= 0)
                close(pidfd);
        return r;
}

int verb_attach(Session *s, const Verb *verb, char **arguments) {
        json_object *reply = NULL;
        Arguments a;
        int r;

        r = verb_parse(s, verb, arguments, /* options= */ NULL, 2, 2, &a);
        if (r != EXIT_OK || a.answered)
                return r;

        r = call_with_process(s, "AttachVM", a.items[0], a.items[1], &reply);
        if (r != EXIT_OK)
                return r;

        if (s->json)
                r = session_print(reply);
        else
                printf("Process %s is the VMM of VM %s.\n", a.items[1], a.items[0]);
        json_object_put(reply);
        return r;
}

int verb_handover(Session *s, const Verb *verb, char **arguments) {
        bool take_back = false;
        const Option options[] = { { "take-back", .flag = &take_back }, {} };
        json_object *reply = NULL;
        Arguments a;
        int r;

        r = verb_parse(s, verb, arguments, options, 1, 2, &a);
        if (r != EXIT_OK || a.answered)
                return r;
        if (take_back == (a.n == 2)) {
                complain("handover needs either a process id or --take-back.");
                return EXIT_USAGE;
        }

        r = call_with_process(s, "HandOverVM", a.items[0], take_back ? NULL : a.items[1], &reply);
        if (r != EXIT_OK)
                return r;

        if (s->json)
                r = session_print(reply);
        else if (take_back)
                printf("Nobody may take over VM %s.\n", a.items[0]);
        else
                printf("Process %s may take over VM %s.\n", a.items[1], a.items[0]);
        json_object_put(reply);
        return r;
}
