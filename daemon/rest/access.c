/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "rest/access.h"

#include <string.h>
#include <time.h>

#include "core/cleanup.h"
#include "rest/token.h"

#define REALM "Bearer realm=\"privmemd\""

struct Access {
        const Settings *settings;
        TlsFiles files;
        Tls *tls;
        Tokens *tokens; /* NULL if none are taken */
};

int access_reload(Access *access, char **ret_message) {
        const Settings *s = access->settings;
        _cleanup_free_ Tokens *tokens = NULL;
        int r = 0;

        if (s->tokens)
                r = tokens_read(s->tokens, &tokens, ret_message);
        if (r == 0 && access->tls)
                r = tls_reload(access->tls, !s->tokens, ret_message);
        else if (r == 0 && s->certificate)
                r = tls_new(&access->files, !s->tokens, &access->tls, ret_message);
        if (r != 0)
                return r;
        free(access->tokens);
        access->tokens = TAKE_PTR(tokens);
        return 0;
}

int access_new(const Settings *settings, Access **ret, char **ret_message) {
        Access *access = calloc(1, sizeof(*access));
        int r;

        if (!access)
                return -ENOMEM;
        access->settings = settings;
        access->files = (TlsFiles) {
                .certificate = settings->certificate,
                .key = settings->key,
                .client_ca = settings->client_ca,
                .crl = settings->crl,
                .rights = settings->rights,
        };
        r = access_reload(access, ret_message);
        if (r == 0)
                *ret = access;
        else
                access_free(access);
        return r;
}

Access *access_free(Access *access) {
        if (!access)
                return NULL;
        tls_free(access->tls);
        free(access->tokens);
        free(access);
        return NULL;
}

Tls *access_tls(Access *access) {
        return access->tls;
}

/* Who shows a token that is not right is nobody, whatever its certificate says: it is not who it thinks it is. */
void access_identify(const Access *access, Exchange *exchange, Caller *room) {
        const char *header = exchange_header(exchange, MHD_HTTP_HEADER_AUTHORIZATION);
        const Token *found = NULL;
        const char *text;
        size_t size;

        if (!exchange->caller->is_remote || !access->tokens || !header)
                return;
        if (exchange_count_header(exchange, MHD_HTTP_HEADER_AUTHORIZATION) == 1) {
                text = token_of_header(header, &size);
                if (text)
                        found = tokens_find(access->tokens, text, size, time(NULL));
        }
        *room = (Caller) { .is_remote = true, .showed = CALLER_SHOWED_BAD_TOKEN };
        if (found) {
                room->right = found->right;
                room->showed = CALLER_SHOWED_TOKEN;
        }
        snprintf(room->name, sizeof(room->name), "%s%.50s", found ? "token " : "unknown", found ? found->name : "");
        exchange->caller = room;
}

unsigned access_refuse(const Access *access, Exchange *exchange) {
        const Caller *caller = exchange->caller;

        if (!caller->is_remote || !access->tokens)
                return MHD_HTTP_FORBIDDEN;
        switch (caller->showed) {
        case CALLER_SHOWED_NOTHING:
                exchange_add_header(exchange, MHD_HTTP_HEADER_WWW_AUTHENTICATE, REALM);
                return MHD_HTTP_UNAUTHORIZED;
        case CALLER_SHOWED_BAD_TOKEN:
                exchange_add_header(exchange, MHD_HTTP_HEADER_WWW_AUTHENTICATE, REALM ", error=\"invalid_token\"");
                return MHD_HTTP_UNAUTHORIZED;
        case CALLER_SHOWED_TOKEN:
                exchange_add_header(exchange, MHD_HTTP_HEADER_WWW_AUTHENTICATE,
                                    REALM ", error=\"insufficient_scope\"");
                return MHD_HTTP_FORBIDDEN;
        case CALLER_SHOWED_CERTIFICATE:
                break;
        }
        return MHD_HTTP_FORBIDDEN;
}
