/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "config.h"

#include <grp.h>
#include <ini.h>
#include <string.h>

#include "core/cleanup.h"
#include "front/words.h"

/* (gid_t) -1 is none. */
#define GID_MAX         (UINT32_MAX - 1)
#define GROUP_BYTES_MAX (16U << 20)

typedef enum SettingType {
        NUMBER,
        EXIT_POLICY,
        ALIAS_POLICY,
        GROUP,
} SettingType;

typedef struct Setting {
        const char *section, *key;
        SettingType type;
        size_t offset; /* in Config */
        uint32_t maximum;
} Setting;

#define NUMBER_OF(field, max)  NUMBER, offsetof(Config, field), max
#define POLICY_OF(type, field) type, offsetof(Config, field), 0
#define GROUP_OF(field)        GROUP, offsetof(Config, field), 0

static const Setting settings[] = {
        { "Limits", "VMsPerUID", NUMBER_OF(limits.vms_per_uid, VMS_PER_UID_MAX) },
        { "Limits", "BackingsPerVM", NUMBER_OF(limits.backings_per_vm, BACKINGS_PER_VM_MAX) },
        { "Limits", "Connections", NUMBER_OF(front.connections, CONNECTIONS_MAX) },
        { "Limits", "ConnectionsPerUID", NUMBER_OF(front.connections_per_uid, CONNECTIONS_PER_UID_MAX) },
        { "VM", "ExitPolicy", POLICY_OF(EXIT_POLICY, front.exit_policy) },
        { "VM", "AliasPolicy", POLICY_OF(ALIAS_POLICY, front.alias_policy) },
        { "Access", "ManagerGroup", GROUP_OF(front.manager_gid) },
};

typedef struct Parser {
        FILE *file;
        const char *path;
        unsigned line; /* the one that is being read */
        unsigned set_in[ELEMENTSOF(settings)];
        Config config;
        char *message; /* of the first mistake */
        int error;     /* negative errno: nothing to say but that */
} Parser;

/* Keeps the first mistake only. */
__attribute__((format(printf, 2, 3))) static void complain(Parser *p, const char *fmt, ...) {
        _cleanup_free_ char *text = NULL;
        va_list ap;
        int r;

        if (p->message || p->error < 0)
                return;
        va_start(ap, fmt);
        r = vasprintf(&text, fmt, ap);
        va_end(ap);
        if (r < 0 || asprintf(&p->message, "%s:%u: %s", p->path, p->line, text) < 0) {
                p->message = NULL;
                p->error = -ENOMEM;
        }
}

/* ---- values ---- */

static bool parse_number(const char *text, uint32_t maximum, uint32_t *ret) {
        unsigned long value;
        char *end;

        /* strtoul() takes a sign, and spaces before it. */
        if (text[0] < '0' || text[0] > '9')
                return false;
        errno = 0;
        value = strtoul(text, &end, 10);
        if (errno != 0 || *end != 0 || value < 1 || value > maximum)
                return false;
        *ret = (uint32_t) value;
        return true;
}

static void set_number(Parser *p, const Setting *setting, const char *value, uint32_t *field) {
        if (!parse_number(value, setting->maximum, field))
                complain(p, "%s=%s: it must be a number from 1 to %u", setting->key, value, setting->maximum);
}

static void set_exit_policy(Parser *p, const Setting *setting, const char *value, ExitPolicy *field) {
        int policy = exit_policy_of(value, -1);

        if (policy < 0)
                complain(p, "%s=%s: it must be release or retain", setting->key, value);
        else
                *field = (ExitPolicy) policy;
}

static void set_alias_policy(Parser *p, const Setting *setting, const char *value, AliasPolicy *field) {
        int policy = alias_policy_of(value, -1);

        if (policy < 0)
                complain(p, "%s=%s: it must be enforce or observe", setting->key, value);
        else
                *field = (AliasPolicy) policy;
}

/* 0; -ENOENT if there is no such group; or another errno of the databases that know them. */
static int find_group(const char *name, gid_t *ret) {
        struct group group, *found = NULL;
        _cleanup_free_ char *buffer = NULL;
        size_t size = 1024;
        int r;

        /* A group with thousands of members is long. */
        do {
                free(buffer);
                size *= 4;
                buffer = malloc(size);
                r = buffer ? getgrnam_r(name, &group, buffer, size, &found) : ENOMEM;
        } while (r == ERANGE && size < GROUP_BYTES_MAX);
        if (r != 0)
                return -r;
        if (!found)
                return -ENOENT;
        *ret = group.gr_gid;
        return 0;
}

