/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Each change is tried with memory for none of its allocations, for one, for two, and so on, until it is done. Whenever
 * it is not, it says so, and everything that can be seen is as before. The program is linked with --wrap. */

#include "core-fixture.h"

#include "core/core-private.h"

#include <search.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- the allocator ---- */

static long allocations_left = -1; /* negative: no end */

void *__real_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__real_reallocarray(void *p, size_t n, size_t size);
void *__wrap_reallocarray(void *p, size_t n, size_t size);
char *__real_strdup(const char *s);
char *__wrap_strdup(const char *s);
void *__real_tsearch(const void *key, void **root, int (*compare)(const void *, const void *));
void *__wrap_tsearch(const void *key, void **root, int (*compare)(const void *, const void *));

static bool allocation_fails(void) {
        if (allocations_left < 0)
                return false;
        if (allocations_left == 0)
                return true;
        allocations_left--;
        return false;
}

void *__wrap_calloc(size_t n, size_t size) {
        return allocation_fails() ? NULL : __real_calloc(n, size);
}

void *__wrap_reallocarray(void *p, size_t n, size_t size) {
        return allocation_fails() ? NULL : __real_reallocarray(p, n, size);
}

char *__wrap_strdup(const char *s) {
        return allocation_fails() ? NULL : __real_strdup(s);
}

void *__wrap_tsearch(const void *key, void **root, int (*compare)(const void *, const void *)) {
        return allocation_fails() ? NULL : __real_tsearch(key, root, compare);
}

/* ---- what can be seen ---- */

#define FOREIGN    UINT64_C(5000) /* files that privmemd does not hold */
#define MM         UINT64_C(77)
#define MANY_SLOTS 100U

static void show_slots(FILE *out, VM *vm) {
        for (Slot *slot = slot_first(vm); slot; slot = slot_next(vm, slot->spec.as_id, slot->spec.id)) {
                SlotSpec s = slot_spec(slot);

                fprintf(out, "%u/%u flags %u gpa %lx size %lx hva %lx", s.as_id, s.id, s.flags, s.gpa, s.size, s.hva);
                fprintf(out, " %s+%lx %s+%lx shows %zu\n", s.backing ? s.backing->name : "-", s.offset,
                        s.guest_memfd ? s.guest_memfd->name : "-", s.guest_memfd_offset, slot_count_showings(slot));
        }
}

/* Asks every index of the core: by guest address, by file, by user address. */
static void show_verdict(FILE *out, VM *vm, SlotSpec spec) {
        Verdict verdict;
        bool accepted;

        verdict_init(&verdict);
        assert_int_equal(slot_set_many(vm, &spec, 1, false, &verdict, NULL, &accepted), 0);
        fprintf(out, "rule %d:", verdict.rule);
        for (size_t i = 0; i < verdict.n_conflicts; i++) {
                const Conflict *c = &verdict.conflicts[i];

                fprintf(out, " %d %s %u/%u %lx+%lx", c->rule, c->vm->name, c->as_id, c->id, c->gpa, c->size);
        }
        fprintf(out, "\n");
        verdict_done(&verdict);
}

static void show_vm(FILE *out, VM *vm) {
        uint64_t at = 0, start, size;

        fprintf(out, "%s: state %d, %zu backings, %lu bytes, %zu slots\n", vm->name, vm->state, vm->n_backings,
                vm->promised_bytes, slot_count(vm));
        for (Backing *b = vm_next_backing(vm, NULL); b; b = vm_next_backing(vm, b->name))
                fprintf(out, "%s: %zu slots, %zu shares\n", b->name, b->n_slots, b->n_shares);
        show_slots(out, vm);
        for (; attributes_next_private(&vm->private_ranges, at, UINT64_MAX - at, &start, &size); at = start + size)
                fprintf(out, "private %lx+%lx\n", start, size);
        show_verdict(out, vm, (SlotSpec) { .id = 999, .size = MANY_SLOTS * P, .hva = HVA / 2 });
        show_verdict(out, vm, (SlotSpec) { .id = 999, .gpa = 1 << 30, .size = MANY_SLOTS * P, .hva = HVA });
        show_verdict(
                out, vm,
                (SlotSpec) { .id = 999, .gpa = 1 << 30, .size = BACKING_PAGES * P, .hva = HVA / 2, .backing = f.ram });
        show_verdict(
                out, vm,
                (SlotSpec) {
                        .id = 999, .gpa = 1 << 30, .size = BACKING_PAGES * P, .hva = HVA / 2, .backing = f.gmem });
}

