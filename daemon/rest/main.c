/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <getopt.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "rest/access.h"
#include "rest/events.h"
#include "rest/gateway.h"
#include "rest/http.h"
#include "rest/lines.h"
#include "rest/listen.h"
#include "rest/loop.h"
#include "rest/metrics.h"
#include "rest/page.h"
#include "rest/settings.h"
#include "rest/token.h"
#include "rest/upstream.h"

#define SOCKET "/run/privmemd/io.privmemd.Memory"

static const char help[] = "privmem-rest [OPTIONS...]\n"
                           "\n"
                           "Gives orchestrators the memory of the KVM guests on this host over HTTP: asks privmemd,\n"
                           "and never holds any of it.\n"
                           "\n"
                           "  --listen=unix:PATH\n"
                           "  --listen=tls:ADDRESS:PORT\n"
                           "                 Listen there; else on the sockets that the service manager passes.\n"
                           "                 May be given several times\n"
                           "  --group=NAME   Its members may do everything; privmem if not given\n"
                           "  --socket=PATH  Where privmemd is; else $PRIVMEM_SOCKET; else\n"
                           "                 " SOCKET "\n"
                           "  --heartbeat=SEC\n"
                           "                 Break the silence of GET /v1/events so often; 15 seconds if not given\n"
                           "  --wait=SEC     How long a request waits for privmemd to be there; 5 seconds if not\n"
                           "                 given\n"
                           "  --timeout=SEC  How long privmemd may take for an answer; 30 seconds if not given\n"
                           "  --config=PATH  Read the settings there; else from\n"
                           "                 " PRIVMEM_REST_CONF ", if it is there\n"
                           "  --new-token=NAME,inspect|manage,DURATION\n"
                           "                 Print a new bearer token, and the line for the file of Tokens=\n"
                           "  -h --help      Show this help\n"
                           "     --version   Show the version\n";

#define ADDRESSES_MAX 8

typedef struct Options {
        const char *socket;
        const char *group;
        const char *config; /* NULL: the usual place, where none need be */
        const char *new_token;
        const char *addresses[ADDRESSES_MAX];
        size_t n_addresses;
        EventsSettings events;
        uint64_t wait_usec, timeout_usec; /* 0 if not given */
} Options;

/* All that lives as long as the program. */
typedef struct Program {
        Loop *loop;
        LoopWatch signals;
        Settings settings;
        Access *access;
        Upstream *upstream;
        Gateway *gateway;
        Pages *pages;
        Events *events;
        Metrics *metrics;
        Http *http;
        Listeners *listeners;
} Program;

/* 1 to 3600 seconds. */
static int parse_seconds(const char *option, const char *text, uint64_t *ret_usec) {
        unsigned long seconds;
        char *end;

        errno = 0;
        seconds = strtoul(text, &end, 10);
        if (errno != 0 || *end || text[0] < '1' || text[0] > '9' || seconds > 3600) {
                fprintf(stderr, "privmem-rest: --%s=%s is no number of seconds from 1 to 3600.\n", option, text);
                return -EINVAL;
        }
        *ret_usec = seconds * LOOP_SEC;
        return 0;
}

static int add_address(Options *options, const char *address) {
        if (options->n_addresses == ADDRESSES_MAX) {
                fputs("privmem-rest: too many --listen=.\n", stderr);
                return -EINVAL;
        }
        options->addresses[options->n_addresses++] = address;
        return 0;
}

