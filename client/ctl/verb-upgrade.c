/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* upgrade: a running QEMU is replaced by a new one, and the guest's memory stays where it is.
 *
 * It is a migration on one host that leaves out the RAM (x-ignore-shared). The new QEMU is started by "run --take-over"
 * and waits; the former one writes the state of its devices into a pipe, which the new one reads. Until the new one is
 * told to go on, it has not run a single instruction of the guest, so whatever fails before is undone by killing it and
 * letting the former one go on. From then on there is no way back, for the former one's devices would be older than the
 * RAM. */

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "arguments.h"
#include "lib/json.h"
#include "qmp.h"
#include "verb.h"

#define SECOND        UINT64_C(1000000)
#define RECOVERY_USEC (30 * SECOND)
#define QUIT_USEC     (10 * SECOND)
#define POLL_USEC     UINT64_C(10000)

/* Of the migration, and of the file descriptor in the monitors. */
#define PIPE_NAME "privmem-upgrade"

typedef struct Upgrade {
        Session *session;
        const char *name;
        const char *monitor;
        Values backings;
        char **command;
        uint64_t timeout_usec;
        Qmp old;
        Qmp new;
        pid_t old_pid;
        pid_t new_pid; /* 0: there is none, or it has been waited for */
        int old_pidfd;
        bool old_runs;    /* the guest ran, and shall run again */
        bool old_ignores; /* the former QEMU had x-ignore-shared set */
        uint64_t state_bytes;
} Upgrade;

static volatile sig_atomic_t interrupted;
static volatile sig_atomic_t waits_for = -1; /* the connection to privmemd, which has no timeout of its own */

static void interrupt(int number) {
        if (number != SIGALRM)
                interrupted = true;
        if (waits_for >= 0)
                (void) shutdown(waits_for, SHUT_RDWR);
}

/* Rings each second from then on; never for 0. */
static void set_alarm(uint64_t usec) {
        const struct itimerval timer = {
                .it_value = { .tv_sec = (time_t) (usec / SECOND), .tv_usec = (suseconds_t) (usec % SECOND) },
                .it_interval.tv_sec = 1,
        };

        setitimer(ITIMER_REAL, &timer, NULL);
}

static bool wait_for_end(int pidfd, uint64_t usec) {
        uint64_t deadline = qmp_now() + usec;
        struct pollfd p = { .fd = pidfd, .events = POLLIN };

        while (poll(&p, 1, 10) <= 0)
                if (qmp_now() >= deadline)
                        return false;
        return true;
}

/* On a connection of its own: privmemd may have been restarted since the last one. */
static int list(Session *s, const char *method, json_object *parameters, const char *field, json_object **ret_reply) {
        int r;

        session_done(s);
        r = session_open(s);
        if (r != EXIT_OK) {
                json_object_put(parameters);
                return r;
        }
        waits_for = privmem_fd(s->p);
        if (interrupted)
                interrupt(SIGINT);
        r = session_list(s, method, parameters, field, ret_reply);
        waits_for = -1;
        return r;
}

/* ---- QMP ----------------------------------------------------------------------------------------------- */

static int complain_of(const Qmp *q, const char *which, pid_t pid) {
        complain("the %s QEMU, process %d: %s.", which, (int) pid, q->error);
        return EXIT_ERROR;
}

static int ask(Upgrade *u, Qmp *q, const char *command, json_object *arguments, int fd, json_object **ret_value) {
        if (qmp_call(q, command, arguments, fd, ret_value) == 0)
                return EXIT_OK;
        return q == &u->old ? complain_of(q, "former", u->old_pid) : complain_of(q, "new", u->new_pid);
}

static json_object *with_string(const char *field, const char *value) {
        json_object *arguments = json_object_new_object();

        (void) json_add_string(arguments, field, value);
        return arguments;
}

/* ---- the memory ---------------------------------------------------------------------------------------- */

static uint64_t count_shared(json_object *holders, pid_t pid) {
        uint64_t sum = 0, holder, bytes;

        for (size_t i = 0; i < json_object_array_length(holders); i++) {
                json_object *one = json_object_array_get_idx(holders, i);

                if (json_get_uint64(one, "pid", &holder) && holder == (uint64_t) pid &&
                    json_get_uint64(one, "sharedBytes", &bytes))
                        sum += bytes;
        }
        return sum;
}

