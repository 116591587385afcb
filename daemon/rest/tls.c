/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "rest/tls.h"

#include <gnutls/x509.h>
#include <limits.h>
#include <string.h>
#include <time.h>

#include "core/cleanup.h"
#include "rest/lines.h"
#include "rest/rights.h"

#define CHAIN_MAX          8U
#define VERIFICATION_FLAGS GNUTLS_PROFILE_TO_VFLAGS(GNUTLS_PROFILE_MEDIUM)

typedef struct Generation {
        unsigned n_references;
        gnutls_certificate_credentials_t credentials;
        gnutls_x509_trust_list_t trust; /* the credentials'; NULL if nobody is asked for a certificate */
        int64_t crls_until;             /* an outdated list says nothing of who was revoked since */
        Rights *rights;
        gnutls_certificate_request_t request;
} Generation;

struct Tls {
        const TlsFiles *files;
        Generation *generation;
        uint64_t n_generations;
        uint64_t n_verifications;
        int64_t told; /* the second of the last message on a refused certificate */
};

struct TlsPeer {
        Tls *tls;
        gnutls_session_t session;
        Generation *generation; /* of its credentials */

        /* The verdict of the last verification, which counts for one generation and a time. */
        uint64_t judged_by; /* 0: none yet */
        int64_t until;
        Right right;
        char name[RIGHTS_NAME_MAX + 1];
};

/* ---- generations ---- */

static Generation *generation_unref(Generation *g) {
        if (!g || --g->n_references > 0)
                return NULL;
        if (g->credentials)
                gnutls_certificate_free_credentials(g->credentials);
        rights_free(g->rights);
        free(g);
        return NULL;
}

static void cleanup_generation(Generation **g) {
        *g = generation_unref(*g);
}

static int load_key(Generation *g, const TlsFiles *files, char **ret_message) {
        _cleanup_free_ char *certificate = NULL, *key = NULL;
        size_t certificate_size, key_size;
        int r;

        r = lines_read_all(files->certificate, /* is_secret= */ false, &certificate, &certificate_size, ret_message);
        if (r != 0)
                return r;
        r = lines_read_all(files->key, /* is_secret= */ true, &key, &key_size, ret_message);
        if (r != 0)
                return r;
        r = gnutls_certificate_set_x509_key_mem2(
                g->credentials, &(gnutls_datum_t) { (unsigned char *) certificate, (unsigned) certificate_size },
                &(gnutls_datum_t) { (unsigned char *) key, (unsigned) key_size }, GNUTLS_X509_FMT_PEM,
                /* pass= */ NULL, 0);
        explicit_bzero(key, key_size);
        if (r < 0)
                return lines_bad(ret_message, "%s, %s: no certificate with its key: %s", files->certificate,
                                 files->key, gnutls_strerror(r));
        return 0;
}

typedef struct Authorities {
        gnutls_x509_crt_t *list; /* the trust list's, but the array */
        unsigned n;
} Authorities;

static int load_authorities(Generation *g, const char *path, Authorities *ret, char **ret_message) {
        _cleanup_free_ char *data = NULL;
        size_t size;
        int r;

        r = lines_read_all(path, /* is_secret= */ false, &data, &size, ret_message);
        if (r != 0)
                return r;
        r = gnutls_x509_crt_list_import2(&ret->list, &ret->n,
                                         &(gnutls_datum_t) { (unsigned char *) data, (unsigned) size },
                                         GNUTLS_X509_FMT_PEM, 0);
        if (r < 0) {
                ret->list = NULL;
                return lines_bad(ret_message, "%s: no certificate of an authority: %s", path, gnutls_strerror(r));
        }
        r = gnutls_x509_trust_list_add_cas(g->trust, ret->list, ret->n, GNUTLS_TL_USE_IN_TLS);
        return r < 0 || (unsigned) r != ret->n ? -ENOMEM : 0;
}

/* Signed by an authority that is trusted, and of today. */
static int check_crl(Generation *g, gnutls_x509_crl_t crl, const TlsFiles *files, const Authorities *authorities,
                     char **ret_message) {
        time_t until = gnutls_x509_crl_get_next_update(crl);
        unsigned status = 0;
        int r;

        if (until != (time_t) -1 && until < g->crls_until)
                g->crls_until = until;
        if (g->crls_until <= time(NULL))
                return lines_bad(ret_message, "%s: the list of revoked certificates is outdated", files->crl);
        r = gnutls_x509_crl_verify(crl, authorities->list, authorities->n, VERIFICATION_FLAGS, &status);
        if (r < 0 || status != 0)
                return lines_bad(ret_message, "%s: a list of revoked certificates is not signed by an authority in %s",
                                 files->crl, files->client_ca);
        return 0;
}

