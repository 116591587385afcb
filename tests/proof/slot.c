/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* One step of the slot table, from every state that there can be: up to SLOTS live slots of two VMs, of which no two
 * show the same page at two guest frames unless a rule allows it; then one slot_set() of any slot of either VM. What
 * holds after every step from wherever it held holds after any number of steps.
 *
 * prove_pairs: the same holds again, or the VM is only observed and was told. prove_books: the answer is the one that
 * slot.h promises, the indexes have just what the slots show, nothing is freed twice, and without memory nothing
 * changed. prove_edges: no sum wraps, and what the table takes is a range of pages inside its files.
 *
 * That no two slots do something is said of two slots, sides and pages of which each can be any. It is told from the
 * slots alone, in slot-rules.h.
 *
 * What is proved is core/slot.c, alias.c, kvm_rules.c, and verdict.c but for the list of conflicts. The trees, the maps
 * and the lists that these use are replaced by what their headers say of them, in slot-model.h; interval.c proves the
 * tree.
 *
 * The other VM may be what the former VMM of the first one has while it hands over. Any slot: any id, address space and flags, any backing (one of the first VM, its guest_memfd, or none), and
 * addresses, sizes and offsets of a few pages. The engine does nothing with these numbers but add and compare them, so
 * they are as good as others but where a sum could wrap or a rule has a number of its own: at the ends of the SMRAM
 * window, which are among them, and at those of prove_edges. Nothing is said of mappings that were looked at. */

#include "slot-rules.h"

#ifndef SIZE_PAGES_MAX
#define SIZE_PAGES_MAX 3
#endif

/* ---- any state ---- */

static VM *any_vm(void) {
        return nondet_bool() ? &vm : &other_vm;
}

static VMType any_type(void) {
        switch (nondet_u8()) {
        case 0:
                return VM_TYPE_UNDECLARED;
        case 1:
                return VM_TYPE_ORDINARY;
        case 2:
                return VM_TYPE_SEV_ES;
        default:
                return VM_TYPE_SNP;
        }
}

static VM any_vm_with(SlotTable *slots, Mm *of_vmm) {
        slots->n_slots = COUNT;
        return (VM) {
                .registry = &registry,
                .slots = slots,
                .mm = of_vmm,
                .alias_policy = nondet_bool() ? ALIAS_POLICY_ENFORCE : ALIAS_POLICY_OBSERVE,
                .type = any_type(),
                .vmm_serial = nondet_bool() ? 2 : 1,
        };
}

static void make_host(void) {
        registry.kvm = (KVMRules) {
                .slots_per_address_space = IDS,
                .address_spaces = nondet_bool() ? 1 : 2,
                .readonly = nondet_bool(),
                .guest_memfd = nondet_bool() ? KVM_GUEST_MEMFD_NONE : KVM_GUEST_MEMFD_ANY_VM,
                .binding_errno = EINVAL,
                .binding_after_arch = nondet_bool(),
                .signed_offsets = nondet_bool(),
                .user_end = (UINT64_C(1) << 47) - PAGE,
                .max_gpa = nondet_bool() ? UINT64_C(1) << 46 : 0,
        };
        vm = any_vm_with(&table, &mm);
        one_vmm = nondet_bool();
        other_vm = any_vm_with(&other_table, one_vmm ? &mm : &other_mm);
        one_vm = nondet_bool();
        other_vm.heir = one_vm ? &vm : NULL;
        private_first = nondet_bool();
}

static uint64_t any_base(void) {
#ifdef NO_SMRAM
        return 0;
#endif
        switch (nondet_u8()) {
        case 0:
                return 0;
        case 1:
                return SMRAM - 2 * PAGE;
        default:
                return SMRAM + SMRAM_SIZE - 2 * PAGE;
        }
}

