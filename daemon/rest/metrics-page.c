/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "rest/metrics-page.h"

#include <stdlib.h>
#include <string.h>

#include "rest/scan.h"

#define GAUGE(name, unit, help)     { name, METRIC_GAUGE, unit, help }
#define COUNTER(name, help)         { name, METRIC_COUNTER, NULL, help }
#define HISTOGRAM(name, unit, help) { name, METRIC_HISTOGRAM, unit, help }
#define INFO(name, help)            { name, METRIC_INFO, NULL, help }

const MetricFamily metric_families[_METRIC_MAX] = {
        [METRIC_UP] = GAUGE("privmem_up", NULL,
                            "Whether privmemd has answered: 1, or 0 and nothing else is known of it."),
        [METRIC_BUILD] = INFO("privmem_build", "Version of privmemd, and release of the kernel."),
        [METRIC_START_TIME] = GAUGE("privmem_start_time_seconds", "seconds", "When privmemd started, since 1970."),
        [METRIC_RESTARTS] = COUNTER("privmem_restarts",
                                    "How often a privmemd began with what the one before it had left."),
        [METRIC_CUSTODY] = GAUGE(
                "privmem_custody", NULL,
                "1 for where the file descriptors are while privmemd does not run, 0 for other places."),
        [METRIC_VMS] = GAUGE("privmem_vms", NULL, "Registered VMs."),
        [METRIC_BACKINGS] = GAUGE("privmem_backings", NULL, "Backings of all VMs."),
        [METRIC_SLOTS] = GAUGE("privmem_slots", NULL, "Slots of all VMs."),
        [METRIC_PROMISED] = GAUGE("privmem_promised_bytes", "bytes", "Sum of the sizes of all backings."),
        [METRIC_RESIDENT] = GAUGE("privmem_resident_bytes", "bytes", "What of them is in memory."),
        [METRIC_POOL_SIZE] = GAUGE("privmem_huge_page_pool_size_bytes", "bytes", "Pool of huge pages of the host."),
        [METRIC_POOL_FREE] = GAUGE("privmem_huge_page_pool_free_bytes", "bytes",
                                   "What of the pool no page table or file uses."),
        [METRIC_POOL_RESERVED] = GAUGE("privmem_huge_page_pool_reserved_bytes", "bytes",
                                       "What of the free bytes is promised to somebody."),
        [METRIC_NODE_POOL_SIZE] = GAUGE("privmem_huge_page_node_size_bytes", "bytes",
                                        "Part of the pool that is on a NUMA node."),
        [METRIC_NODE_POOL_FREE] = GAUGE("privmem_huge_page_node_free_bytes", "bytes",
                                        "What of that part no page table or file uses."),
        [METRIC_LIMIT] = GAUGE("privmem_limit", NULL, "Upper limits that privmemd sets, as GetHost has them."),
        [METRIC_QUOTA_USED] = GAUGE("privmem_quota_used", NULL, "How much of a limit is used, by a uid or by all."),
        [METRIC_QUOTA_MAXIMUM] = GAUGE("privmem_quota_maximum", NULL, "How much of it may be used."),
        [METRIC_EVENTS] = COUNTER("privmem_events", "Events since privmemd started."),
        [METRIC_CALLS] = COUNTER("privmem_calls", "Calls of privmemd, from everybody."),
        [METRIC_CALL_DURATION] = HISTOGRAM("privmem_call_duration_seconds", "seconds",
                                           "How long privmemd was busy with a call."),
        [METRIC_VM_STATE] = GAUGE("privmem_vm_state", NULL, "1 for the state that the VM is in."),
        [METRIC_VM_BACKINGS] = GAUGE("privmem_vm_backings", NULL, "Backings of a VM."),
        [METRIC_VM_PROMISED] = GAUGE("privmem_vm_promised_bytes", "bytes", "Sum of their sizes."),
        [METRIC_VM_RESIDENT] = GAUGE("privmem_vm_resident_bytes", "bytes", "What of them is in memory."),
        [METRIC_VM_RETAINED] = GAUGE("privmem_vm_retained_bytes", "bytes",
                                     "What of them is in memory although no VMM runs the VM any more."),
        [METRIC_VM_SLOTS] = GAUGE("privmem_vm_slots", NULL, "Slots of a VM."),
        [METRIC_VM_PRIVATE_RANGES] = GAUGE("privmem_vm_private_ranges", NULL,
                                           "Separate private ranges of guest addresses of a VM."),
        [METRIC_VM_CLAIMS] = GAUGE("privmem_vm_claims", NULL, "Claims of a VM that can still be redeemed."),
        [METRIC_VM_REFUSED] = COUNTER("privmem_vm_slots_refused", "Slots that were refused."),
        [METRIC_VM_OBSERVED] = COUNTER("privmem_vm_aliases_observed",
                                       "Slots that were set only because the alias policy is to observe."),
        [METRIC_VM_ALLOWED] = COUNTER("privmem_vm_aliases_allowed",
                                      "Slots that a rule allowed although pages of them appear elsewhere."),
        [METRIC_REST_REQUESTS] = COUNTER("privmem_rest_requests",
                                         "HTTP requests that are over; code 0: not answered."),
        [METRIC_REST_DURATION] = HISTOGRAM("privmem_rest_request_duration_seconds", "seconds",
                                           "From the end of their header to the end of their answer."),
        [METRIC_REST_CONNECTIONS] = GAUGE("privmem_rest_connections", NULL, "Open HTTP connections."),
        [METRIC_REST_SUBSCRIBERS] = GAUGE("privmem_rest_event_subscribers", NULL, "Clients that listen for events."),
        [METRIC_REST_SUBSCRIPTIONS] = COUNTER(
                "privmem_rest_event_subscriptions",
                "How often events were asked for at privmemd: once, and after each loss."),
        [METRIC_REST_GAPS] = COUNTER("privmem_rest_event_gaps", "Clients that were told that they had missed events."),
        [METRIC_REST_OMITTED] = GAUGE("privmem_rest_omitted_vms", NULL,
                                      "VMs that are left out here for want of room."),
        [METRIC_PROCESS_CPU] = COUNTER("process_cpu_seconds", "Processor time of privmem-rest, in seconds."),
        [METRIC_PROCESS_RESIDENT] = GAUGE("process_resident_memory_bytes", "bytes", "Its resident memory."),
        [METRIC_PROCESS_VIRTUAL] = GAUGE("process_virtual_memory_bytes", "bytes", "Its virtual memory."),
        [METRIC_PROCESS_FDS] = GAUGE("process_open_fds", NULL, "Its open file descriptors."),
        [METRIC_PROCESS_MAX_FDS] = GAUGE("process_max_fds", NULL, "How many it may have."),
        [METRIC_PROCESS_START] = GAUGE("process_start_time_seconds", "seconds", "When it started, since 1970."),
};

