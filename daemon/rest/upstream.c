/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "rest/upstream.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "rest/scan.h"

#define MESSAGE_MAX ((size_t) 16 * 1024 * 1024)
#define BUFFER_MIN  ((size_t) 16 * 1024)
#define BUFFER_KEEP ((size_t) 256 * 1024) /* a larger one is given back once it is empty */

/* Until the next connect(2) after one that failed. */
#define RETRY_USEC (100 * LOOP_MSEC)

/* How often a call is made again that privmemd took and did not answer. */
#define REPEATS_MAX 4U

/* Most calls are answered at once. To wait that long for the answer, instead of suspending the request and coming back
 * to it, saves half a dozen system calls; if it was in vain, the next calls are not waited for. */
#define PATIENCE_USEC 2000
#define IMPATIENT     64

/* privmemd goes through all of its connections on each turn of its event loop, so one that is not needed costs every
 * call. The first one stays. */
#define NEEDLESS_USEC LOOP_SEC

typedef struct UpstreamLink {
        Upstream *upstream;
        LoopWatch watch;
        int fd;
        UpstreamCall *call;
        size_t sent; /* bytes of the call's message */
        bool is_answering;
        bool was_used; /* since tidy_links() */

        char *buffer;
        size_t capacity, filled, scanned, taken;
} UpstreamLink;

typedef TAILQ_HEAD(, UpstreamCall) Calls;

struct Upstream {
        Loop *loop;
        UpstreamSettings settings;
        struct sockaddr_un address;
        UpstreamLink *links;
        unsigned n_streams;
        Calls waiting;
        unsigned n_waiting;
        LoopTimer retry, tidy;
        bool is_absent; /* the last connect(2) failed */
        unsigned impatient;
};

static void begin_waiting(Upstream *u);

/* ---- messages ---- */

void upstream_message_begin(Text *message, const char *method) {
        text_add_string(message, "{\"method\":\"io.privmemd.Memory.");
        text_add_string(message, method);
        text_add_string(message, "\",\"parameters\":{");
}

void upstream_message_end(Text *message, bool is_stream) {
        text_add_string(message, is_stream ? "},\"more\":true}" : "}}");
        text_add(message, "", 1);
}

/* ---- calls ---- */

static void on_late(void *userdata);

static void unlink_call(UpstreamCall *call) {
        Upstream *u = call->upstream;

        if (call->link) {
                call->link->call = NULL;
                call->link = NULL;
                u->n_streams -= call->is_stream;
        } else {
                TAILQ_REMOVE(&u->waiting, call, calls);
                u->n_waiting--;
        }
}

/* Leaves the call to its owner. */
static void call_end(UpstreamCall *call) {
        unlink_call(call);
        loop_timer_remove(call->upstream->loop, &call->timer);
        call->is_on = false;
}

static void finish(UpstreamCall *call, UpstreamOutcome outcome, const UpstreamReply *reply) {
        static const UpstreamReply none = { .parameters = { .text = "{}", .size = 2 } };

        call_end(call);
        call->function(call, outcome, reply ?: &none);
}

/* ---- links ---- */

static void link_close(UpstreamLink *link) {
        if (link->fd < 0)
                return;
        loop_unwatch(link->upstream->loop, &link->watch);
        close(link->fd);
        free(link->buffer);
        *link = (UpstreamLink) {
                .upstream = link->upstream,
                .watch = { .function = link->watch.function, .userdata = link },
                .fd = -EBADF,
                .call = link->call,
                .is_answering = link->is_answering,
        };
}

/* All that wait for nothing: when one is closed by the other side, the process there has gone. */
static void close_idle_links(Upstream *u) {
        for (unsigned i = 0; i < u->settings.links; i++)
                if (!u->links[i].call && !u->links[i].is_answering)
                        link_close(&u->links[i]);
}

static void wait_again(Upstream *u, UpstreamCall *call) {
        unlink_call(call);
        TAILQ_INSERT_HEAD(&u->waiting, call, calls);
        u->n_waiting++;
        loop_timer_set(u->loop, &call->timer, call->wait_usec);
        /* The listening socket of a process that ends may still take connections. */
        loop_timer_set(u->loop, &u->retry, call->repeats > 1 ? RETRY_USEC : 0);
}

