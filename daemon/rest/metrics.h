/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* GET /metrics: what monitoring systems read, as OpenMetrics or as the older text of Prometheus.
 *
 * privmemd is asked once for all who ask here meanwhile, and they share the answer. If privmemd does not answer, the page
 * says so, and has what this program knows of itself. */

#include "rest/events.h"
#include "rest/gateway.h"

typedef struct Metrics Metrics;

/* Adds its address to the gateway, and counts the exchanges there. */
int metrics_new(Upstream *upstream, Gateway *gateway, const Events *events, Metrics **ret);
/* After http_free(), which ends those who wait. */
Metrics *metrics_free(Metrics *metrics);
