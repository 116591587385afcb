/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* How long privmemd takes to set a large table of slots, all of it by SetSlots, and where the time goes.
 *
 * usage: bench-table SOCKET SLOTS
 *        bench-table check SLOTS      without a server: makes and reads the messages, and has the core set the table
 *
 * The slots show one page each of a backing that is really mapped, every other one of its pages. The text of the calls
 * is made beforehand. For each line on standard input three times in ns on standard output: from the first call until
 * the last answer; what sd-json alone takes to parse the same calls and to format the same answers; what the core
 * alone takes to judge and set the same slots. The first includes the other two. */

#include <stdbool.h>
#include <sys/mman.h>
#include <systemd/sd-json.h>
#include <unistd.h>

#include "bench.h"
#include "core/backing.h"
#include "core/registry.h"
#include "core/slot.h"
#include "core/vm.h"

#define INTERFACE      "io.privmemd.Memory"
#define SLOTS_PER_CALL 4096U /* SetSlots takes no more */
#define CALLS_MAX      8U
#define PAGE           UINT64_C(4096)
#define REPLY_MAX      (1U << 20)

/* As it goes over the wire, with the 0 that ends it. */
typedef struct Message {
        char *text;
        size_t length;
} Message;

static int server = -1;
static size_t n_slots, n_calls;
static uint64_t hva; /* where the backing is mapped */
static Message set_calls[CALLS_MAX], delete_calls[CALLS_MAX], replies[CALLS_MAX];

/* ---- messages ------------------------------------------------------------------------------------------ */

static size_t slots_of_call(size_t call) {
        size_t first = call * SLOTS_PER_CALL;

        return n_slots - first < SLOTS_PER_CALL ? n_slots - first : SLOTS_PER_CALL;
}

static uint64_t place(size_t slot) {
        return 2 * slot * PAGE;
}

static Message make_call(size_t call, uint64_t size) {
        Message m = {};
        FILE *f = open_memstream(&m.text, &m.length);

        if (!f)
                die("out of memory");
        fputs("{\"method\":\"" INTERFACE ".SetSlots\",\"parameters\":{\"vm\":\"bench\",\"slots\":[", f);
        for (size_t i = 0; i < slots_of_call(call); i++) {
                size_t slot = call * SLOTS_PER_CALL + i;

                fprintf(f,
                        "%s{\"slotId\":%zu,\"guestPhysAddr\":%ju,\"memorySize\":%ju,\"userspaceAddr\":%ju,"
                        "\"backing\":\"ram\",\"backingOffset\":%ju}",
                        i > 0 ? "," : "", slot, (uintmax_t) place(slot), (uintmax_t) size,
                        (uintmax_t) (hva + place(slot)), (uintmax_t) place(slot));
        }
        fputs("]}}", f);
        fputc(0, f);
        if (fclose(f) != 0)
                die("out of memory");
        return m;
}

static void make_calls(void) {
        for (size_t call = 0; call < n_calls; call++) {
                set_calls[call] = make_call(call, PAGE);
                delete_calls[call] = make_call(call, 0);
        }
}

static int exchange(const Message *request, Message *reply) {
        int fd = -EBADF;

        for (size_t sent = 0; sent < request->length;) {
                ssize_t n = send(server, request->text + sent, request->length - sent, MSG_NOSIGNAL);

                if (n < 0)
                        die("cannot send: %m");
                sent += (size_t) n;
        }
        reply->length = 0;
        do
                reply->length += receive_from(server, reply->text + reply->length, REPLY_MAX - reply->length, &fd);
        while (reply->text[reply->length - 1] != 0 && reply->length < REPLY_MAX);
        if (reply->text[reply->length - 1] != 0 || strstr(reply->text, "\"error\""))
                die("%.200s was answered by %.200s", request->text, reply->text);
        return fd;
}

static int call(const char *method, const char *parameters) {
        char text[256];
        int length = snprintf(text, sizeof(text), "{\"method\":\"" INTERFACE ".%s\",\"parameters\":{%s}}", method,
                              parameters);

        return exchange(&(Message) { text, (size_t) length + 1 }, &replies[0]);
}

/* ---- the three times ----------------------------------------------------------------------------------- */

