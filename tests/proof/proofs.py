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

    def options(self):
        options = ["--no-standard-checks", *self.checks, "--function", self.function]
        options += [f"-D{name}" for name in self.defines]
        if self.unwind:
            options += ["--unwind", str(self.unwind + 1)]
        if self.rounds:
            options += ["--unwindset", ",".join(f"{loop}:{rounds + 1}" for loop, rounds in self.rounds)]
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
}
