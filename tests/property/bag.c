/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The fd bag against a plain table, with queues and messages so small that a few entries fill them. Before and after
 * every system call that changes a queue the process might die: each time the bag is opened anew from duplicates of
 * its ends, as the next process does, and every live id must be there once, with its file.
 *
 * PRIVMEMD_SEED repeats a run. */

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>

static ssize_t send_and_die(int fd, const struct msghdr *message, int flags);
static ssize_t receive_and_die(int fd, void *buffer, size_t size, int flags);

/* What is looked at inside is private to it. */
#define BAG_MESSAGE_FDS 5U
#define BAG_FOLD_AT     7U
#define BAG_BUFFER_SIZE 4608
#define BAG_DEAD_MAX    12U
#define sendmsg         send_and_die
#define recv            receive_and_die
#include "host/bag.c"
#undef sendmsg
#undef recv

enum {
        FILES = 64,
        ROUNDS = 20000,
};

/* An id is never used again for another file: file f has the ids f, f + FILES, … */
typedef struct Entry {
        uint64_t id;
        bool live;
} Entry;

static int files[FILES];
static ino_t inodes[FILES];
static Entry table[FILES];
static Bag *bag;
static const char *wrong;
static uint64_t random_state, deaths, full;
static bool is_dead; /* another process runs */

static uint64_t next_random(void) {
        random_state ^= random_state << 13;
        random_state ^= random_state >> 7;
        random_state ^= random_state << 17;
        return random_state >> 8;
}

static ino_t inode_of(int fd) {
        struct stat st;

        return fstat(fd, &st) < 0 ? 0 : st.st_ino;
}

static int see(uint64_t id, int fd, void *userdata) {
        unsigned *times = userdata;

        if (inode_of(fd) != inodes[id % FILES])
                wrong = "an id came back with another file";
        if (table[id % FILES].id == id)
                times[id % FILES]++;
        close(fd);
        return 0;
}

static int reopen(const Bag *old, Bag **ret) {
        int ends[2], r;

        bag_ends(old, ends);
        for (unsigned i = 0; i < 2; i++)
                ends[i] = fcntl(ends[i], F_DUPFD_CLOEXEC, 3);
        r = bag_open(ends[deaths % 2], ends[1 - deaths % 2], ret);
        if (r != 0) {
                close(ends[0]);
                close(ends[1]);
        }
        return r;
}

static void check_as_the_next_process(const Bag *of) {
        unsigned times[FILES] = {};
        Bag *again;

        deaths++;
        is_dead = true;
        if (reopen(of, &again) != 0) {
                wrong = "it could not be opened again";
        } else {
                if (bag_read(again, see, times) != 0)
                        wrong = "it could not be read";
                bag_free(again);
        }
        is_dead = false;
        for (unsigned i = 0; i < FILES && !wrong; i++)
                if (table[i].live && times[i] != 1)
                        wrong = times[i] == 0 ? "a live id is lost" : "an id was found twice";
}

static ssize_t send_and_die(int fd, const struct msghdr *message, int flags) {
        ssize_t n;

        if (!is_dead && bag)
                check_as_the_next_process(bag);
        n = sendmsg(fd, message, flags);
        if (!is_dead && bag)
                check_as_the_next_process(bag);
        return n;
}

static ssize_t receive_and_die(int fd, void *buffer, size_t size, int flags) {
        ssize_t n;

        n = recv(fd, buffer, size, flags);
        if (!is_dead && bag)
                check_as_the_next_process(bag);
        return n;
}

static void repack(void) {
        Bag *fresh;
        int r;

        r = bag_repack(bag, &fresh);
        if (r == BAG_E_FULL) {
                full++;
                return;
        }
        if (r != 0) {
                wrong = "it could not be repacked";
                return;
        }
        check_as_the_next_process(fresh);
        check_as_the_next_process(bag);
        if (bag_wants_repack(fresh))
                wrong = "what was just repacked wants it again";
        bag_free(bag);
        bag = fresh;
}

static void put(unsigned at) {
        Entry *entry = &table[at];
        int r;

        if (entry->live) {
                if (bag_put(bag, entry->id, files[at]) != -EEXIST)
                        wrong = "a live id was put again";
                return;
        }
        /* Sometimes the id that was forgotten, which may still be in a queue. */
        if (next_random() % 4 != 0)
                entry->id += FILES;
        r = bag_put(bag, entry->id, files[at]);
        if (r == BAG_E_FULL)
                full++;
        else if (r != 0)
                wrong = "it could not be put";
        entry->live = r == 0;
        check_as_the_next_process(bag);
        if (r == BAG_E_FULL || bag_wants_repack(bag))
                repack();
}

static void forget(unsigned at) {
        bag_forget(bag, table[at].id);
        table[at].live = false;
}

static int keep_if_live(uint64_t id, int fd, void *userdata) {
        Bag *of = userdata;
        const Entry *entry = &table[id % FILES];

        close(fd);
        return entry->live && entry->id == id ? bag_keep(of, id, files[id % FILES]) : 0;
}

/* The process dies, and the next one goes on with what it finds. */
static void restart(void) {
        Bag *again;

        is_dead = true;
        if (reopen(bag, &again) != 0 || bag_read(again, keep_if_live, again) != 0) {
                wrong = "it could not be taken over";
                is_dead = false;
                return;
        }
        is_dead = false;
        bag_free(bag);
        bag = again;
}

static void check_size(void) {
        size_t live = 0;

        for (unsigned i = 0; i < FILES; i++)
                live += table[i].live;
        if (bag_size(bag) != live)
                wrong = "the number of entries";
}

static void run_round(void) {
        unsigned at = next_random() % FILES;

        switch (next_random() % 64) {
        case 0:
                restart();
                break;
        case 1:
                repack();
                break;
        case 2:
                /* A VM goes with all that it has. */
                for (unsigned i = 0; i < 24; i++)
                        forget((at + i) % FILES);
                break;
        default:
                if (next_random() % 5 < 3)
                        put(at);
                else
                        forget(at);
        }
        check_size();
}

int main(void) {
        const char *text = getenv("PRIVMEMD_SEED");
        uint64_t seed = 1;

        if (text)
                seed = strtoull(text, NULL, 0);
        else if (getrandom(&seed, sizeof(uint32_t), 0) < 0)
                seed = 1;
        random_state = seed * UINT64_C(0x9e3779b97f4a7c15) | 1;

        for (unsigned i = 0; i < FILES; i++) {
                files[i] = memfd_create("property-bag", MFD_CLOEXEC);
                inodes[i] = inode_of(files[i]);
                table[i].id = i;
        }
        printf("1..1\n");
        if (bag_new(&bag) != 0)
                wrong = "there is no bag";
        for (unsigned round = 0; round < ROUNDS && !wrong; round++)
                run_round();
        printf("# died %" PRIu64 " times, was full %" PRIu64 " times\n", deaths, full);
        if (wrong)
                printf("# PRIVMEMD_SEED=%" PRIu64 " repeats it: %s\n", seed, wrong);
        printf("%s 1 - the bag and the table agree whenever it dies\n", wrong ? "not ok" : "ok");
        bag_free(bag);
        return wrong ? EXIT_FAILURE : EXIT_SUCCESS;
}
