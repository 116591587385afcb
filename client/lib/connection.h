/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A handle's inside, and calls with json-c objects instead of text.
 *
 * Between calls there is nothing in the transport's buffer and none of its file descriptors is left; whatever
 * breaks that closes the socket, and from then on every call is -ENOTCONN. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <json-c/json.h>

#include "error.h"
#include "privmem.h"
#include "transport.h"

struct privmem {
        Transport transport;
        bool subscribed;
        Error error;
        json_object *reply; /* parameters of the last answer */
};

/* Calls a method and waits for its single answer.
 *
 * parameters  consumed; NULL means that it could not be made: -ENOMEM.
 * max_fds     how many file descriptors the answer may carry; they are left in the transport, and the caller
 *             takes or drops all of them.
 * ret_reply   the handle's, until the next call. */
int connection_call(privmem *p, const char *method, json_object *parameters, const int *fds, size_t n_fds,
                    size_t max_fds, json_object **ret_reply);

/* Sends a call that is answered by a stream. */
int connection_call_more(privmem *p, const char *method, json_object *parameters);

/* The next part of the stream; -EAGAIN as transport_receive(). */
int connection_next_reply(privmem *p, int timeout_msec, json_object **ret_reply, bool *ret_continues);

/* Takes the only file descriptor of the answer, whose index is in that field. */
int connection_take_fd(privmem *p, json_object *reply, const char *field, int *ret_fd);

/* Closes the socket because of code, which is returned. */
int connection_break(privmem *p, int code, const char *reason);

/* The answer lacks what it must have: breaks the connection. Returns -EPROTO. */
int connection_malformed(privmem *p, const char *what);
