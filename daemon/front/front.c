/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <systemd/sd-daemon.h>

#include "api/interface.h"
#include "core/cleanup.h"
#include "front/call.h"

typedef struct Operation {
        const char *method;
        int (*handler)(Call *call);
        Method id;
        Right right;
        size_t fds;
} Operation;

static size_t count_fds(sd_varlink *link) {
        size_t n = 0;

        while (sd_varlink_peek_fd(link, n) >= 0)
                n++;
        return n;
}

VM *call_declaring_vm(const Call *call) {
        VM *outgoing = call->vm->outgoing;
        pid_t pid;

        if (!outgoing || sd_varlink_get_peer_pid(call->link, &pid) < 0)
                return call->vm;
        return pid == service_vmm_pid(outgoing) ? outgoing : call->vm;
}

bool call_has(const Call *call, const char *parameter) {
        sd_json_variant *v = sd_json_variant_by_key(call->parameters, parameter);

        return v && !sd_json_variant_is_null(v);
}

int find_backing(VM *vm, const char *name, Backing **ret, Failure *f) {
        *ret = vm_find_backing(vm, name);
        return *ret ? 0 : fail_no_such_backing(f, vm->name, name);
}

static int fail_wrong_fds(Failure *f, size_t received, size_t at_least, size_t at_most) {
        *f = (Failure) { .error = API_E_WrongFds, .value = received, .minimum = at_least, .maximum = at_most };
        return f->error;
}

int call_peek_fd(const Call *call, uint64_t index, Failure *f, int *ret_fd) {
        int fd = -EBADF;

        if (index == NO_FD && call->n_fds > 0)
                return fail_wrong_fds(f, call->n_fds, 0, 0);
        if (index < call->n_fds)
                fd = sd_varlink_peek_fd(call->link, index);
        if (index != NO_FD && fd < 0)
                return fail_wrong_fds(f, call->n_fds, 1, 1);
        *ret_fd = fd;
        return 0;
}

/* Of a row that is about a VM. Sets call->vm. */
static int check_vm(Call *call, Right right, Failure *f) {
        sd_json_variant *v = sd_json_variant_by_key(call->parameters, "vm");
        const char *name = v && sd_json_variant_is_string(v) ? sd_json_variant_string(v) : "";
        VM *vm;
        int r;

        vm = registry_find_vm(call->registry, name);
        if (!vm)
                return fail_no_such_vm(f, name);
        r = call_check_right(call, right, vm, f);
        if (r == 0)
                call->vm = vm;
        return r;
}

int call_check_generation(const Call *call, const char *name, const VM *vm, Failure *f) {
        if (!call->has_condition || (vm && vm->generation == call->if_generation))
                return 0;
        return fail_vm_changed(f, name, vm, call->if_generation);
}

static int check_call(Call *call, const Operation *operation, Failure *f) {
        int r;

        if (call->n_fds > operation->fds)
                return fail_wrong_fds(f, call->n_fds, 0, operation->fds);
        if (operation->right == MANAGER)
                return call_manages(call) ? 0 : fail_not_permitted_host(f, "the ledger", call->uid);
        if (operation->right == ANYONE)
                return 0;
        r = check_vm(call, operation->right, f);
        return r != 0 ? r : call_check_generation(call, call->vm->name, call->vm, f);
}

#define IF_GENERATION "ifGeneration"

/* The condition is the dispatcher's: no handler needs to know of it. *ret_rest is what to unref in the end. -EINVAL: it
 * is no generation. */
static int take_condition(Call *call, sd_json_variant **ret_rest) {
        sd_json_variant *v = sd_json_variant_by_key(call->parameters, IF_GENERATION), *rest;
        int r;

        if (!v)
                return 0;
        call->has_condition = !sd_json_variant_is_null(v);
        if (call->has_condition && !sd_json_variant_is_unsigned(v))
                return -EINVAL;
        call->if_generation = call->has_condition ? sd_json_variant_unsigned(v) : 0;
        rest = sd_json_variant_ref(call->parameters);
        r = sd_json_variant_filter(&rest, (char *[]) { (char *) IF_GENERATION, NULL });
        call->parameters = *ret_rest = rest;
        return r;
}

static int answer(sd_varlink *link, sd_json_variant *parameters, sd_varlink_method_flags_t flags, Front *front,
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
        _cleanup_(sd_json_variant_unrefp) sd_json_variant *rest = NULL;
        Failure f = {};
        int r;

        r = sd_varlink_get_peer_uid(link, &call.uid);
        if (r < 0)
                return sd_varlink_error_errno(link, r);
        r = take_condition(&call, &rest);
        if (r == -EINVAL)
                return sd_varlink_error_invalid_parameter_name(link, IF_GENERATION);
        if (r < 0)
                return sd_varlink_error_errno(link, r);
        r = check_call(&call, operation, &f);
        if (r != 0)
                return failure_reply(link, r, &f);
        r = operation->handler(&call);
        /* sd-varlink would send the fd that was meant for the reply with the error that it makes of this. */
        return r < 0 && call.has_pushed ? sd_varlink_close(link) : r;
}

