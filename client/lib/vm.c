/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "vm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "json.h"
#include "words.h"

json_object *vm_parameters(const privmem_vm *vm) {
        json_object *parameters = json_object_new_object();

        if (!json_add_string(parameters, "vm", vm->name)) {
                json_object_put(parameters);
                return NULL;
        }
        return parameters;
}

int privmem_vm_new(privmem *p, const char *name, privmem_vm **ret) {
        privmem_vm *vm;

        if (!name || !*name)
                return error_set(&p->error, -EINVAL, "The name of a VM cannot be empty.");

        vm = calloc(1, sizeof(*vm));
        if (vm)
                vm->name = strdup(name);
        if (!vm || !vm->name) {
                free(vm);
                error_done(&p->error);
                return -ENOMEM;
        }

        vm->p = p;
        vm->user_memory2 = -1;
        *ret = vm;
        return 0;
}

privmem_vm *privmem_vm_free(privmem_vm *vm) {
        if (!vm)
                return NULL;

        slot_table_done(&vm->slots);
        free(vm->name);
        free(vm);
        return NULL;
}

const char *privmem_vm_name(const privmem_vm *vm) {
        return vm->name;
}

int privmem_vm_set_kvm_abi(privmem_vm *vm, privmem_kvm_abi abi) {
        if ((unsigned) abi > PRIVMEM_KVM_ABI_EXT)
                return error_set(&vm->p->error, -EINVAL, "There is no such form of a slot.");

        vm->abi = abi;
        return 0;
}

static json_object *register_parameters(const char *name, const struct privmem_vm_options *options) {
        json_object *q = json_object_new_object();
        bool made;

        made = json_add_string(q, "name", name);
        if (options)
                made = made && json_add_string(q, "uuid", options->uuid) &&
                       json_add_string(q, "exitPolicy", word_of(exit_policy_words, options->exit_policy)) &&
                       json_add_string(q, "aliasPolicy", word_of(alias_policy_words, options->alias_policy)) &&
                       (options->retain_usec == 0 || json_add_uint64(q, "retainUSec", options->retain_usec)) &&
                       (!options->retain_guest_memfd ||
                        json_add(q, "retainGuestMemfd", json_object_new_boolean(true))) &&
                       json_add_string(q, "type", word_of(vm_type_words, options->type)) &&
                       (!options->set_owner || json_add_uint64(q, "ownerUID", options->owner_uid));
        if (!made) {
                json_object_put(q);
                return NULL;
        }
        return q;
}

int privmem_vm_register(privmem *p, const char *name, const struct privmem_vm_options *options, privmem_vm **ret,
                        bool *ret_created) {
        privmem_vm *vm = NULL;
        json_object *reply = NULL;
        int r;

        r = privmem_vm_new(p, name, &vm);
        if (r < 0)
                return r;

        r = connection_call(p, "RegisterVM", register_parameters(name, options), /* fds= */ NULL, /* n_fds= */ 0,
                            /* max_fds= */ 0, &reply);
        if (r < 0) {
                privmem_vm_free(vm);
                return r;
        }

        if (ret_created)
                *ret_created = json_get_bool(reply, "created");
        *ret = vm;
        return 0;
}

static int call_with_process(privmem_vm *vm, const char *method, int pidfd) {
        json_object *q = vm_parameters(vm), *reply = NULL;

        if (pidfd >= 0 && !json_add_uint64(q, "pidFileDescriptor", 0)) {
                json_object_put(q);
                q = NULL;
        }

        return connection_call(vm->p, method, q, &pidfd, pidfd >= 0 ? 1 : 0, /* max_fds= */ 0, &reply);
}

static int attach(privmem_vm *vm, int pidfd) {
        int r;

        r = call_with_process(vm, "AttachVM", pidfd);
        if (r >= 0)
                /* Another VMM has other slots. */
                slot_table_done(&vm->slots);
        return r;
}

int privmem_vm_attach(privmem_vm *vm, int pidfd) {
        int r;

        r = attach(vm, pidfd);
        if (r != -EOPNOTSUPP || pidfd >= 0)
                return r;

        /* Before Linux 6.5 privmemd cannot tell who calls (SO_PEERPIDFD), so say it. */
        pidfd = (int) syscall(SYS_pidfd_open, getpid(), 0);
        if (pidfd < 0)
                return r;
        r = attach(vm, pidfd);
        close(pidfd);
        return r;
}

int privmem_vm_hand_over(privmem_vm *vm, int pidfd) {
        return call_with_process(vm, "HandOverVM", pidfd);
}

int privmem_vm_unregister(privmem_vm *vm, uint64_t *ret_freed) {
        json_object *reply = NULL;
        uint64_t freed;
        int r;

        r = connection_call(vm->p, "UnregisterVM", vm_parameters(vm), /* fds= */ NULL, /* n_fds= */ 0,
                            /* max_fds= */ 0, &reply);
        if (r < 0)
                return r;
        if (!json_get_uint64(reply, "freedBytes", &freed))
                return connection_malformed(vm->p, "freedBytes is missing");

        slot_table_done(&vm->slots);
        if (ret_freed)
                *ret_freed = freed;
        return 0;
}