static int load_crls(Generation *g, const TlsFiles *files, const Authorities *authorities, char **ret_message) {
        _cleanup_free_ char *data = NULL;
        gnutls_x509_crl_t *list;
        unsigned n, n_added = 0;
        size_t size;
        int r;

        r = lines_read_all(files->crl, /* is_secret= */ false, &data, &size, ret_message);
        if (r != 0)
                return r;
        r = gnutls_x509_crl_list_import2(&list, &n, &(gnutls_datum_t) { (unsigned char *) data, (unsigned) size },
                                         GNUTLS_X509_FMT_PEM, 0);
        if (r < 0)
                return lines_bad(ret_message, "%s: no list of revoked certificates: %s", files->crl,
                                 gnutls_strerror(r));
        for (r = 0; r == 0 && n_added < n; n_added += r == 0) {
                r = check_crl(g, list[n_added], files, authorities, ret_message);
                /* What is added becomes the trust list's. */
                if (r == 0 && gnutls_x509_trust_list_add_crls(g->trust, &list[n_added], 1, 0, 0) != 1)
                        r = -ENOMEM;
        }
        while (n_added < n)
                gnutls_x509_crl_deinit(list[n_added++]);
        gnutls_free(list);
        return r;
}

static int load_trust(Generation *g, const TlsFiles *files, char **ret_message) {
        Authorities authorities = {};
        int r;

        if (gnutls_x509_trust_list_init(&g->trust, 0) < 0)
                return -ENOMEM;
        gnutls_certificate_set_trust_list(g->credentials, g->trust, 0);
        r = load_authorities(g, files->client_ca, &authorities, ret_message);
        if (r == 0 && files->crl)
                r = load_crls(g, files, &authorities, ret_message);
        if (r == 0)
                r = rights_read(files->rights, &g->rights, ret_message);
        gnutls_free(authorities.list);
        return r;
}

static int generation_new(const TlsFiles *files, bool is_required, Generation **ret, char **ret_message) {
        _cleanup_(cleanup_generation) Generation *g = NULL;
        int r;

        g = calloc(1, sizeof(Generation));
        if (!g)
                return -ENOMEM;
        g->n_references = 1;
        g->crls_until = INT64_MAX;
        if (gnutls_certificate_allocate_credentials(&g->credentials) < 0)
                return -ENOMEM;
        r = load_key(g, files, ret_message);
        if (r == 0 && files->client_ca)
                r = load_trust(g, files, ret_message);
        if (r != 0)
                return r;
        if (files->client_ca)
                g->request = is_required ? GNUTLS_CERT_REQUIRE : GNUTLS_CERT_REQUEST;
        else
                g->request = GNUTLS_CERT_IGNORE;
        *ret = TAKE_PTR(g);
        return 0;
}

int tls_reload(Tls *tls, bool is_certificate_required, char **ret_message) {
        Generation *g;
        int r;

        r = generation_new(tls->files, is_certificate_required, &g, ret_message);
        if (r != 0)
                return r;
        generation_unref(tls->generation);
        tls->generation = g;
        tls->n_generations++;
        return 0;
}

int tls_new(const TlsFiles *files, bool is_certificate_required, Tls **ret, char **ret_message) {
        _cleanup_free_ Tls *tls = NULL;
        int r;

        tls = calloc(1, sizeof(Tls));
        if (!tls)
                return -ENOMEM;
        tls->files = files;
        r = tls_reload(tls, is_certificate_required, ret_message);
        if (r != 0)
                return r;
        *ret = TAKE_PTR(tls);
        return 0;
}

Tls *tls_free(Tls *tls) {
        if (tls)
                generation_unref(tls->generation);
        free(tls);
        return NULL;
}

uint64_t tls_verifications(const Tls *tls) {
        return tls->n_verifications;
}

/* ---- verification ---- */

typedef struct Chain {
        unsigned n;
        gnutls_x509_crt_t certificate[CHAIN_MAX];
} Chain;

static void chain_done(Chain *chain) {
        while (chain->n > 0)
                gnutls_x509_crt_deinit(chain->certificate[--chain->n]);
}

static bool chain_of(gnutls_session_t session, Chain *chain) {
        const gnutls_datum_t *list;
        unsigned n;

        list = gnutls_certificate_get_peers(session, &n);
        if (!list || n == 0 || n > CHAIN_MAX)
                return false;
        while (chain->n < n) {
                gnutls_x509_crt_t *one = &chain->certificate[chain->n];

                if (gnutls_x509_crt_init(one) < 0)
                        return false;
                chain->n++;
                if (gnutls_x509_crt_import(*one, &list[chain->n - 1], GNUTLS_X509_FMT_DER) < 0)
                        return false;
        }
        return true;
}

