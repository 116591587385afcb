/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "rest/token.h"

#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <inttypes.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <time.h>

#include "core/cleanup.h"
#include "rest/lines.h"
#include "rest/rights.h"

#define TOKENS_MAX    1024U
#define TOKEN_BYTES   32U
#define DURATION_MAX  ((int64_t) 10 * 366 * 24 * 3600)
#define EXPIRY_FORMAT "%Y-%m-%dT%H:%M:%SZ"
#define EXPIRY_SIZE   sizeof("2026-01-31T00:00:00Z")

static const char name_characters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._";
static const char token_characters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/";

static bool is_name(const char *text) {
        size_t size = strlen(text);

        return size > 0 && size <= TOKEN_NAME_MAX && strspn(text, name_characters) == size;
}

static bool parse_expiry(const char *text, int64_t *ret) {
        struct tm tm = {};
        char again[EXPIRY_SIZE];
        const char *end;
        time_t seconds;

        end = strptime(text, EXPIRY_FORMAT, &tm);
        if (!end || *end)
                return false;
        seconds = timegm(&tm);
        /* The 30th of February is no day. */
        if (strftime(again, sizeof(again), EXPIRY_FORMAT, &tm) == 0 || strcmp(again, text) != 0)
                return false;
        *ret = seconds;
        return true;
}

static bool parse_hash(const char *text, uint8_t ret[static TOKEN_HASH]) {
        gnutls_datum_t hex = { (unsigned char *) text, (unsigned) strlen(text) };
        size_t size = TOKEN_HASH;

        return hex.size == 2 * TOKEN_HASH && gnutls_hex_decode(&hex, ret, &size) == 0 && size == TOKEN_HASH;
}

/* ---- the file ---- */

static const char *next_word(char **rest) {
        char *word;

        while ((word = strsep(rest, " \t")) && !word[0])
                ;
        return word ?: "";
}

static void on_line(Lines *lines, char *text, void *userdata) {
        Tokens **tokens = userdata, *more;
        const char *name = next_word(&text), *right = next_word(&text);
        const char *expires = next_word(&text), *hash = next_word(&text);
        Token token = {};

        if (!is_name(name))
                return lines_complain(lines, "%s: a name must have 1 to %u letters, digits, \"-\", \".\" and \"_\"",
                                      name, TOKEN_NAME_MAX);
        strcpy(token.name, name);
        for (size_t i = 0; i < (*tokens)->n; i++)
                if (strcmp((*tokens)->token[i].name, name) == 0)
                        return lines_complain(lines, "%s: there is a token of this name already", name);
        if (!right_parse(right, &token.right))
                return lines_complain(lines, "%s: the right \"%s\" must be inspect or manage", name, right);
        if (!parse_expiry(expires, &token.expires))
                return lines_complain(lines, "%s: the expiry \"%s\" must be a time as 2026-01-31T00:00:00Z", name,
                                      expires);
        if (!parse_hash(hash, token.hash) || next_word(&text)[0])
                return lines_complain(lines, "%s: the line must end with the token's SHA-256, 64 hexadecimal digits",
                                      name);
        if ((*tokens)->n == TOKENS_MAX)
                return lines_complain(lines, "there must be %u tokens at most", TOKENS_MAX);
        more = realloc(*tokens, sizeof(Tokens) + ((*tokens)->n + 1) * sizeof(Token));
        if (!more) {
                lines->error = -ENOMEM;
                return;
        }
        more->token[more->n++] = token;
        *tokens = more;
}

int tokens_read(const char *path, Tokens **ret, char **ret_message) {
        _cleanup_free_ Tokens *tokens = NULL;
        int r;

        tokens = calloc(1, sizeof(Tokens));
        if (!tokens)
                return -ENOMEM;
        r = lines_read(path, /* is_secret= */ true, on_line, &tokens, ret_message);
        if (r != 0)
                return r;
        *ret = TAKE_PTR(tokens);
        return 0;
}

/* ---- a request ---- */

