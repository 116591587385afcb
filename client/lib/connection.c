/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "connection.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "json.h"

#define INTERFACE                   "io.privmemd.Memory"
#define SOCKET_IN_RUNTIME_DIRECTORY "privmemd/" INTERFACE

const char *privmem_version(void) {
        return PRIVMEMD_VERSION;
}

/* ---- life ---------------------------------------------------------------------------------------------- */

int privmem_default_path(char **ret) {
        const char *given = secure_getenv("PRIVMEM_SOCKET"), *runtime = secure_getenv("XDG_RUNTIME_DIR");
        char *path = NULL;
        struct stat st;

        if (given && *given) {
                path = strdup(given);
        } else if (runtime && *runtime && geteuid() != 0) {
                if (asprintf(&path, "%s/" SOCKET_IN_RUNTIME_DIRECTORY, runtime) < 0)
                        return -ENOMEM;
                if (stat(path, &st) < 0 || !S_ISSOCK(st.st_mode)) {
                        free(path);
                        path = strdup("/run/" SOCKET_IN_RUNTIME_DIRECTORY);
                }
        } else {
                path = strdup("/run/" SOCKET_IN_RUNTIME_DIRECTORY);
        }

        if (!path)
                return -ENOMEM;
        *ret = path;
        return 0;
}

static privmem *connection_new(void) {
        privmem *p = calloc(1, sizeof(*p));

        if (p)
                p->transport = (Transport) TRANSPORT_INIT;
        return p;
}

int privmem_connect(const char *path, privmem **ret) {
        char *standard = NULL;
        privmem *p;
        int r = 0;

        p = connection_new();
        if (!p)
                return -ENOMEM;

        if (!path)
                r = privmem_default_path(&standard);
        if (r >= 0)
                r = transport_connect(&p->transport, path ? path : standard);
        free(standard);
        if (r < 0) {
                privmem_close(p);
                return r;
        }

        *ret = p;
        return 0;
}

int privmem_connect_fd(int fd, privmem **ret) {
        privmem *p;

        if (fd < 0)
                return -EBADF;

        p = connection_new();
        if (!p)
                return -ENOMEM;

        p->transport.fd = fd;
        *ret = p;
        return 0;
}

privmem *privmem_close(privmem *p) {
        if (!p)
                return NULL;

        transport_done(&p->transport);
        error_done(&p->error);
        json_object_put(p->reply);
        free(p);
        return NULL;
}

int privmem_fd(const privmem *p) {
        return p->transport.fd;
}

const char *privmem_error_name(const privmem *p) {
        return p->error.name;
}

const char *privmem_error_message(const privmem *p) {
        return p->error.message ? p->error.message : "Out of memory.";
}

const char *privmem_error_json(const privmem *p) {
        return p->error.json;
}

const char *privmem_reply_json(privmem *p) {
        return p->reply ? json_text(p->reply, NULL) : NULL;
}

/* ---- the two directions -------------------------------------------------------------------------------- */

int connection_break(privmem *p, int code, const char *reason) {
        transport_done(&p->transport);
        return error_set(&p->error, code, "%s", reason);
}

int connection_malformed(privmem *p, const char *what) {
        char reason[160];

        snprintf(reason, sizeof(reason), "privmemd sent an answer that makes no sense: %s.", what);
        return connection_break(p, -EPROTO, reason);
}

static int out_of_memory(privmem *p) {
        error_done(&p->error);
        return -ENOMEM;
}

/* parameters is consumed. */
static int make_call(const char *method, json_object *parameters, bool more, json_object **ret) {
        json_object *call = json_object_new_object();
        char *name = NULL;
        bool made;

        if (asprintf(&name, "%s%s", strchr(method, '.') ? "" : INTERFACE ".", method) < 0)
                name = NULL;

        made = json_add(call, "parameters", parameters) && name && json_add_string(call, "method", name) &&
               (!more || json_add(call, "more", json_object_new_boolean(true)));
        free(name);
        if (!made) {
                json_object_put(call);
                return -ENOMEM;
        }

        *ret = call;
        return 0;
}

