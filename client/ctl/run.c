/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* run: this process becomes the VMM.
 *
 * It registers the VM, allocates (or finds) its memory, writes where the memory is into the command line, attaches
 * itself and executes the command. The binding is to the process and survives exec, so the VMM is the VM's
 * process from its first instruction, and its exit status is nobody's to forward. With a claim the VM and its memory are
 * there, and one call fetches the memory and attaches. Whatever can be known to fail is looked at before privmemd is asked
 * for anything; what fails later is undone, as far as this run made it. */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "arguments.h"
#include "command.h"
#include "lib/words.h"
#include "token.h"
#include "verb.h"

/* As many as one claim has. */
#define MEMORY_MAX 253

typedef struct Run {
        Session *session;
        const char *name;
        struct privmem_vm_options options;
        char *token; /* of a claim to the memory, or NULL */
        Memory *memory;
        size_t n_memory;
        char *path;  /* of what is executed */
        char **argv; /* the command, with the places of the memory */
        privmem_vm *vm;
        bool take_over; /* from the VM's living VMM, instead of registering a VM */
        bool vm_created;
        bool attached;
} Run;

static void run_done(Run *run) {
        for (size_t i = 0; i < run->n_memory; i++)
                if (run->memory[i].fd >= 0)
                        close(run->memory[i].fd);
        free(run->memory);
        free(run->token);
        run->vm = privmem_vm_free(run->vm);
        command_free(run->argv);
        free(run->path);
}

/* ---- undo ---------------------------------------------------------------------------------------------- */

/* A VM whose VMM lives cannot be unregistered, and we are its VMM: a child does it once we are gone. */
static void unregister_from_child(Run *run) {
        const struct timespec pause = { .tv_nsec = 20 * 1000 * 1000 };
        int alive[2];
        char none;

        if (pipe2(alive, O_CLOEXEC) < 0 || fork() != 0)
                return; /* the write end stays open until we end */

        close(alive[1]);
        for (int fd = 0; fd < 3; fd++)
                close(fd);
        while (read(alive[0], &none, 1) < 0 && errno == EINTR)
                ;

        for (int i = 0; i < 250; i++) {
                privmem_vm *vm = NULL;
                privmem *p = NULL;
                int r;

                if (privmem_connect(run->session->socket, &p) < 0 || privmem_vm_new(p, run->name, &vm) < 0)
                        _exit(EXIT_CONNECT);
                r = privmem_vm_unregister(vm, /* ret_freed= */ NULL);
                privmem_vm_free(vm);
                privmem_close(p);
                if (r != -EBUSY)
                        break;
                nanosleep(&pause, NULL);
        }
        _exit(EXIT_OK);
}

static void undo(Run *run) {
        if (!run->vm)
                return;

        if (run->token && run->attached)
                complain("the claim is used up; ask for another one.");

        if (run->vm_created) {
                int r = privmem_vm_unregister(run->vm, /* ret_freed= */ NULL);

                if (r == -EBUSY && run->attached)
                        unregister_from_child(run);
                else if (r < 0)
                        complain("VM %s stays registered: %s", run->name, privmem_error_message(run->session->p));
                return;
        }

        for (size_t i = 0; i < run->n_memory; i++)
                if (run->memory[i].created &&
                    privmem_backing_release(run->vm, run->memory[i].name, /* ret_freed= */ NULL) < 0)
                        complain("backing %s stays allocated: %s", run->memory[i].name,
                                 privmem_error_message(run->session->p));
}

/* ---- the command line ---------------------------------------------------------------------------------- */

/* -1 after a complaint; 0, which leaves it to privmemd, if nothing was given. */
static int read_word(const char *text, const char *const *words, unsigned n, const char *wanted) {
        int value = text ? value_in(words, n, text) : 0;

        if (value < 0)
                complain("\"%s\" is no %s.", text, wanted);
        return value;
}