static char *show(void) {
        size_t length;
        char *text;
        FILE *out = open_memstream(&text, &length);

        assert_non_null(out);
        fprintf(out, "%zu VMs, %zu backings, %zu slots, %lu bytes\n", f.registry->n_vms, f.registry->n_backings,
                f.registry->n_slots, f.registry->promised_bytes);
        for (VM *vm = registry_next_vm(f.registry, NULL); vm; vm = registry_next_vm(f.registry, vm->name))
                show_vm(out, vm);
        fclose(out);
        return text;
}

/* How many allocations it takes. It is tried anew with one more each time. */
static long count_allocations(int (*attempt)(void)) {
        char *before = show(), *after;
        long n;
        int r;

        for (n = 0;; n++) {
                allocations_left = n;
                r = attempt();
                allocations_left = -1;
                if (r == 0)
                        break;
                assert_int_equal(r, -ENOMEM);
                after = show();
                assert_string_equal(after, before);
                free(after);
        }
        free(before);
        return n;
}

/* ---- objects ---- */

static int try_registry(void) {
        KVMRules kvm = kvm_rules_of(KVM_GENERATION_DEFAULT);
        Registry *registry;
        int r;

        r = registry_new(P, &kvm, &registry);
        if (r == 0)
                assert_null(registry_free(registry));
        return r;
}

static void new_registry(void **state) {
        (void) state;
        assert_int_equal(count_allocations(try_registry), 1);
}

static int try_vm(void) {
        VM *vm;

        return vm_new(f.registry, &(VMSpec) { .name = "new", .owner = 4711 }, &vm);
}

static void new_vm_of_a_new_owner(void **state) {
        (void) state;
        assert_int_equal(count_allocations(try_vm), 7); /* itself, name, slots, addresses, owner, two indexes */
        assert_non_null(registry_find_vm(f.registry, "new"));
        assert_int_equal(f.registry->n_vms, 3);
}

static int try_vm_of_known_owner(void) {
        VM *vm;

        return vm_new(f.registry, &(VMSpec) { .name = "new" }, &vm);
}

static void new_vm_of_a_known_owner(void **state) {
        (void) state;
        assert_int_equal(count_allocations(try_vm_of_known_owner), 5);
        assert_non_null(registry_find_vm(f.registry, "new"));
}

static int try_backing(void) {
        BackingSpec spec = { .name = "new", .size = P, .page_size = P, .dev = 9, .ino = FOREIGN };
        Backing *backing;

        return backing_new(f.vm, &spec, &backing);
}

/* The first one needs a table; where there is no memory for a larger one, the old one will do. */
static void many_files(void **state) {
        enum {
                FILES = 100
        };
        File *files[FILES], *again;
        Registry *registry;

        (void) state;
        assert_int_equal(registry_new(P, &f.registry->kvm, &registry), 0);
        for (long n = 0; n < 2; n++) {
                allocations_left = n;
                assert_int_equal(file_ref_by_identity(registry, 1, 1, &files[0]), -ENOMEM);
                assert_null(registry_find_file(registry, 1, 1));
        }
        allocations_left = 2;
        assert_int_equal(file_ref_by_identity(registry, 1, 0, &files[0]), 0);
        for (size_t i = 1; i < FILES; i++) {
                allocations_left = 1;
                assert_int_equal(file_ref_by_identity(registry, 1, i, &files[i]), 0);
        }
        allocations_left = 0;
        for (size_t i = 0; i < FILES; i++) {
                assert_int_equal(file_ref_by_identity(registry, 1, i, &again), 0);
                assert_ptr_equal(again, files[i]);
                file_unref(registry, again);
        }
        allocations_left = -1;
        for (size_t i = 0; i < FILES; i++)
                file_unref(registry, files[i]);
        registry_free(registry);
}

static void new_backing(void **state) {
        (void) state;
        assert_int_equal(count_allocations(try_backing), 4); /* itself, name, file, index of names */
        assert_ptr_equal(registry_find_file(f.registry, 9, FOREIGN), vm_find_backing(f.vm, "new"));
        assert_int_equal(f.vm->n_backings, 3);
}

static int try_share(void) {
        return backing_share(f.ram, f.peer);
}

static void new_share(void **state) {
        (void) state;
        assert_int_equal(count_allocations(try_share), 1);
        assert_true(backing_is_shared_with(f.ram, f.peer));
}

static int try_private_range(void) {
        return attributes_set(&f.vm->private_ranges, P, 0, P, true);
}

static void new_private_range(void **state) {
        (void) state;
        assert_int_equal(count_allocations(try_private_range), 1);
        assert_int_equal(f.vm->private_ranges.n_ranges, 1);
}

static int try_hole_in_private_range(void) {
        return attributes_set(&f.vm->private_ranges, P, 7 * P, P, false);
}

