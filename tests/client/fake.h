/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A server that says whatever a test wants: a thread at the other end of a socketpair. */

#include <stddef.h>

#include <json-c/json.h>

#include "privmem.h"

typedef struct Fake Fake;

/* What the server does; it owns nothing, and the socket is closed when it returns. */
typedef void (*FakeFunc)(Fake *f, void *userdata);

struct Fake {
        int fd;
        FakeFunc function;
        void *userdata;
        unsigned long thread;
        int fds[253]; /* came with the call read last */
        size_t n_fds;
};

/* Starts it and connects to it. */
privmem *fake_start(Fake *f, FakeFunc function, void *userdata);

/* Closes the client's handle, and waits until the server has ended. */
void fake_stop(Fake *f, privmem *p);

/* Reads one call; NULL at the end of the stream. The file descriptors of the call before are closed. */
json_object *fake_read(Fake *f);

/* Sends bytes as they are, with n_fds duplicates of standard input. */
void fake_send_bytes(Fake *f, const char *bytes, size_t size, size_t n_fds);

/* Sends a text and its NUL. */
void fake_send(Fake *f, const char *text);

/* Reads a call and answers it with userdata, a text. */
void fake_answer(Fake *f, void *userdata);

/* Open file descriptors of this process. */
unsigned count_fds(void);