/* 1: go on; 0: done; negative: wrong usage. */
static int parse_arguments(int argc, char *argv[], Options *ret) {
        enum {
                OPTION_CONFIG = 256,
                OPTION_GROUP,
                OPTION_HEARTBEAT,
                OPTION_LISTEN,
                OPTION_NEW_TOKEN,
                OPTION_SOCKET,
                OPTION_TIMEOUT,
                OPTION_VERSION,
                OPTION_WAIT,
        };
        static const struct option options[] = {
                { "config", required_argument, NULL, OPTION_CONFIG },
                { "group", required_argument, NULL, OPTION_GROUP },
                { "heartbeat", required_argument, NULL, OPTION_HEARTBEAT },
                { "help", no_argument, NULL, 'h' },
                { "listen", required_argument, NULL, OPTION_LISTEN },
                { "new-token", required_argument, NULL, OPTION_NEW_TOKEN },
                { "socket", required_argument, NULL, OPTION_SOCKET },
                { "timeout", required_argument, NULL, OPTION_TIMEOUT },
                { "version", no_argument, NULL, OPTION_VERSION },
                { "wait", required_argument, NULL, OPTION_WAIT },
                {},
        };
        int c;

        while ((c = getopt_long(argc, argv, "h", options, NULL)) >= 0)
                switch (c) {
                case OPTION_CONFIG:
                        ret->config = optarg;
                        break;
                case OPTION_GROUP:
                        ret->group = optarg;
                        break;
                case OPTION_HEARTBEAT:
                        if (parse_seconds("heartbeat", optarg, &ret->events.heartbeat_usec) < 0)
                                return -EINVAL;
                        break;
                case OPTION_LISTEN:
                        if (add_address(ret, optarg) < 0)
                                return -EINVAL;
                        break;
                case OPTION_NEW_TOKEN:
                        ret->new_token = optarg;
                        break;
                case OPTION_SOCKET:
                        ret->socket = optarg;
                        break;
                case OPTION_TIMEOUT:
                        if (parse_seconds("timeout", optarg, &ret->timeout_usec) < 0)
                                return -EINVAL;
                        break;
                case OPTION_WAIT:
                        if (parse_seconds("wait", optarg, &ret->wait_usec) < 0)
                                return -EINVAL;
                        break;
                case OPTION_VERSION:
                        puts("privmem-rest " PRIVMEMD_VERSION);
                        return 0;
                case 'h':
                        fputs(help, stdout);
                        return 0;
                default:
                        return -EINVAL;
                }
        if (optind < argc) {
                fprintf(stderr, "privmem-rest: unexpected argument: %s\n", argv[optind]);
                return -EINVAL;
        }
        return 1;
}

/* Says something to the service manager, if there is one: sd_notify(3). */
static void notify(const char *state) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        const char *path = getenv("NOTIFY_SOCKET");
        size_t length = path ? strlen(path) : 0;
        int fd;

        if (length == 0 || length >= sizeof(address.sun_path))
                return;
        memcpy(address.sun_path, path, length);
        if (path[0] == '@')
                address.sun_path[0] = 0;
        fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        if (fd < 0)
                return;
        (void) sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *) &address,
                      (socklen_t) (offsetof(struct sockaddr_un, sun_path) + length));
        close(fd);
}

/* ---- signals ---- */

/* Type=notify-reload; there is no word for failure but the status line. */
static void reload(Program *program) {
        char *message = NULL, state[1024];
        struct timespec now;
        int r;

        clock_gettime(CLOCK_MONOTONIC, &now);
        snprintf(state, sizeof(state), "RELOADING=1\nMONOTONIC_USEC=%lld",
                 (long long) now.tv_sec * 1000000 + now.tv_nsec / 1000);
        notify(state);
        r = access_reload(program->access, &message);
        if (r == 0) {
                http_end_tls_streams(program->http);
                notify("READY=1\nSTATUS=");
                return;
        }
        fprintf(stderr, "privmem-rest: certificates and tokens stay as they were: %s\n", message ?: strerror(-r));
        snprintf(state, sizeof(state), "READY=1\nSTATUS=Certificates and tokens stay as they were: %s",
                 message ?: strerror(-r));
        notify(state);
        free(message);
}

static void on_signal(uint32_t events, void *userdata) {
        Program *program = userdata;
        struct signalfd_siginfo info;

        (void) events;
        if (read(program->signals.fd, &info, sizeof(info)) != sizeof(info))
                return;
        if (info.ssi_signo == SIGTERM || info.ssi_signo == SIGINT)
                loop_stop(program->loop);
        else
                reload(program);
}

static int watch_signals(Program *program) {
        sigset_t set;
        int fd;

        sigemptyset(&set);
        sigaddset(&set, SIGTERM);
        sigaddset(&set, SIGINT);
        sigaddset(&set, SIGHUP);
        if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
                return -errno;
        signal(SIGPIPE, SIG_IGN);
        fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
        if (fd < 0)
                return -errno;
        program->signals = (LoopWatch) { .fd = fd, .function = on_signal, .userdata = program };
        return loop_watch(program->loop, &program->signals, EPOLLIN);
}

/* ---- start and end ---- */

static gid_t find_group(const char *name) {
        const struct group *group = getgrnam(name ?: "privmem");

        if (!group && name)
                fprintf(stderr, "privmem-rest: there is no group %s; only root may do anything.\n", name);
        return group ? group->gr_gid : (gid_t) -1;
}

static int complain(int r, char *message) {
        fprintf(stderr, "privmem-rest: cannot start: %s\n", message ?: strerror(-r));
        free(message);
        return -EINVAL;
}

static int configure(Program *p, const Options *options) {
        const char *path = options->config ?: PRIVMEM_REST_CONF;
        char *message = NULL;
        int r;

        r = settings_read(path, &p->settings, &message);
        if (r == -ENOENT && !options->config) {
                p->settings = SETTINGS_DEFAULT;
                r = 0;
        } else if (r < 0) {
                fprintf(stderr, "privmem-rest: cannot start: cannot read %s: %s\n", path, strerror(-r));
                return r;
        }
        if (r == 0)
                r = access_new(&p->settings, &p->access, &message);
        return r == 0 ? 0 : complain(r, message);
}

