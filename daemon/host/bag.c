/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A message is a head and the ids of its fds, as offsets from the lowest of them, in as few bytes as will do: what a
 * socket's buffer takes is counted by the kernel's own size of a message, which with ids of eight bytes would be more
 * than five times as large.
 *
 * The first message of the packed queue has no fd. It is never taken out, tells the ends apart, and that they belong
 * together. */

#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "core/cleanup.h"
#include "host/bag.h"
#include "host/bag-book.h"
#include "host/step.h"

/* What a test makes smaller. */
#ifndef BAG_MESSAGE_FDS
#define BAG_MESSAGE_FDS 253U /* SCM_MAX_FD of the kernel */
#endif
/* As many as make a full message. A buffer of the default size takes 278. */
#ifndef BAG_FOLD_AT
#define BAG_FOLD_AT BAG_MESSAGE_FDS
#endif
#ifndef BAG_BUFFER_SIZE
#define BAG_BUFFER_SIZE (8 * 1024 * 1024) /* wished for; the kernel gives what net.core.wmem_max allows */
#endif
#ifndef BAG_DEAD_MAX
#define BAG_DEAD_MAX 512U
#endif

#define BAG_MAGIC 0x31676162U /* "bag1" */

typedef enum Queue {
        QUEUE_YOUNG,
        QUEUE_PACKED,
        QUEUES,
} Queue;

typedef struct MessageHead {
        uint32_t magic;
        uint16_t count; /* of fds, and of ids */
        uint8_t queue;
        uint8_t width; /* of an offset in bytes: 2, 4 or 8 */
        uint64_t mark; /* of the bag; random */
        uint64_t base; /* what the offsets are added to; in the first packed message the inode of the other end */
} MessageHead;

typedef struct Message {
        MessageHead head;
        uint8_t offsets[BAG_MESSAGE_FDS * sizeof(uint64_t)];
} Message;

typedef union Control {
        char bytes[CMSG_SPACE(BAG_MESSAGE_FDS * sizeof(int))];
        struct cmsghdr aligned;
} Control;

struct Bag {
        int ends[QUEUES]; /* ends[q] sends into queue q; the other one has it */
        uint64_t mark;
        bool ready;   /* all that is in it is known */
        bool reading; /* found() runs, for an entry of read_queue */
        bool crowded; /* the packed queue took no more */
        Queue read_queue;
        Book book;
        uint64_t *young; /* ids of the messages in the young queue, dead ones too */
        size_t n_young, young_allocated;
        size_t fold_at;          /* young messages */
        size_t messages[QUEUES]; /* in the queues */
        size_t fds[QUEUES];      /* in the queues: live, dead, and twice */
};

static int receiver_of(const Bag *bag, Queue queue) {
        return bag->ends[queue == QUEUE_YOUNG ? QUEUE_PACKED : QUEUE_YOUNG];
}

/* ---- messages ---- */

static uint64_t offset_at(const Message *message, size_t i) {
        const uint8_t *at = message->offsets + i * message->head.width;
        uint64_t offset = 0;

        for (size_t byte = 0; byte < message->head.width; byte++)
                offset |= (uint64_t) at[byte] << 8 * byte;
        return offset;
}

static void set_offset(Message *message, size_t i, uint64_t offset) {
        uint8_t *at = message->offsets + i * message->head.width;

        for (size_t byte = 0; byte < message->head.width; byte++)
                at[byte] = (uint8_t) (offset >> 8 * byte);
}

static uint64_t id_at(const Message *message, size_t i) {
        return message->head.base + offset_at(message, i);
}

