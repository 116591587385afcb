/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What the administrator sets, privmem-rest(8). As with privmemd.conf, a file is taken as a whole or not at all.
 * policy/privmem-rest.conf shows all settings with their defaults. */

#include <stdint.h>
#include <stdio.h>

#include "rest/http.h"
#include "rest/tls.h"

typedef struct Settings {
        HttpSettings http;
        uint32_t subscribers, subscribers_per_caller;                /* of events */
        uint32_t connections_per_address;                            /* of TLS */
        uint32_t handshakes_per_second;                              /* of one address */
        char *certificate, *key, *client_ca, *crl, *rights, *tokens; /* paths; NULL if not set */
} Settings;

#define SETTINGS_DEFAULT \
        ((Settings) { .http = HTTP_SETTINGS_DEFAULT, .subscribers = 2048, .subscribers_per_caller = 1024 })

/* With newline and terminating NUL; libinih has room for no more. */
#define SETTINGS_LINE_MAX 190U

/* Reads the file at path. -ENOENT if there is none; LINES_E_BAD with a message. The caller frees *ret_message, and calls
 * settings_done(). */
int settings_read(const char *path, Settings *ret, char **ret_message);
/* The same of an open file; path is for the message. */
int settings_parse(FILE *file, const char *path, Settings *ret, char **ret_message);
void settings_done(Settings *settings);