/* The connection is of no use any more. Its call is made again if it may be. */
static void link_lost(UpstreamLink *link, UpstreamOutcome outcome) {
        UpstreamCall *call = link->call;
        Upstream *u = link->upstream;
        bool is_untouched = call && link->sent < call->message.size;

        link_close(link);
        if (outcome == UPSTREAM_GONE)
                close_idle_links(u);
        if (!call)
                return;
        if (outcome != UPSTREAM_GONE || call->has_parts ||
            (!is_untouched && (!call->is_repeatable || call->repeats == REPEATS_MAX))) {
                finish(call, outcome, NULL);
                return;
        }
        call->repeats += !is_untouched;
        wait_again(u, call);
}

/* 1: it is connected; 0: not now. */
static int link_open(UpstreamLink *link) {
        static const struct timeval patience = { .tv_usec = PATIENCE_USEC };
        Upstream *u = link->upstream;
        int fd;

        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
                return 0;
        /* A full backlog is EAGAIN. From then on it blocks, but for calls with MSG_DONTWAIT, which are all but one. */
        if (connect(fd, (const struct sockaddr *) &u->address, sizeof(u->address)) < 0 || fcntl(fd, F_SETFL, 0) < 0 ||
            setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) < 0) {
                close(fd);
                return 0;
        }
        link->fd = fd;
        link->watch.fd = fd;
        if (link != u->links && u->tidy.place == 0)
                loop_timer_set(u->loop, &u->tidy, NEEDLESS_USEC);
        return 1;
}

static void tidy_links(void *userdata) {
        Upstream *u = userdata;
        bool others = false;

        for (unsigned i = 1; i < u->settings.links; i++) {
                UpstreamLink *link = &u->links[i];

                if (!link->call && !link->is_answering && !link->was_used)
                        link_close(link);
                link->was_used = false;
                others |= link->fd >= 0;
        }
        if (others)
                loop_timer_set(u->loop, &u->tidy, NEEDLESS_USEC);
}

static void drop_taken(UpstreamLink *link) {
        if (link->taken == 0)
                return;
        link->filled -= link->taken;
        memmove(link->buffer, link->buffer + link->taken, link->filled);
        link->taken = 0;
        link->scanned = 0;
        if (link->filled == 0 && link->capacity > BUFFER_KEEP) {
                free(link->buffer);
                link->buffer = NULL;
                link->capacity = 0;
        }
}

static bool make_room(UpstreamLink *link) {
        size_t capacity;
        char *buffer;

        if (link->filled < link->capacity)
                return true;
        capacity = link->capacity == 0 ? BUFFER_MIN : link->capacity * 2;
        if (capacity > MESSAGE_MAX + 1)
                return false;
        buffer = realloc(link->buffer, capacity);
        if (!buffer)
                return false;
        link->buffer = buffer;
        link->capacity = capacity;
        return true;
}

/* 1: *ret is a message; 0: there is none yet; negative: the connection is of no use any more. */
static int link_receive(UpstreamLink *link, bool is_patient, Span *ret) {
        drop_taken(link);
        for (;;) {
                const char *end = NULL;
                ssize_t n;

                if (link->filled > link->scanned)
                        end = memchr(link->buffer + link->scanned, 0, link->filled - link->scanned);
                if (end) {
                        *ret = (Span) { .text = link->buffer, .size = (size_t) (end - link->buffer) };
                        link->taken = ret->size + 1;
                        return 1;
                }
                link->scanned = link->filled;
                if (!make_room(link))
                        return -EMSGSIZE;
                /* No control messages: see the header. */
                n = recv(link->fd, link->buffer + link->filled, link->capacity - link->filled,
                         is_patient ? 0 : MSG_DONTWAIT);
                if (n == 0)
                        return -ECONNRESET;
                if (n < 0)
                        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
                link->filled += (size_t) n;
        }
}

static bool parse_reply(Span message, UpstreamReply *ret, bool *ret_continues) {
        Span key, value;
        Scan scan;
        int r;

        *ret = (UpstreamReply) { .parameters = SPAN("{}") };
        *ret_continues = false;
        if (!scan_open(&scan, message, '{') || message.text[message.size - 1] != '}')
                return false;
        while ((r = scan_member(&scan, &key, &value)) > 0) {
                if (span_is(key, "parameters"))
                        ret->parameters = value;
                else if (span_is(key, "continues"))
                        *ret_continues = span_is(value, "true");
                else if (span_is(key, "error") && !scan_plain_string(value, &ret->error))
                        return false;
        }
        return r == 0 && ret->parameters.text[0] == '{';
}