static void prepare(const char *path) {
        char parameters[128];
        void *memory;
        int fd;

        server = connect_to(path);
        (void) call("RegisterVM", "\"name\":\"bench\"");
        (void) call("AttachVM", "\"vm\":\"bench\"");
        snprintf(parameters, sizeof(parameters), "\"vm\":\"bench\",\"name\":\"ram\",\"size\":%ju",
                 (uintmax_t) place(n_slots));
        fd = call("AllocateBacking", parameters);
        memory = mmap(NULL, place(n_slots), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (memory == MAP_FAILED)
                die("cannot map the backing: %m");
        close(fd);
        hva = (uint64_t) (uintptr_t) memory;
}

static uint64_t time_server(void) {
        Message ignored = { .text = malloc(REPLY_MAX) };
        uint64_t start, end;

        if (!ignored.text)
                die("out of memory");
        start = now();
        for (size_t i = 0; i < n_calls; i++)
                (void) exchange(&set_calls[i], &replies[i]);
        end = now();
        for (size_t i = 0; i < n_calls; i++)
                (void) exchange(&delete_calls[i], &ignored);
        free(ignored.text);
        return end - start;
}

static sd_json_variant *parse(const Message *m) {
        sd_json_variant *v = NULL;

        if (sd_json_parse(m->text, 0, &v, /* reterr_line= */ NULL, /* reterr_column= */ NULL) < 0)
                die("sd-json cannot parse %.200s", m->text);
        return v;
}

static uint64_t time_json(void) {
        uint64_t sum = 0, start;

        for (size_t i = 0; i < n_calls; i++) {
                sd_json_variant *reply = parse(&replies[i]);
                char *text = NULL;

                start = now();
                sd_json_variant_unref(parse(&set_calls[i]));
                if (sd_json_variant_format(reply, 0, &text) < 0)
                        die("sd-json cannot format a reply");
                sum += now() - start;
                free(text);
                sd_json_variant_unref(reply);
        }
        return sum;
}

static uint64_t time_core(void) {
        KVMRules kvm = kvm_rules_of(KVM_GENERATION_DEFAULT);
        SlotSpec *specs = calloc(n_slots, sizeof(SlotSpec));
        Verdict *verdicts = calloc(n_slots, sizeof(Verdict));
        Registry *registry;
        Backing *ram;
        bool accepted;
        uint64_t start, end;
        VM *vm;

        if (!specs || !verdicts || registry_new(PAGE, &kvm, &registry) < 0 ||
            vm_new(registry, &(VMSpec) { .name = "bench" }, &vm) != 0 ||
            backing_new(vm, &(BackingSpec) { .name = "ram", .size = place(n_slots), .page_size = PAGE, .ino = 1 },
                        &ram) != 0)
                die("out of memory");
        for (size_t i = 0; i < n_slots; i++) {
                uint64_t at = place(i);

                specs[i] = (SlotSpec) {
                        .id = (uint32_t) i, .gpa = at, .size = PAGE, .hva = hva + at, .backing = ram, .offset = at
                };
        }
        start = now();
        for (size_t i = 0; i < n_calls; i++) {
                size_t first = i * SLOTS_PER_CALL;

                if (slot_set_many(vm, &specs[first], slots_of_call(i), /* apply_all= */ true, &verdicts[first],
                                  /* changed= */ NULL, &accepted) < 0 ||
                    !accepted)
                        die("the core refuses the table");
        }
        end = now();
        registry_free(registry);
        free(verdicts);
        free(specs);
        return end - start;
}

/* What privmemd answers to a call that is all right. */
static void make_replies(void) {
        for (size_t i = 0; i < n_calls; i++)
                replies[i].length = 1 + (size_t) snprintf(replies[i].text, REPLY_MAX,
                                                          "{\"parameters\":{\"verdicts\":[]}}");
}

int main(int argc, char *argv[]) {
        bool check = argc == 3 && strcmp(argv[1], "check") == 0;
        char line[16];

        n_slots = argc == 3 ? strtoul(argv[2], NULL, 10) : 0;
        n_calls = (n_slots + SLOTS_PER_CALL - 1) / SLOTS_PER_CALL;
        if (n_slots == 0 || n_slots > SLOTS_PER_ADDRESS_SPACE_MAX)
                die("usage: bench-table SOCKET|check 1…%u", SLOTS_PER_ADDRESS_SPACE_MAX);
        for (size_t i = 0; i < CALLS_MAX; i++) {
                replies[i].text = malloc(REPLY_MAX);
                if (!replies[i].text)
                        die("out of memory");
        }
        if (!check)
                prepare(argv[1]);
        make_calls();
        if (check) {
                make_replies();
                printf("%ju %ju\n", (uintmax_t) time_json(), (uintmax_t) time_core());
                return EXIT_SUCCESS;
        }
        while (fgets(line, sizeof(line), stdin)) {
                uint64_t whole = time_server();

                printf("%ju %ju %ju\n", (uintmax_t) whole, (uintmax_t) time_json(), (uintmax_t) time_core());
                fflush(stdout);
        }
        return EXIT_SUCCESS;
}