static int read_policies(Run *run, const char *exit_policy, const char *alias_policy, const char *type) {
        int e = read_word(exit_policy, exit_policy_words, N_WORDS(exit_policy_words),
                          "exit policy: release or retain");
        int a = read_word(alias_policy, alias_policy_words, N_WORDS(alias_policy_words),
                          "alias policy: enforce or observe");
        int t = read_word(type, vm_type_words, N_WORDS(vm_type_words),
                          "type of a VM: undeclared, ordinary, sw_protected, sev, sev_es, snp or tdx");

        if (e < 0 || a < 0 || t < 0)
                return EXIT_USAGE;
        run->options.exit_policy = (privmem_exit_policy) e;
        run->options.alias_policy = (privmem_alias_policy) a;
        run->options.type = (privmem_vm_type) t;
        return EXIT_OK;
}

static int read_memory(Run *run, const Values *texts, char **command) {
        for (size_t i = 0; i < texts->n; i++) {
                Memory *m = &run->memory[i];
                int r;

                r = memory_parse(texts->items[i], m);
                if (r != EXIT_OK)
                        return r;
                run->n_memory++;

                for (size_t j = 0; j < i; j++)
                        if (strcmp(run->memory[j].name, m->name) == 0) {
                                complain("the backing %s is given twice.", m->name);
                                return EXIT_USAGE;
                        }
                if (!memory_is_used(m, command)) {
                        complain("the command does not use the backing %s: it must contain {%s} or {%s.fd}.", m->name,
                                 m->name, m->name);
                        return EXIT_USAGE;
                }
        }
        return EXIT_OK;
}

/* --retain says the exit policy too. */
static int read_retention(Run *run, const char *retain) {
        if (!retain)
                return EXIT_OK;
        if (run->options.exit_policy == PRIVMEM_EXIT_POLICY_DEFAULT)
                run->options.exit_policy = PRIVMEM_EXIT_POLICY_RETAIN;
        return arguments_time("the time to retain", retain, &run->options.retain_usec);
}

/* ---- the steps ----------------------------------------------------------------------------------------- */

static int fill_in(Run *run, char **command) {
        run->argv = command_fill_in(command, run->memory, run->n_memory);
        return run->argv ? EXIT_OK : out_of_memory();
}

static int prepare(Run *run, char **command) {
        privmem *p;
        int r;

        r = session_open(run->session);
        if (r != EXIT_OK)
                return r;
        p = run->session->p;

        if (run->take_over || run->token)
                r = privmem_vm_new(p, run->name, &run->vm);
        else
                r = privmem_vm_register(p, run->name, &run->options, &run->vm, &run->vm_created);
        if (r < 0)
                return session_fail(run->session);

        for (size_t i = 0; i < run->n_memory; i++) {
                Memory *m = &run->memory[i];

                if (privmem_backing_allocate(run->vm, m->name, m->size, &m->options, &m->fd, &m->created) < 0)
                        return session_fail(run->session);
        }

        return run->token ? EXIT_OK : fill_in(run, command);
}

/* Names this process as the successor; attaching makes it the VMM then. */
static int take_over(Run *run) {
        int pidfd = (int) syscall(SYS_pidfd_open, getpid(), 0), r;

        if (pidfd < 0) {
                complain("cannot open a pidfd: %s.", strerror(errno));
                return EXIT_ERROR;
        }
        r = privmem_vm_hand_over(run->vm, pidfd);
        close(pidfd);
        return r < 0 ? session_fail(run->session) : EXIT_OK;
}

/* Attaches this process, and learns only then which memory there is. What the command does not use stays close-on-exec. */
static int redeem(Run *run, char **command) {
        struct privmem_redeemed *redeemed = NULL;
        size_t n = 0;

        if (privmem_claim_redeem(run->vm, run->token, /* attach= */ true, &redeemed, &n) < 0)
                return session_fail(run->session);
        run->attached = true;
        for (size_t i = 0; i < n && run->n_memory < MEMORY_MAX; i++) {
                Memory *m = &run->memory[run->n_memory++];

                strcpy(m->name, redeemed[i].name);
                m->fd = redeemed[i].fd;
                redeemed[i].fd = -1;
        }
        privmem_redeemed_free(redeemed, n);
        return fill_in(run, command);
}

static int attach(Run *run, char **command) {
        int r;

        if (run->take_over) {
                r = take_over(run);
                if (r != EXIT_OK)
                        return r;
        }
        if (run->token)
                return redeem(run, command);
        if (privmem_vm_attach(run->vm, /* pidfd= */ -1) < 0)
                return session_fail(run->session);
        run->attached = true;
        return EXIT_OK;
}

