/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Bytes pick from short lists, so that what they make collides often; the last entries of a list are hostile. */

#include <inttypes.h>
#include <string.h>

#include "replay.h"

#define P            MODEL_PAGE
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

typedef struct Bytes {
        const uint8_t *data;
        size_t left;
} Bytes;

static unsigned take(Bytes *bytes) {
        if (bytes->left == 0)
                return 0;
        bytes->left--;
        return *bytes->data++;
}

/* Index into a list whose last n_hostile entries come up once in a while. */
static size_t pick(Bytes *bytes, size_t n, size_t n_hostile) {
        unsigned byte = take(bytes);

        if (byte >= 250)
                return n - n_hostile + (byte - 250) % n_hostile;
        return byte % (n - n_hostile);
}

static const uint32_t IDS[] = { 0, 1, 2, 3, 4, 32763, 32764, UINT32_MAX };
static const uint32_t SPACES[] = { 0, 0, 0, 1, 2, UINT32_MAX };
static const uint32_t FLAGS[] = { 0, 0, 0, 4, 4, 0, 1, 2, 2, 3, 5, 6, 8, UINT32_C(1) << 31 };

static const uint64_t SIZES[] = {
        0, P, P, 2 * P, 2 * P, 3 * P, 4 * P, 6 * P, 13 * P, 1, P + 1, (UINT64_C(1) << 31) * P, -P, UINT64_MAX,
};

#define SMRAM UINT64_C(0xfeda0000)
static const uint64_t GPAS[] = {
        0,
        0,
        0,
        1 * P,
        2 * P,
        3 * P,
        4 * P,
        5 * P,
        6 * P,
        7 * P,
        8 * P,
        9 * P,
        10 * P,
        11 * P,
        SMRAM - P,
        SMRAM,
        SMRAM + P,
        SMRAM + 2 * P,
        SMRAM + 30 * P,
        SMRAM + 31 * P,
        SMRAM + 32 * P,
        MODEL_MAX_GPA - 2 * P,
        MODEL_MAX_GPA - P,
        MODEL_MAX_GPA,
        1,
        P - 1,
        -2 * P,
        -P,
        UINT64_MAX,
        UINT64_C(1) << 63,
};

#define USER_END (UINT64_C(0x800000000000) - P)
static const uint64_t HVAS[] = {
        0,
        P,
        2 * P,
        3 * P,
        4 * P,
        5 * P,
        6 * P,
        7 * P,
        USER_END - 3 * P,
        USER_END - 2 * P,
        USER_END - P,
        USER_END,
        UINT64_C(1) << 47,
        P + 512,
        -P,
        -3 * P,
};

static const uint64_t OFFSETS[] = {
        0,     P,      2 * P,  3 * P,  4 * P,  5 * P, 6 * P, 7 * P,  8 * P,
        9 * P, 10 * P, 11 * P, 12 * P, 13 * P, 100,   -P,    -2 * P, INT64_MAX - (P - 1),
};

static const unsigned KEEPS[] = {
        0,
        0,
        0,
        0,
        KEEP_SIZE | KEEP_HVA | KEEP_FLAGS | KEEP_BACKING,
        KEEP_GPA | KEEP_SIZE | KEEP_HVA | KEEP_BACKING,
        KEEP_GPA | KEEP_SIZE | KEEP_HVA | KEEP_FLAGS,
        KEEP_SIZE | KEEP_HVA | KEEP_FLAGS,
        KEEP_GPA | KEEP_SIZE | KEEP_FLAGS | KEEP_BACKING,
        KEEP_GPA | KEEP_HVA | KEEP_FLAGS | KEEP_BACKING,
        KEEP_GPA | KEEP_SIZE | KEEP_HVA | KEEP_FLAGS | KEEP_BACKING,
        KEEP_SIZE | KEEP_HVA | KEEP_BACKING,
};

/* MODEL_NONE now and then; mostly a backing of the VM, which owns two or three of them. */
static int decode_backing(Bytes *bytes, int vm, bool guest_memfd) {
        static const int own[MODEL_VMS][2] = { { 0, 1 }, { 3, 4 }, { 5, 6 } };
        unsigned byte = take(bytes);

        if (byte >= 224)
                return MODEL_NONE;
        if (byte >= 160)
                return (int) (byte % MODEL_BACKINGS);
        return own[vm][guest_memfd || byte % 3 == 0];
}