/* All RAM of this QEMU must be the VM's: what is not would be lost, or copied over. */
static int check_memory(Upgrade *u, Qmp *q, pid_t pid) {
        json_object *reply = NULL, *summary = NULL;
        uint64_t base = 0, plugged = 0, shared;
        int r;

        r = ask(u, q, "query-memory-size-summary", /* arguments= */ NULL, /* fd= */ -1, &summary);
        if (r != EXIT_OK)
                return r;
        (void) json_get_uint64(summary, "base-memory", &base);
        (void) json_get_uint64(summary, "plugged-memory", &plugged);
        json_object_put(summary);

        r = list(u->session, "ListHolders", with_string("vm", u->name), "holders", &reply);
        if (r != EXIT_OK)
                return r;
        shared = count_shared(json_get_array(reply, "holders"), pid);
        json_object_put(reply);
        if (base > 0 && shared >= base + plugged)
                return EXIT_OK;

        complain("of the %" PRIu64 " bytes of RAM of process %d, only %" PRIu64
                 " are memory of VM %s: each must be a memory-backend-file with share=on.",
                 base + plugged, (int) pid, shared, u->name);
        return EXIT_ERROR;
}

/* ---- the former QEMU ----------------------------------------------------------------------------------- */

static int find_vmm(Upgrade *u) {
        json_object *reply = NULL, *vm;
        uint64_t pid = 0, other = 0;
        int r;

        r = list(u->session, "ListVMs", with_string("vm", u->name), "vms", &reply);
        if (r != EXIT_OK)
                return r;
        vm = json_object_array_get_idx(json_get_array(reply, "vms"), 0);
        (void) json_get_uint64(vm, "pid", &pid);
        (void) json_get_uint64(vm, "outgoingPID", &other);
        json_object_put(reply);

        if (other > 0) {
                complain("VM %s is being handed over: process %" PRIu64 " has not ended yet.", u->name, other);
                return EXIT_ERROR;
        }
        if (pid > 0)
                u->old_pidfd = (int) syscall(SYS_pidfd_open, (pid_t) pid, 0);
        if (u->old_pidfd < 0) {
                complain("VM %s has no VMM that could be replaced; \"run\" starts one.", u->name);
                return EXIT_ERROR;
        }
        u->old_pid = (pid_t) pid;
        return EXIT_OK;
}

static int connect_old(Upgrade *u) {
        char state[64];
        pid_t pid;

        if (qmp_connect(&u->old, u->monitor, &pid) < 0) {
                complain("cannot connect to the monitor %s.", u->old.error);
                return EXIT_ERROR;
        }
        if (pid != u->old_pid) {
                complain("%s is the socket of process %d, but the VMM of VM %s is process %d.", u->monitor, (int) pid,
                         u->name, (int) u->old_pid);
                return EXIT_ERROR;
        }
        if (qmp_greet(&u->old) != 0 || !qmp_string(&u->old, "query-status", "status", state, sizeof(state)))
                return complain_of(&u->old, "former", u->old_pid);
        u->old_runs = strcmp(state, "running") == 0;
        if (!u->old_runs && strcmp(state, "paused") != 0) {
                complain("VM %s is in the state \"%s\"; it must be running or paused.", u->name, state);
                return EXIT_ERROR;
        }

        if (qmp_get_ignore_shared(&u->old, &u->old_ignores) != 0)
                return complain_of(&u->old, "former", u->old_pid);
        return EXIT_OK;
}

/* ---- the new QEMU -------------------------------------------------------------------------------------- */