const char *token_of_header(const char *header, size_t *ret_size) {
        static const char scheme[] = "Bearer ";
        const char *text;
        size_t size, end;

        if (strncasecmp(header, scheme, strlen(scheme)) != 0)
                return NULL;
        text = header + strlen(scheme);
        text += strspn(text, " ");
        size = strspn(text, token_characters);
        end = size + strspn(text + size, "=");
        if (size == 0 || text[end + strspn(text + end, " \t")] != 0)
                return NULL;
        *ret_size = end;
        return text;
}

const Token *tokens_find(const Tokens *tokens, const char *text, size_t size, int64_t now) {
        uint8_t hash[TOKEN_HASH];
        const Token *found = NULL;

        if (gnutls_hash_fast(GNUTLS_DIG_SHA256, text, size, hash) < 0)
                return NULL;
        /* No end before the last one: the time must not tell which one it was. */
        for (size_t i = 0; i < tokens->n; i++)
                if (gnutls_memcmp(tokens->token[i].hash, hash, sizeof(hash)) == 0)
                        found = &tokens->token[i];
        return found && now < found->expires ? found : NULL;
}

/* ---- a new one ---- */

/* 90d, 12h, 30min, 45s */
static bool parse_duration(const char *text, int64_t *ret) {
        static const struct {
                const char *unit;
                int64_t seconds;
        } units[] = { { "s", 1 }, { "min", 60 }, { "h", 3600 }, { "d", 86400 }, { "w", 7 * 86400 } };
        long long value;
        char *end;

        if (text[0] < '0' || text[0] > '9')
                return false;
        errno = 0;
        value = strtoll(text, &end, 10);
        if (errno != 0 || value < 1 || value > DURATION_MAX)
                return false;
        for (size_t i = 0; i < ELEMENTSOF(units); i++)
                if (strcmp(end, units[i].unit) == 0) {
                        *ret = value * units[i].seconds;
                        return *ret <= DURATION_MAX;
                }
        return false;
}

static int print(const char *name, Right right, int64_t expires) {
        char text[2 * TOKEN_BYTES + 1], hash_text[2 * TOKEN_HASH + 1], when[EXPIRY_SIZE];
        uint8_t bytes[TOKEN_BYTES], hash[TOKEN_HASH];
        time_t seconds = (time_t) expires;
        struct tm tm;

        if (getrandom(bytes, sizeof(bytes), 0) != sizeof(bytes))
                return -EIO;
        for (size_t i = 0; i < sizeof(bytes); i++)
                snprintf(text + 2 * i, 3, "%02x", bytes[i]);
        if (gnutls_hash_fast(GNUTLS_DIG_SHA256, text, sizeof(text) - 1, hash) < 0)
                return -EIO;
        for (size_t i = 0; i < sizeof(hash); i++)
                snprintf(hash_text + 2 * i, 3, "%02x", hash[i]);
        if (!gmtime_r(&seconds, &tm) || strftime(when, sizeof(when), EXPIRY_FORMAT, &tm) == 0)
                return -EOVERFLOW;
        printf("%s\n%s %s %s %s\n", text, name, right_name(right), when, hash_text);
        explicit_bzero(text, sizeof(text));
        explicit_bzero(bytes, sizeof(bytes));
        return fflush(stdout) < 0 ? -errno : 0;
}

int token_print_new(const char *description, int64_t now, char **ret_message) {
        _cleanup_free_ char *copy = NULL;
        const char *name, *right_text, *duration_text;
        int64_t duration;
        char *rest;
        Right right;

        copy = rest = strdup(description);
        if (!copy)
                return -ENOMEM;
        name = strsep(&rest, ",");
        right_text = strsep(&rest, ",") ?: "";
        duration_text = strsep(&rest, ",") ?: "";
        if (!is_name(name))
                return lines_bad(ret_message, "the name must have 1 to %u letters, digits, \"-\", \".\" and \"_\"",
                                 TOKEN_NAME_MAX);
        if (!right_parse(right_text, &right))
                return lines_bad(ret_message, "the right \"%s\" must be inspect or manage", right_text);
        if (rest || !parse_duration(duration_text, &duration))
                return lines_bad(ret_message,
                                 "the duration must be a number with s, min, h, d or w, and ten years at most");
        return print(name, right, now + duration);
}
