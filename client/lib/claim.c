/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "connection.h"
#include "json.h"
#include "vm.h"
#include "words.h"

struct privmem_redeemed *privmem_redeemed_free(struct privmem_redeemed *redeemed, size_t n_redeemed) {
        for (size_t i = 0; redeemed && i < n_redeemed; i++)
                if (redeemed[i].fd >= 0)
                        close(redeemed[i].fd);
        free(redeemed);
        return NULL;
}

/* Each file descriptor has one owner: an index that comes again names none. */
static int take_fd(Transport *t, json_object *backing) {
        uint64_t index;
        int fd;

        if (!json_get_uint64(backing, "fileDescriptor", &index) || index >= t->n_fds)
                return -EBADF;
        fd = t->fds[index];
        t->fds[index] = -EBADF;
        return fd;
}

static bool read_redeemed(Transport *t, json_object *backing, struct privmem_redeemed *ret) {
        const char *name = json_get_string(backing, "name");
        int kind = value_of(kind_words, json_get_string(backing, "kind"));
        int access = value_of(access_words, json_get_string(backing, "access"));

        if (!name || strlen(name) == 0 || strlen(name) > PRIVMEM_NAME_MAX || kind < 0 || access < 0 ||
            !json_get_uint64(backing, "size", &ret->size))
                return false;
        strcpy(ret->name, name);
        ret->kind = (privmem_kind) kind;
        ret->access = (privmem_access) access;
        ret->fd = take_fd(t, backing);
        return ret->fd >= 0;
}

int privmem_claim_redeem(privmem_vm *vm, const char *token, bool attach, struct privmem_redeemed **ret,
                         size_t *ret_n) {
        json_object *q = vm_parameters(vm), *reply = NULL, *list;
        Transport *t = &vm->p->transport;
        struct privmem_redeemed *redeemed;
        size_t n, i;
        int r;

        if (!json_add_string(q, "token", token ? token : "") ||
            (attach && !json_add(q, "attach", json_object_new_boolean(true)))) {
                json_object_put(q);
                q = NULL;
        }
        r = connection_call(vm->p, "RedeemClaim", q, /* fds= */ NULL, /* n_fds= */ 0, TRANSPORT_FDS_MAX, &reply);
        if (r < 0)
                return r;

        list = json_get_array(reply, "backings");
        n = list ? json_object_array_length(list) : 0;
        redeemed = calloc(n ? n : 1, sizeof(*redeemed));
        if (!redeemed) {
                transport_drop_fds(t);
                error_done(&vm->p->error);
                return -ENOMEM;
        }
        for (i = 0; i < n && read_redeemed(t, json_object_array_get_idx(list, i), &redeemed[i]); i++)
                ;
        if (n == 0 || i < n) {
                privmem_redeemed_free(redeemed, i);
                return connection_malformed(vm->p, "a redeemed backing is incomplete");
        }
        transport_drop_fds(t);
        *ret = redeemed;
        *ret_n = n;
        return 0;
}
