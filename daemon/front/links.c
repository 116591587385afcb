/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* sd_varlink_process() does one step. What has arrived is seen by epoll(7); what lies in sd-varlink's buffers, behind
 * the calls of the last turn, is not. Links with such a rest wait in a list, and an eventfd that stays readable while
 * there is one makes the event loop come by: to it that is one more source that is ready, and so it gets to each of
 * them in order. A source that is always pending, as sd-varlink's own is, would come before all others each time. */

#include <search.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/queue.h>

#include "core/cleanup.h"
#include "front/links.h"

/* A call has five: it is read, parsed, handled, answered, and nothing more is found. */
#define STEPS_MAX 6

typedef struct Link {
        sd_varlink *varlink; /* it is closed before it goes */
        Links *links;
        sd_event_source *io;
        bool is_busy; /* in the list */
        TAILQ_ENTRY(Link) busy;
} Link;

struct Links {
        sd_event *event;
        int fd; /* readable while a link is busy */
        sd_event_source *turn;
        size_t n_busy;
        TAILQ_HEAD(, Link) busy;
        void *by_varlink; /* for tsearch(3) */
};

static int compare(const void *a, const void *b) {
        uintptr_t x = (uintptr_t) ((const Link *) a)->varlink, y = (uintptr_t) ((const Link *) b)->varlink;

        return x < y ? -1 : x > y;
}

static Link *find(const Links *links, sd_varlink *varlink) {
        Link key = { .varlink = varlink }, **found;

        found = tfind(&key, &links->by_varlink, compare);
        return found ? *found : NULL;
}

static void set_busy(Link *link, bool is_busy) {
        Links *links = link->links;
        eventfd_t value;

        if (link->is_busy == is_busy)
                return;
        link->is_busy = is_busy;
        if (is_busy) {
                TAILQ_INSERT_TAIL(&links->busy, link, busy);
                if (links->n_busy++ == 0)
                        (void) eventfd_write(links->fd, 1);
        } else {
                TAILQ_REMOVE(&links->busy, link, busy);
                if (--links->n_busy == 0)
                        (void) eventfd_read(links->fd, &value);
        }
}

/* It may be gone afterwards. */
static void take_turn(Link *link) {
        _cleanup_(sd_varlink_unrefp) sd_varlink *varlink = sd_varlink_ref(link->varlink);
        Links *links = link->links;
        int r = 1;

        for (unsigned i = 0; i < STEPS_MAX && r > 0; i++)
                r = sd_varlink_process(varlink);
        if (r < 0)
                (void) sd_varlink_close(varlink);
        link = find(links, varlink);
        if (!link)
                return;
        /* To the end of the list. */
        set_busy(link, false);
        set_busy(link, r > 0);
}

static int on_ready(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
        Link *link = userdata;

        (void) source;
        (void) fd;
        /* Whoever waits for an answer and hangs up is noticed by this alone. */
        if (revents & EPOLLHUP)
                (void) sd_varlink_wait(link->varlink, 0);
        take_turn(link);
        return 0;
}

/* An error would have the event loop forget the source without a word. */
static int on_prepare(sd_event_source *source, void *userdata) {
        Link *link = userdata;
        int events = sd_varlink_get_events(link->varlink);

        if (events < 0 || sd_event_source_set_io_events(source, (uint32_t) events) < 0)
                (void) sd_varlink_close(link->varlink);
        return 0;
}

/* Each that is busy now, once. */
static int on_turn(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
        Links *links = userdata;

        (void) source;
        (void) fd;
        (void) revents;
        for (size_t n = links->n_busy; n > 0 && links->n_busy > 0; n--)
                take_turn(TAILQ_FIRST(&links->busy));
        return 0;
}

static void link_free(Link *link) {
        set_busy(link, false);
        sd_event_source_disable_unref(link->io);
        free(link);
}

int links_add(Links *links, sd_varlink *varlink) {
        Link *link;
        int fd, r;

        fd = sd_varlink_get_fd(varlink);
        if (fd < 0)
                return fd;
        link = malloc(sizeof(*link));
        if (!link)
                return -ENOMEM;
        *link = (Link) { .varlink = varlink, .links = links };
        r = sd_event_add_io(links->event, &link->io, fd, EPOLLIN, on_ready, link);
        if (r >= 0)
                r = sd_event_source_set_prepare(link->io, on_prepare);
        if (r >= 0 && !tsearch(link, &links->by_varlink, compare))
                r = -ENOMEM;
        if (r < 0)
                link_free(link);
        return r;
}

void links_forget(Links *links, sd_varlink *varlink) {
        Link *link = find(links, varlink);

        if (!link)
                return;
        tdelete(link, &links->by_varlink, compare);
        link_free(link);
}

int links_new(sd_event *event, Links **ret) {
        Links *links;
        int r;

        links = malloc(sizeof(*links));
        if (!links)
                return -ENOMEM;
        *links = (Links) { .event = event };
        TAILQ_INIT(&links->busy);
        links->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        r = links->fd < 0 ? -errno : sd_event_add_io(event, &links->turn, links->fd, EPOLLIN, on_turn, links);
        if (r < 0) {
                links_free(links);
                return r;
        }
        *ret = links;
        return 0;
}

Links *links_free(Links *links) {
        if (!links)
                return NULL;
        while (links->by_varlink) {
                /* The key is what a node begins with: tsearch(3). */
                Link *first = *(Link **) links->by_varlink;
                _cleanup_(sd_varlink_unrefp) sd_varlink *varlink = sd_varlink_ref(first->varlink);

                (void) sd_varlink_close(varlink);
                links_forget(links, varlink);
        }
        sd_event_source_disable_unref(links->turn);
        safe_close(links->fd);
        free(links);
        return NULL;
}
