/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "rest/scan.h"

#include <errno.h>
#include <string.h>

static bool is_space(char c) {
        return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static bool is_digit(char c) {
        return c >= '0' && c <= '9';
}

static const char *skip_space(const char *at, const char *end) {
        while (at < end && is_space(*at))
                at++;
        return at;
}

/* ---- the strict look ---- */

typedef struct Check {
        const char *at, *end;
        int error;
} Check;

static bool fail(Check *c, int error) {
        c->error = error;
        return false;
}

/* How many bytes the character has; 0: it is none. Table 3-7 of the Unicode standard. */
static size_t utf8_length(const char *text, const char *end) {
        const unsigned char *c = (const unsigned char *) text;
        size_t n = c[0] < 0x80 ? 1 : c[0] < 0xc2 ? 0 : c[0] < 0xe0 ? 2 : c[0] < 0xf0 ? 3 : c[0] < 0xf5 ? 4 : 0;

        if (n == 0 || (size_t) (end - text) < n)
                return 0;
        if ((c[0] == 0xe0 && c[1] < 0xa0) || (c[0] == 0xed && c[1] > 0x9f) || (c[0] == 0xf0 && c[1] < 0x90) ||
            (c[0] == 0xf4 && c[1] > 0x8f))
                return 0;
        for (size_t i = 1; i < n; i++)
                if ((c[i] & 0xc0) != 0x80)
                        return 0;
        return n;
}

bool scan_is_utf8(Span text) {
        const char *at = text.text, *end = at + text.size;

        while (at < end) {
                size_t n = utf8_length(at, end);

                if (n == 0)
                        return false;
                at += n;
        }
        return true;
}

/* Four hexadecimal digits; -1: there are none. */
static int hex4(Check *c) {
        int value = 0;

        if (c->end - c->at < 4)
                return -1;
        for (int i = 0; i < 4; i++, c->at++) {
                char digit = *c->at;

                value <<= 4;
                if (is_digit(digit))
                        value |= digit - '0';
                else if ((digit | 0x20) >= 'a' && (digit | 0x20) <= 'f')
                        value |= (digit | 0x20) - 'a' + 10;
                else
                        return -1;
        }
        return value;
}

/* Behind the backslash. */
static bool check_escape(Check *c) {
        int unit;

        if (c->at == c->end)
                return fail(c, SCAN_E_NOT_JSON);
        if (*c->at != 'u') {
                if (!*c->at || !strchr("\"\\/bfnrt", *c->at))
                        return fail(c, SCAN_E_NOT_JSON);
                c->at++;
                return true;
        }
        c->at++;
        unit = hex4(c);
        if (unit == 0)
                return fail(c, SCAN_E_NUL);
        if (unit < 0 || (unit >= 0xdc00 && unit <= 0xdfff))
                return fail(c, SCAN_E_NOT_JSON);
        if (unit < 0xd800 || unit > 0xdbff)
                return true;
        /* The other half of a character beyond U+FFFF must follow. */
        if (c->end - c->at < 2 || c->at[0] != '\\' || c->at[1] != 'u')
                return fail(c, SCAN_E_NOT_JSON);
        c->at += 2;
        unit = hex4(c);
        return (unit >= 0xdc00 && unit <= 0xdfff) || fail(c, SCAN_E_NOT_JSON);
}

static bool check_string(Check *c, Span *ret_name) {
        const char *begun = ++c->at;
        bool escaped = false;

        while (c->at < c->end && *c->at != '"') {
                size_t n;

                if (*c->at == '\\') {
                        escaped = true;
                        c->at++;
                        if (!check_escape(c))
                                return false;
                        continue;
                }
                n = (unsigned char) *c->at < 0x20 ? 0 : utf8_length(c->at, c->end);
                if (n == 0)
                        return fail(c, SCAN_E_NOT_JSON);
                c->at += n;
        }
        if (c->at == c->end || (ret_name && escaped))
                return fail(c, SCAN_E_NOT_JSON);
        if (ret_name)
                *ret_name = (Span) { .text = begun, .size = (size_t) (c->at - begun) };
        c->at++;
        return true;
}

static bool check_digits(Check *c) {
        if (c->at == c->end || !is_digit(*c->at))
                return fail(c, SCAN_E_NOT_JSON);
        while (c->at < c->end && is_digit(*c->at))
                c->at++;
        return true;
}

static bool check_number(Check *c) {
        if (*c->at == '-')
                c->at++;
        if (c->at < c->end && *c->at == '0')
                c->at++;
        else if (!check_digits(c))
                return false;
        if (c->at < c->end && *c->at == '.') {
                c->at++;
                if (!check_digits(c))
                        return false;
        }
        if (c->at < c->end && (*c->at | 0x20) == 'e') {
                c->at++;
                if (c->at < c->end && (*c->at == '+' || *c->at == '-'))
                        c->at++;
                return check_digits(c);
        }
        return true;
}

static bool check_word(Check *c, const char *word) {
        size_t n = strlen(word);

        if ((size_t) (c->end - c->at) < n || memcmp(c->at, word, n) != 0)
                return fail(c, SCAN_E_NOT_JSON);
        c->at += n;
        return true;
}

static bool check_value(Check *c, unsigned depth);

static bool check_name(Check *c, Span names[static SCAN_MEMBERS_MAX], size_t n) {
        if (c->at == c->end || *c->at != '"')
                return fail(c, SCAN_E_NOT_JSON);
        if (n == SCAN_MEMBERS_MAX)
                return fail(c, SCAN_E_TOO_MANY);
        if (!check_string(c, &names[n]))
                return false;
        for (size_t i = 0; i < n; i++)
                if (span_equal(names[i], names[n]))
                        return fail(c, SCAN_E_DUPLICATE);
        c->at = skip_space(c->at, c->end);
        if (c->at == c->end || *c->at != ':')
                return fail(c, SCAN_E_NOT_JSON);
        c->at++;
        return true;
}

static bool check_container(Check *c, unsigned depth, char closing) {
        Span names[SCAN_MEMBERS_MAX];
        size_t n = 0;

        c->at = skip_space(c->at + 1, c->end);
        if (c->at < c->end && *c->at == closing) {
                c->at++;
                return true;
        }
        for (;;) {
                c->at = skip_space(c->at, c->end);
                if (closing == '}' && !check_name(c, names, n++))
                        return false;
                if (!check_value(c, depth))
                        return false;
                c->at = skip_space(c->at, c->end);
                if (c->at == c->end || (*c->at != ',' && *c->at != closing))
                        return fail(c, SCAN_E_NOT_JSON);
                if (*c->at++ == closing)
                        return true;
        }
}

static bool check_value(Check *c, unsigned depth) {
        c->at = skip_space(c->at, c->end);
        if (c->at == c->end)
                return fail(c, SCAN_E_NOT_JSON);
        switch (*c->at) {
        case '{':
        case '[':
                if (depth == SCAN_DEPTH_MAX)
                        return fail(c, SCAN_E_TOO_DEEP);
                return check_container(c, depth + 1, *c->at == '{' ? '}' : ']');
        case '"':
                return check_string(c, NULL);
        case 't':
                return check_word(c, "true");
        case 'f':
                return check_word(c, "false");
        case 'n':
                return check_word(c, "null");
        default:
                return (*c->at == '-' || is_digit(*c->at)) ? check_number(c) : fail(c, SCAN_E_NOT_JSON);
        }
}

int scan_check(Span text, size_t *ret_offset) {
        Check c = { .at = text.text, .end = text.text + text.size };

        if (check_value(&c, 0)) {
                c.at = skip_space(c.at, c.end);
                if (c.at < c.end)
                        (void) fail(&c, SCAN_E_NOT_JSON);
        }
        *ret_offset = (size_t) (c.at - text.text);
        return c.error;
}

/* ---- the quick look ---- */

/* Behind the quote at *at; NULL: there is no other. Most of a reply is in strings, and memchr() goes through them many
 * bytes at a time; no byte is looked at twice, but for those between a backslash and the first quote behind it. */
static const char *skip_string(const char *at, const char *end) {
        const char *quote = NULL, *backslash;

        for (at++; at <= end; at = backslash + 2) {
                if (!quote || quote < at)
                        quote = memchr(at, '"', (size_t) (end - at));
                if (!quote)
                        return NULL;
                backslash = memchr(at, '\\', (size_t) (quote - at));
                if (!backslash)
                        return quote + 1;
        }
        return NULL;
}

static const char *skip_container(const char *at, const char *end) {
        unsigned depth = 0;

        while (at < end)
                switch (*at) {
                case '"':
                        at = skip_string(at, end);
                        if (!at)
                                return NULL;
                        break;
                case '{':
                case '[':
                        depth++;
                        at++;
                        break;
                case '}':
                case ']':
                        at++;
                        if (--depth == 0)
                                return at;
                        break;
                default:
                        at++;
                }
        return NULL;
}

static const char *skip_value(const char *at, const char *end) {
        const char *begun = at;

        if (at == end)
                return NULL;
        if (*at == '"')
                return skip_string(at, end);
        if (*at == '{' || *at == '[')
                return skip_container(at, end);
        while (at < end && *at != ',' && *at != '}' && *at != ']' && !is_space(*at))
                at++;
        return at == begun ? NULL : at;
}

bool scan_open(Scan *scan, Span value, char opening) {
        if (!value.text || value.size < 2 || value.text[0] != opening)
                return false;
        *scan = (Scan) { .at = value.text + 1, .end = value.text + value.size - 1 };
        return true;
}

/* The value at the cursor, and the comma behind it. */
static int take_value(Scan *scan, Span *ret) {
        const char *end = skip_value(scan->at, scan->end);

        if (!end)
                return -EBADMSG;
        *ret = (Span) { .text = scan->at, .size = (size_t) (end - scan->at) };
        scan->at = skip_space(end, scan->end);
        if (scan->at < scan->end && *scan->at++ != ',')
                return -EBADMSG;
        return 1;
}

int scan_element(Scan *scan, Span *ret_value) {
        scan->at = skip_space(scan->at, scan->end);
        return scan->at == scan->end ? 0 : take_value(scan, ret_value);
}

int scan_member(Scan *scan, Span *ret_key, Span *ret_value) {
        const char *key, *end;

        scan->at = skip_space(scan->at, scan->end);
        if (scan->at == scan->end)
                return 0;
        key = scan->at;
        end = *key == '"' ? skip_string(key, scan->end) : NULL;
        if (!end)
                return -EBADMSG;
        *ret_key = (Span) { .text = key + 1, .size = (size_t) (end - key) - 2 };
        scan->at = skip_space(end, scan->end);
        if (scan->at == scan->end || *scan->at != ':')
                return -EBADMSG;
        scan->at = skip_space(scan->at + 1, scan->end);
        return take_value(scan, ret_value);
}

bool scan_find(Span object, const char *key, Span *ret_value) {
        Span name, value;
        Scan scan;

        if (!scan_open(&scan, object, '{'))
                return false;
        while (scan_member(&scan, &name, &value) > 0)
                if (span_is(name, key)) {
                        *ret_value = value;
                        return true;
                }
        return false;
}

bool scan_find2(Span object, const char *first, const char *second, Span *ret_value) {
        Span inner;

        return scan_find(object, first, &inner) && scan_find(inner, second, ret_value);
}

bool scan_is_integer(Span text) {
        size_t i = text.size > 0 && text.text[0] == '-';

        if (i == text.size || (text.text[i] == '0' && i + 1 < text.size))
                return false;
        for (; i < text.size; i++)
                if (!is_digit(text.text[i]))
                        return false;
        return true;
}

bool scan_uint64(Span value, uint64_t *ret) {
        uint64_t number = 0;

        if (!value.text || !scan_is_integer(value) || value.text[0] == '-')
                return false;
        for (size_t i = 0; i < value.size; i++)
                if (__builtin_mul_overflow(number, 10, &number) ||
                    __builtin_add_overflow(number, (uint64_t) (value.text[i] - '0'), &number))
                        return false;
        *ret = number;
        return true;
}

bool scan_plain_string(Span value, Span *ret) {
        if (!value.text || value.size < 2 || value.text[0] != '"' || memchr(value.text, '\\', value.size))
                return false;
        *ret = (Span) { .text = value.text + 1, .size = value.size - 2 };
        return true;
}
