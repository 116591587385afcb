/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* One call on its way through a handler. Private to front/.
 *
 * A handler is int op_…(Call *call); it parses, refuses nonsense, looks up, changes, replies, in this order. By then
 * the dispatcher has checked the number of fds and, for rows about a VM, that it exists and the caller may
 * act on it; for rows with VM_PEER the handler has to look at what is shared with the caller. */

#include "front/event.h"
#include "front/front.h"
#include "front/links.h"
#include "front/listener.h"
#include "front/tally.h"

/* The service manager passes one as a rule. */
#define LISTENERS_MAX 8U

typedef struct Stream Stream;

typedef enum Method {
#define OPERATION(method, handler, right, fds) METHOD_##method,
#include "api/operations.def"
        _METHOD_MAX,
} Method;

struct Front {
        Service *service;
        Registry *registry;
        sd_event *event;
        sd_varlink_server *server;
        Links *links;
        FrontSettings settings;
        Listener *listeners[LISTENERS_MAX];
        size_t n_listeners;
        EventLog *log;
        sd_event_source *pump; /* post source; on while a stream has something to send */
        sd_event_source *kick; /* makes the pump run once, whatever switched it on */
        TAILQ_HEAD(, Stream) streams;
        uint64_t started; /* CLOCK_REALTIME, µs */
        Tally tallies[_METHOD_MAX];
};

typedef struct Call {
        Front *front;
        Service *service;
        Registry *registry;
        sd_varlink *link;
        sd_json_variant *parameters;
        bool more;
        bool oneway;        /* no reply will be sent */
        uid_t uid;          /* of the peer when it connected */
        size_t n_fds;       /* that came with the call */
        bool has_pushed;    /* an fd, for the reply */
        VM *vm;             /* that the parameter "vm" names, but for rows with ANYONE */
        bool has_condition; /* the parameter ifGeneration; the dispatcher has looked at that of call->vm */
        uint64_t if_generation;
} Call;

#define OPERATION(method, handler, right, fds) int op_##handler(Call *call);
#include "api/operations.def"

/* The column of operations.def that says who may call. */
typedef enum Right {
        ANYONE,
        VM_OWNER,
        VM_OWN_FDS,
        VM_PEER,
        MANAGER,
} Right;

/* 0, or API_E_NotPermitted. Of a row about a VM. */
int call_check_right(const Call *call, Right right, const VM *vm, Failure *f);
/* Root, privmemd's own uid, and the group of managers. Costs a system call, but for the first two. */
bool call_manages(const Call *call);
/* The owner, and root: who may have the VM's file descriptors. */
bool call_owns(const Call *call, const VM *vm);
/* Whoever owns or manages it. */
bool call_may_see(const Call *call, const VM *vm);
/* The uid whose VMs the caller may look at: root's, if it manages. */
uid_t call_sees_as(const Call *call);
/* 0, or API_E_VMChanged if the VM, or NULL if there is none of that name, is not what the caller has asked for. */
int call_check_generation(const Call *call, const char *name, const VM *vm, Failure *f);
/* The part of call->vm whose slots the caller declares: while the VM is handed over, the former VMM has slots too, and it
 * may still delete them. */
VM *call_declaring_vm(const Call *call);
/* Its own, or one that is shared with a VM of its own. */
bool uid_may_see_backing(uid_t uid, const Backing *backing);
/* Whether that holds for any backing of the VM. */
bool uid_may_see_a_backing(uid_t uid, const VM *vm);
/* 0 or API_E_NoSuchBacking. */
int find_backing(VM *vm, const char *name, Backing **ret, Failure *f);

/* Whether the parameter is there, and is not null. */
bool call_has(const Call *call, const char *parameter);

/* The index of a parameter that was not given. */
#define NO_FD UINT64_MAX
/* The fd at an index that a parameter gave; borrowed. For NO_FD *ret_fd is negative. API_E_WrongFds if there is no such
 * fd, or one that no index names. */
int call_peek_fd(const Call *call, uint64_t index, Failure *f, int *ret_fd);

/* Each makes one message of a list: *ret is an object to reply with, *ret_last whether the list ends with it; no
 * object means that there is nothing to send now. */
typedef int (*StreamFill)(Stream *stream, sd_json_variant **ret, bool *ret_last);

typedef char Cursor[NAME_LENGTH_MAX + 1];