static int hand_on(Run *run, char **command) {
        for (size_t i = 0; i < run->n_memory; i++)
                if (!memory_is_used(&run->memory[i], command))
                        complain("the command does not use the backing %s of the claim.", run->memory[i].name);
                else if (fcntl(run->memory[i].fd, F_SETFD, 0) < 0) {
                        complain("cannot hand on the backing %s: %s.", run->memory[i].name, strerror(errno));
                        return EXIT_ERROR;
                }
        return EXIT_OK;
}

static int become(Run *run, char **command) {
        int r;

        r = attach(run, command);
        if (r == EXIT_OK)
                r = hand_on(run, command);
        if (r != EXIT_OK)
                return r;

        token_forget_environment();
        fflush(stdout);
        execv(run->path, run->argv);
        r = errno;
        complain("cannot execute %s: %s.", run->path, strerror(r));
        return r == ENOENT ? EXIT_NOT_FOUND : EXIT_CANNOT_EXECUTE;
}

/* As it stands on the command line; NULL: not given. */
typedef struct Given {
        const char *claim, *uuid, *owner, *exit_policy, *alias_policy, *type, *retain;
        Values backings;
} Given;

/* What goes together. */
static int check_given(const Run *run, const Given *g, const Arguments *a) {
        bool has_policies = g->uuid || g->owner || g->exit_policy || g->alias_policy || g->retain ||
                            run->options.retain_guest_memfd;

        if (!a->command || !a->command[0]) {
                complain("run needs a command behind --.");
                return EXIT_USAGE;
        }
        if (g->claim && (has_policies || g->type || g->backings.n > 0)) {
                complain("a claim is for a VM and memory that are there: only --take-over goes with it.");
                return EXIT_USAGE;
        }
        if (run->take_over && has_policies) {
                complain("--take-over takes the VM as it is registered: only --backing or --claim goes with it.");
                return EXIT_USAGE;
        }
        return EXIT_OK;
}

static int read_given(Run *run, const Given *g, char **command) {
        int r = EXIT_OK;

        run->memory = calloc(MEMORY_MAX, sizeof(Memory));
        if (!run->memory)
                return out_of_memory();
        run->options.uuid = g->uuid;
        run->options.set_owner = g->owner;
        if (g->claim)
                r = token_read(g->claim, &run->token);
        if (r == EXIT_OK && g->owner)
                r = arguments_user(g->owner, &run->options.owner_uid);
        if (r == EXIT_OK)
                r = read_policies(run, g->exit_policy, g->alias_policy, g->type);
        if (r == EXIT_OK)
                r = read_retention(run, g->retain);
        if (r == EXIT_OK)
                r = read_memory(run, &g->backings, command);
        if (r == EXIT_OK)
                r = command_find(command[0], &run->path);
        return r;
}

int verb_run(Session *s, const Verb *verb, char **arguments) {
        Run run = { .session = s };
        Given g = {};
        const Option options[] = {
                { "backing", .values = &g.backings },
                { "claim", .value = &g.claim },
                { "uuid", .value = &g.uuid },
                { "owner", .value = &g.owner },
                { "exit-policy", .value = &g.exit_policy },
                { "retain", .value = &g.retain },
                { "retain-guest-memfd", .flag = &run.options.retain_guest_memfd },
                { "alias-policy", .value = &g.alias_policy },
                { "type", .value = &g.type },
                { "take-over", .flag = &run.take_over },
                {},
        };
        Arguments a;
        int r;

        r = verb_parse(s, verb, arguments, options, 1, 1, &a);
        if (r != EXIT_OK || a.answered)
                return r;
        if (!g.claim)
                g.claim = token_from_environment();
        run.name = a.items[0];
        r = check_given(&run, &g, &a);
        if (r == EXIT_OK)
                r = read_given(&run, &g, a.command);
        if (r == EXIT_OK)
                r = prepare(&run, a.command);
        if (r == EXIT_OK)
                r = become(&run, a.command);

        undo(&run); /* whoever gets here has failed */
        run_done(&run);
        return r;
}
