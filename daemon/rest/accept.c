/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "rest/accept.h"

#include <stddef.h>
#include <string.h>
#include <strings.h>

static size_t trim(const char **at, size_t size) {
        while (size > 0 && (**at == ' ' || **at == '\t'))
                (*at)++, size--;
        while (size > 0 && ((*at)[size - 1] == ' ' || (*at)[size - 1] == '\t'))
                size--;
        return size;
}

/* In thousandths; parameters are what follows the type. */
static int quality(const char *parameters, size_t size) {
        const char *end = parameters + size;
        int value = 1000;

        for (const char *at = memchr(parameters, ';', size); at; at = memchr(at, ';', (size_t) (end - at))) {
                int unit = 1000;

                for (at++; at < end && (*at == ' ' || *at == '\t'); at++)
                        ;
                if (end - at < 3 || (*at | 0x20) != 'q' || at[1] != '=')
                        continue;
                value = 0;
                for (at += 2; at < end && ((*at >= '0' && *at <= '9') || *at == '.'); at++)
                        if (*at != '.') {
                                value += (*at - '0') * unit;
                                unit /= 10;
                        }
        }
        return value;
}

/* How exactly the range names the type: 0 for none, 3 for itself. */
static int fit(const char *range, size_t size, const char *type, size_t type_size) {
        const char *slash = memchr(type, '/', type_size);

        if (size == 3 && memcmp(range, "*/*", 3) == 0)
                return 1;
        if (slash && size == (size_t) (slash - type) + 2 && range[size - 1] == '*' &&
            strncasecmp(range, type, size - 1) == 0)
                return 2;
        return size == type_size && strncasecmp(range, type, size) == 0 ? 3 : 0;
}

/* What the most exact range says. */
static int quality_of(const char *header, const char *type, size_t type_size) {
        int best = 0, value = 0;

        while (*header) {
                size_t size = strcspn(header, ","), range_size = strcspn(header, ",;");
                const char *range = header;
                int fits;

                range_size = trim(&range, range_size);
                fits = fit(range, range_size, type, type_size);
                if (fits > best) {
                        best = fits;
                        value = quality(header, size);
                }
                header += size + (header[size] == ',');
        }
        return value;
}

const char *accept_choose(const char *header, const char *const *types) {
        const char *chosen = NULL;
        int best = 0;

        if (!header || !*header || strcmp(header, "*/*") == 0)
                return types[0];
        for (; *types; types++) {
                int value = quality_of(header, *types, strlen(*types));

                if (value > best) {
                        best = value;
                        chosen = *types;
                }
        }
        return chosen;
}

bool accept_is_json(const char *content_type) {
        static const char json[] = "application/json";
        const char *at = content_type;
        size_t size = strcspn(at, ";");

        at += size;
        size = trim(&content_type, size);
        if (size != sizeof(json) - 1 || strncasecmp(content_type, json, size) != 0)
                return false;
        if (!*at)
                return true;
        at++;
        size = trim(&at, strlen(at));
        return (size == 13 && strncasecmp(at, "charset=utf-8", size) == 0) ||
               (size == 15 && strncasecmp(at, "charset=\"utf-8\"", size) == 0);
}
