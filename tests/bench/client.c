/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The caller whose waiting is timed, the same for every server: a blocking socket, one call at a time, the text of
 * each call made beforehand. Each timed call is undone by another that is not timed.
 *
 * usage: bench-client SOCKET allocate|set-slot varlink|privmemd
 *        bench-client SOCKET allocate privmemd OTHERS
 *        bench-client SOCKET allocate raw
 *
 * OTHERS: so many backings of other VMs are there too.
 *
 * Prepares the server, warms up, and checks meanwhile that the server does what the benchmark is about. Then, for
 * each number on standard input: so many calls, and the median of their times in ns on standard output. */

#include <fcntl.h>
#include <stdbool.h>

#include "bench.h"
#include "memory.h"

#define INTERFACE       "io.privmemd.Memory"
#define CALLS_MAX       10000
#define WARM_UP         200
#define OTHER_BACKINGS  100
#define BACKINGS_PER_VM 200 /* of other VMs */
#define OTHER_SLOTS     1000
#define SLOT_ID         500                 /* has neighbours on both sides */
#define SLOT_SIZE       (UINT64_C(1) << 20) /* no advice on the pages of slots below 2 MiB */
#define SLOT_HVA        UINT64_C(0x7f0000000000)
#define SLOT_REPLY      "{\"parameters\":{\"verdict\":{\"outcome\":\"ok\",\"kernelErrno\":0,\"conflicts\":[]}}}"

/* As it goes over the wire; a varlink message ends with a 0, and so do the raw server's answers. */
typedef struct Message {
        char text[512];
        size_t length;
} Message;

static struct {
        int fd;
        char reply[65536];
        size_t length;
        int received; /* the fd that came with the reply */
} server;

/* ---- one call ------------------------------------------------------------------------------------------ */

static void exchange(const Message *request) {
        server.length = 0;
        server.received = -EBADF;
        if (send(server.fd, request->text, request->length, MSG_NOSIGNAL) != (ssize_t) request->length)
                die("cannot send: %m");
        do
                server.length += receive_from(server.fd, server.reply + server.length,
                                              sizeof(server.reply) - server.length, &server.received);
        while (server.reply[server.length - 1] != 0 && server.length < sizeof(server.reply));
}

static Message __attribute__((format(printf, 2, 3))) varlink(const char *method, const char *format, ...) {
        Message m;
        char parameters[384];
        va_list ap;

        va_start(ap, format);
        vsnprintf(parameters, sizeof(parameters), format, ap);
        va_end(ap);
        m.length = 1 + (size_t) snprintf(m.text, sizeof(m.text),
                                         "{\"method\":\"" INTERFACE ".%s\",\"parameters\":{%s}}", method, parameters);
        return m;
}

/* For calls that are not timed. */
static void must(Message request, const char *expected) {
        exchange(&request);
        if (strstr(server.reply, "\"error\"") || !strstr(server.reply, expected))
                die("%s was answered by %s, which should have %s", request.text, server.reply, expected);
}

/* ---- what is called ------------------------------------------------------------------------------------ */

typedef struct Work {
        Message call, undo;
        void (*check)(void);     /* the answer to the call, after each; takes the fd */
        const char *here, *gone; /* what GetHost of privmemd says after each */
} Work;

static Message allocate(const char *vm, const char *name) {
        return varlink("AllocateBacking", "\"vm\":\"%s\",\"name\":\"%s\",\"size\":%ju", vm, name,
                       (uintmax_t) MEMORY_SIZE);
}

static Message set_slot(unsigned id, uint64_t size) {
        uint64_t offset = id * SLOT_SIZE;

        return varlink("SetSlot",
                       "\"vm\":\"bench\",\"slot\":{\"slotId\":%u,\"addressSpace\":0,\"flags\":[\"log_dirty_pages\"],"
                       "\"guestPhysAddr\":%ju,\"memorySize\":%ju,\"userspaceAddr\":%ju,\"backing\":\"ram\","
                       "\"backingOffset\":%ju}",
                       id, (uintmax_t) offset, (uintmax_t) size, (uintmax_t) (SLOT_HVA + offset), (uintmax_t) offset);
}

/* A sealed memfd of 2 MiB that is nobody else's, and in varlink's reply the index of it. */
static void check_memory(void) {
        struct stat st;
        int seals;

        if (server.received < 0 || (server.length > 1 && !strstr(server.reply, "\"fileDescriptor\":0")))
                die("no file descriptor came: %s", server.reply);
        seals = fcntl(server.received, F_GET_SEALS);
        if (fstat(server.received, &st) < 0 || seals < 0 || st.st_size != MEMORY_SIZE ||
            (st.st_mode & 07777) != 0600 || (seals & MEMORY_SEALS) != MEMORY_SEALS)
                die("what came is no sealed memfd of %ju bytes and mode 0600", (uintmax_t) MEMORY_SIZE);
        close(server.received);
}

static void check_verdict(void) {
        if (strcmp(server.reply, SLOT_REPLY) != 0)
                die("the answer is %s and not %s", server.reply, SLOT_REPLY);
}

