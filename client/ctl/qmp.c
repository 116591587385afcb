/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "qmp.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "lib/json.h"

uint64_t qmp_now(void) {
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t) t.tv_sec * 1000000 + (uint64_t) t.tv_nsec / 1000;
}

static int fail(Qmp *q, int r, const char *what) {
        snprintf(q->error, sizeof(q->error), "%s: %s", what, strerror(-r));
        return r;
}

int qmp_connect(Qmp *q, const char *path, pid_t *ret_pid) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        struct ucred peer;
        socklen_t size = sizeof(peer);

        if (strlen(path) >= sizeof(address.sun_path))
                return fail(q, -ENAMETOOLONG, path);
        strcpy(address.sun_path, path);

        q->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (q->fd < 0)
                return fail(q, -errno, "socket");
        if (connect(q->fd, (const struct sockaddr *) &address, sizeof(address)) < 0)
                return fail(q, -errno, path);
        if (getsockopt(q->fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0)
                return fail(q, -errno, path);
        *ret_pid = peer.pid;
        return 0;
}

void qmp_close(Qmp *q) {
        if (q->fd >= 0)
                close(q->fd);
        q->fd = -1;
}

/* ---- messages ------------------------------------------------------------------------------------------ */

static int wait_for_input(Qmp *q) {
        for (;;) {
                struct pollfd p = { .fd = q->fd, .events = POLLIN };
                uint64_t now = qmp_now();
                int r;

                if (q->stop && *q->stop)
                        return fail(q, -EINTR, "waiting");
                if (now >= q->deadline_usec)
                        return fail(q, -ETIMEDOUT, "waiting for its answer");

                /* A signal just before poll() is seen after this long. */
                r = poll(&p, 1, q->deadline_usec - now < 200000 ? (int) ((q->deadline_usec - now) / 1000) + 1 : 200);
                if (r > 0)
                        return 0;
                if (r < 0 && errno != EINTR)
                        return fail(q, -errno, "poll");
        }
}

static int fill(Qmp *q) {
        ssize_t n;
        int r;

        if (q->size == sizeof(q->buffer))
                return fail(q, -EMSGSIZE, "its answer");
        r = wait_for_input(q);
        if (r < 0)
                return r;

        n = recv(q->fd, q->buffer + q->size, sizeof(q->buffer) - q->size, 0);
        if (n <= 0)
                return fail(q, n < 0 ? -errno : -ECONNRESET, "reading its answer");
        q->size += (size_t) n;
        return 0;
}

/* The next line; QEMU never breaks a message into several. */
static int receive(Qmp *q, json_object **ret) {
        char *end;
        size_t length;
        int r;

        while (!(end = memchr(q->buffer, '\n', q->size))) {
                r = fill(q);
                if (r < 0)
                        return r;
        }
        length = (size_t) (end - q->buffer);
        r = json_parse_object(q->buffer, length > 0 && end[-1] == '\r' ? length - 1 : length, ret);
        q->size -= length + 1;
        memmove(q->buffer, end + 1, q->size);
        return r < 0 ? fail(q, r, "its answer") : 0;
}

static int transmit(Qmp *q, const char *text, size_t size, int fd) {
        union {
                char buffer[CMSG_SPACE(sizeof(int))];
                struct cmsghdr align;
        } control = {};

        while (size > 0) {
                struct iovec part = { .iov_base = (char *) text, .iov_len = size };
                struct msghdr m = { .msg_iov = &part, .msg_iovlen = 1 };
                ssize_t n;

                if (fd >= 0) {
                        m.msg_control = control.buffer;
                        m.msg_controllen = sizeof(control.buffer);
                        *CMSG_FIRSTHDR(&m) = (struct cmsghdr) {
                                .cmsg_level = SOL_SOCKET,
                                .cmsg_type = SCM_RIGHTS,
                                .cmsg_len = CMSG_LEN(sizeof(int)),
                        };
                        memcpy(CMSG_DATA(CMSG_FIRSTHDR(&m)), &fd, sizeof(int));
                }
                n = sendmsg(q->fd, &m, MSG_NOSIGNAL);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return fail(q, -errno, "asking it");
                fd = -1;
                text += n;
                size -= (size_t) n;
        }
        return 0;
}

/* ---- commands ------------------------------------------------------------------------------------------ */