/* Where a VMM would map that byte of the backing, if it maps each of them once. */
static uint64_t usual_hva(const ModelSpec *spec) {
        return UINT64_C(0x7f0000000000) + (uint64_t) (spec->backing + 1) * 64 * P + spec->offset;
}

static void decode_spec(Bytes *bytes, int vm, ModelSpec *spec, unsigned *keep) {
        unsigned how = take(bytes);

        *keep = KEEPS[how % COUNT(KEEPS)];
        spec->id = IDS[pick(bytes, COUNT(IDS), 2)];
        spec->as_id = SPACES[pick(bytes, COUNT(SPACES), 2)];
        spec->flags = FLAGS[pick(bytes, COUNT(FLAGS), 4)];
        spec->size = SIZES[pick(bytes, COUNT(SIZES), 6)];
        spec->gpa = GPAS[pick(bytes, COUNT(GPAS), 9)];
        spec->backing = decode_backing(bytes, vm, false);
        spec->offset = OFFSETS[pick(bytes, COUNT(OFFSETS), 5)];
        spec->hva = HVAS[pick(bytes, COUNT(HVAS), 5)];
        if (how & 0x40)
                spec->hva = usual_hva(spec);
        spec->guest_memfd = decode_backing(bytes, vm, true);
        spec->guest_memfd_offset = OFFSETS[pick(bytes, COUNT(OFFSETS), 5)];
        if ((how & 0x80) && spec->backing != MODEL_NONE) {
                spec->guest_memfd = spec->backing;
                spec->guest_memfd_offset = spec->offset;
        }
}

static const int FILES[MODEL_VMS][4] = { { 0, 0, 1, 7 }, { 3, 3, 4, 7 }, { 5, 5, 6, 8 } };
static const uint32_t PAGES[] = { 0, 0, 1, 2, 3, 4, 6, 8, 11, 13, UINT32_C(1) << 31 };

static void decode_look(Bytes *bytes, int vm, Look *look) {
        static const ModelSeen kinds[] = { SEEN_FILE, SEEN_FILE, SEEN_FILE, SEEN_COPY, SEEN_MEMORY, SEEN_NOWHERE };
        unsigned how = take(bytes), file;

        *look = (Look) { .as_declared = how >= 96, .n_pages = 1 + (how >> 3) % 4 };
        if (how % 8 == 0)
                look->n_pages = MODEL_SLOT_PAGES_MAX;
        if (look->as_declared)
                return;

        file = take(bytes);
        look->first.kind = kinds[how % COUNT(kinds)];
        look->first.file = file >= 192 ? (int) (file % MODEL_FILES) : FILES[vm][file % COUNT(FILES[vm])];
        look->first.page = PAGES[pick(bytes, COUNT(PAGES), 1)];
}

/* Mostly nobody looks. */
static size_t decode_looks(Bytes *bytes, int vm, Look *looks) {
        unsigned byte = take(bytes);
        size_t n = byte < 128 ? 0 : 1 + byte % OPERATION_LOOKS_MAX;

        for (size_t i = 0; i < n; i++)
                decode_look(bytes, vm, &looks[i]);
        return n;
}

/* The batch sets its first slot again, at the guest address that it sets that one. */
static void move_first(Operation *operation, size_t i) {
        uint64_t gpa = operation->specs[i].gpa;

        operation->specs[i] = operation->specs[0];
        operation->specs[i].gpa = gpa;
        operation->keep[i] = 0;
        memcpy(operation->looks[i], operation->looks[0], sizeof(operation->looks[0]));
        operation->n_looks[i] = operation->n_looks[0];
}