/* One message to the link's call. Returns whether the link may have another one for somebody. */
static bool deliver(UpstreamLink *link, Span message) {
        UpstreamCall *call = link->call;
        UpstreamReply reply;
        bool continues;

        if (!call || link->sent < call->message.size || !parse_reply(message, &reply, &continues) ||
            (continues && (reply.error.text || !call->is_stream)) || (!continues && link->filled > link->taken)) {
                link_lost(link, UPSTREAM_BROKEN);
                return false;
        }
        link->is_answering = true;
        if (continues) {
                call->has_parts = true;
                if (call->usec != LOOP_NEVER)
                        loop_timer_set(link->upstream->loop, &call->timer, call->usec);
                call->function(call, UPSTREAM_PART, &reply);
        } else {
                finish(call, reply.error.text ? UPSTREAM_ERROR : UPSTREAM_REPLY, &reply);
        }
        link->is_answering = false;
        return link->fd >= 0;
}

/* Delivers what has come. Without a call it finds out whether privmemd has closed the connection. */
static void link_pump(UpstreamLink *link, bool is_patient) {
        while (!link->call || !link->call->is_paused) {
                Span message = {};
                int r;

                r = link_receive(link, is_patient, &message);
                if (r == 0 && is_patient)
                        link->upstream->impatient = IMPATIENT;
                if (r == 0)
                        return;
                if (r < 0) {
                        link_lost(link, r == -EMSGSIZE ? UPSTREAM_BROKEN : UPSTREAM_GONE);
                        return;
                }
                if (!deliver(link, message) || !link->call)
                        return;
                is_patient = false;
        }
}

static uint32_t link_events(const UpstreamLink *link) {
        if (!link->call)
                return EPOLLIN;
        return (link->call->is_paused ? 0 : EPOLLIN) | (link->sent < link->call->message.size ? EPOLLOUT : 0);
}

static void link_send(UpstreamLink *link) {
        UpstreamCall *call = link->call;
        ssize_t n;

        n = send(link->fd, call->message.text + link->sent, call->message.size - link->sent,
                 MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN && errno != EINTR) {
                link_lost(link, UPSTREAM_GONE);
                return;
        }
        link->sent += n > 0 ? (size_t) n : 0;
        if (loop_watch(link->upstream->loop, &link->watch, link_events(link)) < 0)
                link_lost(link, UPSTREAM_GONE);
}

static void on_link(uint32_t events, void *userdata) {
        UpstreamLink *link = userdata;
        Upstream *u = link->upstream;

        if (link->call && link->sent < link->call->message.size && (events & EPOLLOUT))
                link_send(link);
        else
                link_pump(link, /* is_patient= */ false);
        begin_waiting(u);
}

/* ---- which call on which link ---- */

static UpstreamLink *find_link(Upstream *u) {
        UpstreamLink *closed = NULL;

        for (unsigned i = 0; i < u->settings.links; i++) {
                UpstreamLink *link = &u->links[i];

                if (link->fd >= 0 && !link->call && !link->is_answering)
                        return link;
                if (link->fd < 0 && !link->is_answering && !closed)
                        closed = link;
        }
        if (!closed || u->retry.place > 0)
                return NULL;
        if (link_open(closed) > 0) {
                u->is_absent = false;
                return closed;
        }
        u->is_absent = true;
        loop_timer_set(u->loop, &u->retry, RETRY_USEC);
        return NULL;
}

static bool may_begin(const Upstream *u, const UpstreamCall *call) {
        return !call->is_stream || u->n_streams < u->settings.stream_links;
}

static void start(Upstream *u, UpstreamLink *link, UpstreamCall *call) {
        link->call = call;
        link->sent = 0;
        link->was_used = true;
        call->link = link;
        u->n_streams += call->is_stream;
        loop_timer_set(u->loop, &call->timer, call->usec);
        link_send(link);
        if (link->call != call || link->sent < call->message.size || call->is_stream)
                return;
        if (u->impatient > 0)
                u->impatient--;
        else
                link_pump(link, /* is_patient= */ true);
}

static void begin_waiting(Upstream *u) {
        UpstreamCall *call;
        UpstreamLink *link;

        while (u->n_waiting > 0) {
                TAILQ_FOREACH(call, &u->waiting, calls)
                        if (may_begin(u, call))
                                break;
                link = call ? find_link(u) : NULL;
                if (!link)
                        return;
                TAILQ_REMOVE(&u->waiting, call, calls);
                u->n_waiting--;
                start(u, link, call);
        }
}

static void on_retry(void *userdata) {
        begin_waiting(userdata);
}

static void on_late(void *userdata) {
        UpstreamCall *call = userdata;
        UpstreamLink *link = call->link;
        Upstream *u = call->upstream;

        if (link) {
                /* The answer would come in front of that of the next call. */
                link_close(link);
                finish(call, UPSTREAM_LATE, NULL);
        } else {
                finish(call, u->is_absent ? UPSTREAM_GONE : UPSTREAM_BUSY, NULL);
        }
        begin_waiting(u);
}

