/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>

#include "api/interface.h"
#include "core/cleanup.h"
#include "front/call.h"

enum {
        ANYONE,
        VM_OWNER,
};

typedef struct Operation {
        const char *method;
        int (*handler)(Call *call);
        int right;
        size_t fds;
} Operation;

static size_t count_fds(sd_varlink *link) {
        size_t n = 0;

        while (sd_varlink_peek_fd(link, n) >= 0)
                n++;
        return n;
}

bool call_may_see(const Call *call, const VM *vm) {
        return call->uid == 0 || call->uid == vm->owner;
}

static int fail_wrong_fds(Failure *f, size_t received, size_t at_least, size_t at_most) {
        *f = (Failure) { .error = API_E_WrongFds, .value = received, .minimum = at_least, .maximum = at_most };
        return f->error;
}

int call_peek_fd(const Call *call, uint64_t index, Failure *f, int *ret_fd) {
        int fd;

        fd = index < call->n_fds ? sd_varlink_peek_fd(call->link, index) : -EBADF;
        if (fd < 0)
                return fail_wrong_fds(f, call->n_fds, 1, 1);
        *ret_fd = fd;
        return 0;
}

/* The right of a row with VM_OWNER. Sets call->vm. */
static int check_owner(Call *call, Failure *f) {
        sd_json_variant *v = sd_json_variant_by_key(call->parameters, "vm");
        const char *name = v && sd_json_variant_is_string(v) ? sd_json_variant_string(v) : "";
        VM *vm;

        vm = registry_find_vm(call->registry, name);
        if (!vm)
                return fail_no_such_vm(f, name);
        if (!call_may_see(call, vm))
                return fail_not_permitted(f, vm->name, call->uid);
        call->vm = vm;
        return 0;
}

static int check_call(Call *call, const Operation *operation, Failure *f) {
        if (call->n_fds > operation->fds)
                return fail_wrong_fds(f, call->n_fds, 0, operation->fds);
        return operation->right == VM_OWNER ? check_owner(call, f) : 0;
}

static int dispatch(sd_varlink *link, sd_json_variant *parameters, sd_varlink_method_flags_t flags, Front *front,
                    const Operation *operation) {
        Call call = {
                .front = front,
                .service = front->service,
                .registry = front->registry,
                .link = link,
                .parameters = parameters,
                .more = flags & SD_VARLINK_METHOD_MORE,
                .oneway = flags & SD_VARLINK_METHOD_ONEWAY,
                .n_fds = count_fds(link),
        };
        Failure f = {};
        int r;

        r = sd_varlink_get_peer_uid(link, &call.uid);
        if (r < 0)
                return sd_varlink_error_errno(link, r);
        r = check_call(&call, operation, &f);
        if (r != 0)
                return failure_reply(link, r, &f);
        return operation->handler(&call);
}

/* sd-varlink 257 does not tell a handler which method was called, so each row has a function of its own. */
#define OPERATION(name, function, who, max_fds) \
        static int vl_##function(sd_varlink *link, sd_json_variant *parameters, sd_varlink_method_flags_t flags, \
                                 void *userdata) { \
                static const Operation operation = { \
                        .method = #name, \
                        .handler = op_##function, \
                        .right = who, \
                        .fds = max_fds, \
                }; \
\
                return dispatch(link, parameters, flags, userdata, &operation); \
        }
#include "api/operations.def"
#undef OPERATION

static int bind_methods(sd_varlink_server *server) {
        static const struct {
                const char *name;
                sd_varlink_method_t method;
        } methods[] = {
#define OPERATION(name, function, right, fds) { PRIVMEMD_INTERFACE "." #name, vl_##function },
#include "api/operations.def"
#undef OPERATION
        };
        int r;

        for (size_t i = 0; i < ELEMENTSOF(methods); i++) {
                r = sd_varlink_server_bind_method(server, methods[i].name, methods[i].method);
                if (r < 0)
                        return r;
        }
        return 0;
}

static int on_connect(sd_varlink_server *server, sd_varlink *link, void *userdata) {
        int r;

        (void) server;
        (void) userdata;
        r = sd_varlink_set_allow_fd_passing_input(link, true);
        if (r < 0)
                return r;
        return sd_varlink_set_allow_fd_passing_output(link, true);
}