#ifdef EDGES
/* Around what a rule asks, or what a sum turns at; not always a whole page. */
static uint64_t any_edge(void) {
        uint64_t pages = (uint64_t) (nondet_u8() & 3) * PAGE, odd = nondet_bool();

#ifdef FEW_EDGES
        return nondet_bool() ? pages : UINT64_MAX - 4 * PAGE + 1 + pages;
#endif
        switch (nondet_u8()) {
        case 0:
                return pages + odd;
        case 1:
                return SLOT_PAGES_MAX * PAGE - 2 * PAGE + pages + odd;
        case 2:
                return (UINT64_C(1) << 47) - 4 * PAGE + pages + odd;
        case 3:
                return (UINT64_C(1) << 63) - 2 * PAGE + pages + odd;
        default:
                return UINT64_MAX - 4 * PAGE + 1 + pages + odd;
        }
}

#define any_size any_edge
#define any_page any_edge
#else
static uint64_t any_size(void) {
        uint8_t pages = nondet_u8() & 3;

        __CPROVER_assume(pages <= SIZE_PAGES_MAX);
        return pages * PAGE;
}

static uint64_t any_page(void) {
        return (nondet_u8() & (PAGES - 1)) * PAGE;
}
#endif

static void make_backings(void) {
        share = (Share) { .vm = &other_vm, .read_only = nondet_bool() };
        ram_file = (File) { .n_refs = COUNT, .backing = &ram };
        ram = (Backing) {
                .vm = &vm,
                .file = &ram_file,
                .kind = BACKING_MEMFD,
                .size = PAGES * PAGE,
                .n_shares = nondet_bool(),
                .shares = &share,
                .n_slots = COUNT,
        };
        gmem_file = (File) { .n_refs = COUNT, .backing = &gmem };
        gmem = ram;
        gmem.file = &gmem_file;
        gmem.kind = BACKING_GUEST_MEMFD;
        gmem.vmm_serial = 2;
        gpa_base = any_base();
#ifdef EDGES
        ram.size = any_edge();
        gmem.size = any_edge();
        gpa_base = 0;
#endif
}

static Backing *any_backing(void) {
        switch (nondet_u8()) {
        case 0:
                return NULL;
        case 1:
                return &ram;
        default:
                return &gmem;
        }
}

static SlotSpec any_spec(void) {
        return (SlotSpec) {
                .id = nondet_u8() & (2 * IDS - 1),
                .as_id = nondet_u8() & 3,
                .flags = nondet_u8() & 15,
                .gpa = gpa_base + any_page(),
                .size = any_size(),
                .hva = any_page(),
                .backing = any_backing(),
                .offset = any_page(),
                .guest_memfd = any_backing(),
                .guest_memfd_offset = any_page(),
        };
}

static bool range_of_pages(uint64_t start, uint64_t size) {
        return ((start | size) & (PAGE - 1)) == 0 && size > 0 && start <= UINT64_MAX - size;
}

static bool inside(uint64_t start, uint64_t size, const Backing *backing) {
        return range_of_pages(start, size) && start + size <= backing->size;
}

static bool shares_read_only(const VM *with) {
        return with == &other_vm && !one_vm && ram.n_shares > 0 && share.read_only;
}

/* What KVM and the declaration ask of each slot alone. */
static bool slot_holds(const Slot *slot) {
        SlotSpec spec = slot_spec(slot);
        bool has_guest_memfd = (spec.flags & SLOT_GUEST_MEMFD) != 0;

        return (spec.flags == SLOT_GUEST_MEMFD || (spec.flags & ~(SLOT_LOG_DIRTY_PAGES | SLOT_READONLY)) == 0) &&
               !(spec.backing && shares_read_only(slot->vm) && !(spec.flags & SLOT_READONLY)) && spec.id < IDS &&
               spec.as_id < ADDRESS_SPACES_MAX && range_of_pages(spec.gpa, spec.size) &&
               range_of_pages(spec.hva, spec.size) && spec.size <= SLOT_PAGES_MAX * PAGE &&
               (!spec.backing || inside(spec.offset, spec.size, spec.backing)) &&
               (!has_guest_memfd ||
                (spec.guest_memfd == &gmem && (slot->vm == &vm || one_vm) && slot->vm->vmm_serial == gmem.vmm_serial &&
                 inside(spec.guest_memfd_offset, spec.size, &gmem)));
}

static Slot *find(const VM *of, uint32_t as_id, uint32_t id) {
        return id_map_get(&of->slots->by_id[as_id], id);
}