static void take_event(Qmp *q, json_object *message) {
        json_object *t = json_get_object(message, "timestamp");
        const char *event = json_get_string(message, "event");
        uint64_t seconds, usec;

        if (!event || !json_get_uint64(t, "seconds", &seconds) || !json_get_uint64(t, "microseconds", &usec))
                return;
        if (strcmp(event, "STOP") == 0)
                q->stopped_usec = seconds * 1000000 + usec;
        else if (strcmp(event, "RESUME") == 0)
                q->resumed_usec = seconds * 1000000 + usec;
}

/* Whether this is the answer, and not an event or the late answer to a command that was given up. */
static bool answers(json_object *message, uint64_t wanted) {
        uint64_t id;

        return json_get_uint64(message, "id", &id) && id == wanted;
}

static int take_answer(Qmp *q, const char *command, json_object *message, json_object **ret_value) {
        json_object *error = json_get_object(message, "error"), *value;
        const char *text = json_get_string(error, "desc");

        if (error) {
                snprintf(q->error, sizeof(q->error), "%s: %s", command, text ? text : "refused");
                return QMP_E_REFUSED;
        }
        if (!json_object_object_get_ex(message, "return", &value))
                return fail(q, -EBADMSG, command);
        if (ret_value)
                *ret_value = json_object_get(value);
        return 0;
}

int qmp_call(Qmp *q, const char *command, json_object *arguments, int fd, json_object **ret_value) {
        json_object *message = json_object_new_object();
        const char *text = NULL;
        size_t size;
        int r = -ENOMEM;

        if (!arguments)
                arguments = json_object_new_object();
        if (json_add(message, "arguments", arguments) && json_add_string(message, "execute", command) &&
            json_add_uint64(message, "id", ++q->id))
                text = json_text(message, &size);
        if (text)
                r = transmit(q, text, size, fd);
        json_object_put(message);

        while (r == 0) {
                r = receive(q, &message);
                if (r < 0)
                        break;
                if (answers(message, q->id)) {
                        r = take_answer(q, command, message, ret_value);
                        json_object_put(message);
                        return r;
                }
                take_event(q, message);
                json_object_put(message);
        }
        return r == -ENOMEM ? fail(q, r, command) : r;
}

int qmp_greet(Qmp *q) {
        json_object *greeting;
        int r;

        r = receive(q, &greeting);
        if (r < 0)
                return r;
        r = json_get_object(greeting, "QMP") ? 0 : -EPROTO;
        json_object_put(greeting);
        if (r < 0)
                return fail(q, r, "its greeting, which is not that of QMP");
        return qmp_call(q, "qmp_capabilities", /* arguments= */ NULL, /* fd= */ -1, /* ret_value= */ NULL);
}

/* ---- what an upgrade asks ------------------------------------------------------------------------------- */

bool qmp_string(Qmp *q, const char *command, const char *field, char *ret, size_t size) {
        json_object *value = NULL;
        const char *text;

        if (qmp_call(q, command, /* arguments= */ NULL, /* fd= */ -1, &value) != 0)
                return false;
        text = json_get_string(value, field);
        snprintf(ret, size, "%s", text ? text : "none");
        json_object_put(value);
        return true;
}

int qmp_set_ignore_shared(Qmp *q, bool on) {
        json_object *arguments = json_object_new_object(), *list = json_object_new_array(),
                    *one = json_object_new_object();
        bool good = json_add_string(one, "capability", "x-ignore-shared") &&
                    json_add(one, "state", json_object_new_boolean(on)) && list &&
                    json_object_array_add(list, one) == 0;

        if (!good)
                json_object_put(one);
        if (!json_add(arguments, "capabilities", list) || !good) {
                json_object_put(arguments);
                snprintf(q->error, sizeof(q->error), "out of memory");
                return -ENOMEM;
        }
        return qmp_call(q, "migrate-set-capabilities", arguments, /* fd= */ -1, /* ret_value= */ NULL);
}

static bool has_ignore_shared(json_object *capabilities) {
        for (size_t i = 0; i < json_object_array_length(capabilities); i++) {
                json_object *one = json_object_array_get_idx(capabilities, i);
                const char *name = json_get_string(one, "capability");

                if (name && strcmp(name, "x-ignore-shared") == 0)
                        return json_get_bool(one, "state");
        }
        return false;
}

int qmp_get_ignore_shared(Qmp *q, bool *ret_on) {
        json_object *capabilities = NULL;
        int r;

        r = qmp_call(q, "query-migrate-capabilities", /* arguments= */ NULL, /* fd= */ -1, &capabilities);
        if (r == 0)
                *ret_on = json_object_is_type(capabilities, json_type_array) && has_ignore_shared(capabilities);
        json_object_put(capabilities);
        return r;
}
