/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What the administrator sets, privmemd.conf(5). A file is taken as a whole or not at all: one mistake in it, and the
 * settings that are in force stay. policy/privmemd.conf shows all settings with their defaults. */

#include <stdio.h>

#include "core/registry.h"
#include "front/front.h"

typedef struct Config {
        CoreLimits limits;
        FrontSettings front;
} Config;

#define CONFIG_DEFAULT \
        (Config) { \
                .limits = { .vms_per_uid = VMS_PER_UID_MAX, .backings_per_vm = BACKINGS_PER_VM_MAX }, \
                .front = FRONT_SETTINGS_DEFAULT, \
        }

/* The group that has the right to manage, if the file does not say; and if there is none of that name, nobody has it. */
#define MANAGER_GROUP_DEFAULT "privmem"

/* CONFIG_DEFAULT, as this host makes it. */
void config_default(Config *ret);

/* With newline and terminating NUL; libinih has room for no more. */
#define CONFIG_LINE_MAX 190U

enum {
        CONFIG_E_BAD = 1, /* *ret_message says where, what is wrong and what is allowed */
};

/* Reads the file at path, or else the defaults of what it does not set. -ENOENT if there is none. The caller frees
 * *ret_message, which is set for CONFIG_E_BAD only. */
int config_read(const char *path, Config *ret, char **ret_message);
/* The same of an open file; path is for the message. */
int config_parse(FILE *file, const char *path, Config *ret, char **ret_message);