/* The second half of what is left needs a range; one more of them needs a block. */
static void hole_in_a_private_range(void **state) {
        size_t n;

        (void) state;
        assert_int_equal(attributes_set(&f.vm->private_ranges, P, 0, 16 * P, true), 0);
        for (n = 0; count_allocations(try_hole_in_private_range) == 0; n++) {
                assert_int_equal(attributes_set(&f.vm->private_ranges, P, 7 * P, P, true), 0);
                assert_int_equal(attributes_set(&f.vm->private_ranges, P, (32 + 2 * n) * P, P, true), 0);
        }
        assert_true(n > 0);
        assert_int_equal(f.vm->private_ranges.n_ranges, n + 2);
}

/* ---- slots ---- */

static SlotSpec wanted;
static const SlotSpec *batch;
static size_t n_batch;

static int try_slot(void) {
        int r;

        verdict_done(&f.verdict);
        r = slot_set(f.vm, &wanted, &f.verdict, &f.changed);
        if (r < 0)
                verdict_done(&f.verdict);
        return r;
}

#define count_for_slot(...) (wanted = (SlotSpec) { __VA_ARGS__ }, count_allocations(try_slot))

static int try_batch(void) {
        Verdict verdicts[4] = {};
        bool accepted = false;
        int r;

        r = slot_set_many(f.vm, batch, n_batch, true, verdicts, NULL, &accepted);
        assert_true(accepted || r < 0);
        for (size_t i = 0; i < n_batch; i++)
                verdict_done(&verdicts[i]);
        return r;
}

static MappedRun file_at(uint64_t hva, ino_t ino) {
        return (MappedRun) { .kind = MAPPED_FILE, .hva = hva, .size = P, .dev = 9, .ino = ino };
}

/* Three files, which nobody knew, side by side. */
static const Mapping *patchwork(uint64_t hva) {
        static MappedRun runs[3];
        static Mapping mapping = { .n_runs = 3, .runs = runs };

        for (size_t i = 0; i < 3; i++)
                runs[i] = file_at(hva + i * P, FOREIGN + i);
        return &mapping;
}

/* So many that no index has them in one block. */
static void have_many_slots(VM *vm, Backing *backing, uint64_t hva) {
        for (uint32_t i = 0; i < MANY_SLOTS; i++)
                assert_ok(vm, .id = i, .gpa = i * P, .size = P, .hva = hva + i * P,
                          .backing = i < BACKING_PAGES ? backing : NULL, .offset = i < BACKING_PAGES ? i * P : 0);
}

static void first_slot(void **state) {
        (void) state;
        /* Itself, and a block each by guest address, by user address, in two files and by id. The directory of the
         * last, once there, stays for the next attempt. */
        assert_int_equal(count_for_slot(.flags = SLOT_GUEST_MEMFD, .size = P, .hva = HVA, .backing = f.ram,
                                        .guest_memfd = f.gmem),
                         6);
        assert_int_equal(slot_count(f.vm), 1);
}

static void slot_in_a_full_block(void **state) {
        bool seen_full = false;

        (void) state;
        for (uint32_t i = 0; i < MANY_SLOTS; i++)
                seen_full |= count_for_slot(.id = i, .gpa = i * P, .size = P, .hva = HVA + i * P) > 2;
        assert_true(seen_full);
        assert_int_equal(slot_count(f.vm), MANY_SLOTS);
}

static void slot_that_shows_several_files(void **state) {
        (void) state;
        assert_true(count_for_slot(.size = 3 * P, .hva = HVA, .mapping = patchwork(HVA)) >= 1 + 3 * 2);
        assert_int_equal(slot_count_showings(slot_find(f.vm, 0, 0)), 3);
}

static void backing_of_a_file_that_a_slot_shows(void **state) {
        (void) state;
        assert_ok(f.vm, .size = 3 * P, .hva = HVA, .mapping = patchwork(HVA));
        assert_int_equal(count_allocations(try_backing), 3); /* itself, name, one index: the file is known */
        assert_int_equal(vm_find_backing(f.vm, "new")->n_slots, 1);
}

static void slot_that_moves(void **state) {
        (void) state;
        have_many_slots(f.vm, f.ram, HVA);
        assert_int_equal(count_for_slot(.id = 3, .gpa = 1 << 20, .size = P, .hva = HVA + 3 * P, .backing = f.ram,
                                        .offset = 3 * P),
                         1);
        assert_int_equal(slot_find(f.vm, 0, 3)->spec.gpa, 1 << 20);
}

static void slot_that_becomes_a_patchwork(void **state) {
        (void) state;
        assert_ok(f.vm, .size = 3 * P, .hva = HVA, .backing = f.ram);
        assert_true(count_for_slot(.size = 3 * P, .hva = HVA, .mapping = patchwork(HVA)) >= 1 + 3 * 2);
        assert_int_equal(f.ram->n_slots, 0);
}