/* In the child. What QEMU prints goes to standard error, so that nobody waits for the end of standard output. */
static void execute(Upgrade *u, int monitor) {
        char chardev[64];
        size_t n = 0, n_command = 0;
        char **argv;
        int null;

        while (u->command[n_command])
                n_command++;
        argv = calloc(n_command + 2 * u->backings.n + 20, sizeof(char *));
        null = open("/dev/null", O_RDONLY | O_CLOEXEC);
        if (!argv || null < 0 || dup2(null, 0) < 0 || dup2(2, 1) < 0 || fcntl(monitor, F_SETFD, 0) < 0 || setsid() < 0)
                _exit(EXIT_ERROR);

        argv[n++] = (char *) "privmemctl";
        if (u->session->socket) {
                argv[n++] = (char *) "--socket";
                argv[n++] = (char *) u->session->socket;
        }
        argv[n++] = (char *) "run";
        argv[n++] = (char *) u->name;
        argv[n++] = (char *) "--take-over";
        for (size_t i = 0; i < u->backings.n; i++) {
                argv[n++] = (char *) "--backing";
                argv[n++] = (char *) u->backings.items[i];
        }
        argv[n++] = (char *) "--";
        for (size_t i = 0; i < n_command; i++)
                argv[n++] = u->command[i];
        snprintf(chardev, sizeof(chardev), "socket,id=" PIPE_NAME ",fd=%d", monitor);
        for (const char *const *more = (const char *const[]) { "-S", "-incoming", "defer", "-chardev", chardev, "-mon",
                                                               "chardev=" PIPE_NAME ",mode=control", NULL };
             *more; more++)
                argv[n++] = (char *) *more;

        execv("/proc/self/exe", argv);
        _exit(EXIT_ERROR);
}

static int complain_of_end(Upgrade *u) {
        int status;

        kill(u->new_pid, SIGKILL); /* it speaks no QMP, or has ended already */
        while (waitpid(u->new_pid, &status, 0) < 0 && errno == EINTR)
                ;
        if (WIFEXITED(status))
                complain("the new QEMU, process %d, has ended with exit status %d.", (int) u->new_pid,
                         WEXITSTATUS(status));
        else
                complain("the new QEMU, process %d: %s.", (int) u->new_pid, u->new.error);
        u->new_pid = 0;
        return EXIT_ERROR;
}

static int start_new(Upgrade *u) {
        int ends[2];

        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0) {
                complain("cannot make a socket: %s.", strerror(errno));
                return EXIT_ERROR;
        }
        u->new.fd = ends[0];
        u->new_pid = fork();
        if (u->new_pid == 0)
                execute(u, ends[1]);
        close(ends[1]);
        if (u->new_pid < 0) {
                complain("cannot start a process: %s.", strerror(errno));
                u->new_pid = 0;
                return EXIT_ERROR;
        }
        return qmp_greet(&u->new) == 0 ? EXIT_OK : complain_of_end(u);
}

/* ---- the migration ------------------------------------------------------------------------------------- */

/* Gives a QEMU its end of the pipe, and tells it to use it. */
static int engage(Upgrade *u, Qmp *q, const char *command, int fd) {
        int r;

        r = ask(u, q, "getfd", with_string("fdname", PIPE_NAME), fd, /* ret_value= */ NULL);
        if (r == EXIT_OK && qmp_set_ignore_shared(q, true) != 0)
                r = q == &u->old ? complain_of(q, "former", u->old_pid) : complain_of(q, "new", u->new_pid);
        if (r == EXIT_OK)
                r = ask(u, q, command, with_string("uri", "fd:" PIPE_NAME), /* fd= */ -1, /* ret_value= */ NULL);
        return r;
}

static void rest(void) {
        nanosleep(&(struct timespec) { .tv_nsec = 2 * 1000 * 1000 }, NULL);
}

static int wait_completed(Upgrade *u, Qmp *q) {
        for (;;) {
                json_object *value = NULL;
                const char *status, *text;
                int r;

                r = ask(u, q, "query-migrate", /* arguments= */ NULL, /* fd= */ -1, &value);
                if (r != EXIT_OK)
                        return r;
                status = json_get_string(value, "status");
                text = json_get_string(value, "error-desc");
                if (status && strcmp(status, "completed") == 0) {
                        if (q == &u->old)
                                (void) json_get_uint64(json_get_object(value, "ram"), "transferred", &u->state_bytes);
                        json_object_put(value);
                        return EXIT_OK;
                }
                if (status && (strcmp(status, "failed") == 0 || strcmp(status, "cancelled") == 0)) {
                        snprintf(q->error, sizeof(q->error), "migration %s: %s", status,
                                 text ? text : "no reason given");
                        json_object_put(value);
                        return q == &u->old ? complain_of(q, "former", u->old_pid) : complain_of(q, "new", u->new_pid);
                }
                json_object_put(value);
                rest();
        }
}