static int send_text(privmem *p, const char *text, size_t size, const int *fds, size_t n_fds) {
        int r;

        if (!json_is_utf8(text, size))
                return error_set(&p->error, -EINVAL, "A string in the call is not UTF-8.");
        if (size > TRANSPORT_MESSAGE_MAX)
                return error_set(&p->error, -EMSGSIZE, "The call is larger than 16 MiB.");
        if (n_fds > TRANSPORT_FDS_MAX)
                return error_set(&p->error, -EMSGSIZE, "A call cannot carry more than %d file descriptors.",
                                 TRANSPORT_FDS_MAX);

        r = transport_send(&p->transport, text, size + 1, fds, n_fds);
        if (r == -EBADF && n_fds > 0) /* the kernel looks at them before it sends anything */
                return error_set(&p->error, -EBADF, "A file descriptor that the call was to carry is not open.");
        if (r == -EPIPE || r == -ECONNRESET)
                return connection_break(p, -ECONNRESET, "privmemd closed the connection.");
        if (r < 0)
                return connection_break(p, r, "The call could not be sent to privmemd.");
        return 0;
}

static int send_call(privmem *p, const char *method, json_object *parameters, bool more, const int *fds,
                     size_t n_fds) {
        json_object *call = NULL;
        const char *text;
        size_t size;
        int r;

        if (p->transport.fd < 0 || p->subscribed) {
                json_object_put(parameters);
                if (p->subscribed)
                        return error_set(&p->error, -EBUSY,
                                         "The connection is subscribed to events and can make no calls.");
                return error_set(&p->error, -ENOTCONN, "The connection was closed after an earlier error.");
        }

        r = make_call(method, parameters, more, &call);
        if (r < 0)
                return out_of_memory(p);

        text = json_text(call, &size);
        r = text ? send_text(p, text, size, fds, n_fds) : out_of_memory(p);
        json_object_put(call);
        return r;
}

static int receive_failed(privmem *p, int code) {
        switch (code) {
        case -EAGAIN:
                return error_set(&p->error, -EAGAIN, "Nothing has arrived yet.");
        case -ECONNRESET:
                if (p->transport.filled > p->transport.taken)
                        return connection_break(p, code, "privmemd closed the connection in the middle of an answer.");
                return connection_break(p, code, "privmemd closed the connection.");
        case -EMSGSIZE:
                return connection_break(p, code, "privmemd sent an answer that is larger than 16 MiB.");
        case -EMFILE:
                return connection_break(
                        p, code,
                        "File descriptors of the answer were lost: this process has too many open, or may not have them.");
        case -E2BIG:
                return connection_break(p, -EPROTO, "privmemd sent more file descriptors than an answer can carry.");
        case -ENOMEM:
                return connection_break(p, code, "Out of memory.");
        default:
                return connection_break(p, code, "The answer of privmemd could not be received.");
        }
}

/* Receives a message, and sorts it into an error or the parameters of an answer. */
static int receive_reply(privmem *p, int timeout_msec, size_t max_fds, bool *ret_continues) {
        json_object *message = NULL, *parameters;
        const char *text, *name;
        size_t size;
        bool continues;
        int r;

        r = transport_receive(&p->transport, timeout_msec, &text, &size);
        if (r < 0)
                return receive_failed(p, r);

        r = json_parse_object(text, size, &message);
        if (r == -ENOMEM)
                return connection_break(p, r, "Out of memory.");
        if (r < 0)
                return connection_malformed(p, "it is no JSON object, or is nested too deeply");

        name = json_get_string(message, "error");
        parameters = json_get_object(message, "parameters");
        continues = json_get_bool(message, "continues");

        if (p->transport.n_fds > (name ? 0 : max_fds))
                r = connection_malformed(p, "it carries file descriptors that nobody asked for");
        else if (name)
                r = error_set_reply(&p->error, name, parameters);
        else {
                json_object_put(p->reply);
                p->reply = parameters ? json_object_get(parameters) : json_object_new_object();
                r = p->reply ? 0 : connection_break(p, -ENOMEM, "Out of memory.");
                *ret_continues = continues;
        }

        json_object_put(message);
        return r;
}

/* ---- calls --------------------------------------------------------------------------------------------- */

