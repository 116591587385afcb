/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <time.h>

#include "api/interface.h"
#include "config.h"
#include "core/cleanup.h"
#include "host/fd-store.h"
#include "manager.h"

static const char help[] = "privmemd [OPTIONS...]\n"
                           "\n"
                           "Allots, hands out, guards and keeps the memory of the KVM guests on this host.\n"
                           "\n"
                           "  --socket=PATH  Listen there; else on the sockets that the service manager\n"
                           "                 passes; else on /run/privmemd/" PRIVMEMD_INTERFACE ",\n"
                           "                 or as an ordinary user on the same name below\n"
                           "                 $XDG_RUNTIME_DIR\n"
                           "  --ledger=DIRECTORY\n"
                           "                 Without a service manager that keeps file descriptors, keep the\n"
                           "                 ledger there; else beside the usual socket, if that is used.\n"
                           "                 Empty: nowhere\n"
                           "  --config=PATH  Read the settings there, at the start and on SIGHUP; else from\n"
                           "                 " PRIVMEMD_CONF ", if it is there\n"
                           "  -h --help      Show this help\n"
                           "     --version   Show the version\n";

typedef struct Options {
        const char *socket;
        const char *ledger; /* NULL: beside the usual socket; empty: nowhere */
        const char *config; /* NULL: the usual place, where none need be */
} Options;

/* 1: go on; 0: done; negative: wrong usage. */
static int parse_arguments(int argc, char *argv[], Options *ret) {
        enum {
                OPTION_CONFIG = 256,
                OPTION_LEDGER,
                OPTION_SOCKET,
                OPTION_VERSION,
        };
        static const struct option options[] = {
                { "config", required_argument, NULL, OPTION_CONFIG },
                { "ledger", required_argument, NULL, OPTION_LEDGER },
                { "socket", required_argument, NULL, OPTION_SOCKET },
                { "help", no_argument, NULL, 'h' },
                { "version", no_argument, NULL, OPTION_VERSION },
                {},
        };
        int c;

        while ((c = getopt_long(argc, argv, "h", options, NULL)) >= 0)
                switch (c) {
                case OPTION_CONFIG:
                        ret->config = optarg;
                        break;
                case OPTION_LEDGER:
                        ret->ledger = optarg;
                        break;
                case OPTION_SOCKET:
                        ret->socket = optarg;
                        break;
                case 'h':
                        fputs(help, stdout);
                        return 0;
                case OPTION_VERSION:
                        puts("privmemd " PRIVMEMD_VERSION);
                        return 0;
                default:
                        return -EINVAL;
                }
        if (optind < argc) {
                fprintf(stderr, "privmemd: unexpected argument '%s'; see privmemd --help\n", argv[optind]);
                return -EINVAL;
        }
        return 1;
}

/* One fd for each backing and each VMM. */
static void raise_fd_limit(void) {
        struct rlimit limit;

        if (getrlimit(RLIMIT_NOFILE, &limit) >= 0) {
                limit.rlim_cur = limit.rlim_max;
                (void) setrlimit(RLIMIT_NOFILE, &limit);
        }
}

/* ---- settings ---- */

/* On failure *ret_message is what people have to know; NULL if there is no memory for it. */
static int read_config(const Options *options, Config *ret, char **ret_message) {
        const char *path = options->config ?: PRIVMEMD_CONF;
        int r;

        *ret_message = NULL;
        r = config_read(path, ret, ret_message);
        if (r == -ENOENT && !options->config) {
                config_default(ret);
                return 0;
        }
        if (r < 0 && asprintf(ret_message, "cannot read %s: %s", path, strerror(-r)) < 0)
                *ret_message = NULL;
        return r > 0 ? -EINVAL : r;
}

typedef struct Reload {
        const Options *options;
        Manager *manager;
} Reload;

static uint64_t monotonic_usec(void) {
        struct timespec now = {};

        (void) clock_gettime(CLOCK_MONOTONIC, &now);
        return (uint64_t) now.tv_sec * UINT64_C(1000000) + (uint64_t) now.tv_nsec / 1000;
}