void upstream_call(Upstream *u, UpstreamCall *call) {
        static const UpstreamReply none = { .parameters = { .text = "{}", .size = 2 } };
        UpstreamLink *link;

        call->upstream = u;
        call->link = NULL;
        call->usec = call->usec ?: u->settings.call_usec;
        call->wait_usec = call->wait_usec ?: u->settings.wait_usec;
        call->is_on = call->is_paused = call->has_parts = false;
        call->repeats = 0;
        call->timer = (LoopTimer) { .function = on_late, .userdata = call };
        if (u->n_waiting >= u->settings.waiting || loop_timer_add(u->loop, &call->timer) < 0) {
                call->function(call, UPSTREAM_BUSY, &none);
                return;
        }
        call->is_on = true;
        link = may_begin(u, call) ? find_link(u) : NULL;
        if (link) {
                start(u, link, call);
                begin_waiting(u);
                return;
        }
        TAILQ_INSERT_TAIL(&u->waiting, call, calls);
        u->n_waiting++;
        loop_timer_set(u->loop, &call->timer, call->wait_usec);
}

void upstream_cancel(UpstreamCall *call) {
        Upstream *u = call->upstream;
        UpstreamLink *link;

        if (!call->is_on)
                return;
        link = call->link;
        call_end(call);
        if (link)
                link_close(link);
        /* Others may have waited for the link; but the caller must not be surprised by its own functions. */
        if (u->n_waiting > 0 && u->retry.place == 0)
                loop_timer_set(u->loop, &u->retry, 0);
}

void upstream_pause(UpstreamCall *call) {
        if (!call->is_on || call->is_paused || !call->link)
                return;
        call->is_paused = true;
        loop_timer_set(call->upstream->loop, &call->timer, call->usec);
        (void) loop_watch(call->upstream->loop, &call->link->watch, link_events(call->link));
}

void upstream_resume(UpstreamCall *call) {
        UpstreamLink *link = call->link;

        if (!call->is_on || !call->is_paused || !link)
                return;
        call->is_paused = false;
        loop_timer_set(call->upstream->loop, &call->timer, call->usec);
        (void) loop_watch(call->upstream->loop, &link->watch, link_events(link));
        /* What has come already announces nothing. */
        if (!link->is_answering)
                link_pump(link, /* is_patient= */ false);
}

/* ---- life ---- */

int upstream_new(Loop *loop, const UpstreamSettings *settings, Upstream **ret) {
        size_t length = strlen(settings->path);
        Upstream *u;
        int r;

        u = calloc(1, sizeof(*u));
        if (!u)
                return -ENOMEM;
        u->loop = loop;
        u->settings = *settings;
        TAILQ_INIT(&u->waiting);
        u->address.sun_family = AF_UNIX;
        u->retry = (LoopTimer) { .function = on_retry, .userdata = u };
        u->tidy = (LoopTimer) { .function = tidy_links, .userdata = u };
        u->links = calloc(settings->links, sizeof(*u->links));
        r = length == 0 ? -EINVAL : length >= sizeof(u->address.sun_path) ? -ENAMETOOLONG : !u->links ? -ENOMEM : 0;
        if (r == 0)
                r = loop_timer_add(loop, &u->retry);
        if (r >= 0) {
                r = loop_timer_add(loop, &u->tidy);
                if (r < 0)
                        loop_timer_remove(loop, &u->retry);
        }
        if (r < 0) {
                free(u->links);
                free(u);
                return r;
        }
        memcpy(u->address.sun_path, settings->path, length + 1);
        for (unsigned i = 0; i < settings->links; i++) {
                u->links[i] = (UpstreamLink) { .upstream = u, .fd = -EBADF };
                u->links[i].watch = (LoopWatch) { .function = on_link, .userdata = &u->links[i] };
        }
        *ret = u;
        return 0;
}

Upstream *upstream_free(Upstream *u) {
        if (!u)
                return NULL;
        while (!TAILQ_EMPTY(&u->waiting))
                call_end(TAILQ_FIRST(&u->waiting));
        for (unsigned i = 0; i < u->settings.links; i++) {
                if (u->links[i].call)
                        call_end(u->links[i].call);
                link_close(&u->links[i]);
        }
        loop_timer_remove(u->loop, &u->tidy);
        loop_timer_remove(u->loop, &u->retry);
        free(u->links);
        free(u);
        return NULL;
}