static int move_state(Upgrade *u) {
        int ends[2], r;

        if (pipe2(ends, O_CLOEXEC) < 0) {
                complain("cannot make a pipe: %s.", strerror(errno));
                return EXIT_ERROR;
        }
        r = engage(u, &u->new, "migrate-incoming", ends[0]);
        if (r == EXIT_OK)
                r = engage(u, &u->old, "migrate", ends[1]);
        /* Now the end of one process is an error for the other. */
        close(ends[0]);
        close(ends[1]);
        if (r == EXIT_OK)
                r = wait_completed(u, &u->old);
        if (r == EXIT_OK)
                r = wait_completed(u, &u->new);
        return r;
}

/* ---- there and back ------------------------------------------------------------------------------------ */

/* Whether the former QEMU is as it was. One step of many: nothing here can be waited for in another way. */
static bool goes_on(Upgrade *u) {
        char migration[64], state[64];

        if (!qmp_string(&u->old, "query-migrate", "status", migration, sizeof(migration)) ||
            !qmp_string(&u->old, "query-status", "status", state, sizeof(state)))
                return false;
        if (strcmp(migration, "none") != 0 && strcmp(migration, "completed") != 0 &&
            strcmp(migration, "failed") != 0 && strcmp(migration, "cancelled") != 0) {
                (void) qmp_call(&u->old, "migrate_cancel", /* arguments= */ NULL, /* fd= */ -1, /* ret_value= */ NULL);
                return false;
        }
        if (u->old_runs && strcmp(state, "running") != 0) {
                (void) qmp_call(&u->old, "cont", /* arguments= */ NULL, /* fd= */ -1, /* ret_value= */ NULL);
                return false;
        }
        return u->old_ignores || qmp_set_ignore_shared(&u->old, false) == 0;
}

static void go_back(Upgrade *u) {
        set_alarm(0);
        if (u->new_pid > 0) {
                kill(u->new_pid, SIGKILL);
                while (waitpid(u->new_pid, NULL, 0) < 0 && errno == EINTR)
                        ;
                u->new_pid = 0;
        }
        u->old.stop = NULL;
        u->old.deadline_usec = qmp_now() + RECOVERY_USEC;
        while (!goes_on(u)) {
                bool ended = wait_for_end(u->old_pidfd, POLL_USEC);

                if (ended || qmp_now() >= u->old.deadline_usec) {
                        complain("VM %s: the former QEMU, process %d, does not go on: %s.", u->name, (int) u->old_pid,
                                 ended ? "it has ended" : u->old.error);
                        return;
                }
        }
        complain("VM %s %s in process %d, as before.", u->name, u->old_runs ? "goes on" : "stays paused",
                 (int) u->old_pid);
}

/* From here on no signal stops it. */
static int go_on(Upgrade *u) {
        int r = 0;

        if (interrupted) {
                complain("interrupted.");
                go_back(u);
                return EXIT_ERROR;
        }
        u->new.stop = u->old.stop = NULL;
        set_alarm(0);
        if (u->old_runs)
                r = qmp_call(&u->new, "cont", /* arguments= */ NULL, /* fd= */ -1, /* ret_value= */ NULL);
        if (r == QMP_E_REFUSED) { /* it may not have the disks */
                complain_of(&u->new, "new", u->new_pid);
                go_back(u);
                return EXIT_ERROR;
        }
        if (r < 0) {
                complain_of(&u->new, "new", u->new_pid);
                complain("the guest may have run in it, so the former QEMU, process %d, stays stopped.",
                         (int) u->old_pid);
                return EXIT_ERROR;
        }
        if (qmp_set_ignore_shared(&u->new, false) != 0)
                complain("the new QEMU keeps x-ignore-shared, which must be cleared before it is migrated: %s.",
                         u->new.error);
        return EXIT_OK;
}

static void end_old(Upgrade *u) {
        u->old.deadline_usec = qmp_now() + QUIT_USEC;
        (void) qmp_call(&u->old, "quit", /* arguments= */ NULL, /* fd= */ -1, /* ret_value= */ NULL);
        if (wait_for_end(u->old_pidfd, QUIT_USEC))
                return;
        (void) syscall(SYS_pidfd_send_signal, u->old_pidfd, SIGKILL, NULL, 0);
        if (!wait_for_end(u->old_pidfd, QUIT_USEC))
                complain("the former QEMU, process %d, has not ended; it is stopped.", (int) u->old_pid);
}

