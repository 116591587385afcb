# SPDX-License-Identifier: LGPL-2.1-or-later
"""What prove.py proves, and which faults it must notice."""

import dataclasses

POINTERS = ("--bounds-check", "--pointer-check", "--pointer-overflow-check")
SUMS = ("--signed-overflow-check", "--unsigned-overflow-check", "--undefined-shift-check")


@dataclasses.dataclass(frozen=True)
class Goal:
    """One run of CBMC."""

    name: str
    source: str
    linked: tuple = ()  # files of daemon/core
    function: str = "main"
    checks: tuple = POINTERS + SUMS
    defines: tuple = ()
    unwind: int = 0  # no loop has more rounds, but for those in rounds; 0: CBMC sees itself how many
    rounds: tuple = ()  # (loop, how many)
    wraps: tuple = ()  # functions whose sums wrap on purpose
    reach: bool = False  # there are reach() in it
    only: str = ""  # the assertion that is looked at
    edits: tuple = ()  # (path, text, what replaces it): what CBMC needs to be told

    def options(self, only=True):
        options = ["--no-standard-checks", *self.checks, "--function", self.function]
        options += [f"-D{name}" for name in self.defines]
        if self.unwind:
            options += ["--unwind", str(self.unwind + 1)]
        if self.rounds:
            options += ["--unwindset", ",".join(f"{loop}:{rounds + 1}" for loop, rounds in self.rounds)]
        if self.only and only:
            options += ["--property", self.only]
        return options


@dataclasses.dataclass(frozen=True)
class Fault:
    goal: Goal
    path: str  # in daemon/core
    right: str
    wrong: str


@dataclasses.dataclass(frozen=True)
class Proof:
    goals: tuple
    faults: tuple


def range_goal(function):
    return Goal(f"range: {function}", "range.c", function=f"prove_{function}")


RANGE = {function: range_goal(function) for function in (
    "valid", "within", "apart", "overlap_is_symmetric", "one_around_the_other", "one_inside_the_other",
    "one_before_the_other", "one_behind_the_other", "aligned")}

MEMSLOT = Goal("memslot", "memslot.c", ("memslot.c",), reach=True)



def slot_goal(name, function, slots, **more):
    entries = 4 * (slots + 1)
    rounds = {"free.0": slots + 1, "judge_itself.0": 1, "interval_insert.0": 4, "interval_withdraw.0": entries,
              "interval_tidy.0": entries, "interval_next_overlap.0": slots, "showing_next.0": slots, "has_fresh.0": 4,
              "insert_again.0": entries, "expect_entries.0": 4, "is_indexed.0": entries, "check_entries.0": 4,
              "leave_places.0": 4, "slot_link.0": 4, "slot_tidy.0": 4, "judge_showing.0": 2 * slots, "spot_at.0": 1,
              "judge_addresses.0": 1, "judge_address_space.0": slots, "judge_gfns.0": slots,
              "judge_bindings.0": 2 * slots, "take_step.0": slots, "id_map_set.0": slots + 1, "id_map_get.0": slots + 1}
    more.setdefault("checks", ())
    return Goal(f"slot: {name}, {slots} live slots", "slot.c", ("slot.c", "alias.c", "kvm_rules.c", "file.c"), function,
                defines=(f"SLOTS={slots}", *more.pop("defines", ())), unwind=2, rounds=tuple(rounds.items()),
                edits=(("slot.h", "SlotRun runs[];", "SlotRun runs[1];"),
                       ("slot.c", "_Static_assert(sizeof(Slot) <= 56,", "_Static_assert(sizeof(Slot) <= 96,")), **more)


def pairs_goal(slots, *defines):
    return slot_goal("pairs", "prove_pairs", slots, defines=defines, only="check_pair.assertion.1")


def whole_goal(slots):
    """No loop has more rounds than are looked at."""
    return slot_goal("rounds", "prove_pairs", slots, checks=("--no-assertions",), reach=True)


