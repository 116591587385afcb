/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Files of guest memory, taken back out of a process that has them open or mapped. */

#include "host/process.h"

/* Hands out a new fd, O_RDWR and O_CLOEXEC, of each file of the process for which wanted() says yes, maybe more than
 * one of a file. found() owns it; whatever but 0 it returns ends the search, and is returned. What the process has only
 * mapped, a guest_memfd, cannot be had. A process that has exited or may not be looked at has nothing; that there is no
 * memory or no fd to look with is an error, for nobody knows what it has. */
int retrieve_files(const Process *process, bool (*wanted)(dev_t dev, ino_t ino, void *userdata),
                   int (*found)(int fd, void *userdata), void *userdata);

/* The process of that number, if it is the one that was started then. PROCESS_E_GONE if not. */
int retrieve_process(pid_t pid, uint64_t start_time, Process *ret);