/* The protocol of Type=notify-reload has no word for failure, so the status line says it. */
static int on_reload(sd_event_source *source, const struct signalfd_siginfo *info, void *userdata) {
        _cleanup_free_ char *message = NULL;
        Reload *reload = userdata;
        Config config;
        int r;

        (void) source;
        (void) info;
        (void) sd_notifyf(false, "RELOADING=1\nMONOTONIC_USEC=%" PRIu64, monotonic_usec());
        r = read_config(reload->options, &config, &message);
        if (r >= 0)
                r = manager_configure(reload->manager, &config);
        if (r >= 0) {
                (void) sd_notify(false, "READY=1\nSTATUS=");
                return 0;
        }
        fprintf(stderr, "privmemd: the settings stay as they were: %s\n", message ?: strerror(-r));
        (void) sd_notifyf(false, "READY=1\nSTATUS=The settings stay as they were: %s", message ?: strerror(-r));
        return 0;
}

/* ---- start ---- */

/* A client that calls without end must not keep us from hearing them. */
static int exit_on(sd_event *event, int number) {
        _cleanup_(sd_event_source_unrefp) sd_event_source *source = NULL;
        int r;

        r = sd_event_add_signal(event, &source, number | SD_EVENT_SIGNAL_PROCMASK, /* callback= */ NULL, NULL);
        if (r >= 0)
                r = sd_event_source_set_priority(source, SD_EVENT_PRIORITY_IMPORTANT);
        return r < 0 ? r : sd_event_source_set_floating(source, true);
}

/* SIGTERM and SIGINT end the loop; a client that hangs up, or a file beyond RLIMIT_FSIZE, is an error code. */
static int set_signals(sd_event *event) {
        int r;

        signal(SIGPIPE, SIG_IGN);
        signal(SIGXFSZ, SIG_IGN);
        r = exit_on(event, SIGTERM);
        return r < 0 ? r : exit_on(event, SIGINT);
}

/* Where the usual socket and the ledger are, made if need be; the caller frees *ret. -ENXIO: an ordinary user without
 * XDG_RUNTIME_DIR. */
static int runtime_directory(char **ret) {
        _cleanup_free_ char *directory = NULL;
        const char *runtime = "/run";
        bool is_root = geteuid() == 0;

        if (!is_root) {
                runtime = getenv("XDG_RUNTIME_DIR");
                if (!runtime || runtime[0] != '/')
                        return -ENXIO;
        }
        if (asprintf(&directory, "%s/privmemd", runtime) < 0)
                return -ENOMEM;
        if (mkdir(directory, is_root ? 0755 : 0700) < 0 && errno != EEXIST)
                return -errno;
        *ret = TAKE_PTR(directory);
        return 0;
}

/* What the service manager made for us, when it gives us sockets; *ret is NULL if the ledger is nowhere. */
static int ledger_directory(const Options *options, bool sockets_passed, char **ret) {
        const char *made = getenv("RUNTIME_DIRECTORY");

        *ret = NULL;
        if (options->ledger)
                made = options->ledger[0] ? options->ledger : NULL;
        else if (options->socket)
                return 0;
        else if (!sockets_passed && !made)
                return runtime_directory(ret);
        if (!made)
                return 0;
        *ret = strdup(made);
        return *ret ? 0 : -ENOMEM;
}

static bool are_sockets_passed(const PassedFds *passed) {
        for (size_t i = 0; i < passed->n; i++)
                if (strcmp(passed->items[i].name, "varlink") == 0)
                        return true;
        return false;
}

static int usual_socket(char **ret) {
        _cleanup_free_ char *directory = NULL;
        int r;

        r = runtime_directory(&directory);
        if (r < 0)
                return r;
        return asprintf(ret, "%s/" PRIVMEMD_INTERFACE, directory) < 0 ? -ENOMEM : 0;
}

/* Returns how many sockets were passed for us to listen on. */
static int listen_on_passed(Front *front, PassedFds *passed) {
        int n = 0, r;

        for (;;) {
                _cleanup_close_ int fd = fd_store_take(passed, "varlink");

                if (fd < 0)
                        return n;
                r = front_listen_passed(front, fd);
                if (r < 0)
                        return r;
                TAKE_FD(fd);
                n++;
        }
}

