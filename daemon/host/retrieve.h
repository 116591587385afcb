/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Files of guest memory, taken back out of a process that has them open or mapped. */

#include "host/process.h"

/* Hands out a new fd, O_RDWR and O_CLOEXEC, of each file of the process for which wanted() says yes, maybe more than
 * one of a file. found() owns it. What the process has only mapped, a guest_memfd, cannot be had. Errors are no errors:
 * a process that may not be looked at has nothing. */
void retrieve_files(const Process *process, bool (*wanted)(dev_t dev, ino_t ino, void *userdata),
                    void (*found)(int fd, void *userdata), void *userdata);

/* The process of that number, if it is the one that was started then. PROCESS_E_GONE if not. */
int retrieve_process(pid_t pid, uint64_t start_time, Process *ret);