static int make_events(Program *p, const Options *options) {
        EventsSettings settings = options->events;

        settings.subscribers = p->settings.subscribers;
        settings.per_caller = p->settings.subscribers_per_caller;
        return events_new(p->loop, p->upstream, p->gateway, &settings, &p->events);
}

static int make(Program *p, const Options *options) {
        UpstreamSettings upstream = UPSTREAM_SETTINGS_DEFAULT;
        HttpHandler handler;
        int r;

        upstream.path = options->socket ?: getenv("PRIVMEM_SOCKET") ?: SOCKET;
        if (options->wait_usec > 0)
                upstream.wait_usec = options->wait_usec;
        if (options->timeout_usec > 0)
                upstream.call_usec = options->timeout_usec;
        r = loop_new(&p->loop);
        if (r == 0)
                r = watch_signals(p);
        if (r == 0)
                r = upstream_new(p->loop, &upstream, &p->upstream);
        if (r == 0)
                r = gateway_new(p->upstream, &p->gateway);
        if (r == 0)
                r = pages_new(p->gateway, p->upstream, &p->pages);
        if (r == 0)
                r = make_events(p, options);
        if (r == 0)
                r = metrics_new(p->upstream, p->gateway, p->events, &p->metrics);
        if (r == 0) {
                gateway_set_access(p->gateway, p->access);
                handler = gateway_handler(p->gateway);
                r = http_new(p->loop, &p->settings.http, &handler, &p->http);
        }
        if (r == 0 && access_tls(p->access))
                r = http_start_tls(p->http, access_tls(p->access));
        if (r == 0)
                r = listeners_new(p->loop, p->http, find_group(options->group), &p->listeners);
        if (r < 0)
                fprintf(stderr, "privmem-rest: cannot start: %s\n", strerror(-r));
        return r;
}

static const char *listen_error(int r) {
        switch (r) {
        case -EINVAL:
                return "it must be unix:PATH or tls:ADDRESS:PORT";
        case -EPROTONOSUPPORT:
                return "there is no TCP without TLS; set Certificate= and Key= in privmem-rest.conf";
        case -ENOTSOCK:
                return "it is no socket to listen on";
        default:
                return strerror(-r);
        }
}

static int listen_somewhere(Program *p, const Options *options) {
        int r;

        r = listeners_take_passed(p->listeners);
        if (r < 0)
                fprintf(stderr, "privmem-rest: cannot take what the service manager passed: %s\n", listen_error(r));
        if (r == 0 && options->n_addresses == 0) {
                fputs("privmem-rest: no socket was passed; say where to listen with --listen=unix:PATH.\n", stderr);
                return -EINVAL;
        }
        for (size_t i = 0; r >= 0 && i < options->n_addresses; i++) {
                r = listeners_open(p->listeners, options->addresses[i]);
                if (r < 0)
                        fprintf(stderr, "privmem-rest: cannot listen on %s: %s\n", options->addresses[i],
                                listen_error(r));
        }
        return r;
}

static void unmake(Program *p) {
        listeners_free(p->listeners);
        http_free(p->http);
        metrics_free(p->metrics);
        events_free(p->events);
        pages_free(p->pages);
        gateway_free(p->gateway);
        upstream_free(p->upstream);
        access_free(p->access);
        settings_done(&p->settings);
        if (p->signals.is_on)
                close(p->signals.fd);
        loop_free(p->loop);
}

static int run(const Options *options) {
        Program program = {};
        int r;

        r = configure(&program, options);
        if (r >= 0)
                r = make(&program, options);
        if (r >= 0)
                r = listen_somewhere(&program, options);
        if (r >= 0) {
                notify("READY=1");
                r = loop_run(program.loop);
                if (r < 0)
                        fprintf(stderr, "privmem-rest: the event loop failed: %s\n", strerror(-r));
                notify("STOPPING=1");
        }
        unmake(&program);
        return r;
}

static int make_token(const char *description) {
        char *message = NULL;
        int r;

        r = token_print_new(description, time(NULL), &message);
        if (r != 0)
                fprintf(stderr, "privmem-rest: --new-token=%s: %s\n", description, message ?: strerror(-r));
        free(message);
        return r == 0 ? 0 : -EINVAL;
}

int main(int argc, char *argv[]) {
        Options options = { .events = EVENTS_SETTINGS_DEFAULT };
        int r;

        r = parse_arguments(argc, argv, &options);
        if (r <= 0)
                return r < 0 ? 2 : EXIT_SUCCESS;
        if (options.new_token)
                return make_token(options.new_token) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
        return run(&options) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