static void allocate_many(const char *vm, unsigned n) {
        char name[32];

        for (unsigned i = 0; i < n; i++) {
                snprintf(name, sizeof(name), "other%u", i);
                must(allocate(vm, name), "\"fileDescriptor\":0");
                check_memory();
        }
}

/* others: backings of other VMs. */
static Work prepare_allocate(bool privmemd, unsigned others) {
        static char here[32], gone[32];
        char vm[32];

        if (privmemd)
                must(varlink("RegisterVM", "\"name\":\"bench\""), "\"created\":true");
        allocate_many("bench", OTHER_BACKINGS);
        for (unsigned done = 0, n; done < others; done += n) {
                n = others - done < BACKINGS_PER_VM ? others - done : BACKINGS_PER_VM;
                snprintf(vm, sizeof(vm), "other%u", done);
                must(varlink("RegisterVM", "\"name\":\"%s\"", vm), "\"created\":true");
                allocate_many(vm, n);
        }
        snprintf(here, sizeof(here), "\"backings\":%u,", others + OTHER_BACKINGS + 1);
        snprintf(gone, sizeof(gone), "\"backings\":%u,", others + OTHER_BACKINGS);
        return (Work) {
                .call = allocate("bench", "ram"),
                .undo = varlink("ReleaseBacking", "\"vm\":\"bench\",\"backing\":\"ram\""),
                .check = check_memory,
                .here = here,
                .gone = gone,
        };
}

static Work prepare_raw(void) {
        Work work = { .call = { "a", 1 }, .undo = { "r", 1 }, .check = check_memory };

        for (unsigned i = 0; i < OTHER_BACKINGS; i++) {
                exchange(&work.call);
                check_memory();
        }
        return work;
}

static Work prepare_set_slot(bool privmemd) {
        if (privmemd) {
                must(varlink("RegisterVM", "\"name\":\"bench\""), "\"created\":true");
                must(varlink("AttachVM", "\"vm\":\"bench\""), "\"state\":\"attached\"");
                must(varlink("AllocateBacking", "\"vm\":\"bench\",\"name\":\"ram\",\"size\":%ju",
                             (uintmax_t) (OTHER_SLOTS + 1) * SLOT_SIZE),
                     "\"fileDescriptor\":0");
                close(server.received);
        }
        for (unsigned i = 0; i <= OTHER_SLOTS; i++)
                if (i != SLOT_ID)
                        must(set_slot(i, SLOT_SIZE), SLOT_REPLY);
        return (Work) {
                .call = set_slot(SLOT_ID, SLOT_SIZE),
                .undo = set_slot(SLOT_ID, 0),
                .check = check_verdict,
                .here = "\"slots\":1001,",
                .gone = "\"slots\":1000,",
        };
}

/* ---- many calls ---------------------------------------------------------------------------------------- */

/* look: have privmemd count what it has. */
static uint64_t timed_call(const Work *work, bool look) {
        uint64_t start, end;

        start = now();
        exchange(&work->call);
        end = now();
        work->check();
        if (look)
                must(varlink("GetHost", "%s", ""), work->here);
        exchange(&work->undo);
        if (strstr(server.reply, "\"error\""))
                die("%s was answered by %s", work->undo.text, server.reply);
        if (look)
                must(varlink("GetHost", "%s", ""), work->gone);
        return end - start;
}

static int compare(const void *a, const void *b) {
        const uint64_t *x = a, *y = b;

        return (*x > *y) - (*x < *y);
}

static uint64_t median_of_calls(const Work *work, size_t n) {
        static uint64_t times[CALLS_MAX];

        for (size_t i = 0; i < n; i++)
                times[i] = timed_call(work, /* look= */ false);
        qsort(times, n, sizeof(*times), compare);
        return times[n / 2];
}

int main(int argc, char *argv[]) {
        bool privmemd = argc >= 4 && strcmp(argv[3], "privmemd") == 0;
        unsigned others = argc == 5 ? (unsigned) strtoul(argv[4], NULL, 10) : 0;
        size_t n;
        Work work;

        if (argc != 4 && !(privmemd && argc == 5)) {
                fprintf(stderr, "usage: %s SOCKET allocate|set-slot varlink|privmemd|raw [OTHERS]\n", argv[0]);
                return 2;
        }
        server.fd = connect_to(argv[1]);
        if (strcmp(argv[3], "raw") == 0)
                work = prepare_raw();
        else
                work = strcmp(argv[2], "allocate") == 0 ? prepare_allocate(privmemd, others) :
                                                          prepare_set_slot(privmemd);
        for (size_t i = 0; i < WARM_UP; i++)
                (void) timed_call(&work, /* look= */ privmemd && i == 0);
        while (scanf("%zu", &n) == 1 && n > 0 && n <= CALLS_MAX) {
                printf("%ju\n", (uintmax_t) median_of_calls(&work, n));
                fflush(stdout);
        }
        return EXIT_SUCCESS;
}