static void make_slot(unsigned i) {
        Slot *slot = live[i];
        SlotSpec spec = any_spec();

        *slot = (Slot) {
                .vm = any_vm(),
                .spec = {
                        .gpa = spec.gpa,
                        .size = spec.size,
                        .hva = spec.hva,
                        .backing = spec.backing,
                        .offset = spec.backing ? spec.offset : 0,
                        .id = (uint16_t) spec.id,
                        .as_id = (uint8_t) spec.as_id,
                        .flags = (uint8_t) spec.flags,
                        .shows_backing = spec.backing != NULL,
                },
        };
        if (spec.flags & SLOT_GUEST_MEMFD)
                slot->runs[0] = (SlotRun) { slot, &gmem_file, spec.guest_memfd_offset, spec.size, 0 };
        if (nondet_bool())
                return;
        in_use[i] = true;
        __CPROVER_assume(slot_holds(slot));
        __CPROVER_assume(!find(slot->vm, slot->spec.as_id, slot->spec.id));
        ids[i] = (Mapped) { &slot->vm->slots->by_id[slot->spec.as_id], slot->spec.id, slot };
        expect_entries(slot, entries[i]);
        n_entries += count_expected(slot);
}

/* ---- the step ---- */

typedef struct Key {
        VM *vm;
        uint32_t as_id, id;
} Key;

static Key any_key(void) {
        Key key = { any_vm(), nondet_u8() & (ADDRESS_SPACES_MAX - 1), nondet_u8() & (IDS - 1) };

        return key;
}

static Slot *look_up(const Key *key) {
        return find(key->vm, key->as_id, key->id);
}

typedef struct Step {
        VM *vm;
        SlotSpec spec;
        Slot *before, *after;
        unsigned n_before, n_all_before; /* entries of the slot before, and of all */
        Verdict verdict;
        bool changed;
        int r;
} Step;

/* Two slots of the table, and a page of each; the same ones before and after the step. */
static Key keys[2];
static bool sides[2];
static uint64_t at[2];

static void choose_what_to_look_at(void) {
        keys[0] = any_key();
        keys[1] = any_key();
        for (unsigned i = 0; i < 2; i++) {
                sides[i] = nondet_bool();
                at[i] = any_page();
        }
}

static bool look_at(unsigned i, Shown *ret) {
        Slot *slot = look_up(&keys[i]);

        if (!slot)
                return false;
        *ret = (Shown) { keys[i].vm, slot_spec(slot), sides[i], at[i] };
        return is_shown(ret);
}

static bool pair_holds(void) {
        Shown x, y;

        return !look_at(0, &x) || !look_at(1, &y) || (may_both_be(&x, &y) && kvm_lets(&x, &y));
}

/* A VM that is only observed may have what the rules refuse, and is told so. */
static bool pair_is_reported(const Verdict *verdict) {
        Shown x, y;

        return !look_at(0, &x) || !look_at(1, &y) || (verdict->outcome == OUTCOME_REFUSED && kvm_lets(&x, &y));
}

static void check_entries(const Slot *slot) {
        Indexed expected[PLACES];

        assert(slot_holds(slot));
        expect_entries(slot, expected);
        for (unsigned i = 0; i < PLACES; i++)
                assert(is_indexed(&expected[i]));
}

/* What KVM ignores is not remembered. */
static bool is_as_asked(const Slot *slot, const SlotSpec *spec) {
        SlotSpec s = slot_spec(slot);
        bool has_guest_memfd = (spec->flags & SLOT_GUEST_MEMFD) != 0;

        return s.id == spec->id && s.as_id == spec->as_id && s.flags == spec->flags && s.gpa == spec->gpa &&
               s.size == spec->size && s.hva == spec->hva && s.backing == spec->backing &&
               s.offset == (spec->backing ? spec->offset : 0) &&
               s.guest_memfd == (has_guest_memfd ? spec->guest_memfd : NULL) &&
               s.guest_memfd_offset == (has_guest_memfd ? spec->guest_memfd_offset : 0);
}

