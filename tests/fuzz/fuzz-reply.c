/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* libprivmem against a server whose answers the fuzzer writes: whatever they are, every call returns, and no file
 * descriptor is left over.
 *
 * The first byte chooses the call, the second how many file descriptors come with the answer; the rest is the
 * answer, which may be none or several. */

#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "privmem.h"

#define ANSWER_MAX 65536 /* fits into the socket's buffer, so that nobody has to read and write in turn */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void send_answer(int fd, const uint8_t *bytes, size_t size, size_t n_fds) {
        char control[CMSG_SPACE(253 * sizeof(int))] = {};
        struct iovec io = { .iov_base = (void *) bytes, .iov_len = size };
        struct msghdr message = { .msg_iov = &io, .msg_iovlen = 1 };

        if (n_fds > 0) {
                struct cmsghdr *c = (struct cmsghdr *) control;

                c->cmsg_level = SOL_SOCKET;
                c->cmsg_type = SCM_RIGHTS;
                c->cmsg_len = CMSG_LEN(n_fds * sizeof(int)); /* all 0: standard input */
                message.msg_control = control;
                message.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
        }
        if (size > 0 && sendmsg(fd, &message, MSG_NOSIGNAL) < 0)
                abort();
        shutdown(fd, SHUT_WR);
}

static int touch(const char *reply, void *userdata) {
        *(size_t *) userdata += strlen(reply);
        return 0;
}

static void call_backing(privmem_vm *vm, bool open) {
        struct privmem_backing backing = {};
        bool created;
        int fd = -1, r;

        if (open)
                r = privmem_backing_open(vm, "b", PRIVMEM_ACCESS_READ_ONLY, &fd, &backing);
        else
                r = privmem_backing_allocate(vm, "b", 4096, NULL, &fd, &created);
        if (r >= 0 && (fd < 0 || strlen(backing.name) > PRIVMEM_NAME_MAX))
                abort();
        if (fd >= 0)
                close(fd);
}

static void call_any(privmem *p) {
        char *reply = NULL;
        int fds[3];
        size_t n = 3;

        if (privmem_call(p, "X", NULL, NULL, 0, &reply, fds, &n) < 0)
                return;
        while (n > 0)
                close(fds[--n]);
        free(reply);
}

static void read_events(privmem *p) {
        struct privmem_event event;

        if (privmem_subscribe(p, 0) < 0)
                return;
        while (privmem_event_next(p, -1, &event) >= 0)
                if (!event.kind || !event.json)
                        abort();
}

/* The "VM" is no VM, so KVM refuses every slot and the declaration is undone. */
static void set_slots(privmem_vm *vm) {
        struct privmem_slot slot = { .memory_size = 4096, .backing = "b" };
        int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

        for (slot.slot_id = 0; slot.slot_id < 3; slot.slot_id++)
                if (privmem_slot_set(vm, fd, &slot) >= 0)
                        abort();
        close(fd);
}

static void call(privmem *p, privmem_vm *vm, unsigned which) {
        struct privmem_verdict verdicts[2];
        struct privmem_slot slots[2] = {};
        uint64_t freed;
        size_t total = 0;
        bool accepted;

        switch (which % 8) {
        case 0:
        case 1:
                call_backing(vm, which % 8 == 1);
                break;
        case 2:
                (void) privmem_call_more(p, "ListVMs", NULL, touch, &total);
                break;
        case 3:
                (void) privmem_slot_check(vm, slots, 2, verdicts, &accepted);
                break;
        case 4:
                read_events(p);
                break;
        case 5:
                set_slots(vm);
                break;
        case 6:
                call_any(p);
                break;
        case 7:
                (void) privmem_vm_unregister(vm, &freed);
                break;
        }
        (void) privmem_error_message(p);
        (void) privmem_reply_json(p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        privmem_vm *vm = NULL;
        privmem *p = NULL;
        int pair[2], before, after;

        if (size < 2 || size > ANSWER_MAX)
                return -1;

        before = dup(STDIN_FILENO);
        close(before);

        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0 || privmem_connect_fd(pair[0], &p) < 0 ||
            privmem_vm_new(p, "v", &vm) < 0)
                abort();
        send_answer(pair[1], data + 2, size - 2, data[1] % 6);
        call(p, vm, data[0]);
        privmem_vm_free(vm);
        privmem_close(p);
        close(pair[1]);

        after = dup(STDIN_FILENO);
        close(after);
        if (after != before)
                abort();
        return 0;
}
