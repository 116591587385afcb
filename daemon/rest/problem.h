/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Problem documents (RFC 9457). What is wrong with the request as HTTP has the type about:blank; what privmemd says has the
 * name of its error. */

#include "rest/http.h"
#include "rest/upstream.h"

#define PROBLEM_TYPE "application/problem+json"

void problem_answer(Exchange *exchange, unsigned status, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Names the parameter that is wrong. */
void problem_answer_parameter(Exchange *exchange, unsigned status, Span parameter, const char *detail);

/* An error of privmemd: its status, its sentence and all its fields. */
void problem_answer_error(Exchange *exchange, const UpstreamReply *reply);

/* No answer of privmemd: it is not there, or does not answer. */
void problem_answer_outcome(Exchange *exchange, UpstreamOutcome outcome);

/* For tests. The status that a reply with this error has, and the document. */
unsigned problem_of_error(const UpstreamReply *reply, Text *document);