MetricsPage *metrics_page_new(size_t bytes_max) {
        MetricsPage *page;

        page = calloc(1, sizeof(*page));
        if (!page)
                return NULL;
        page->references = 1;
        page->bytes_max = bytes_max;
        return page;
}

MetricsPage *metrics_page_unref(MetricsPage *page) {
        if (!page || --page->references > 0)
                return NULL;
        for (unsigned i = 0; i < _METRIC_MAX; i++)
                text_done(&page->samples[i]);
        free(page);
        return NULL;
}

bool metrics_page_has_failed(const MetricsPage *page) {
        for (unsigned i = 0; i < _METRIC_MAX; i++)
                if (page->samples[i].failed)
                        return true;
        return false;
}

static Text *begin(MetricsPage *page, MetricId id) {
        Text *text = &page->samples[id];

        sample_begin(text, &metric_families[id], "");
        return text;
}

void metrics_page_add(MetricsPage *page, MetricId id, uint64_t value) {
        sample_end(begin(page, id), value);
}

/* ---- JSON ---- */

static uint64_t number(Span object, const char *key) {
        uint64_t value;
        Span found;

        return scan_find(object, key, &found) && scan_uint64(found, &value) ? value : 0;
}

static Span string(Span object, const char *key) {
        Span found, value;

        return scan_find(object, key, &found) && scan_plain_string(found, &value) ? value : (Span) { "", 0 };
}

