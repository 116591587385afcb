/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <string.h>

#include "connection.h"
#include "json.h"
#include "vm.h"

typedef struct Listing {
        privmem_vm *vm;
        privmem_holder_func callback;
        void *userdata;
        bool complete;
        uint64_t unreadable;
} Listing;

static bool copy_text(char *to, size_t size, const char *text) {
        size_t length = text ? strlen(text) : size;

        if (length >= size)
                return false;
        memcpy(to, text, length + 1);
        return true;
}

static bool is_vmm_of(json_object *holder, const char *vm) {
        json_object *vms = json_get_array(holder, "vmmOf");

        for (size_t i = 0; vms && i < json_object_array_length(vms); i++) {
                json_object *name = json_object_array_get_idx(vms, i);

                if (json_object_is_type(name, json_type_string) && strcmp(json_object_get_string(name), vm) == 0)
                        return true;
        }
        return false;
}

static bool read_holder(json_object *holder, const char *vm, struct privmem_holder *ret) {
        struct privmem_holder h = {};
        uint64_t pid, uid;

        if (!copy_text(h.backing, sizeof(h.backing), json_get_string(holder, "backing")) ||
            !copy_text(h.command, sizeof(h.command), json_get_string(holder, "command")) ||
            !json_get_uint64(holder, "pid", &pid) || !json_get_uint64(holder, "uid", &uid) || pid > INT32_MAX ||
            uid > UINT32_MAX || !json_get_uint64(holder, "fileDescriptors", &h.fds) ||
            !json_get_uint64(holder, "sharedBytes", &h.shared_bytes) ||
            !json_get_uint64(holder, "privateBytes", &h.private_bytes))
                return false;

        h.pid = (int32_t) pid;
        h.uid = (uint32_t) uid;
        h.is_vmm = is_vmm_of(holder, vm);
        h.writable = json_get_bool(holder, "writable");
        h.copies_on_write = json_get_bool(holder, "copiesOnWrite");
        *ret = h;
        return true;
}

static int read_part(Listing *l, json_object *part) {
        json_object *holders = json_get_array(part, "holders");
        int r = 0;

        if (!holders || !json_get_uint64(part, "unreadable", &l->unreadable))
                return connection_malformed(l->vm->p, "the list of holders is incomplete");

        l->complete = json_get_bool(part, "complete");
        for (size_t i = 0; r == 0 && i < json_object_array_length(holders); i++) {
                struct privmem_holder holder;

                if (!read_holder(json_object_array_get_idx(holders, i), l->vm->name, &holder))
                        return connection_malformed(l->vm->p, "the description of a holder is incomplete");
                r = l->callback(&holder, l->userdata);
        }
        return r;
}

int privmem_vm_holders(privmem_vm *vm, const char *backing, privmem_holder_func callback, void *userdata,
                       bool *ret_complete, uint64_t *ret_unreadable) {
        Listing l = { .vm = vm, .callback = callback, .userdata = userdata };
        json_object *q = vm_parameters(vm), *part = NULL;
        bool continues = true;
        int r;

        if (!json_add_string(q, "backing", backing)) {
                json_object_put(q);
                q = NULL;
        }

        r = connection_call_more(vm->p, "ListHolders", q);
        while (r == 0 && continues) {
                r = connection_next_reply(vm->p, /* timeout_msec= */ -1, &part, &continues);
                if (r < 0)
                        return r;
                r = read_part(&l, part);
                if (r != 0 && continues && vm->p->transport.fd >= 0)
                        connection_break(vm->p, r, "The list of holders was stopped.");
        }
        if (r != 0)
                return r;
        if (transport_has_more(&vm->p->transport))
                return connection_malformed(vm->p, "there is something behind it");

        if (ret_complete)
                *ret_complete = l.complete;
        if (ret_unreadable)
                *ret_unreadable = l.unreadable;
        return 0;
}
