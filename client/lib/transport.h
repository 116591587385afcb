/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Varlink framing on a unix stream socket: messages that end with a NUL byte, and file descriptors.
 *
 * It knows nothing of JSON. Always true: every file descriptor that was received is in fds[] until somebody
 * takes it or transport_drop_fds() closes it; they came with, or right behind, the message received last. An
 * error other than -EAGAIN means that the connection is of no use any more; the owner must stop using it. */

#include <stdbool.h>
#include <stddef.h>

/* Larger messages are neither sent nor read. The NUL is not counted. */
#define TRANSPORT_MESSAGE_MAX ((size_t) 16 * 1024 * 1024)

/* SCM_MAX_FD of the kernel: what one message can carry. */
#define TRANSPORT_FDS_MAX 253

typedef struct Transport {
        int fd;

        char *buffer;
        size_t capacity;
        size_t filled;  /* bytes received */
        size_t scanned; /* bytes known to hold no NUL */
        size_t taken;   /* bytes at the front that were handed out; dropped by the next receive */

        int fds[TRANSPORT_FDS_MAX];
        size_t n_fds;
} Transport;

#define TRANSPORT_INIT { .fd = -1 }

/* Connects to a socket in the file system. */
int transport_connect(Transport *t, const char *path);

/* Closes everything. */
void transport_done(Transport *t);

void transport_drop_fds(Transport *t);

/* Sends size bytes, the last of which is the message's NUL; fds go with the first byte.
 * -EPIPE, -ECONNRESET: the other side is gone. -EMSGSIZE: nothing was sent. */
int transport_send(Transport *t, const char *message, size_t size, const int *fds, size_t n_fds);

/* Receives one message. It is the transport's, and valid until the next receive.
 *
 * -EAGAIN: no whole message within timeout_msec (negative: for ever); what there is of it is kept.
 * -ECONNRESET: end of the stream, also in the middle of a message. -EMSGSIZE: the message is too large.
 * -EMFILE: the kernel could not give us all file descriptors. -E2BIG: more than TRANSPORT_FDS_MAX of them. */
int transport_receive(Transport *t, int timeout_msec, const char **ret_message, size_t *ret_size);

/* Whether bytes came behind the message received last. */
bool transport_has_more(const Transport *t);