/* The ids are in order. Returns the size of the message. */
static size_t message_set(Message *message, const Bag *bag, Queue queue, const uint64_t *ids, size_t n) {
        uint64_t span = ids[n - 1] - ids[0];

        message->head = (MessageHead) {
                .magic = BAG_MAGIC,
                .count = (uint16_t) n,
                .queue = (uint8_t) queue,
                .width = span <= UINT16_MAX ? 2 :
                         span <= UINT32_MAX ? 4 :
                                              8,
                .mark = bag->mark,
                .base = ids[0],
        };
        for (size_t i = 0; i < n; i++)
                set_offset(message, i, ids[i] - ids[0]);
        return sizeof(message->head) + n * message->head.width;
}

static bool message_is_valid(const Message *message, size_t size, const Bag *bag, Queue queue) {
        const MessageHead *head = &message->head;

        return size >= sizeof(*head) && head->magic == BAG_MAGIC && head->mark == bag->mark && head->queue == queue &&
               (head->width == 2 || head->width == 4 || head->width == 8) && head->count <= BAG_MESSAGE_FDS &&
               size == sizeof(*head) + (size_t) head->count * head->width;
}

/* BAG_E_FULL, BAG_E_IN_FLIGHT. */
static int send_message(Bag *bag, Queue queue, const struct msghdr *header, size_t n_fds) {
        if (sendmsg(bag->ends[queue], header, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
                switch (errno) {
                case EAGAIN:
                        return BAG_E_FULL;
                case ETOOMANYREFS:
                        return BAG_E_IN_FLIGHT;
                default:
                        return -errno;
                }
        bag->messages[queue]++;
        bag->fds[queue] += n_fds;
        return 0;
}

/* The fds of live entries, at least one. */
static int send_entries(Bag *bag, Queue queue, const Book *book, const uint64_t *ids, size_t n) {
        Control control = {};
        Message message;
        struct iovec io = { .iov_base = &message, .iov_len = message_set(&message, bag, queue, ids, n) };
        struct msghdr header = {
                .msg_iov = &io,
                .msg_iovlen = 1,
                .msg_control = &control,
                .msg_controllen = CMSG_SPACE(n * sizeof(int)),
        };
        struct cmsghdr *c = &control.aligned;

        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(n * sizeof(int));
        for (size_t i = 0; i < n; i++)
                memcpy(CMSG_DATA(c) + i * sizeof(int), &book_find(book, ids[i])->fd, sizeof(int));
        return send_message(bag, queue, &header, n);
}

static int send_first(Bag *bag) {
        MessageHead head = { .magic = BAG_MAGIC, .queue = QUEUE_PACKED, .width = 2, .mark = bag->mark };
        struct iovec io = { .iov_base = &head, .iov_len = sizeof(head) };
        struct msghdr header = { .msg_iov = &io, .msg_iovlen = 1 };
        struct stat st;

        if (fstat(bag->ends[QUEUE_PACKED], &st) < 0)
                return -errno;
        head.base = st.st_ino;
        return send_message(bag, QUEUE_PACKED, &header, 0);
}

/* ---- life ---- */

static Bag *bag_of(int end, int other_end) {
        Bag *bag = malloc(sizeof(*bag));

        if (bag)
                *bag = (Bag) { .ends = { end, other_end }, .fold_at = BAG_FOLD_AT };
        return bag;
}

int bag_new(Bag **ret) {
        int pair[2], size = BAG_BUFFER_SIZE, r = 0;
        Bag *bag;

        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
                return -errno;
        bag = bag_of(pair[0], pair[1]);
        if (!bag) {
                safe_close(pair[0]);
                safe_close(pair[1]);
                return -ENOMEM;
        }
        for (size_t i = 0; i < QUEUES; i++)
                (void) setsockopt(pair[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
        bag->ready = true;
        if (getrandom(&bag->mark, sizeof(bag->mark), 0) < 0)
                r = -errno;
        if (r == 0)
                r = send_first(bag);
        if (r != 0) {
                bag_free(bag);
                return r;
        }
        *ret = bag;
        return 0;
}

Bag *bag_free(Bag *bag) {
        if (!bag)
                return NULL;
        safe_close(bag->ends[QUEUE_YOUNG]);
        safe_close(bag->ends[QUEUE_PACKED]);
        book_done(&bag->book);
        free(bag->young);
        free(bag);
        return NULL;
}

static bool is_our_kind_of_socket(int fd) {
        int domain, type;
        socklen_t size = sizeof(int);

        return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) >= 0 && domain == AF_UNIX &&
               getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) >= 0 && type == SOCK_SEQPACKET;
}

/* The next peek begins at the first message, and every further one behind the one before; or -1: each at the first. */
static int set_peek_offset(int fd, int offset) {
        return setsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &offset, sizeof(offset)) < 0 ? -errno : 0;
}

/* The first message, if it is what the packed queue begins with; else BAG_E_NOT_A_BAG. */
static int peek_first(int fd, MessageHead *ret) {
        MessageHead head = {};
        ssize_t n;
        int r;

        /* Whoever read it before us may have died at it. */
        r = set_peek_offset(fd, -1);
        if (r < 0)
                return r;
        n = recv(fd, &head, sizeof(head), MSG_PEEK | MSG_DONTWAIT | MSG_TRUNC);
        if (n < 0 && errno != EAGAIN)
                return -errno;
        if (n != sizeof(head) || head.magic != BAG_MAGIC || head.queue != QUEUE_PACKED || head.count != 0)
                return BAG_E_NOT_A_BAG;
        *ret = head;
        return 0;
}

int bag_open(int end, int other_end, Bag **ret) {
        MessageHead first;
        struct stat st;
        bool swap;
        Bag *bag;
        int r;

        if (!is_our_kind_of_socket(end) || !is_our_kind_of_socket(other_end))
                return BAG_E_NOT_A_BAG;
        /* The end that has the packed queue is the one that sends young entries. */
        r = peek_first(end, &first);
        swap = r == BAG_E_NOT_A_BAG;
        if (swap)
                r = peek_first(other_end, &first);
        if (r != 0)
                return r;
        if (fstat(swap ? end : other_end, &st) < 0)
                return -errno;
        if (st.st_ino != first.base)
                return BAG_E_NOT_A_BAG;

        bag = bag_of(swap ? other_end : end, swap ? end : other_end);
        if (!bag)
                return -ENOMEM;
        bag->mark = first.mark;
        *ret = bag;
        return 0;
}

void bag_ends(const Bag *bag, int ret[static 2]) {
        ret[0] = bag->ends[QUEUE_YOUNG];
        ret[1] = bag->ends[QUEUE_PACKED];
}

size_t bag_size(const Bag *bag) {
        return bag->book.size;
}

/* ---- reading ---- */

/* Peeks at the next message. *ret_n is -1 at the end of the queue; else its fds are the caller's. */
static int peek_message(const Bag *bag, Queue queue, Message *message, int *fds, ssize_t *ret_n) {
        Control control;
        struct iovec io = { .iov_base = message, .iov_len = sizeof(*message) };
        struct msghdr header = {
                .msg_iov = &io,
                .msg_iovlen = 1,
                .msg_control = &control,
                .msg_controllen = sizeof(control),
        };
        size_t n_fds = 0;
        ssize_t size;

        *ret_n = -1;
        size = recvmsg(receiver_of(bag, queue), &header, MSG_PEEK | MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if (size < 0 && errno != EAGAIN)
                return -errno;
        if (size < 0)
                return 0;
        for (struct cmsghdr *c = CMSG_FIRSTHDR(&header); c; c = CMSG_NXTHDR(&header, c))
                if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
                        n_fds = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
                        memcpy(fds, CMSG_DATA(c), n_fds * sizeof(int));
                }
        if (message_is_valid(message, (size_t) size, bag, queue) && n_fds == message->head.count) {
                *ret_n = (ssize_t) n_fds;
                return 0;
        }
        for (size_t i = 0; i < n_fds; i++)
                safe_close(fds[i]);
        return header.msg_flags & MSG_CTRUNC ? BAG_E_TOO_MANY : BAG_E_NOT_A_BAG;
}

/* Takes fd. */
static int hand_out(Book *seen, uint64_t id, int fd, int (*found)(uint64_t id, int fd, void *userdata),
                    void *userdata) {
        int r = 0;

        if (book_find(seen, id)) {
                safe_close(fd);
                return 0;
        }
        r = book_add(seen, id, /* fd= */ -EBADF, /* young= */ false);
        if (r == 0)
                r = found(id, fd, userdata);
        if (r != 0)
                safe_close(fd);
        return r;
}

static int read_queue(Bag *bag, Queue queue, Book *seen, int (*found)(uint64_t id, int fd, void *userdata),
                      void *userdata) {
        int fds[BAG_MESSAGE_FDS], r;
        Message message;
        ssize_t n;

        bag->messages[queue] = bag->fds[queue] = 0;
        bag->read_queue = queue;
        r = set_peek_offset(receiver_of(bag, queue), 0);
        while (r == 0) {
                r = peek_message(bag, queue, &message, fds, &n);
                if (r != 0 || n < 0)
                        break;
                bag->messages[queue]++;
                bag->fds[queue] += (size_t) n;
                for (ssize_t i = 0; i < n; i++)
                        if (r == 0)
                                r = hand_out(seen, id_at(&message, (size_t) i), fds[i], found, userdata);
                        else
                                safe_close(fds[i]);
        }
        (void) set_peek_offset(receiver_of(bag, queue), -1);
        return r;
}

int bag_read(Bag *bag, int (*found)(uint64_t id, int fd, void *userdata), void *userdata) {
        Book seen = {};
        int r;

        if (bag->ready)
                return -EALREADY;
        bag->reading = true;
        /* What is in both queues is packed already. */
        r = read_queue(bag, QUEUE_PACKED, &seen, found, userdata);
        if (r == 0)
                r = read_queue(bag, QUEUE_YOUNG, &seen, found, userdata);
        bag->reading = false;
        book_done(&seen);
        bag->ready = r == 0;
        return r;
}

/* ---- keeping ---- */

static int add_entry(Bag *bag, uint64_t id, int fd, bool young) {
        size_t allocated = bag->young_allocated ?: BAG_FOLD_AT + 1;
        uint64_t *ids;

        if (book_find(&bag->book, id))
                return -EEXIST;
        if (young && (bag->n_young == bag->young_allocated)) {
                if (bag->young_allocated > 0)
                        allocated *= 2;
                ids = reallocarray(bag->young, allocated, sizeof(*ids));
                if (!ids)
                        return -ENOMEM;
                bag->young = ids;
                bag->young_allocated = allocated;
        }
        return book_add(&bag->book, id, fd, young);
}

int bag_keep(Bag *bag, uint64_t id, int fd) {
        bool young = bag->read_queue == QUEUE_YOUNG;
        int r;

        if (!bag->reading)
                return -EINVAL;
        r = add_entry(bag, id, fd, young);
        if (r == 0 && young)
                bag->young[bag->n_young++] = id;
        return r;
}

static int compare_ids(const void *a, const void *b) {
        uint64_t x = *(const uint64_t *) a, y = *(const uint64_t *) b;

        return x < y ? -1 : x > y;
}

/* Leaves of the young ids those that must be packed, each once and in order. */
static void sort_young(Bag *bag) {
        size_t n = 0;

        qsort(bag->young, bag->n_young, sizeof(*bag->young), compare_ids);
        for (size_t i = 0; i < bag->n_young; i++) {
                const BookEntry *entry = book_find(&bag->book, bag->young[i]);

                if (entry && entry->young && (n == 0 || bag->young[n - 1] != bag->young[i]))
                        bag->young[n++] = bag->young[i];
        }
        bag->n_young = n;
}

static int send_packed(Bag *bag, const Book *book, const uint64_t *ids, size_t n) {
        size_t part;
        int r;

        for (; n > 0; n -= part, ids += part) {
                part = n < BAG_MESSAGE_FDS ? n : BAG_MESSAGE_FDS;
                r = send_entries(bag, QUEUE_PACKED, book, ids, part);
                if (r != 0)
                        return r;
                for (size_t i = 0; i < part; i++)
                        book_find(book, ids[i])->young = false;
        }
        return 0;
}

/* Nobody but us sends into the queue, and all that is live in it has been packed. */
static int drain_young(Bag *bag) {
        ssize_t n;
        char byte;

        /* Without room for the fds, the kernel closes them. */
        do
                n = recv(receiver_of(bag, QUEUE_YOUNG), &byte, sizeof(byte), MSG_DONTWAIT);
        while (n > 0);
        if (n == 0 || errno != EAGAIN)
                return n == 0 ? -EPIPE : -errno;
        bag->n_young = bag->messages[QUEUE_YOUNG] = bag->fds[QUEUE_YOUNG] = 0;
        return 0;
}

static int fold(Bag *bag) {
        int r;

        sort_young(bag);
        r = send_packed(bag, &bag->book, bag->young, bag->n_young);
        bag->crowded = r == BAG_E_FULL;
        STEP("bag.folded");
        if (r == 0)
                r = drain_young(bag);
        STEP("bag.drained");
        /* Not again at once for every entry. */
        bag->fold_at = BAG_FOLD_AT + (r == 0 ? 0 : bag->messages[QUEUE_YOUNG]);
        return r;
}

int bag_put(Bag *bag, uint64_t id, int fd) {
        int r;

        if (!bag->ready)
                return -EBUSY;
        r = add_entry(bag, id, fd, /* young= */ true);
        if (r < 0)
                return r;
        r = send_entries(bag, QUEUE_YOUNG, &bag->book, &id, 1);
        if (r == BAG_E_FULL && fold(bag) == 0)
                r = send_entries(bag, QUEUE_YOUNG, &bag->book, &id, 1);
        if (r != 0) {
                book_remove(&bag->book, id);
                return r;
        }
        bag->young[bag->n_young++] = id;
        if (bag->messages[QUEUE_YOUNG] >= bag->fold_at)
                /* It is kept, folded or not. */
                (void) fold(bag);
        return 0;
}

void bag_forget(Bag *bag, uint64_t id) {
        book_remove(&bag->book, id);
}

/* ---- repacking ---- */

bool bag_wants_repack(const Bag *bag) {
        size_t live = bag->book.size, queued = bag->fds[QUEUE_YOUNG] + bag->fds[QUEUE_PACKED], dead;

        /* Full of messages that were never full. */
        if (bag->crowded && bag->messages[QUEUE_PACKED] > 2 * (live / BAG_MESSAGE_FDS + 1))
                return true;
        dead = queued > live ? queued - live : 0;
        return dead > live && dead > BAG_DEAD_MAX;
}

static int fill(Bag *bag, const Bag *from) {
        _cleanup_free_ uint64_t *ids = NULL;
        int r;

        r = book_ids(&from->book, &ids);
        for (size_t i = 0; r == 0 && i < from->book.size; i++)
                r = book_add(&bag->book, ids[i], book_find(&from->book, ids[i])->fd, /* young= */ false);
        return r < 0 ? r : send_packed(bag, &bag->book, ids, from->book.size);
}

int bag_repack(const Bag *bag, Bag **ret) {
        Bag *fresh;
        int r;

        if (!bag->ready)
                return -EBUSY;
        r = bag_new(&fresh);
        if (r != 0)
                return r;
        r = fill(fresh, bag);
        if (r != 0) {
                bag_free(fresh);
                return r;
        }
        *ret = fresh;
        return 0;
}