/* Calls for each element of the array of that name. False: there is none. */
static bool for_each(MetricsPage *page, Span object, const char *key,
                     bool (*function)(MetricsPage *page, Span element, const void *userdata), const void *userdata) {
        Span array, element;
        Scan scan;
        int r;

        if (!scan_find(object, key, &array) || !scan_open(&scan, array, '['))
                return false;
        while ((r = scan_element(&scan, &element)) > 0)
                if (!function(page, element, userdata))
                        return false;
        return r == 0;
}

/* ---- the host ---- */

static void add_custody(MetricsPage *page, Span custody) {
        static const char *const places[] = { "none", "runtime_file", "fd_store" };

        for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
                Text *text = begin(page, METRIC_CUSTODY);

                sample_label(text, "place", span_of(places[i]));
                sample_end(text, span_is(custody, places[i]));
        }
}

static void add_pool_sample(MetricsPage *page, MetricId id, Span pool, bool has_node, const char *key) {
        Text *text = begin(page, id);

        sample_label_uint64(text, "page_size", number(pool, "pageSize"));
        if (has_node)
                sample_label_uint64(text, "node", number(pool, "node"));
        sample_end(text, number(pool, key));
}

static bool add_pool(MetricsPage *page, Span pool, const void *userdata) {
        uint64_t node;
        Span value;
        bool has_node = scan_find(pool, "node", &value) && scan_uint64(value, &node);

        (void) userdata;
        add_pool_sample(page, has_node ? METRIC_NODE_POOL_SIZE : METRIC_POOL_SIZE, pool, has_node, "total");
        add_pool_sample(page, has_node ? METRIC_NODE_POOL_FREE : METRIC_POOL_FREE, pool, has_node, "free");
        if (!has_node)
                add_pool_sample(page, METRIC_POOL_RESERVED, pool, has_node, "reserved");
        return true;
}

static bool add_limits(MetricsPage *page, Span reply) {
        Span limits, key, value;
        uint64_t maximum;
        Scan scan;
        int r;

        if (!scan_find(reply, "limits", &limits) || !scan_open(&scan, limits, '{'))
                return false;
        while ((r = scan_member(&scan, &key, &value)) > 0)
                if (scan_uint64(value, &maximum)) {
                        Text *text = begin(page, METRIC_LIMIT);

                        sample_label(text, "limit", key);
                        sample_end(text, maximum);
                }
        return r == 0;
}

bool metrics_page_add_host(MetricsPage *page, Span reply) {
        static const struct {
                MetricId id;
                const char *key;
        } numbers[] = {
                { METRIC_VMS, "vms" },
                { METRIC_BACKINGS, "backings" },
                { METRIC_SLOTS, "slots" },
                { METRIC_PROMISED, "promisedBytes" },
                { METRIC_RESIDENT, "residentBytes" },
        };
        Text *text = begin(page, METRIC_BUILD);

        sample_label(text, "version", string(reply, "version"));
        sample_label(text, "kernel", string(reply, "kernelRelease"));
        sample_end(text, 1);
        for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
                metrics_page_add(page, numbers[i].id, number(reply, numbers[i].key));
        add_custody(page, string(reply, "custody"));
        return for_each(page, reply, "hugePagePools", add_pool, NULL) && add_limits(page, reply);
}

/* ---- privmemd ---- */

static void add_quota_sample(MetricsPage *page, MetricId id, Span quota, const char *key) {
        Text *text = begin(page, id);
        uint64_t uid;
        Span value;

        sample_label(text, "limit", string(quota, "limit"));
        if (scan_find(quota, "uid", &value) && scan_uint64(value, &uid))
                sample_label_uint64(text, "uid", uid);
        sample_end(text, number(quota, key));
}