static void set_group(Parser *p, const Setting *setting, const char *value, gid_t *field) {
        uint32_t number;
        int r;

        *field = GID_NONE;
        if (!value[0])
                return;
        if (parse_number(value, GID_MAX, &number)) {
                *field = number;
                return;
        }
        r = find_group(value, field);
        if (r == -ENOENT)
                complain(p, "%s=%s: there is no such group", setting->key, value);
        else if (r < 0)
                complain(p, "%s=%s: the group cannot be looked up: %s", setting->key, value, strerror(-r));
}

static void set(Parser *p, const Setting *setting, const char *value) {
        void *field = (char *) &p->config + setting->offset;

        switch (setting->type) {
        case NUMBER:
                return set_number(p, setting, value, field);
        case EXIT_POLICY:
                return set_exit_policy(p, setting, value, field);
        case ALIAS_POLICY:
                return set_alias_policy(p, setting, value, field);
        case GROUP:
                return set_group(p, setting, value, field);
        }
}

/* ---- lines ---- */

static bool is_section(const char *name) {
        for (size_t i = 0; i < ELEMENTSOF(settings); i++)
                if (strcmp(settings[i].section, name) == 0)
                        return true;
        return false;
}

static void complain_of_unknown(Parser *p, const char *section, const char *key) {
        char known[256] = "";

        if (!section[0])
                return complain(p, "%s= is in no section; it must stand below [Limits], [VM] or [Access]", key);
        if (!is_section(section))
                return complain(p, "there is no section [%s]; it must be [Limits], [VM] or [Access]", section);
        for (size_t i = 0; i < ELEMENTSOF(settings); i++)
                if (strcmp(settings[i].section, section) == 0)
                        snprintf(known + strlen(known), sizeof(known) - strlen(known), "%s%s=", known[0] ? ", " : "",
                                 settings[i].key);
        complain(p, "there is no %s= in [%s]; it has %s", key, section, known);
}

static int on_assignment(void *userdata, const char *section, const char *key, const char *value) {
        Parser *p = userdata;

        for (size_t i = 0; i < ELEMENTSOF(settings); i++) {
                if (strcmp(settings[i].section, section) != 0 || strcmp(settings[i].key, key) != 0)
                        continue;
                if (p->set_in[i] > 0)
                        complain(p, "%s= is set a second time; line %u has it already", key, p->set_in[i]);
                else
                        set(p, &settings[i], value);
                p->set_in[i] = p->line;
                return 1;
        }
        complain_of_unknown(p, section, key);
        return 1;
}

/* libinih's fgets(): it would take an indented line as the end of the line before, and cut a long one in two. */
static char *read_line(char *buffer, int size, void *userdata) {
        _cleanup_free_ char *line = NULL;
        Parser *p = userdata;
        size_t allocated = 0;
        const char *start;
        ssize_t n;

        if (p->message || p->error < 0)
                return NULL;
        errno = 0;
        n = getline(&line, &allocated, p->file);
        if (n < 0) {
                if (ferror(p->file) || errno == ENOMEM)
                        p->error = errno > 0 ? -errno : -EIO;
                return NULL;
        }
        p->line++;
        if (strlen(line) != (size_t) n) {
                complain(p, "the line has a NUL byte; it must be text");
                return NULL;
        }
        if ((size_t) n >= CONFIG_LINE_MAX || n >= size) {
                complain(p, "the line is too long; it must have less than %u characters", CONFIG_LINE_MAX);
                return NULL;
        }
        start = line + strspn(line, " \t");
        return strcpy(buffer, start);
}

void config_default(Config *ret) {
        *ret = CONFIG_DEFAULT;
        if (find_group(MANAGER_GROUP_DEFAULT, &ret->front.manager_gid) < 0)
                ret->front.manager_gid = GID_NONE;
}

int config_parse(FILE *file, const char *path, Config *ret, char **ret_message) {
        Parser p = { .file = file, .path = path };
        int bad;

        config_default(&p.config);
        bad = ini_parse_stream(read_line, &p, on_assignment, &p);
        if (p.error == 0 && bad > 0 && (!p.message || (unsigned) bad < p.line)) {
                /* A mistake that libinih has found before ours. */
                free(p.message);
                p.message = NULL;
                p.line = (unsigned) bad;
                complain(&p, "it must be [Section], Key=Value, or a comment that starts with #");
        }
        if (p.error == 0 && bad < 0)
                p.error = -ENOMEM;
        if (p.error < 0) {
                free(p.message);
                return p.error;
        }
        if (p.message) {
                *ret_message = p.message;
                return CONFIG_E_BAD;
        }
        *ret = p.config;
        return 0;
}

int config_read(const char *path, Config *ret, char **ret_message) {
        _cleanup_fclose_ FILE *file = NULL;

        file = fopen(path, "re");
        if (!file)
                return -errno;
        return config_parse(file, path, ret, ret_message);
}