/* Strangers make these happen, so at most one a second is told. */
static void tell(Tls *tls, int64_t now, unsigned status) {
        gnutls_datum_t text = {};

        if (now == tls->told)
                return;
        tls->told = now;
        if (gnutls_certificate_verification_status_print(status, GNUTLS_CRT_X509, &text, 0) < 0)
                return;
        fprintf(stderr, "privmem-rest: a client's certificate is refused: %s\n", (const char *) text.data);
        gnutls_free(text.data);
}

/* When the first of them expires. */
static int64_t until_of(const Chain *chain, int64_t crls_until) {
        int64_t until = crls_until;

        for (unsigned i = 0; i < chain->n; i++) {
                time_t one = gnutls_x509_crt_get_expiration_time(chain->certificate[i]);

                if (one < until)
                        until = one;
        }
        return until;
}

/* The verdict on a chain by the generation in force. */
static bool judge_chain(TlsPeer *peer, Chain *chain, int64_t now) {
        Generation *g = peer->tls->generation;
        gnutls_typed_vdata_st purpose = { .type = GNUTLS_DT_KEY_PURPOSE_OID,
                                          .data = (unsigned char *) GNUTLS_KP_TLS_WWW_CLIENT };
        unsigned status = GNUTLS_CERT_INVALID;

        peer->tls->n_verifications++;
        if (gnutls_x509_trust_list_verify_crt2(g->trust, chain->certificate, chain->n, &purpose, 1, VERIFICATION_FLAGS,
                                               &status, /* func= */ NULL) < 0)
                status |= GNUTLS_CERT_INVALID;
        if (g->crls_until <= now)
                status |= GNUTLS_CERT_INVALID | GNUTLS_CERT_REVOCATION_DATA_SUPERSEDED;
        peer->until = until_of(chain, g->crls_until);
        if (status == 0 && peer->until <= now)
                status |= GNUTLS_CERT_INVALID | GNUTLS_CERT_EXPIRED;
        if (status != 0) {
                tell(peer->tls, now, status);
                peer->until = INT64_MAX;
                return false;
        }
        peer->right = rights_of(g->rights, chain->certificate[0], peer->name);
        return true;
}

static bool judge(TlsPeer *peer, int64_t now) {
        Chain chain = {};
        bool is_good = false;

        peer->right = RIGHT_NONE;
        peer->name[0] = 0;
        peer->until = INT64_MAX;
        if (peer->tls->generation->trust && chain_of(peer->session, &chain))
                is_good = judge_chain(peer, &chain, now);
        chain_done(&chain);
        peer->judged_by = peer->tls->n_generations;
        return is_good;
}

/* GnuTLS calls this in the handshake, once the client's certificate message is there. */
static int on_certificate(gnutls_session_t session) {
        TlsPeer *peer = gnutls_db_get_ptr(session);
        unsigned n;

        /* If it must show one, GnuTLS ends the handshake by itself. */
        if (!gnutls_certificate_get_peers(session, &n) || n == 0)
                return 0;
        return judge(peer, time(NULL)) ? 0 : GNUTLS_E_CERTIFICATE_ERROR;
}

/* ---- peers ---- */

int tls_peer_new(Tls *tls, gnutls_session_t session, TlsPeer **ret) {
        Generation *g = tls->generation;
        TlsPeer *peer;

        peer = calloc(1, sizeof(TlsPeer));
        if (!peer)
                return -ENOMEM;
        if (gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, g->credentials) < 0) {
                free(peer);
                return -ENOMEM;
        }
        peer->tls = tls;
        peer->session = session;
        peer->generation = g;
        g->n_references++;
        gnutls_certificate_server_set_request(session, g->request);
        /* The session's own pointer is MHD's; nothing is kept in a data base here, so that its pointer is free. */
        gnutls_db_set_ptr(session, peer);
        gnutls_session_set_verify_function(session, on_certificate);
        *ret = peer;
        return 0;
}

TlsPeer *tls_peer_free(TlsPeer *peer) {
        if (!peer)
                return NULL;
        gnutls_db_set_ptr(peer->session, NULL);
        gnutls_credentials_clear(peer->session);
        generation_unref(peer->generation);
        free(peer);
        return NULL;
}

Right tls_peer_right(TlsPeer *peer, int64_t now, const char **ret_name) {
        if (peer->judged_by != peer->tls->n_generations || now >= peer->until)
                judge(peer, now);
        *ret_name = peer->name;
        return peer->right;
}

int tls_no_certificate(gnutls_session_t session, const struct gnutls_cert_retr_st *info,
                       gnutls_pcert_st **ret_certificates, unsigned *ret_n, gnutls_ocsp_data_st **ret_ocsp,
                       unsigned *ret_n_ocsp, gnutls_privkey_t *ret_key, unsigned *ret_flags) {
        (void) session;
        (void) info;
        (void) ret_certificates;
        (void) ret_n;
        (void) ret_ocsp;
        (void) ret_n_ocsp;
        (void) ret_key;
        (void) ret_flags;
        return -1;
}