def sums_goal(*defines):
    return slot_goal("sums", "prove_edges", 1, defines=("EDGES", *defines), checks=("--no-assertions", *SUMS),
                     wraps=("count_showing", "count_slot", "leave_places", "slot_discard"))


def interval_goal(step, *defines, **more):
    return Goal(" ".join(("interval:", step, *defines)), "interval.c", function=f"prove_{step}", checks=(), defines=defines,
                unwind=8, edits=(("interval.c", "Entry entries[];",
                        "Entry entries[INTERVAL_BLOCK_ENTRIES]; const void *ties[INTERVAL_BLOCK_ENTRIES];"),
                       ("interval.c", "static const void **block_ties(const IntervalBlock *block) {\n"
                        "        return (const void **) &block->entries[INTERVAL_BLOCK_ENTRIES];\n}",
                        "#define block_ties(block) ((block)->ties)")), **more)


REMOVE, RESIZE = interval_goal("remove", reach=True), interval_goal("resize", reach=True)
INSERT, SEARCH = interval_goal("insert", "LEAVES_IN_TREE=0", reach=True), interval_goal("search", "LEAVES_IN_TREE=0")

SMALL = ("NO_SMRAM", "SIZE_PAGES_MAX=2")
PAIRS, MORE_PAIRS = pairs_goal(1), pairs_goal(2, *SMALL)
BOOKS = slot_goal("books", "prove_books", 1, reach=True)
EDGES = slot_goal("edges", "prove_edges", 1, defines=("EDGES",), reach=True, only="check_entries.assertion.1")
FEW_SUMS = sums_goal("FEW_EDGES")

