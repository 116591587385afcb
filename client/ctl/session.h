/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* One run of privmemctl: its connection, how it prints, and how it fails.
 *
 * Functions that return int here return one of the exit codes; whoever returns another than EXIT_OK has said on
 * standard error why. With --json an error reply is also printed as {"error": …, "parameters": …} to standard
 * output, so that a program that reads it always finds a document. */

#include <stdbool.h>

#include <json-c/json.h>

#include "privmem.h"

enum {
        EXIT_OK = 0,
        EXIT_ERROR = 1,   /* privmemd, or the system, said no */
        EXIT_USAGE = 2,   /* the command line makes no sense */
        EXIT_CONNECT = 3, /* privmemd cannot be reached */
        EXIT_CANNOT_EXECUTE = 126,
        EXIT_NOT_FOUND = 127,
};

typedef struct Session {
        const char *socket; /* NULL: the default */
        bool json;
        privmem *p;
} Session;

/* Prints "privmemctl: …" and a newline to standard error. */
void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

int session_open(Session *s);
void session_done(Session *s);

/* Says why the last call failed, with every conflict. Returns EXIT_ERROR. */
int session_fail(Session *s);

/* Opens the connection if need be, and calls. parameters is consumed; NULL is out of memory. File descriptors of
 * the answer are closed. The caller puts ret_reply. */
int session_call(Session *s, const char *method, json_object *parameters, json_object **ret_reply);

/* The same with a file descriptor, which parameters name by the index 0; negative: none. It stays the caller's. */
int session_call_with_fd(Session *s, const char *method, json_object *parameters, int fd, json_object **ret_reply);

/* Calls a method that lists, and joins the parts: ret_reply is the last part, with field as the list of all of them. */
int session_list(Session *s, const char *method, json_object *parameters, const char *field, json_object **ret_reply);

/* Prints a document on one line. Returns EXIT_OK. */
int session_print(json_object *document);

int out_of_memory(void);