/* The slot before may be gone. */
static void check_counts(const Step *step) {
        unsigned n_after = count_expected(step->after);
        size_t n_live = COUNT + (step->after != NULL) - (step->before != NULL);

        assert(n_entries == step->n_all_before - step->n_before + n_after);
        assert(registry.n_slots == n_live && step->vm->slots->n_slots == n_live);
        assert(ram_file.n_refs + gmem_file.n_refs ==
               2 * COUNT - (step->before ? step->n_before - 2 : 0) + (step->after ? n_after - 2 : 0));
}

static void check_answer(const Step *step) {
        const Verdict *verdict = &step->verdict;
        bool refused = verdict->outcome == OUTCOME_REFUSED;
        bool denied = refused && (step->vm->alias_policy == ALIAS_POLICY_ENFORCE || verdict->kernel_errno > 0 ||
                                  verdict->rule < RULE_MAPPING_MISMATCH);

        assert(step->r == 0 || step->r == -ENOMEM);
        if (step->r < 0 || denied) {
                assert(step->after == step->before);
                assert(step->r < 0 || !step->changed);
                return;
        }
        assert(step->spec.size > 0 ? step->after && is_as_asked(step->after, &step->spec) : !step->after);
        assert(step->changed == (step->after != step->before));
}

static void check_pair(const Step *step) {
        assert(pair_holds() || (step->changed && pair_is_reported(&step->verdict)));
}

static void reach_all(const Step *step) {
        const Verdict *verdict = &step->verdict;
        bool done = step->r == 0 && step->changed && step->after;

        reach(step->r == 0 && !step->changed && step->before && verdict->outcome == OUTCOME_OK);
        reach(step->changed && !step->after);
        reach(done && step->before && verdict->outcome == OUTCOME_OK && n_entries > SLOTS * 2);
        reach(done && verdict->outcome == OUTCOME_REFUSED);
        reach(!done && verdict->rule == RULE_GFN_OVERLAP);
        reach(!done && verdict->rule == RULE_BINDING_OVERLAP);
        reach(!done && verdict->rule == RULE_BEYOND_BACKING);
        reach(!done && verdict->rule == RULE_SHARE_READ_ONLY);
        reach(done && verdict->rule == RULE_SAME_FRAME);
        reach(!done && verdict->rule == RULE_PRIVATE_ALIAS);
        reach(done && verdict->rule == RULE_ROM_SHADOW);
        reach(done && verdict->rule == RULE_VMM_WINDOW);
        reach(done && verdict->rule == RULE_ADDRESS_SPACE_TRANSIT);
        reach(done && verdict->rule == RULE_SMRAM_WINDOW);
        reach(done && verdict->rule == RULE_DECLARED_SHARE);
        reach(done && verdict->rule == RULE_HAND_OVER);
        reach(!done && verdict->rule == RULE_UNDECLARED_ALIAS && step->before);
}

static void take_step(Step *step) {
        make_host();
        make_backings();
        for (unsigned i = 0; i < SLOTS; i++)
                make_slot(i);
        choose_what_to_look_at();
        __CPROVER_assume(pair_holds());

        *step = (Step) { .vm = any_vm(), .spec = any_spec(), .n_all_before = n_entries };
        step->before = slot_find(step->vm, step->spec.as_id, step->spec.id);
        step->n_before = count_expected(step->before);
        step->r = slot_set(step->vm, &step->spec, &step->verdict, &step->changed);
        step->after = slot_find(step->vm, step->spec.as_id, step->spec.id);
}

void prove_pairs(void) {
        Step step;

        take_step(&step);
        check_pair(&step);
        reach_all(&step);
}

void prove_books(void) {
        const Slot *slot;
        Step step;

        memory_is_short = true;
        take_step(&step);
        check_answer(&step);
        check_counts(&step);
        slot = look_up(&keys[0]);
        if (slot)
                check_entries(slot);
        reach(step.r < 0 && step.before);
        reach(step.r < 0 && !step.before);
}

/* Also that no sum on the way wraps. */
void prove_edges(void) {
        const Slot *slot;
        Step step;

        take_step(&step);
        slot = look_up(&keys[0]);
        if (slot)
                check_entries(slot);
        reach(step.changed && step.after && step.spec.gpa > UINT64_MAX - 4 * PAGE);
        reach(step.changed && step.after && step.spec.size == SLOT_PAGES_MAX * PAGE);
}