PROOFS = {
    "range": Proof(tuple(RANGE.values()), (
        Fault(RANGE["within"], "range.h", "start <= limit && size <= limit - start", "start + size <= limit"),
        Fault(RANGE["valid"], "range.h", "return size > 0 && !__builtin", "return !__builtin"),
        Fault(RANGE["apart"], "range.h", "b - a < a_size : a - b < b_size", "b - a <= a_size : a - b < b_size"),
        Fault(RANGE["one_before_the_other"], "range.h", "b - a < a_size : a - b < b_size",
              "b - a < b_size : a - b < b_size"),
        Fault(RANGE["one_before_the_other"], "range.h", "a_rest < b_rest ? a_rest : b_rest", "b_rest"),
        Fault(RANGE["one_behind_the_other"], "range.h", "a > b ? a : b", "a < b ? a : b"),
        Fault(RANGE["aligned"], "range.h", "(power_of_two - 1)", "power_of_two"),
    )),
    "memslot": Proof((MEMSLOT,), (
        Fault(MEMSLOT, "memslot.c", "if (n < needed)", "if (n + 1 < needed)"),
        Fault(MEMSLOT, "memslot.c", "n < MEMSLOT_REGION_EXT_BYTES", "n < MEMSLOT_REGION_BYTES"),
        Fault(MEMSLOT, "memslot.c", "GUEST_MEMFD_AT = 40", "GUEST_MEMFD_AT = 44"),
        Fault(MEMSLOT, "memslot.c", "slot & 0xffff", "slot & 0x7fff"),
        Fault(MEMSLOT, "memslot.c", "~(SLOT_LOG_DIRTY_PAGES | SLOT_READONLY)", "~SLOT_LOG_DIRTY_PAGES"),
        Fault(MEMSLOT, "memslot.c", "dialect == MEMSLOT_UPSTREAM ? MEMSLOT_REGION2_BYTES : 0", "MEMSLOT_REGION2_BYTES"),
        Fault(MEMSLOT, "memslot.c", "switch ((uint32_t) command)", "switch (command)"),
        Fault(MEMSLOT, "memslot.c", ".guest_memfd = -1", ".guest_memfd = 0"),
    )),
    "slot-pairs": Proof((PAIRS, MORE_PAIRS, whole_goal(2)), (
        Fault(PAIRS, "alias.c", "return RULE_PRIVATE_ALIAS;", "return RULE_SAME_FRAME;"),
        Fault(PAIRS, "alias.c", "spec->flags & other->flags & SLOT_READONLY", "other->flags & SLOT_READONLY"),
        Fault(PAIRS, "alias.c", "range_within(gpa - SMRAM_WINDOW_START, size, SMRAM_WINDOW_SIZE)",
              "range_within(gpa - SMRAM_WINDOW_START, size, SMRAM_WINDOW_SIZE + size)"),
        Fault(PAIRS, "alias.c", "run.at = a->at + (start - a->offset);", "run.at = a->at;"),
        Fault(PAIRS, "kvm_rules.c", "if (slot == self)\n                        continue;",
              "if (slot != self)\n                        continue;"),
        Fault(MORE_PAIRS, "alias.c", "if (other.slot == q->self)\n                        continue;",
              "if (other.slot == q->self)\n                        return 0;"),
    )),
    "slot-books": Proof((BOOKS, EDGES, FEW_SUMS), (
        Fault(BOOKS, "slot.c", "while (n-- > 0)", "while (--n > 0)"),
        Fault(BOOKS, "slot.c", "if (self)\n                        slot_link_again(self);", ""),
        Fault(EDGES, "kvm_rules.c", "if (sum_wraps(spec->gpa, spec->size))", "if (false)"),
        Fault(FEW_SUMS, "kvm_rules.c", "!range_within(spec->gpa, spec->size, max_gpa)",
              "spec->gpa + spec->size - max_gpa > 0"),
    )),
    "interval": Proof((REMOVE, interval_goal("withdraw", reach=True), RESIZE, INSERT, SEARCH,
                       interval_goal("approach", reach=True)), (
        Fault(REMOVE, "interval.c", "if (block->n == 0) {\n                        block_erase(parent",
              "if (block->n == 0) {\n                        block_erase(block"),
        Fault(RESIZE, "interval.c", "if (at + 1 == leaf->n)\n                make_way(&c);", ""),
        Fault(RESIZE, "interval.c", "if (at == 0)\n                follow_first(&c, new_start, item);", ""),
        Fault(INSERT, "interval.c", "tie = block_tie(right, inner, 0);", ""),
        Fault(SEARCH, "interval.c", "return c->found_start <= c->last ?", "return c->found_start < c->last ?"),
    )),
    # not in ./dev test
    "interval-more": Proof((interval_goal("insert", reach=True), interval_goal("search"),
                            *(interval_goal(step, "TRAIL") for step in ("insert", "remove", "withdraw", "resize", "search")),
                            interval_goal("resize", "HIGH"),
                            interval_goal("remove", "HIGH"), interval_goal("insert", "HIGH")), (
        Fault(interval_goal("resize", "TRAIL"), "interval.c", "forget_trail(tree);\n        leaf->entries", "leaf->entries"),
        Fault(interval_goal("insert"), "interval.c", "set_key(block, 0, start, item);", ""),
        Fault(interval_goal("search"), "interval.c", "return below > at ? below : at;", "return below;"),
    )),
    "slot-more": Proof((pairs_goal(3), slot_goal("books", "prove_books", 2), sums_goal(), whole_goal(3), whole_goal(4),
                        pairs_goal(4, *SMALL)), (
        Fault(PAIRS, "alias.c", "return backing->vm == vm || backing_is_shared_with(backing, vm);", "return true;"),
        Fault(PAIRS, "range.h", "return a < b ? b - a < a_size", "return a < b ? b - a + 1 < a_size"),
        Fault(BOOKS, "slot.c", "(void) id_map_set(&slot->vm->slots->by_id[slot->spec.as_id], slot->spec.id, NULL);",
              ""),
    )),
}
