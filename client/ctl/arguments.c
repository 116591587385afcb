/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "arguments.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>

#include "lib/json.h"

/* ---- options ------------------------------------------------------------------------------------------- */

/* value: behind the '=', or NULL. next: the argument after this one, or NULL. */
static int take_option(const Option *o, const char *value, const char *next, bool *ret_used_next) {
        if (o->flag) {
                if (value) {
                        complain("the option --%s takes no value.", o->name);
                        return EXIT_USAGE;
                }
                *o->flag = true;
                return EXIT_OK;
        }

        if (!value) {
                value = next;
                *ret_used_next = true;
        }
        if (!value) {
                complain("the option --%s needs a value.", o->name);
                return EXIT_USAGE;
        }

        if (o->value) {
                *o->value = value;
        } else if (o->values->n < OPTION_VALUES_MAX) {
                o->values->items[o->values->n++] = value;
        } else {
                complain("the option --%s can be given %d times at most.", o->name, OPTION_VALUES_MAX);
                return EXIT_USAGE;
        }
        return EXIT_OK;
}

static const Option *find_option(const Option *options, const char *name, size_t length) {
        for (const Option *o = options; o && o->name; o++)
                if (strlen(o->name) == length && strncmp(o->name, name, length) == 0)
                        return o;
        return NULL;
}

static int parse_option(const Option *common, const Option *options, const char *argument, const char *next,
                        bool *ret_used_next) {
        const char *name, *equals;
        const Option *o = NULL;
        size_t length;

        if (strcmp(argument, "-h") == 0)
                argument = "--help";

        name = argument + 2;
        equals = strchr(name, '=');
        length = equals ? (size_t) (equals - name) : strlen(name);
        if (strncmp(argument, "--", 2) == 0) {
                o = find_option(options, name, length);
                if (!o)
                        o = find_option(common, name, length);
        }
        if (!o) {
                complain("there is no option %s here; see privmemctl --help.", argument);
                return EXIT_USAGE;
        }

        return take_option(o, equals ? equals + 1 : NULL, next, ret_used_next);
}

int arguments_parse(Session *s, char **arguments, const Option *options, bool only_front, Arguments *ret) {
        Arguments a = { .items = arguments };
        const Option common[] = {
                { "json", .flag = &s->json },
                { "socket", .value = &s->socket },
                { "help", .flag = &a.help },
                { "version", .flag = &a.version },
                {},
        };

        for (size_t i = 0; arguments[i]; i++) {
                bool used_next = false;
                int r;

                if (strcmp(arguments[i], "--") == 0) {
                        a.command = arguments + i + 1;
                        break;
                }

                /* A lone "-" is a file. */
                if (arguments[i][0] != '-' || arguments[i][1] == 0) {
                        if (only_front) {
                                a.items = arguments + i;
                                while (a.items[a.n])
                                        a.n++;
                                break;
                        }
                        arguments[a.n++] = arguments[i];
                        continue;
                }

                r = parse_option(common, options, arguments[i], arguments[i + 1], &used_next);
                if (r != EXIT_OK)
                        return r;
                i += used_next;
        }

        *ret = a;
        return EXIT_OK;
}

/* ---- values -------------------------------------------------------------------------------------------- */

/* Digits only: strtoull() alone takes signs and blanks. */
static bool read_digits(const char *text, char **ret_end, uint64_t *ret) {
        unsigned long long value;

        if (*text < '0' || *text > '9')
                return false;

        errno = 0;
        value = strtoull(text, ret_end, 10);
        if (errno != 0)
                return false;

        *ret = value;
        return true;
}

static bool read_size(const char *text, uint64_t *ret) {
        static const char suffixes[] = "KMGT";
        const char *suffix;
        unsigned shift = 0;
        uint64_t value;
        char *end;

        if (!read_digits(text, &end, &value))
                return false;
        if (*end) {
                suffix = strchr(suffixes, *end);
                if (!suffix || end[1])
                        return false;
                shift = 10 * (unsigned) (suffix - suffixes + 1);
        }
        if (value > UINT64_MAX >> shift)
                return false;

        *ret = value << shift;
        return true;
}

int arguments_size(const char *what, const char *text, uint64_t *ret) {
        if (read_size(text, ret))
                return EXIT_OK;

        complain("%s \"%s\" is no size: a number of bytes, or one with the suffix K, M, G or T.", what, text);
        return EXIT_USAGE;
}

int arguments_time(const char *what, const char *text, uint64_t *ret_usec) {
        static const struct {
                const char *suffix;
                uint64_t usec;
        } units[] = {
                { "", 1000000 },
                { "ms", 1000 },
                { "s", 1000000 },
                { "min", UINT64_C(60) * 1000000 },
                { "h", UINT64_C(3600) * 1000000 },
                { "d", UINT64_C(24) * 3600 * 1000000 },
        };
        uint64_t value;
        char *end;

        if (read_digits(text, &end, &value) && value > 0)
                for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
                        if (strcmp(end, units[i].suffix) == 0 && value <= (uint64_t) INT64_MAX / units[i].usec) {
                                *ret_usec = value * units[i].usec;
                                return EXIT_OK;
                        }

        complain("%s \"%s\" is no time: a number of seconds, or one with the suffix ms, s, min, h or d.", what, text);
        return EXIT_USAGE;
}

