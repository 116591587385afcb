/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A socket that clients connect to. sd-varlink can listen too, but stops for ever once accept(2) has failed, as it
 * does when no file descriptor is left; a listener tries again. */

#include <stdbool.h>
#include <sys/stat.h>
#include <systemd/sd-event.h>

typedef struct Listener Listener;

/* sun_path, and a zero behind it. */
#define LISTENER_PATH_SIZE 109U

/* Takes the fd of a client that has connected. */
typedef void (*ListenerAccept)(int fd, void *userdata);

/* Takes fd on success. Not connected to before the event loop runs. */
int listener_new(sd_event *event, int fd, ListenerAccept on_accept, void *userdata, Listener **ret);
/* Accepts NULL, returns NULL. */
Listener *listener_free(Listener *listener);

/* Where it is bound; false if that is no path of the file system. */
bool listener_path(const Listener *listener, char ret[static LISTENER_PATH_SIZE]);

/* Creates a socket. -EEXIST: something else than a socket is at path; -EADDRINUSE: somebody listens there. A socket
 * that nobody listens on any more is replaced. */
int listener_open(const char *path, mode_t mode, int *ret_fd);
