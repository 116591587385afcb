/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "rest/settings.h"

#include <ini.h>
#include <string.h>

#include "core/cleanup.h"
#include "rest/lines.h"

#define CONNECTIONS_MAX 8192U

typedef enum SettingType {
        NUMBER,  /* uint32_t */
        BYTES,   /* size_t */
        SECONDS, /* uint64_t, microseconds */
        PATH,    /* char * */
} SettingType;

typedef struct Setting {
        const char *section, *key;
        SettingType type;
        size_t offset; /* in Settings */
        uint32_t maximum;
} Setting;

static const Setting table[] = {
        { "Limits", "Connections", NUMBER, offsetof(Settings, http.connections), CONNECTIONS_MAX },
        { "Limits", "ConnectionsPerUID", NUMBER, offsetof(Settings, http.connections_per_peer), CONNECTIONS_MAX },
        { "Limits", "ConnectionsPerAddress", NUMBER, offsetof(Settings, http.connections_per_address),
          CONNECTIONS_MAX },
        { "Limits", "HandshakesPerSecond", NUMBER, offsetof(Settings, http.handshakes_per_second), 10000 },
        { "Limits", "BodyBytes", BYTES, offsetof(Settings, http.body_max), 16 * 1024 * 1024 },
        { "Limits", "HeaderSec", SECONDS, offsetof(Settings, http.header_usec), 3600 },
        { "Limits", "BodySec", SECONDS, offsetof(Settings, http.body_usec), 3600 },
        { "Limits", "IdleSec", SECONDS, offsetof(Settings, http.idle_usec), 3600 },
        { "Limits", "Subscribers", NUMBER, offsetof(Settings, subscribers), CONNECTIONS_MAX },
        { "Limits", "SubscribersPerCaller", NUMBER, offsetof(Settings, subscribers_per_caller), CONNECTIONS_MAX },
        { "TLS", "Certificate", PATH, offsetof(Settings, certificate), 0 },
        { "TLS", "Key", PATH, offsetof(Settings, key), 0 },
        { "TLS", "ClientCA", PATH, offsetof(Settings, client_ca), 0 },
        { "TLS", "ClientCRL", PATH, offsetof(Settings, crl), 0 },
        { "TLS", "ClientRights", PATH, offsetof(Settings, rights), 0 },
        { "TLS", "Tokens", PATH, offsetof(Settings, tokens), 0 },
};

_Static_assert(sizeof(((HttpSettings *) 0)->connections) == sizeof(uint32_t), "NUMBER writes an uint32_t");
_Static_assert(sizeof(((HttpSettings *) 0)->connections_per_peer) == sizeof(uint32_t), "NUMBER writes an uint32_t");

typedef struct Parser {
        Lines lines;
        FILE *file;
        unsigned set_in[ELEMENTSOF(table)];
        Settings settings;
} Parser;

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

static void set_path(Parser *p, const Setting *setting, const char *value, char **field) {
        if (value[0] != '/')
                return lines_complain(&p->lines, "%s=%s: it must be an absolute path", setting->key, value);
        *field = strdup(value);
        if (!*field)
                p->lines.error = -ENOMEM;
}

static void set(Parser *p, const Setting *setting, const char *value) {
        void *field = (char *) &p->settings + setting->offset;
        uint32_t number;

        if (setting->type == PATH)
                return set_path(p, setting, value, field);
        if (!parse_number(value, setting->maximum, &number))
                return lines_complain(&p->lines, "%s=%s: it must be a number from 1 to %u", setting->key, value,
                                      setting->maximum);
        switch (setting->type) {
        case NUMBER:
                *(uint32_t *) field = number;
                break;
        case BYTES:
                *(size_t *) field = number;
                break;
        case SECONDS:
                *(uint64_t *) field = number * LOOP_SEC;
                break;
        case PATH:
                break;
        }
}

/* What would be of no use, or less safe than it looks. */
static int check(const char *path, const Settings *s, char **ret_message) {
        if (!s->certificate != !s->key)
                return lines_bad(ret_message, "%s: Certificate= and Key= must be set together", path);
        if (!s->client_ca != !s->rights)
                return lines_bad(ret_message, "%s: ClientCA= and ClientRights= must be set together", path);
        if (s->crl && !s->client_ca)
                return lines_bad(ret_message, "%s: ClientCRL= is of no use without ClientCA=", path);
        if ((s->client_ca || s->tokens) && !s->certificate)
                return lines_bad(ret_message, "%s: ClientCA= and Tokens= are of no use without Certificate=", path);
        if (s->certificate && !s->client_ca && !s->tokens)
                return lines_bad(
                        ret_message,
                        "%s: with Certificate=, ClientCA= or Tokens= must be set, or nobody could do anything", path);
        return 0;
}

