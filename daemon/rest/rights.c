/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "rest/rights.h"

#include <string.h>
#include <strings.h>

#include "core/cleanup.h"
#include "rest/lines.h"

#define RIGHTS_MAX 1024U
#define NAMES_MAX  64U /* of one kind, that are looked at in one certificate */

typedef enum NameKind {
        NAME_URI,
        NAME_DNS,
        NAME_CN,
} NameKind;

static const char *const kind_names[] = { [NAME_URI] = "URI", [NAME_DNS] = "DNS", [NAME_CN] = "CN" };

typedef struct NameRight {
        NameKind kind;
        Right right;
        char name[RIGHTS_NAME_MAX + 1];
} NameRight;

struct Rights {
        size_t n;
        NameRight name[];
};

bool right_parse(const char *text, Right *ret) {
        for (Right right = RIGHT_INSPECT; right <= RIGHT_MANAGE; right++)
                if (strcmp(text, right_name(right)) == 0) {
                        *ret = right;
                        return true;
                }
        return false;
}

const char *right_name(Right right) {
        static const char *const names[] = {
                [RIGHT_NONE] = "none", [RIGHT_INSPECT] = "inspect", [RIGHT_MANAGE] = "manage"
        };

        return names[right];
}

/* ---- the file ---- */

static bool kind_of(const char *text, NameKind *ret) {
        for (size_t i = 0; i < ELEMENTSOF(kind_names); i++)
                if (strcmp(kind_names[i], text) == 0) {
                        *ret = (NameKind) i;
                        return true;
                }
        return false;
}

static bool is_same(NameKind kind, const char *a, const char *b) {
        return kind == NAME_DNS ? strcasecmp(a, b) == 0 : strcmp(a, b) == 0;
}

static char *without_spaces_behind(char *text) {
        size_t size = strlen(text);

        while (size > 0 && strchr(" \t", text[size - 1]))
                text[--size] = 0;
        return text;
}

static void add(Lines *lines, Rights **rights, const NameRight *added) {
        Rights *more;

        for (size_t i = 0; i < (*rights)->n; i++)
                if ((*rights)->name[i].kind == added->kind &&
                    is_same(added->kind, (*rights)->name[i].name, added->name))
                        return lines_complain(lines, "%s %s has a right already", kind_names[added->kind],
                                              added->name);
        if ((*rights)->n == RIGHTS_MAX)
                return lines_complain(lines, "there must be %u names at most", RIGHTS_MAX);
        more = realloc(*rights, sizeof(Rights) + ((*rights)->n + 1) * sizeof(NameRight));
        if (!more) {
                lines->error = -ENOMEM;
                return;
        }
        more->name[more->n++] = *added;
        *rights = more;
}

static void on_line(Lines *lines, char *text, void *userdata) {
        NameRight added = {};
        char *kind, *right;

        /* A URI may have "=" in it. */
        right = strrchr(text, '=');
        if (!right)
                return lines_complain(lines, "the line must be \"URI|DNS|CN name = inspect|manage\"");
        *right++ = 0;
        right += strspn(right, " \t");
        kind = strsep(&text, " \t");
        if (!kind_of(kind, &added.kind))
                return lines_complain(lines, "\"%s\" must be URI, DNS or CN", kind);
        if (!right_parse(right, &added.right))
                return lines_complain(lines, "the right \"%s\" must be inspect or manage", right);
        text = without_spaces_behind(text + (text ? strspn(text, " \t") : 0) ?: strchr(kind, 0));
        if (!text[0] || strlen(text) >= sizeof(added.name) - strlen("URI "))
                return lines_complain(lines, "the name must have 1 to %zu characters",
                                      sizeof(added.name) - strlen("URI ") - 1);
        strcpy(added.name, text);
        add(lines, userdata, &added);
}

int rights_read(const char *path, Rights **ret, char **ret_message) {
        _cleanup_free_ Rights *rights = NULL;
        int r;

        rights = calloc(1, sizeof(Rights));
        if (!rights)
                return -ENOMEM;
        r = lines_read(path, /* is_secret= */ false, on_line, &rights, ret_message);
        if (r != 0)
                return r;
        *ret = TAKE_PTR(rights);
        return 0;
}

Rights *rights_free(Rights *rights) {
        free(rights);
        return NULL;
}

/* ---- a certificate ---- */

typedef struct Best {
        Right right;
        char *name;
} Best;

/* A name with a NUL byte in it is another one than it looks like. */
static void consider(const Rights *rights, NameKind kind, const char *name, size_t size, Best *best) {
        if (memchr(name, 0, size))
                return;
        for (size_t i = 0; i < rights->n; i++) {
                const NameRight *one = &rights->name[i];

                if (one->kind != kind || strlen(one->name) != size || !is_same(kind, one->name, name) ||
                    one->right <= best->right)
                        continue;
                best->right = one->right;
                /* The kind is of four letters at most, with its space. */
                snprintf(best->name, RIGHTS_NAME_MAX + 1, "%s %.*s", kind_names[kind], (int) RIGHTS_NAME_MAX - 4,
                         one->name);
        }
}

static void consider_alternative_names(const Rights *rights, gnutls_x509_crt_t certificate, Best *best) {
        for (unsigned i = 0; i < NAMES_MAX; i++) {
                char name[RIGHTS_NAME_MAX + 1];
                size_t size = sizeof(name) - 1;
                int type;

                type = gnutls_x509_crt_get_subject_alt_name(certificate, i, name, &size, NULL);
                if (type == GNUTLS_E_SHORT_MEMORY_BUFFER)
                        continue; /* longer than any in the file */
                if (type < 0)
                        return;
                name[size] = 0;
                if (type == GNUTLS_SAN_URI)
                        consider(rights, NAME_URI, name, size, best);
                else if (type == GNUTLS_SAN_DNSNAME)
                        consider(rights, NAME_DNS, name, size, best);
        }
}

static void consider_common_names(const Rights *rights, gnutls_x509_crt_t certificate, Best *best) {
        for (unsigned i = 0; i < NAMES_MAX; i++) {
                char name[RIGHTS_NAME_MAX + 1];
                size_t size = sizeof(name) - 1;
                int r;

                r = gnutls_x509_crt_get_dn_by_oid(certificate, GNUTLS_OID_X520_COMMON_NAME, i, 0, name, &size);
                if (r == GNUTLS_E_SHORT_MEMORY_BUFFER)
                        continue;
                if (r < 0)
                        return;
                name[size] = 0;
                consider(rights, NAME_CN, name, size, best);
        }
}

Right rights_of(const Rights *rights, gnutls_x509_crt_t certificate, char ret_name[static RIGHTS_NAME_MAX + 1]) {
        Best best = { .right = RIGHT_NONE, .name = ret_name };

        ret_name[0] = 0;
        consider_alternative_names(rights, certificate, &best);
        consider_common_names(rights, certificate, &best);
        return best.right;
}
