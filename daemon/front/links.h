/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Connections, each of which gets its turn. sd-varlink can look after them too, but as long as one has something to do
 * nobody else is heard, and one that the event loop could not look at stays silent for ever. Here each does a few steps
 * a turn, and is closed if it cannot be looked at. */

#include <systemd/sd-event.h>
#include <systemd/sd-varlink.h>

typedef struct Links Links;

int links_new(sd_event *event, Links **ret);
/* Not attached to an event loop otherwise. On failure the caller closes it. */
int links_add(Links *links, sd_varlink *varlink);
/* To be called when it is closed; accepts what was not added. */
void links_forget(Links *links, sd_varlink *varlink);
/* Closes those that are left. Accepts NULL, returns NULL. */
Links *links_free(Links *links);