int connection_call(privmem *p, const char *method, json_object *parameters, const int *fds, size_t n_fds,
                    size_t max_fds, json_object **ret_reply) {
        bool continues = false;
        int r;

        r = send_call(p, method, parameters, /* more= */ false, fds, n_fds);
        if (r < 0)
                return r;

        r = receive_reply(p, /* timeout_msec= */ -1, max_fds, &continues);
        if (p->transport.fd >= 0 && transport_has_more(&p->transport))
                return connection_malformed(p, "there is something behind it");
        if (r < 0)
                return r;
        if (continues)
                return connection_malformed(p, "it is a part of a stream that nobody asked for");

        *ret_reply = p->reply;
        return 0;
}

int connection_call_more(privmem *p, const char *method, json_object *parameters) {
        return send_call(p, method, parameters, /* more= */ true, /* fds= */ NULL, /* n_fds= */ 0);
}

int connection_next_reply(privmem *p, int timeout_msec, json_object **ret_reply, bool *ret_continues) {
        int r;

        if (p->transport.fd < 0)
                return error_set(&p->error, -ENOTCONN, "The connection was closed after an earlier error.");

        r = receive_reply(p, timeout_msec, /* max_fds= */ 0, ret_continues);
        if (r < 0)
                return r;

        *ret_reply = p->reply;
        return 0;
}

int connection_take_fd(privmem *p, json_object *reply, const char *field, int *ret_fd) {
        Transport *t = &p->transport;
        uint64_t index;

        if (!json_get_uint64(reply, field, &index) || index >= t->n_fds)
                return connection_malformed(p, "its index of a file descriptor names none");

        *ret_fd = t->fds[index];
        t->fds[index] = t->fds[--t->n_fds];
        transport_drop_fds(t);
        return 0;
}

static int parse_parameters(privmem *p, const char *text, json_object **ret) {
        int r;

        if (!text)
                text = "{}";

        r = json_parse_object(text, strlen(text), ret);
        if (r == -ENOMEM)
                return out_of_memory(p);
        if (r < 0)
                return error_set(&p->error, -EINVAL, "The parameters of the call are no JSON object.");
        return 0;
}

int privmem_call(privmem *p, const char *method, const char *parameters, const int *fds, size_t n_fds,
                 char **ret_reply, int *ret_fds, size_t *n_ret_fds) {
        size_t room = ret_fds && n_ret_fds ? *n_ret_fds : 0;
        json_object *call = NULL, *reply = NULL;
        char *text = NULL;
        int r;

        r = parse_parameters(p, parameters, &call);
        if (r < 0)
                return r;

        r = connection_call(p, method, call, fds, n_fds, room, &reply);
        if (r < 0)
                return r;

        if (ret_reply) {
                const char *json = json_text(reply, NULL);

                text = json ? strdup(json) : NULL;
                if (!text) {
                        transport_drop_fds(&p->transport);
                        return out_of_memory(p);
                }
                *ret_reply = text;
        }

        if (n_ret_fds)
                *n_ret_fds = p->transport.n_fds;
        if (room > 0) {
                memcpy(ret_fds, p->transport.fds, p->transport.n_fds * sizeof(int));
                p->transport.n_fds = 0;
        }
        return 0;
}

int privmem_call_more(privmem *p, const char *method, const char *parameters, privmem_reply_func callback,
                      void *userdata) {
        json_object *call = NULL, *reply = NULL;
        bool continues = true;
        int r;

        r = parse_parameters(p, parameters, &call);
        if (r < 0)
                return r;

        r = connection_call_more(p, method, call);
        if (r < 0)
                return r;

        while (continues) {
                const char *json;

                r = connection_next_reply(p, /* timeout_msec= */ -1, &reply, &continues);
                if (r < 0)
                        return r;

                json = json_text(reply, NULL);
                if (!json)
                        return connection_break(p, -ENOMEM, "Out of memory.");
                r = callback(json, userdata);
                if (r != 0) {
                        if (continues)
                                connection_break(p, r, "The stream was stopped.");
                        return r;
                }
        }

        if (transport_has_more(&p->transport))
                return connection_malformed(p, "there is something behind it");
        return 0;
}