/* A kind of list, as its cursors spell it. */
typedef enum ListKind {
        LIST_NONE, /* an answer that has no pages */
        LIST_VMS = 'v',
        LIST_BACKINGS = 'b',
        LIST_SLOTS = 's',
        LIST_SLOTS_IN_RANGE = 'r',
        LIST_MEMORY = 'm',
        LIST_METRICS = 't',
        LIST_CLAIMS = 'c',
} ListKind;

/* An answer in several messages. The cursor is the last thing sent, by name and number, so nothing that is
 * unregistered meanwhile can be met again. */
struct Stream {
        Front *front;
        sd_varlink *link; /* referenced once the handler has returned */
        uid_t uid;
        uid_t sees_as; /* see call_sees_as() */
        StreamFill fill;
        ListKind kind;
        bool more;      /* the client takes several messages */
        bool suspended; /* there is nothing to send before stream_resume() */
        void *work;     /* fill's own, for cleanup to free; NULL: none */
        void (*cleanup)(void *work);
        bool subscriber;
        bool is_costly;             /* one message of it is enough for one turn of the event loop */
        size_t page;                /* objects in the only message; 0: there may be several */
        Cursor only_vm;             /* "": all */
        Cursor only_backing, of_vm; /* "": all */
        Cursor vm, backing;         /* "": at the beginning */
        bool in_outgoing;           /* at the slots of the outgoing part of vm */
        bool in_vm;                 /* as_id and id hold the last slot of vm that was sent */
        uint32_t as_id, id;
        bool has_only_as_id, has_only_id;
        uint32_t only_as_id, only_id;
        bool has_range; /* only what has a byte in common with the guest addresses [start, end) */
        uint64_t start, end;
        uint64_t from; /* where the next one may begin, in that range, of as_id; with in_vm. Of claims: the last one */
        bool greeted;  /* a subscriber has had its first message */
        uint64_t sequence; /* of the last event that was sent or passed over */
        uint32_t kinds;    /* of events that a subscriber wants; its work are the names of the VMs */
        TAILQ_ENTRY(Stream) streams;
};

/* The range of guest addresses that a list is confined to: the parameters guestPhysAddr and memorySize. All of them if
 * neither is given, but then has_range is false. */
int call_parse_range(const Call *call, uint64_t gpa, uint64_t size, Stream *stream, Failure *f);

/* What a list may have in one page, and its cursor: see page.c. */
typedef struct PageParameters {
        uint64_t limit; /* 0: not given */
        const char *cursor;
} PageParameters;

/* The rows of a dispatch table for the member of that name of the structure. */
#define PAGE_FIELDS(type, member) \
        { "limit", _SD_JSON_VARIANT_TYPE_INVALID, sd_json_dispatch_uint64, offsetof(type, member.limit), \
          SD_JSON_NULLABLE }, \
        { \
                "cursor", SD_JSON_VARIANT_STRING, sd_json_dispatch_const_string, offsetof(type, member.cursor), \
                        SD_JSON_NULLABLE \
        }

/* Confines the stream, whose filters are set, to the page that is asked for. 0, API_E_…, or -EINVAL if nextCursor was
 * never that cursor, with these filters. */
int page_begin(const Call *call, const PageParameters *p, Stream *stream, Failure *f);
/* The message of a list: its objects (NULL: none), and whether they are the last ones. */
int page_finish(const Stream *stream, const char *field, sd_json_variant *array, bool is_last, sd_json_variant **ret,
                bool *ret_last);
/* Objects in the next message. */
static inline size_t page_size(const Stream *stream, size_t usual) {
        return stream->page > 0 ? stream->page : usual;
}

bool stream_may_see(const Stream *stream, const VM *vm);
/* Answers the call with the first message of the stream, and goes on with the others as the client takes them.
 * Without more, an answer of several messages is the error ExpectedMore. */
int stream_start(const Call *call, const Stream *stream);
/* The same of an answer that is not known yet, nor whether there is one: the stream waits, suspended, until it is
 * resumed or has failed, and is freed earlier if the client hangs up. On success it owns stream->work. */
int stream_start_later(const Call *call, const Stream *stream, Stream **ret);
void stream_resume(Stream *stream);
/* Ends it with an error: r and f as failure_reply() has them. */
void stream_fail(Stream *stream, int r, const Failure *f);
/* How many subscriptions uid has. */
size_t count_subscriptions(Front *front, uid_t uid);
/* How many streams of that kind uid has. */
size_t stream_count(Front *front, uid_t uid, StreamFill fill);
void stream_wake(Front *front);
void stream_forget_link(Front *front, sd_varlink *link);
int stream_pump(sd_event_source *source, void *userdata);
int stream_kick(sd_event_source *source, void *userdata);