static void on_disconnect(sd_varlink_server *server, sd_varlink *link, void *userdata) {
        (void) server;
        stream_forget_link(userdata, link);
}

static int configure_server(Front *front) {
        int r;

        r = sd_varlink_server_set_info(front->server, "privmemd", "privmemd", PRIVMEMD_VERSION, "https://varlink.org");
        if (r < 0)
                return r;
        r = sd_varlink_server_add_interface(front->server, &vl_interface_io_privmemd_Memory);
        if (r < 0)
                return r;
        sd_varlink_server_set_userdata(front->server, front);
        r = bind_methods(front->server);
        if (r < 0)
                return r;
        r = sd_varlink_server_bind_connect(front->server, on_connect);
        if (r < 0)
                return r;
        r = sd_varlink_server_bind_disconnect(front->server, on_disconnect);
        if (r < 0)
                return r;
        r = sd_varlink_server_set_connections_max(front->server, CONNECTIONS_MAX);
        if (r < 0)
                return r;
        r = sd_varlink_server_set_connections_per_uid_max(front->server, CONNECTIONS_PER_UID_MAX);
        if (r < 0)
                return r;
        return sd_varlink_server_attach_event(front->server, front->event, SD_EVENT_PRIORITY_NORMAL);
}

int front_new(sd_event *event, Service *service, Front **ret) {
        Front *front;
        int r;

        front = calloc(1, sizeof(*front));
        if (!front)
                return -ENOMEM;
        front->event = sd_event_ref(event);
        front->service = service;
        front->registry = service_registry(service);
        TAILQ_INIT(&front->streams);
        r = event_log_new(&front->log);
        if (r >= 0)
                r = sd_event_add_post(event, &front->pump, stream_pump, front);
        if (r >= 0)
                r = sd_event_source_set_enabled(front->pump, SD_EVENT_OFF);
        if (r >= 0)
                r = sd_event_add_defer(event, &front->kick, stream_kick, front);
        if (r >= 0)
                r = sd_event_source_set_enabled(front->kick, SD_EVENT_OFF);
        if (r >= 0)
                /* Without ACCOUNT_UID, sd-varlink knows no limit of connections at all. */
                r = sd_varlink_server_new(&front->server,
                                          SD_VARLINK_SERVER_ACCOUNT_UID | SD_VARLINK_SERVER_INHERIT_USERDATA);
        if (r >= 0)
                r = configure_server(front);
        if (r < 0) {
                front_free(front);
                return r;
        }
        *ret = front;
        return 0;
}

int front_listen_passed(Front *front) {
        return sd_varlink_server_listen_auto(front->server);
}

/* sd_varlink_server_listen_address() removes whatever lies at the path. That must be nothing, or a socket that
 * nobody listens on any more. */
static int check_path(const char *path) {
        _cleanup_close_ int fd = -EBADF;
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        struct stat st;

        if (strlen(path) >= sizeof(address.sun_path))
                return -ENAMETOOLONG;
        if (lstat(path, &st) < 0)
                return errno == ENOENT ? 0 : -errno;
        if (!S_ISSOCK(st.st_mode))
                return -EEXIST;
        strcpy(address.sun_path, path);
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
                return -errno;
        if (connect(fd, (struct sockaddr *) &address, sizeof(address)) >= 0 || errno == EAGAIN)
                return -EADDRINUSE;
        return errno == ECONNREFUSED ? 0 : -errno;
}

int front_listen(Front *front, const char *path, mode_t mode) {
        int r;

        r = check_path(path);
        if (r < 0)
                return r;
        return sd_varlink_server_listen_address(front->server, path, mode);
}

Front *front_free(Front *front) {
        if (!front)
                return NULL;
        stream_forget_link(front, /* link= */ NULL);
        if (front->server)
                (void) sd_varlink_server_shutdown(front->server);
        sd_varlink_server_unref(front->server);
        sd_event_source_disable_unref(front->pump);
        sd_event_source_disable_unref(front->kick);
        event_log_free(front->log);
        sd_event_unref(front->event);
        free(front);
        return NULL;
}

void front_publish(Front *front, const Event *event) {
        event_log_record(front->log, event);
        stream_wake(front);
}