static void decode_operation(Bytes *bytes, Operation *operation) {
        unsigned kind = take(bytes), batch = 0;

        *operation = (Operation) { .kind = OPERATION_SET, .n_specs = 1 };
        operation->vm = (int) (take(bytes) % MODEL_VMS);
        if (kind >= 252)
                operation->kind = OPERATION_REBIRTH;
        else if (kind >= 244)
                operation->kind = OPERATION_RELEASE;
        else if (kind >= 240)
                operation->kind = OPERATION_POLICY;
        else if (kind >= 238)
                operation->kind = OPERATION_DETACH;
        else if (kind >= 230)
                operation->kind = OPERATION_ATTACH;
        else if (kind >= 215)
                operation->kind = OPERATION_SHARE;
        else if (kind >= 190) {
                operation->kind = kind & 1 ? OPERATION_SET_MANY : OPERATION_CHECK;
                batch = take(bytes);
                operation->n_specs = 1 + batch % OPERATION_SPECS_MAX;
        }

        if (operation->kind > OPERATION_CHECK) {
                operation->n_specs = 0;
                operation->backing = (int) (take(bytes) % MODEL_BACKINGS);
        }
        for (size_t i = 0; i < operation->n_specs; i++) {
                decode_spec(bytes, operation->vm, &operation->specs[i], &operation->keep[i]);
                operation->n_looks[i] = decode_looks(bytes, operation->vm, operation->looks[i]);
                if (i > 0 && batch & 0x80 >> i)
                        move_first(operation, i);
        }
}

size_t replay_decode(const uint8_t *data, size_t size, Operation *operations, size_t max) {
        Bytes bytes = { .data = data, .left = size };
        size_t n;

        for (n = 0; n < max && bytes.left > 0; n++)
                decode_operation(&bytes, &operations[n]);

        return n;
}

static void print_spec(FILE *f, const ModelSpec *s, unsigned keep) {
        fprintf(f,
                " [as %" PRIu32 " id %" PRIu32 " flags %" PRIu32 " gpa 0x%" PRIx64 " size 0x%" PRIx64
                " hva 0x%" PRIx64,
                s->as_id, s->id, s->flags, s->gpa, s->size, s->hva);
        fprintf(f, " backing %d+0x%" PRIx64 " guest_memfd %d+0x%" PRIx64, s->backing, s->offset, s->guest_memfd,
                s->guest_memfd_offset);
        if (keep != 0)
                fprintf(f, " keeping%s%s%s%s%s of the live slot", keep & KEEP_GPA ? " gpa" : "",
                        keep & KEEP_SIZE ? " size" : "", keep & KEEP_HVA ? " hva" : "",
                        keep & KEEP_FLAGS ? " flags" : "", keep & KEEP_BACKING ? " backing" : "");
        fprintf(f, "]");
}

static void print_look(FILE *f, const Look *look) {
        static const char *const names[_MODEL_SEEN_MAX] = {
                [SEEN_NOWHERE] = "nowhere",
                [SEEN_MEMORY] = "memory",
                [SEEN_COPY] = "a copy",
                [SEEN_FILE] = "the file",
        };

        fprintf(f, " {%zu pages: %s", look->n_pages, look->as_declared ? "as declared" : names[look->first.kind]);
        if (!look->as_declared && (look->first.kind == SEEN_COPY || look->first.kind == SEEN_FILE))
                fprintf(f, " %d from page %" PRIu32, look->first.file, look->first.page);
        fprintf(f, "}");
}

void replay_print(FILE *f, const Operation *operation) {
        static const char *const names[_OPERATION_KIND_MAX] = {
                [OPERATION_SET] = "set",       [OPERATION_SET_MANY] = "set many", [OPERATION_CHECK] = "check",
                [OPERATION_SHARE] = "share",   [OPERATION_ATTACH] = "attach",     [OPERATION_DETACH] = "detach",
                [OPERATION_POLICY] = "policy", [OPERATION_RELEASE] = "release",   [OPERATION_REBIRTH] = "rebirth",
        };

        fprintf(f, "VM %d: %s", operation->vm, names[operation->kind]);
        if (operation->kind == OPERATION_SHARE || operation->kind == OPERATION_RELEASE)
                fprintf(f, " backing %d", operation->backing);
        for (size_t i = 0; i < operation->n_specs; i++) {
                print_spec(f, &operation->specs[i], operation->keep[i]);
                for (size_t k = 0; k < operation->n_looks[i]; k++)
                        print_look(f, &operation->looks[i][k]);
        }
        fprintf(f, "\n");
}