static bool add_quota(MetricsPage *page, Span quota, const void *userdata) {
        (void) userdata;
        add_quota_sample(page, METRIC_QUOTA_USED, quota, "used");
        add_quota_sample(page, METRIC_QUOTA_MAXIMUM, quota, "maximum");
        return true;
}

static bool add_event_count(MetricsPage *page, Span count, const void *userdata) {
        Text *text = begin(page, METRIC_EVENTS);

        (void) userdata;
        sample_label(text, "kind", string(count, "kind"));
        sample_end(text, number(count, "count"));
        return true;
}

#define BOUNDS_MAX 32U

/* At most BOUNDS_MAX numbers. */
static unsigned numbers_of(Span object, const char *key, uint64_t *ret) {
        Span array, element;
        unsigned n = 0;
        Scan scan;

        if (!scan_find(object, key, &array) || !scan_open(&scan, array, '['))
                return 0;
        while (n < BOUNDS_MAX && scan_element(&scan, &element) > 0 && scan_uint64(element, &ret[n]))
                n++;
        return n;
}

static void add_calls(MetricsPage *page, Span method, const char *outcome, uint64_t count) {
        Text *text = begin(page, METRIC_CALLS);

        sample_label(text, "method", string(method, "method"));
        sample_label(text, "outcome", span_of(outcome));
        sample_end(text, count);
}

/* userdata: the reply, which has the bounds. */
static bool add_method(MetricsPage *page, Span method, const void *userdata) {
        uint64_t bounds[BOUNDS_MAX], within[BOUNDS_MAX];
        const Span *reply = userdata;
        unsigned n = numbers_of(*reply, "boundsUSec", bounds);
        uint64_t succeeded = number(method, "succeeded"), failed = number(method, "failed");
        const Label label = { "method", string(method, "method") };
        const Histogram histogram = {
                .bounds_usec = bounds,
                .within = within,
                .n_bounds = n,
                .count = succeeded + failed,
                .total_usec = number(method, "totalUSec"),
        };

        if (numbers_of(method, "within", within) != n)
                return false;
        add_calls(page, method, "ok", succeeded);
        add_calls(page, method, "error", failed);
        /* Most methods are never called on most hosts. */
        if (histogram.count > 0)
                openmetrics_histogram(&page->samples[METRIC_CALL_DURATION], &metric_families[METRIC_CALL_DURATION],
                                      &label, 1, &histogram);
        return true;
}

bool metrics_page_add_daemon(MetricsPage *page, Span reply) {
        sample_end_usec(begin(page, METRIC_START_TIME), number(reply, "startedUSec"));
        metrics_page_add(page, METRIC_RESTARTS, number(reply, "restarts"));
        return for_each(page, reply, "quotas", add_quota, NULL) &&
               for_each(page, reply, "events", add_event_count, NULL) &&
               for_each(page, reply, "methods", add_method, &reply);
}

/* ---- VMs ---- */

static Text *begin_vm(MetricsPage *page, MetricId id, Span vm) {
        Text *text = begin(page, id);

        sample_label(text, "vm", string(vm, "vm"));
        return text;
}

/* [0,1] becomes 0,1 */
static Span nodes_of(Span sum) {
        Span nodes;

        if (!scan_find(sum, "numaNodes", &nodes) || nodes.size < 2 || nodes.text[0] != '[')
                return SPAN("any");
        return (Span) { .text = nodes.text + 1, .size = nodes.size - 2 };
}

static void add_memory_sample(MetricsPage *page, MetricId id, Span vm, Span sum, uint64_t value) {
        Text *text = begin_vm(page, id, vm);

        sample_label(text, "kind", string(sum, "kind"));
        sample_label_uint64(text, "page_size", number(sum, "pageSize"));
        sample_label(text, "node", nodes_of(sum));
        sample_end(text, value);
}

