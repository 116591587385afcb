/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <sys/epoll.h>

#include "core/cleanup.h"
#include "front/call.h"

/* Answers in several messages. sd-varlink would queue 16 MiB for a client that does not read, so a stream sends a
 * batch only when all before it has left, and holds no more than a cursor meanwhile. The pump runs after every turn
 * of the event loop in which something else happened, such as a socket that became writable. */

/* Messages to one client before the others have a turn. */
#define BATCH 32

static Stream *stream_free(Stream *stream) {
        if (!stream)
                return NULL;
        TAILQ_REMOVE(&stream->front->streams, stream, streams);
        sd_varlink_unref(stream->link);
        if (stream->cleanup)
                stream->cleanup(stream->work);
        free(stream);
        return NULL;
}

bool stream_may_see(const Stream *stream, const VM *vm) {
        return stream->sees_as == 0 || stream->sees_as == vm->owner;
}

/* Sends messages until the stream ends (returns 1), has nothing to send now or the batch is full (0). */
static int send_batch(Stream *stream) {
        for (size_t i = 0; i < (stream->is_costly ? 1 : BATCH); i++) {
                _cleanup_(sd_json_variant_unrefp) sd_json_variant *message = NULL;
                bool last = false;
                int r;

                r = stream->fill(stream, &message, &last);
                if (r < 0)
                        return sd_varlink_error_errno(stream->link, r);
                if (!message)
                        return 0;
                if (last)
                        r = sd_varlink_reply(stream->link, message);
                else if (stream->more)
                        r = sd_varlink_notify(stream->link, message);
                else
                        return sd_varlink_error(stream->link, SD_VARLINK_ERROR_EXPECTED_MORE, NULL);
                if (r < 0)
                        return r;
                if (last)
                        return 1;
        }
        return 0;
}

static bool has_unsent_output(const Stream *stream) {
        int events = sd_varlink_get_events(stream->link);

        return events >= 0 && (events & EPOLLOUT);
}

static bool is_waiting(const Stream *stream) {
        return stream->suspended || (stream->subscriber && stream->sequence == event_log_newest(stream->front->log));
}

int stream_pump(sd_event_source *source, void *userdata) {
        Front *front = userdata;
        Stream *stream, *next;
        bool idle = true;

        for (stream = TAILQ_FIRST(&front->streams); stream; stream = next) {
                next = TAILQ_NEXT(stream, streams);
                if (is_waiting(stream))
                        continue;
                if (!has_unsent_output(stream) && send_batch(stream) != 0) {
                        /* The end, or a client that has gone. */
                        stream_free(stream);
                        continue;
                }
                idle &= is_waiting(stream);
        }
        if (idle)
                (void) sd_event_source_set_enabled(source, SD_EVENT_OFF);
        return 0;
}

/* The source that has just run is what makes the pump run; nothing is left to do here. */
int stream_kick(sd_event_source *source, void *userdata) {
        (void) source;
        (void) userdata;
        return 0;
}

/* Post sources are marked to run before the handler of another source is called, so a pump that a handler switches on
 * would wait for whatever happens next. */
void stream_wake(Front *front) {
        if (TAILQ_EMPTY(&front->streams))
                return;
        (void) sd_event_source_set_enabled(front->pump, SD_EVENT_ON);
        (void) sd_event_source_set_enabled(front->kick, SD_EVENT_ONESHOT);
}

void stream_forget_link(Front *front, sd_varlink *link) {
        Stream *stream, *next;

        for (stream = TAILQ_FIRST(&front->streams); stream; stream = next) {
                next = TAILQ_NEXT(stream, streams);
                if (!link || stream->link == link)
                        stream_free(stream);
        }
}

size_t stream_count(Front *front, uid_t uid, StreamFill fill) {
        Stream *stream;
        size_t n = 0;

        TAILQ_FOREACH(stream, &front->streams, streams)
                n += stream->fill == fill && stream->uid == uid;
        return n;
}

/* The rest of the stream outlives the handler. */
static int go_on_later(const Stream *begun, Stream **ret) {
        Stream *stream;

        stream = malloc(sizeof(*stream));
        if (!stream)
                return -ENOMEM;
        *stream = *begun;
        sd_varlink_ref(stream->link);
        TAILQ_INSERT_TAIL(&stream->front->streams, stream, streams);
        *ret = stream;
        return 0;
}

static Stream begin(const Call *call, const Stream *stream) {
        Stream begun = *stream;

        begun.front = call->front;
        begun.link = call->link;
        begun.uid = call->uid;
        begun.sees_as = call_sees_as(call);
        begun.more = call->more;
        return begun;
}

int stream_start(const Call *call, const Stream *stream) {
        _cleanup_(sd_json_variant_unrefp) sd_json_variant *message = NULL;
        Stream begun = begin(call, stream), *kept;
        bool last = false;
        int r;

        r = begun.fill(&begun, &message, &last);
        if (r < 0)
                return sd_varlink_error_errno(call->link, r);
        if (last)
                return sd_varlink_reply(call->link, message);
        if (!call->more)
                return sd_varlink_error(call->link, SD_VARLINK_ERROR_EXPECTED_MORE, NULL);
        r = sd_varlink_notify(call->link, message);
        if (r < 0)
                return r;
        r = go_on_later(&begun, &kept);
        if (r < 0)
                return r;
        stream_wake(call->front);
        return 0;
}

int stream_start_later(const Call *call, const Stream *stream, Stream **ret) {
        Stream begun = begin(call, stream);

        begun.suspended = true;
        return go_on_later(&begun, ret);
}

void stream_resume(Stream *stream) {
        stream->suspended = false;
        stream_wake(stream->front);
}

void stream_fail(Stream *stream, int r, const Failure *f) {
        (void) failure_reply(stream->link, r, f);
        stream_free(stream);
}
