/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "connection.h"
#include "json.h"
#include "vm.h"
#include "words.h"

static bool copy_name(char to[PRIVMEM_NAME_MAX + 1], const char *name) {
        size_t length = name ? strlen(name) : 0;

        if (length == 0 || length > PRIVMEM_NAME_MAX)
                return false;
        memcpy(to, name, length + 1);
        return true;
}

/* The field "backing" of an answer. */
static int read_backing(privmem *p, json_object *reply, struct privmem_backing *ret) {
        json_object *b = json_get_object(reply, "backing");
        struct privmem_backing backing = {};
        const char *origin = json_get_string(b, "origin");
        int kind = value_of(kind_words, json_get_string(b, "kind"));

        if (!origin || kind < 0 || !copy_name(backing.vm, json_get_string(b, "vm")) ||
            !copy_name(backing.name, json_get_string(b, "name")) || !json_get_uint64(b, "size", &backing.size) ||
            !json_get_uint64(b, "pageSize", &backing.page_size) || !json_get_uint64(b, "device", &backing.device) ||
            !json_get_uint64(b, "inode", &backing.inode) || !json_get_uint64(b, "residentBytes", &backing.resident) ||
            !json_get_uint64(b, "slots", &backing.slots))
                return connection_malformed(p, "the description of a backing is incomplete");

        backing.kind = (privmem_kind) kind;
        backing.adopted = strcmp(origin, "adopted") == 0;
        backing.created = json_get_bool(reply, "created");
        if (ret)
                *ret = backing;
        return 0;
}

/* The file descriptor of an answer; ret_fd is NULL if nobody wants it. */
static int take_fd(privmem *p, json_object *reply, int *ret_fd) {
        int fd = -EBADF, r;

        r = connection_take_fd(p, reply, "fileDescriptor", &fd);
        if (r < 0)
                return r;

        if (ret_fd)
                *ret_fd = fd;
        else
                close(fd);
        return 0;
}

static bool add_nodes(json_object *q, const uint32_t *nodes, size_t n_nodes) {
        json_object *array;

        if (n_nodes == 0)
                return q != NULL;

        array = json_object_new_array();
        if (!array)
                return false;

        for (size_t i = 0; i < n_nodes; i++) {
                json_object *node = json_object_new_uint64(nodes[i]);

                if (!node || json_object_array_add(array, node) < 0) {
                        json_object_put(node);
                        json_object_put(array);
                        return false;
                }
        }

        return json_add(q, "numaNodes", array);
}

static bool add_options(json_object *q, const struct privmem_backing_options *options) {
        if (!options)
                return true;

        return json_add_string(q, "kind", word_of(kind_words, options->kind)) &&
               (options->page_size == 0 || json_add_uint64(q, "pageSize", options->page_size)) &&
               json_add_string(q, "numaPolicy", word_of(numa_policy_words, options->numa_policy)) &&
               add_nodes(q, options->numa_nodes, options->n_numa_nodes);
}

int privmem_backing_allocate(privmem_vm *vm, const char *name, uint64_t size,
                             const struct privmem_backing_options *options, int *ret_fd, bool *ret_created) {
        json_object *q = vm_parameters(vm), *reply = NULL;
        int r;

        if (!json_add_string(q, "name", name) || !json_add_uint64(q, "size", size) || !add_options(q, options)) {
                json_object_put(q);
                q = NULL;
        }

        r = connection_call(vm->p, "AllocateBacking", q, /* fds= */ NULL, /* n_fds= */ 0, /* max_fds= */ 1, &reply);
        if (r < 0)
                return r;

        r = take_fd(vm->p, reply, ret_fd);
        if (r < 0)
                return r;
        if (ret_created)
                *ret_created = json_get_bool(reply, "created");
        return 0;
}

static json_object *adopt_parameters(privmem_vm *vm, const char *name, bool with_fd, privmem_kind kind,
                                     uint64_t size) {
        json_object *q = vm_parameters(vm);

        if (!json_add_string(q, "name", name) || (with_fd && !json_add_uint64(q, "fileDescriptor", 0)) ||
            !json_add_string(q, "kind", word_of(kind_words, kind)) ||
            (size > 0 && !json_add_uint64(q, "size", size))) {
                json_object_put(q);
                return NULL;
        }
        return q;
}

