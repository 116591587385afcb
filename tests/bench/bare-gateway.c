/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What HTTP and one varlink call cost, with nothing between them: libmicrohttpd, which for each request asks for the same
 * backing and copies what comes. It looks at no address, waits for the answer, and knows of no error.
 *
 * usage: bench-bare-gateway SOCKET VARLINK-SOCKET */

#include <microhttpd.h>
#include <unistd.h>

#include "bench.h"

#define CALL "{\"method\":\"io.privmemd.Memory.ListBackings\",\"parameters\":{\"vm\":\"bench\",\"backing\":\"ram\"}}"

static int upstream;

/* The only element of the list that comes; length of it. */
static size_t call(char *answer, size_t size, const char **ret) {
        static const char field[] = "\"backings\":[";
        const char *begin, *end;
        size_t length = 0;
        int none = -1;

        if (send(upstream, CALL, sizeof(CALL), MSG_NOSIGNAL) != sizeof(CALL))
                die("cannot call: %m");
        do
                length += receive_from(upstream, answer + length, size - length, &none);
        while (answer[length - 1] != 0 && length < size);
        begin = strstr(answer, field);
        end = strrchr(answer, ']');
        if (!begin || !end)
                die("the answer is %s", answer);
        *ret = begin + strlen(field);
        return (size_t) (end - *ret);
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *connection, const char *url, const char *method,
                                  const char *version, const char *data, size_t *size, void **request) {
        static char buffer[65536];
        struct MHD_Response *response;
        const char *body;
        size_t length;
        enum MHD_Result r;

        (void) cls;
        (void) url;
        (void) method;
        (void) version;
        (void) data;
        (void) size;
        if (!*request) {
                *request = buffer;
                return MHD_YES;
        }
        length = call(buffer, sizeof(buffer), &body);
        response = MHD_create_response_from_buffer_copy(length, body);
        if (!response)
                return MHD_NO;
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, "application/json");
        r = MHD_queue_response(connection, MHD_HTTP_OK, response);
        MHD_destroy_response(response);
        return r;
}

static int listen_at(const char *path) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int fd;

        if (strlen(path) >= sizeof(address.sun_path))
                die("%s is too long for a socket", path);
        strcpy(address.sun_path, path);
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0 || bind(fd, (struct sockaddr *) &address, sizeof(address)) < 0 || listen(fd, 128) < 0)
                die("cannot listen on %s: %m", path);
        return fd;
}

int main(int argc, char *argv[]) {
        struct MHD_Daemon *daemon;

        if (argc != 3) {
                fprintf(stderr, "usage: %s SOCKET VARLINK-SOCKET\n", argv[0]);
                return 2;
        }
        upstream = connect_to(argv[2]);
        daemon = MHD_start_daemon(MHD_USE_EPOLL | MHD_USE_INTERNAL_POLLING_THREAD, 0, NULL, NULL, on_request, NULL,
                                  MHD_OPTION_LISTEN_SOCKET, listen_at(argv[1]), MHD_OPTION_END);
        if (!daemon)
                die("cannot start libmicrohttpd");
        for (;;)
                pause();
}