static int report(Upgrade *u) {
        bool timed = u->new.resumed_usec > u->old.stopped_usec && u->old.stopped_usec > 0;
        uint64_t stood = timed ? u->new.resumed_usec - u->old.stopped_usec : 0;
        json_object *document;
        int r = EXIT_OK;

        if (!u->session->json) {
                printf("VM %s %s in process %d; process %d has ended.\n", u->name,
                       u->old_runs ? "goes on" : "is paused", (int) u->new_pid, (int) u->old_pid);
                printf("%" PRIu64 " KiB of state moved", u->state_bytes / 1024);
                if (timed)
                        printf("; the guest stood still for %" PRIu64 " ms", stood / 1000);
                puts(".");
                return EXIT_OK;
        }
        document = json_object_new_object();
        if (json_add_string(document, "vm", u->name) && json_add_uint64(document, "pid", (uint64_t) u->new_pid) &&
            json_add_uint64(document, "formerPID", (uint64_t) u->old_pid) &&
            json_add_uint64(document, "stateBytes", u->state_bytes) &&
            json_add_uint64(document, "stoodStillUSec", stood))
                r = session_print(document);
        else
                r = out_of_memory();
        json_object_put(document);
        return r;
}

/* ---- the verb ------------------------------------------------------------------------------------------ */

static int check_command(const Upgrade *u) {
        static const char *const wrong[] = { "-incoming",   "--incoming", "-daemonize",
                                             "--daemonize", "-preconfig", "--preconfig" };

        for (char **word = u->command; *word; word++)
                for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
                        if (strcmp(*word, wrong[i]) == 0) {
                                complain("the command must not have %s: upgrade needs the process, and adds -incoming "
                                         "and -S itself.",
                                         *word);
                                return EXIT_USAGE;
                        }
        return EXIT_OK;
}

static int upgrade(Upgrade *u) {
        static const int signals[] = { SIGINT, SIGTERM, SIGHUP };
        int r;

        u->old.deadline_usec = u->new.deadline_usec = qmp_now() + u->timeout_usec;
        u->old.stop = u->new.stop = &interrupted;
        for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
                struct sigaction before;

                if (sigaction(signals[i], NULL, &before) == 0 && before.sa_handler != SIG_IGN) /* nohup */
                        sigaction(signals[i], &(struct sigaction) { .sa_handler = interrupt }, NULL);
        }
        sigaction(SIGALRM, &(struct sigaction) { .sa_handler = interrupt }, NULL);
        set_alarm(u->timeout_usec);

        r = find_vmm(u);
        if (r == EXIT_OK)
                r = connect_old(u);
        if (r == EXIT_OK)
                r = check_memory(u, &u->old, u->old_pid);
        if (r != EXIT_OK)
                return r; /* nothing has been changed yet */

        r = start_new(u);
        if (r == EXIT_OK)
                r = check_memory(u, &u->new, u->new_pid);
        if (r == EXIT_OK)
                r = move_state(u);
        if (r != EXIT_OK) {
                go_back(u);
                return r;
        }
        r = go_on(u);
        if (r != EXIT_OK)
                return r;
        end_old(u);
        return report(u);
}

int verb_upgrade(Session *s, const Verb *verb, char **arguments) {
        const char *timeout = NULL;
        Upgrade u = { .session = s, .timeout_usec = 60 * SECOND, .old_pidfd = -1, .old.fd = -1, .new.fd = -1 };
        const Option options[] = {
                { "monitor", .value = &u.monitor },
                { "backing", .values = &u.backings },
                { "timeout", .value = &timeout },
                {},
        };
        Arguments a;
        int r;

        r = verb_parse(s, verb, arguments, options, 1, 1, &a);
        if (r != EXIT_OK || a.answered)
                return r;
        if (!u.monitor || !a.command || !a.command[0]) {
                complain("upgrade needs --monitor= and a command behind --.");
                return EXIT_USAGE;
        }
        u.name = a.items[0];
        u.command = a.command;
        r = check_command(&u);
        if (r == EXIT_OK && timeout)
                r = arguments_time("the timeout", timeout, &u.timeout_usec);
        if (r == EXIT_OK)
                r = upgrade(&u);

        qmp_close(&u.old);
        qmp_close(&u.new);
        if (u.old_pidfd >= 0)
                close(u.old_pidfd);
        return r;
}