int privmem_backing_adopt(privmem_vm *vm, const char *name, int fd, privmem_kind kind, uint64_t size,
                          struct privmem_backing *ret) {
        json_object *reply = NULL;
        int r;

        if (fd < 0)
                return error_set(&vm->p->error, -EBADF, "There is no file descriptor to donate.");

        r = connection_call(vm->p, "AdoptBacking", adopt_parameters(vm, name, /* with_fd= */ true, kind, size), &fd,
                            /* n_fds= */ 1, /* max_fds= */ 0, &reply);
        if (r < 0)
                return r;
        return read_backing(vm->p, reply, ret);
}

int privmem_backing_admit(privmem_vm *vm, const char *name, privmem_kind kind, uint64_t size) {
        json_object *reply = NULL;

        return connection_call(vm->p, "AdoptBacking", adopt_parameters(vm, name, /* with_fd= */ false, kind, size),
                               /* fds= */ NULL, /* n_fds= */ 0, /* max_fds= */ 0, &reply);
}

int privmem_backing_open(privmem_vm *vm, const char *name, privmem_access access, int *ret_fd,
                         struct privmem_backing *ret) {
        json_object *q = vm_parameters(vm), *reply = NULL;
        struct privmem_backing backing;
        int r;

        if (!json_add_string(q, "backing", name) || !json_add_string(q, "access", word_of(access_words, access))) {
                json_object_put(q);
                q = NULL;
        }

        r = connection_call(vm->p, "OpenBacking", q, /* fds= */ NULL, /* n_fds= */ 0, /* max_fds= */ 1, &reply);
        if (r < 0)
                return r;

        r = read_backing(vm->p, reply, &backing);
        if (r >= 0)
                r = take_fd(vm->p, reply, ret_fd);
        if (r < 0)
                return r;
        if (ret)
                *ret = backing;
        return 0;
}

/* For the methods that answer with one truth. */
static int call_peer(privmem_vm *vm, const char *method, const char *name, const char *peer, const char *access,
                     const char *field, bool *ret) {
        json_object *q = vm_parameters(vm), *reply = NULL;
        int r;

        if (!json_add_string(q, "backing", name) || !json_add_string(q, "peer", peer) ||
            !json_add_string(q, "access", access)) {
                json_object_put(q);
                q = NULL;
        }

        r = connection_call(vm->p, method, q, /* fds= */ NULL, /* n_fds= */ 0, /* max_fds= */ 0, &reply);
        if (r >= 0 && ret)
                *ret = json_get_bool(reply, field);
        return r;
}

int privmem_backing_share(privmem_vm *vm, const char *name, const char *peer, privmem_access access,
                          bool *ret_created) {
        return call_peer(vm, "ShareBacking", name, peer, word_of(access_words, access), "created", ret_created);
}

int privmem_backing_reclaim(privmem_vm *vm, const char *name, const char *peer, bool *ret_reclaimed) {
        return call_peer(vm, "ReclaimBacking", name, peer, /* access= */ NULL, "reclaimed", ret_reclaimed);
}

/* For the methods that answer with freedBytes. */
static int call_freeing(privmem_vm *vm, const char *method, json_object *q, uint64_t *ret_freed) {
        json_object *reply = NULL;
        uint64_t freed;
        int r;

        r = connection_call(vm->p, method, q, /* fds= */ NULL, /* n_fds= */ 0, /* max_fds= */ 0, &reply);
        if (r < 0)
                return r;
        if (!json_get_uint64(reply, "freedBytes", &freed))
                return connection_malformed(vm->p, "freedBytes is missing");

        if (ret_freed)
                *ret_freed = freed;
        return 0;
}

int privmem_backing_release(privmem_vm *vm, const char *name, uint64_t *ret_freed) {
        json_object *q = vm_parameters(vm);

        if (!json_add_string(q, "backing", name)) {
                json_object_put(q);
                q = NULL;
        }
        return call_freeing(vm, "ReleaseBacking", q, ret_freed);
}

int privmem_backing_punch(privmem_vm *vm, const char *name, uint64_t offset, uint64_t size, uint64_t *ret_freed) {
        json_object *q = vm_parameters(vm);

        if (!json_add_string(q, "backing", name) || !json_add_uint64(q, "offset", offset) ||
            !json_add_uint64(q, "size", size)) {
                json_object_put(q);
                q = NULL;
        }
        return call_freeing(vm, "PunchBacking", q, ret_freed);
}