/* ---- lines ---- */

static bool is_section(const char *name) {
        for (size_t i = 0; i < ELEMENTSOF(table); i++)
                if (strcmp(table[i].section, name) == 0)
                        return true;
        return false;
}

static void complain_of_unknown(Parser *p, const char *section, const char *key) {
        char known[256] = "";

        if (!section[0])
                return lines_complain(&p->lines, "%s= is in no section; it must stand below [Limits] or [TLS]", key);
        if (!is_section(section))
                return lines_complain(&p->lines, "there is no section [%s]; it must be [Limits] or [TLS]", section);
        for (size_t i = 0; i < ELEMENTSOF(table); i++)
                if (strcmp(table[i].section, section) == 0)
                        snprintf(known + strlen(known), sizeof(known) - strlen(known), "%s%s=", known[0] ? ", " : "",
                                 table[i].key);
        lines_complain(&p->lines, "there is no %s= in [%s]; it has %s", key, section, known);
}

static int on_assignment(void *userdata, const char *section, const char *key, const char *value) {
        Parser *p = userdata;

        for (size_t i = 0; i < ELEMENTSOF(table); i++) {
                if (strcmp(table[i].section, section) != 0 || strcmp(table[i].key, key) != 0)
                        continue;
                if (p->set_in[i] > 0)
                        lines_complain(&p->lines, "%s= is set a second time; line %u has it already", key,
                                       p->set_in[i]);
                else
                        set(p, &table[i], value);
                p->set_in[i] = p->lines.number;
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
        ssize_t n;

        if (p->lines.message || p->lines.error < 0)
                return NULL;
        errno = 0;
        n = getline(&line, &allocated, p->file);
        if (n < 0) {
                if (ferror(p->file) || errno == ENOMEM)
                        p->lines.error = errno > 0 ? -errno : -EIO;
                return NULL;
        }
        p->lines.number++;
        if (strlen(line) != (size_t) n) {
                lines_complain(&p->lines, "the line has a NUL byte; it must be text");
                return NULL;
        }
        if ((size_t) n >= SETTINGS_LINE_MAX || n >= size) {
                lines_complain(&p->lines, "the line is too long; it must have less than %u characters",
                               SETTINGS_LINE_MAX);
                return NULL;
        }
        return strcpy(buffer, line + strspn(line, " \t"));
}

int settings_parse(FILE *file, const char *path, Settings *ret, char **ret_message) {
        Parser p = { .file = file, .lines.path = path, .settings = SETTINGS_DEFAULT };
        int bad, r = 0;

        bad = ini_parse_stream(read_line, &p, on_assignment, &p);
        if (p.lines.error == 0 && bad > 0 && (!p.lines.message || (unsigned) bad < p.lines.number)) {
                /* A mistake that libinih has found before ours. */
                free(TAKE_PTR(p.lines.message));
                p.lines.number = (unsigned) bad;
                lines_complain(&p.lines, "it must be [Section], Key=Value, or a comment that starts with #");
        }
        if (p.lines.error == 0 && bad < 0)
                p.lines.error = -ENOMEM;
        if (p.lines.error < 0) {
                free(TAKE_PTR(p.lines.message));
                r = p.lines.error;
        } else if (p.lines.message) {
                *ret_message = p.lines.message;
                r = LINES_E_BAD;
        } else {
                r = check(path, &p.settings, ret_message);
        }
        if (r == 0)
                *ret = p.settings;
        else
                settings_done(&p.settings);
        return r;
}

int settings_read(const char *path, Settings *ret, char **ret_message) {
        _cleanup_fclose_ FILE *file = NULL;

        file = fopen(path, "re");
        if (!file)
                return -errno;
        return settings_parse(file, path, ret, ret_message);
}

void settings_done(Settings *settings) {
        for (size_t i = 0; i < ELEMENTSOF(table); i++)
                if (table[i].type == PATH)
                        free(*(char **) ((char *) settings + table[i].offset));
        *settings = (Settings) {};
}