/* A conflict is listed wherever it is found. */
static void refused_slots(void **state) {
        MappedRun elsewhere = file_at(HVA + 90 * P, FOREIGN);
        const Mapping mapping = { .n_runs = 1, .runs = &elsewhere };

        (void) state;
        assert_ok(f.vm, .flags = SLOT_GUEST_MEMFD, .size = P, .hva = HVA, .backing = f.ram, .guest_memfd = f.gmem);
        assert_int_equal(count_for_slot(.id = 1, .size = P, .hva = HVA), 1);
        assert_int_equal(f.verdict.rule, RULE_GFN_OVERLAP);
        assert_int_equal(count_for_slot(.id = 1, .flags = SLOT_GUEST_MEMFD, .gpa = P, .size = P, .hva = HVA + P,
                                        .guest_memfd = f.gmem),
                         1);
        assert_int_equal(f.verdict.rule, RULE_BINDING_OVERLAP);
        assert_int_equal(count_for_slot(.id = 1, .gpa = P, .size = P, .hva = HVA + 90 * P, .backing = f.ram,
                                        .mapping = &mapping),
                         1);
        assert_int_equal(f.verdict.rule, RULE_MAPPING_MISMATCH);
        assert_int_equal(count_for_slot(.id = 1, .gpa = P, .size = P, .hva = HVA + 90 * P, .backing = f.gmem), 2);
        assert_int_equal(f.verdict.rule, RULE_PRIVATE_ALIAS);
        assert_int_equal(count_for_slot(.id = 1, .gpa = P, .size = P, .hva = HVA), 2);
        assert_int_equal(f.verdict.rule, RULE_UNDECLARED_ALIAS);
        assert_int_equal(slot_count(f.vm), 1);
}

static void slot_that_shows_a_page_twice(void **state) {
        MappedRun twice[] = { file_at(HVA, FOREIGN), file_at(HVA + P, FOREIGN) };
        const Mapping mapping = { .n_runs = 2, .runs = twice };

        (void) state;
        assert_int_equal(count_for_slot(.size = 2 * P, .hva = HVA, .mapping = &mapping), 3);
        assert_int_equal(f.verdict.rule, RULE_UNDECLARED_ALIAS);
        assert_int_equal(slot_count(f.vm), 0);
}

/* What came before the change that has no memory is undone. */
static void batch_of_changes(void **state) {
        const SlotSpec specs[] = {
                { .id = 1, .size = 0 },
                { .id = 200, .gpa = 1 << 21, .size = 3 * P, .hva = HVA / 2, .mapping = patchwork(HVA / 2) },
                { .id = 2, .gpa = 1 << 20, .size = P, .hva = HVA + 2 * P, .backing = f.ram, .offset = 2 * P },
                { .id = 201, .gpa = P, .size = P, .hva = HVA + P, .backing = f.ram, .offset = P },
        };

        (void) state;
        have_many_slots(f.vm, f.ram, HVA);
        batch = specs;
        n_batch = 4;
        assert_true(count_allocations(try_batch) >= 1 + (1 + 3 * 2) + 1 + 1);
        assert_int_equal(slot_count(f.vm), MANY_SLOTS + 1);
}

/* ---- attaching ---- */

static int try_attach(void) {
        return vm_attach(f.vm, MM);
}

static void attach_to_a_new_process(void **state) {
        (void) state;
        have_many_slots(f.vm, f.ram, HVA);
        assert_true(count_allocations(try_attach) > 2); /* the address space, its index, and blocks for the slots */
        assert_int_equal(f.vm->state, VM_ATTACHED);
}

static void attach_to_a_process_that_runs_another(void **state) {
        (void) state;
        have_many_slots(f.vm, f.ram, HVA);
        assert_int_equal(vm_attach(f.peer, MM), 0);
        have_many_slots(f.peer, f.peer_ram, HVA / 2);
        assert_true(count_allocations(try_attach) > 0);
        assert_refused(f.vm, RULE_UNDECLARED_ALIAS, .id = 200, .gpa = 1 << 20, .size = P, .hva = HVA / 2);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(new_registry),
                TEST(new_vm_of_a_new_owner),
                TEST(new_vm_of_a_known_owner),
                TEST(many_files),
                TEST(new_backing),
                TEST(new_share),
                TEST(new_private_range),
                TEST(hole_in_a_private_range),
                TEST(first_slot),
                TEST(slot_in_a_full_block),
                TEST(slot_that_shows_several_files),
                TEST(backing_of_a_file_that_a_slot_shows),
                TEST(slot_that_moves),
                TEST(slot_that_becomes_a_patchwork),
                TEST(refused_slots),
                TEST(slot_that_shows_a_page_twice),
                TEST(batch_of_changes),
                TEST(attach_to_a_new_process),
                TEST(attach_to_a_process_that_runs_another),
        };

        return cmocka_run_group_tests_name("out-of-memory", tests, NULL, NULL);
}
