/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Clients of HTTP, the same for every server: so many connections that are kept, one request at a time on each, and one
 * thread for all of them.
 *
 * usage: bench-rest-client PATH CONNECTIONS unix SOCKET
 *        bench-rest-client PATH CONNECTIONS tls PORT CA CERTIFICATE KEY
 *
 * Checks first that each answer is the backing that the benchmark is about. Then, for each number on standard input: so
 * many requests, and the time that they took by the number of them, in ns, on standard output. */

#include <fcntl.h>
#include <gnutls/gnutls.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <sys/epoll.h>

#include "bench.h"

#define CONNECTIONS_MAX 64
#define REQUESTS_MAX    1000000
#define WARM_UP         500

typedef struct Connection {
        int fd;
        gnutls_session_t session; /* NULL: without TLS */
        char answer[16384];
        size_t length;
} Connection;

static struct {
        int epoll;
        size_t n;
        Connection connections[CONNECTIONS_MAX];
        char request[512];
        size_t request_length;
        gnutls_certificate_credentials_t credentials;
} clients;

/* ---- connections --------------------------------------------------------------------------------------- */

static void load_certificates(const char *ca, const char *certificate, const char *key) {
        if (gnutls_certificate_allocate_credentials(&clients.credentials) < 0 ||
            gnutls_certificate_set_x509_trust_file(clients.credentials, ca, GNUTLS_X509_FMT_PEM) <= 0 ||
            gnutls_certificate_set_x509_key_file(clients.credentials, certificate, key, GNUTLS_X509_FMT_PEM) < 0)
                die("cannot read the certificates");
}

static int connect_to_port(const char *port) {
        struct sockaddr_in address = {
                .sin_family = AF_INET,
                .sin_port = htons((uint16_t) atoi(port)),
                .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
        };
        int fd, one = 1;

        fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0 || connect(fd, (struct sockaddr *) &address, sizeof(address)) < 0 ||
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) < 0)
                die("cannot connect to port %s: %m", port);
        return fd;
}

static void shake_hands(Connection *c) {
        int r;

        if (gnutls_init(&c->session, GNUTLS_CLIENT) < 0 || gnutls_set_default_priority(c->session) < 0 ||
            gnutls_credentials_set(c->session, GNUTLS_CRD_CERTIFICATE, clients.credentials) < 0)
                die("cannot begin TLS");
        gnutls_session_set_verify_cert(c->session, "localhost", 0);
        gnutls_transport_set_int(c->session, c->fd);
        do
                r = gnutls_handshake(c->session);
        while (r < 0 && !gnutls_error_is_fatal(r));
        if (r < 0)
                die("no handshake: %s", gnutls_strerror(r));
}

static void add(Connection *c) {
        struct epoll_event event = { .events = EPOLLIN, .data.ptr = c };

        if (fcntl(c->fd, F_SETFL, O_NONBLOCK) < 0 || epoll_ctl(clients.epoll, EPOLL_CTL_ADD, c->fd, &event) < 0)
                die("cannot watch a connection: %m");
}

/* ---- one exchange -------------------------------------------------------------------------------------- */

static void ask(Connection *c) {
        ssize_t n;

        c->length = 0;
        n = c->session ? gnutls_record_send(c->session, clients.request, clients.request_length) :
                         send(c->fd, clients.request, clients.request_length, MSG_NOSIGNAL);
        if (n != (ssize_t) clients.request_length)
                die("cannot send a request");
}

/* Whether something came. */
static bool take(Connection *c) {
        size_t room = sizeof(c->answer) - 1 - c->length;
        ssize_t n;

        n = c->session ? gnutls_record_recv(c->session, c->answer + c->length, room) :
                         recv(c->fd, c->answer + c->length, room, 0);
        if (c->session ? n == GNUTLS_E_AGAIN || n == GNUTLS_E_INTERRUPTED : n < 0 && errno == EAGAIN)
                return false;
        if (n <= 0)
                die("the server hung up");
        c->length += (size_t) n;
        c->answer[c->length] = 0;
        return true;
}

static bool is_whole(const Connection *c) {
        static const char header[] = "\r\nContent-Length: ";
        const char *end = strstr(c->answer, "\r\n\r\n"), *length = strstr(c->answer, header);

        if (!end)
                return false;
        if (!length || length > end)
                die("the answer has no length: %s", c->answer);
        return c->length == (size_t) (end + 4 - c->answer) + strtoul(length + strlen(header), NULL, 10);
}

static void check(const Connection *c) {
        if (strncmp(c->answer, "HTTP/1.1 200 ", 13) != 0 || !strstr(c->answer, "\"vm\":\"bench\",\"name\":\"ram\"") ||
            !strstr(c->answer, "\"survival\":{"))
                die("the answer is no backing: %s", c->answer);
}

/* ---- many ---------------------------------------------------------------------------------------------- */

static void run(size_t n, bool with_check) {
        size_t asked = 0, answered = 0;

        for (; asked < clients.n && asked < n; asked++)
                ask(&clients.connections[asked]);
        while (answered < n) {
                struct epoll_event events[CONNECTIONS_MAX];
                int ready = epoll_wait(clients.epoll, events, CONNECTIONS_MAX, 20000);

                if (ready <= 0)
                        die("no answer comes");
                for (int i = 0; i < ready; i++) {
                        Connection *c = events[i].data.ptr;

                        while (take(c) && !is_whole(c))
                                ;
                        if (!is_whole(c))
                                continue;
                        if (with_check)
                                check(c);
                        answered++;
                        if (asked < n) {
                                ask(c);
                                asked++;
                        }
                }
        }
}

static void open_all(char *argv[]) {
        bool is_secure = strcmp(argv[3], "tls") == 0;

        clients.epoll = epoll_create1(EPOLL_CLOEXEC);
        if (is_secure)
                load_certificates(argv[5], argv[6], argv[7]);
        for (size_t i = 0; i < clients.n; i++) {
                Connection *c = &clients.connections[i];

                c->fd = is_secure ? connect_to_port(argv[4]) : connect_to(argv[4]);
                if (is_secure)
                        shake_hands(c);
                add(c);
        }
}

int main(int argc, char *argv[]) {
        size_t n;

        clients.n = argc >= 5 ? strtoul(argv[2], NULL, 10) : 0;
        if (clients.n < 1 || clients.n > CONNECTIONS_MAX || argc != (strcmp(argv[3], "tls") == 0 ? 8 : 5)) {
                fprintf(stderr,
                        "usage: %s PATH CONNECTIONS unix SOCKET\n"
                        "       %s PATH CONNECTIONS tls PORT CA CERTIFICATE KEY\n",
                        argv[0], argv[0]);
                return 2;
        }
        clients.request_length = (size_t) snprintf(clients.request, sizeof(clients.request),
                                                   "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", argv[1]);
        open_all(argv);
        run(WARM_UP, /* with_check= */ true);
        while (scanf("%zu", &n) == 1 && n > 0 && n <= REQUESTS_MAX) {
                uint64_t start = now();

                run(n, /* with_check= */ false);
                printf("%ju\n", (uintmax_t) ((now() - start) / n));
                fflush(stdout);
        }
        return EXIT_SUCCESS;
}