/* Sets *ret_path if we made the socket and have to remove it. */
static int listen_somewhere(Front *front, PassedFds *passed, const char *path, char **ret_path) {
        _cleanup_free_ char *chosen = NULL;
        int r;

        if (path) {
                chosen = strdup(path);
                r = chosen ? 0 : -ENOMEM;
        } else {
                r = listen_on_passed(front, passed);
                if (r > 0)
                        return 0;
                if (r == 0)
                        r = usual_socket(&chosen);
        }
        if (r >= 0)
                r = front_listen(front, chosen, geteuid() == 0 ? 0666 : 0600);
        switch (r) {
        case -EEXIST:
                fprintf(stderr, "privmemd: %s is there and is no socket; remove it or choose another path\n", chosen);
                break;
        case -EADDRINUSE:
                fprintf(stderr, "privmemd: another process listens on %s; stop it or choose another path\n", chosen);
                break;
        default:
                if (r < 0)
                        fprintf(stderr, "privmemd: cannot listen on %s: %s\n", chosen ?: "the default socket",
                                strerror(-r));
                else
                        *ret_path = TAKE_PTR(chosen);
        }
        return r;
}

static void close_unused(PassedFds *passed) {
        for (size_t i = 0; i < passed->n; i++)
                if (passed->items[i].fd >= 0)
                        fprintf(stderr, "privmemd: the service manager passed '%s', which is not used; closing it\n",
                                passed->items[i].name);
        fd_store_passed_done(passed);
}

/* The settings come last: whoever has more than they allow keeps it. */
static int start(const Options *options, sd_event *event, PassedFds *passed, Reload *ret) {
        _cleanup_free_ char *message = NULL, *directory = NULL;
        Config config;
        int r;

        r = read_config(options, &config, &message);
        if (r >= 0)
                r = set_signals(event);
        if (r >= 0)
                r = sd_event_set_watchdog(event, true);
        if (r >= 0)
                r = ledger_directory(options, are_sockets_passed(passed), &directory);
        if (r == -ENXIO)
                message = strdup("XDG_RUNTIME_DIR is not set; set it or give --socket=PATH");
        if (r >= 0) {
                r = manager_new(event, passed, directory, &ret->manager);
                if (r != 0) {
                        message = strdup(manager_explain(r));
                        r = r < 0 ? r : -EIO;
                }
        }
        if (r >= 0)
                r = manager_configure(ret->manager, &config);
        if (r >= 0)
                r = sd_event_add_signal(event, /* ret= */ NULL, SIGHUP | SD_EVENT_SIGNAL_PROCMASK, on_reload, ret);
        if (r < 0) {
                fprintf(stderr, "privmemd: cannot start: %s\n", message ?: strerror(-r));
                (void) sd_notifyf(false, "STATUS=Cannot start: %s", message ?: strerror(-r));
        }
        return r;
}

static int run(const Options *options) {
        _cleanup_(sd_event_unrefp) sd_event *event = NULL;
        _cleanup_free_ char *made = NULL;
        _cleanup_(fd_store_passed_done) PassedFds passed = {};
        Reload reload = { .options = options };
        int r;

        raise_fd_limit();
        r = fd_store_passed(&passed);
        if (r >= 0)
                r = sd_event_default(&event);
        if (r < 0) {
                fprintf(stderr, "privmemd: cannot start: %s\n", strerror(-r));
                return r;
        }
        r = start(options, event, &passed, &reload);
        if (r >= 0)
                r = listen_somewhere(manager_front(reload.manager), &passed, options->socket, &made);
        if (r >= 0) {
                close_unused(&passed);
                (void) sd_notify(false, "READY=1");
                r = sd_event_loop(event);
                /* We are ending already; a second signal must not end us otherwise. */
                signal(SIGTERM, SIG_IGN);
                signal(SIGINT, SIG_IGN);
                if (r < 0)
                        fprintf(stderr, "privmemd: the event loop failed: %s\n", strerror(-r));
                (void) sd_notify(false, "STOPPING=1");
        }
        if (made)
                unlink(made);
        manager_free(reload.manager);
        return r;
}

int main(int argc, char *argv[]) {
        Options options = {};
        int r;

        r = parse_arguments(argc, argv, &options);
        if (r <= 0)
                return r < 0 ? 2 : EXIT_SUCCESS;
        return run(&options) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
