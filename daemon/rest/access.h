/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Who calls over TLS: by its token if it shows one, else by its certificate. What that takes of files is read together,
 * at the start and on SIGHUP; a mistake in one of them leaves all as it was. */

#include "rest/http.h"
#include "rest/settings.h"
#include "rest/tls.h"

typedef struct Access Access;

/* settings must outlive it. LINES_E_BAD with a message, or a negative errno. */
int access_new(const Settings *settings, Access **ret, char **ret_message);
/* All connections must be gone. */
Access *access_free(Access *access);
int access_reload(Access *access, char **ret_message);

/* NULL if there is no certificate, and thus no TLS. */
Tls *access_tls(Access *access);

/* Once the header has come. Where a token says who it is, exchange->caller becomes room. */
void access_identify(const Access *access, Exchange *exchange, Caller *room);

/* Adds the header that tells a caller how to say who it is. Returns the status: 401 if that would help, else 403. */
unsigned access_refuse(const Access *access, Exchange *exchange);