/* Of the first length characters. */
static bool read_address(const char *text, size_t length, uint64_t *ret) {
        char copy[32], *end;
        unsigned long long value;

        if (length == 0 || length >= sizeof(copy))
                return false;
        memcpy(copy, text, length);
        copy[length] = 0;

        if (strncmp(copy, "0x", 2) != 0)
                return read_size(copy, ret);
        if (!isxdigit((unsigned char) copy[2]))
                return false;
        errno = 0;
        value = strtoull(copy + 2, &end, 16);
        if (errno != 0 || *end)
                return false;

        *ret = value;
        return true;
}

int arguments_range(const char *what, const char *text, uint64_t *ret_start, uint64_t *ret_size) {
        const char *plus = strchrnul(text, '+');

        *ret_size = 1;
        if (read_address(text, (size_t) (plus - text), ret_start) &&
            (!*plus || read_address(plus + 1, strlen(plus + 1), ret_size)))
                return EXIT_OK;

        complain("%s \"%s\" is no range: an address as in 0x100000, and perhaps a size as in 0x100000+2M.", what,
                 text);
        return EXIT_USAGE;
}

int arguments_guest(const char *vm, const char *guest, json_object **ret) {
        uint64_t start, size;
        json_object *q;
        int r;

        if (guest && (r = arguments_range("the guest addresses", guest, &start, &size)) != EXIT_OK)
                return r;
        q = json_object_new_object();
        if (!json_add_string(q, "vm", vm) ||
            (guest && (!json_add_uint64(q, "guestPhysAddr", start) || !json_add_uint64(q, "memorySize", size)))) {
                json_object_put(q);
                q = NULL;
        }
        *ret = q;
        return EXIT_OK;
}

int arguments_number(const char *what, const char *text, uint64_t maximum, uint64_t *ret) {
        uint64_t value;
        char *end;

        if (!read_digits(text, &end, &value) || *end || value > maximum) {
                complain("%s \"%s\" is no number from 0 to %llu.", what, text, (unsigned long long) maximum);
                return EXIT_USAGE;
        }

        *ret = value;
        return EXIT_OK;
}

int arguments_user(const char *text, uint32_t *ret) {
        const struct passwd *user;
        uint64_t value;

        if (*text >= '0' && *text <= '9') {
                int r = arguments_number("user", text, UINT32_MAX - 1, &value);

                if (r == EXIT_OK)
                        *ret = (uint32_t) value;
                return r;
        }

        user = getpwnam(text);
        if (!user) {
                complain("there is no user \"%s\".", text);
                return EXIT_USAGE;
        }

        *ret = user->pw_uid;
        return EXIT_OK;
}

/* "0-3": adds them. */
static bool add_nodes(Numa *numa, const char **text) {
        uint64_t first, last;
        char *end;

        if (!read_digits(*text, &end, &first))
                return false;
        last = first;
        if (*end == '-' && !read_digits(end + 1, &end, &last))
                return false;
        if (first > last || last >= NUMA_NODES_MAX)
                return false;

        for (uint64_t node = first; node <= last; node++) {
                if (numa->n_nodes == NUMA_NODES_MAX)
                        return false;
                numa->nodes[numa->n_nodes++] = (uint32_t) node;
        }
        *text = end;
        return true;
}

static bool set_policy(Numa *numa, const char *text, size_t length) {
        static const char *const policies[] = {
                [PRIVMEM_NUMA_BIND] = "bind",
                [PRIVMEM_NUMA_PREFERRED] = "preferred",
                [PRIVMEM_NUMA_INTERLEAVE] = "interleave",
        };

        for (size_t i = PRIVMEM_NUMA_BIND; i <= PRIVMEM_NUMA_INTERLEAVE; i++)
                if (strlen(policies[i]) == length && strncmp(policies[i], text, length) == 0) {
                        numa->value = (privmem_numa_policy) i;
                        strcpy(numa->policy, policies[i]);
                        return true;
                }
        return false;
}

int arguments_numa(const char *text, Numa *ret) {
        const char *colon = strchr(text, ':'), *nodes;

        *ret = (Numa) {};
        if (!colon || !set_policy(ret, text, (size_t) (colon - text)))
                goto invalid;

        nodes = colon + 1;
        for (;;) {
                if (!add_nodes(ret, &nodes))
                        goto invalid;
                if (!*nodes)
                        return EXIT_OK;
                if (*nodes != '+' && *nodes != ',')
                        goto invalid;
                nodes++;
        }

invalid:
        complain("\"%s\" is no NUMA policy: bind, preferred or interleave, a colon, and nodes as in 0-1+3.", text);
        return EXIT_USAGE;
}

int arguments_kind(const char *text, privmem_kind *ret) {
        if (strcmp(text, "memfd") == 0)
                *ret = PRIVMEM_KIND_MEMFD;
        else if (strcmp(text, "hugetlb") == 0)
                *ret = PRIVMEM_KIND_HUGETLB;
        else {
                complain("\"%s\" is no kind of memory that can be allocated: memfd or hugetlb.", text);
                return EXIT_USAGE;
        }
        return EXIT_OK;
}