static bool add_memory(MetricsPage *page, Span sum, const void *userdata) {
        const Span *vm = userdata;
        uint64_t resident = number(sum, "residentBytes");

        add_memory_sample(page, METRIC_VM_BACKINGS, *vm, sum, number(sum, "backings"));
        add_memory_sample(page, METRIC_VM_PROMISED, *vm, sum, number(sum, "promisedBytes"));
        add_memory_sample(page, METRIC_VM_RESIDENT, *vm, sum, resident);
        add_memory_sample(page, METRIC_VM_RETAINED, *vm, sum,
                          span_is(string(*vm, "state"), "retained") ? resident : 0);
        return true;
}

static bool add_verdict(MetricsPage *page, Span count, const void *userdata) {
        static const struct {
                MetricId id;
                const char *key;
        } counters[] = {
                { METRIC_VM_REFUSED, "refused" },
                { METRIC_VM_OBSERVED, "observed" },
                { METRIC_VM_ALLOWED, "allowed" },
        };
        const Span *vm = userdata;

        for (size_t i = 0; i < sizeof(counters) / sizeof(counters[0]); i++) {
                uint64_t value = number(count, counters[i].key);
                Text *text;

                if (value == 0)
                        continue;
                text = begin_vm(page, counters[i].id, *vm);
                sample_label(text, "rule", string(count, "rule"));
                sample_end(text, value);
        }
        return true;
}

static size_t vm_bytes(const MetricsPage *page) {
        size_t bytes = 0;

        for (unsigned i = METRIC_VM_STATE; i <= METRIC_VM_ALLOWED; i++)
                bytes += page->samples[i].size;
        return bytes;
}

static bool add_vm(MetricsPage *page, Span vm, const void *userdata) {
        Text *text;

        (void) userdata;
        if (vm_bytes(page) >= page->bytes_max) {
                page->omitted++;
                return true;
        }
        text = begin_vm(page, METRIC_VM_STATE, vm);
        sample_label(text, "state", string(vm, "state"));
        sample_end(text, 1);
        sample_end(begin_vm(page, METRIC_VM_SLOTS, vm), number(vm, "slots"));
        sample_end(begin_vm(page, METRIC_VM_PRIVATE_RANGES, vm), number(vm, "privateRanges"));
        sample_end(begin_vm(page, METRIC_VM_CLAIMS, vm), number(vm, "claims"));
        return for_each(page, vm, "memory", add_memory, &vm) && for_each(page, vm, "verdicts", add_verdict, &vm);
}

bool metrics_page_add_vms(MetricsPage *page, Span reply) {
        return for_each(page, reply, "metrics", add_vm, NULL);
}

/* ---- reading ---- */

/* The next family that has samples, or the end mark. False: that was all. */
static bool begin_family(const MetricsPage *page, MetricsCursor *cursor) {
        text_done(&cursor->head);
        cursor->at = 0;
        cursor->is_in_samples = false;
        while (cursor->family < _METRIC_MAX && page->samples[cursor->family].size == 0)
                cursor->family++;
        if (cursor->family < _METRIC_MAX)
                openmetrics_head(&cursor->head, &metric_families[cursor->family], cursor->is_openmetrics);
        else if (cursor->family == _METRIC_MAX && cursor->is_openmetrics)
                text_add_string(&cursor->head, "# EOF\n");
        return cursor->head.size > 0;
}

size_t metrics_page_read(const MetricsPage *page, MetricsCursor *cursor, char *buffer, size_t size) {
        size_t done = 0;

        if (!cursor->is_begun) {
                cursor->is_begun = true;
                (void) begin_family(page, cursor);
        }
        while (done < size && cursor->head.size > 0) {
                const Text *text = cursor->is_in_samples ? &page->samples[cursor->family] : &cursor->head;
                size_t n = text->size - cursor->at;

                if (n > size - done)
                        n = size - done;
                memcpy(buffer + done, text->text + cursor->at, n);
                done += n;
                cursor->at += n;
                if (cursor->at < text->size)
                        break;
                cursor->at = 0;
                if (!cursor->is_in_samples && cursor->family < _METRIC_MAX) {
                        cursor->is_in_samples = true;
                        continue;
                }
                cursor->family++;
                (void) begin_family(page, cursor);
        }
        return done;
}