/* What sends an error returns a negative errno. */
static int dispatch(sd_varlink *link, sd_json_variant *parameters, sd_varlink_method_flags_t flags, Front *front,
                    const Operation *operation) {
        uint64_t begun = usec_of(CLOCK_MONOTONIC);
        int r;

        r = answer(link, parameters, flags, front, operation);
        tally_add(&front->tallies[operation->id], r >= 0, usec_of(CLOCK_MONOTONIC) - begun);
        return r;
}

/* sd-varlink 257 does not tell a handler which method was called, so each row has a function of its own. */
#define OPERATION(name, function, who, max_fds) \
        static int vl_##function(sd_varlink *link, sd_json_variant *parameters, sd_varlink_method_flags_t flags, \
                                 void *userdata) { \
                static const Operation operation = { \
                        .method = #name, \
                        .handler = op_##function, \
                        .id = METHOD_##name, \
                        .right = who, \
                        .fds = max_fds, \
                }; \
\
                return dispatch(link, parameters, flags, userdata, &operation); \
        }
#include "api/operations.def"

static int bind_methods(sd_varlink_server *server) {
        static const struct {
                const char *name;
                sd_varlink_method_t method;
        } methods[] = {
#define OPERATION(name, function, right, fds) { PRIVMEMD_INTERFACE "." #name, vl_##function },
#include "api/operations.def"
        };
        int r;

        for (size_t i = 0; i < ELEMENTSOF(methods); i++) {
                r = sd_varlink_server_bind_method(server, methods[i].name, methods[i].method);
                if (r < 0)
                        return r;
        }
        return 0;
}

/* sd-varlink refuses whoever has reached a limit; fd is closed then. */
static void on_accept(int fd, void *userdata) {
        Front *front = userdata;
        sd_varlink *link;
        int r;

        r = sd_varlink_server_add_connection(front->server, fd, &link);
        if (r < 0) {
                safe_close(fd);
                return;
        }
        r = sd_varlink_set_allow_fd_passing_input(link, true);
        if (r >= 0)
                r = sd_varlink_set_allow_fd_passing_output(link, true);
        if (r >= 0)
                r = links_add(front->links, link);
        if (r < 0)
                (void) sd_varlink_close(link);
}

static void on_disconnect(sd_varlink_server *server, sd_varlink *link, void *userdata) {
        Front *front = userdata;

        (void) server;
        stream_forget_link(front, link);
        links_forget(front->links, link);
}

int front_configure(Front *front, const FrontSettings *settings) {
        int r;

        r = sd_varlink_server_set_connections_max(front->server, settings->connections);
        if (r >= 0)
                r = sd_varlink_server_set_connections_per_uid_max(front->server, settings->connections_per_uid);
        if (r >= 0)
                front->settings = *settings;
        return r;
}

const FrontSettings *front_settings(const Front *front) {
        return &front->settings;
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
        r = sd_varlink_server_bind_disconnect(front->server, on_disconnect);
        if (r < 0)
                return r;
        return front_configure(front, &FRONT_SETTINGS_DEFAULT);
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
        front->started = usec_of(CLOCK_REALTIME);
        TAILQ_INIT(&front->streams);
        r = event_log_new(&front->log);
        if (r >= 0)
                r = links_new(event, &front->links);
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

static int listen_on(Front *front, int fd) {
        if (front->n_listeners == LISTENERS_MAX)
                return -E2BIG;
        return listener_new(front->event, fd, on_accept, front, &front->listeners[front->n_listeners++]);
}

int front_listen_passed(Front *front, int fd) {
        int r;

        r = sd_is_socket(fd, AF_UNIX, SOCK_STREAM, /* listening= */ 1);
        if (r == 0)
                r = -ENOTSOCK;
        if (r >= 0 && fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
                r = -errno;
        return r < 0 ? r : listen_on(front, fd);
}

int front_listen(Front *front, const char *path, mode_t mode) {
        _cleanup_close_ int fd = -EBADF;
        int r;

        r = listener_open(path, mode, &fd);
        if (r >= 0)
                r = listen_on(front, fd);
        if (r >= 0)
                TAKE_FD(fd);
        return r;
}

Front *front_free(Front *front) {
        if (!front)
                return NULL;
        while (front->n_listeners > 0)
                listener_free(front->listeners[--front->n_listeners]);
        stream_forget_link(front, /* link= */ NULL);
        links_free(front->links);
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

bool front_socket_path(const Front *front, char ret[static LISTENER_PATH_SIZE]) {
        for (size_t i = 0; i < front->n_listeners; i++)
                if (listener_path(front->listeners[i], ret))
                        return true;
        return false;
}

/* Whoever was there already got no more than a file descriptor, and what was refused changed nothing. */
static bool is_change(EventKind kind) {
        return kind != EVENT_BACKING_GRANTED && kind != EVENT_SLOT_REFUSED;
}

void front_publish(Front *front, const Event *event) {
        if (is_change(event->kind)) {
                vm_changed(vm_whole(event->vm));
                if (event->peer_vm)
                        vm_changed(vm_whole(event->peer_vm));
        }
        event_log_record(front->log, event);
        stream_wake(front);
}
