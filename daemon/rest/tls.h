/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* TLS 1.3 for callers over TCP: our certificate, and who their certificates say they are.
 *
 * All files are read together and are in force together: a generation. A reload that fails leaves the one in force.
 * Each session keeps the generation of its handshake, whose credentials it uses to its end. The chain of a client is
 * verified once, in the handshake; then once more only when there is a newer generation, so that a revoked certificate
 * loses its connections too, and when it has expired meanwhile. */

#include <gnutls/abstract.h>
#include <gnutls/gnutls.h>
#include <stdbool.h>
#include <stdint.h>

#include "rest/caller.h"

/* For MHD_OPTION_HTTPS_PRIORITIES. No resumption: each handshake verifies. */
#define TLS_PRIORITIES "SECURE128:-VERS-ALL:+VERS-TLS1.3:%NO_TICKETS"

typedef struct TlsFiles {
        const char *certificate, *key;
        const char *client_ca; /* NULL: no client is asked for a certificate */
        const char *crl;       /* NULL: none is revoked */
        const char *rights;    /* of client certificates; rights.h */
} TlsFiles;

typedef struct Tls Tls;
typedef struct TlsPeer TlsPeer;

/* files and what it points to must outlive it. is_certificate_required: a client without one cannot finish its
 * handshake. LINES_E_BAD with a message, or a negative errno. */
int tls_new(const TlsFiles *files, bool is_certificate_required, Tls **ret, char **ret_message);
/* All sessions must be gone. */
Tls *tls_free(Tls *tls);

/* Reads all files anew. What fails leaves everything as it was. */
int tls_reload(Tls *tls, bool is_certificate_required, char **ret_message);

/* Chains that were verified since the start. */
uint64_t tls_verifications(const Tls *tls);

/* Gives a session its credentials and its verification, before its handshake. */
int tls_peer_new(Tls *tls, gnutls_session_t session, TlsPeer **ret);
/* The session must still be there. */
TlsPeer *tls_peer_free(TlsPeer *peer);

/* What the client may do by its certificate at this time; RIGHT_NONE if it has shown none, or none that counts.
 * ret_name: whose it is, as in rights.h. It is the peer's, and valid until the next call. */
Right tls_peer_right(TlsPeer *peer, int64_t now, const char **ret_name);

/* For MHD_OPTION_HTTPS_CERT_CALLBACK2, without which MHD wants a certificate. No session ever asks it, for each one has
 * credentials of its own before its handshake. */
int tls_no_certificate(gnutls_session_t session, const struct gnutls_cert_retr_st *info,
                       gnutls_pcert_st **ret_certificates, unsigned *ret_n, gnutls_ocsp_data_st **ret_ocsp,
                       unsigned *ret_n_ocsp, gnutls_privkey_t *ret_key, unsigned *ret_flags);
