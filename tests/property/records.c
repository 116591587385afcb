/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A registry is changed at random, and each change is recorded as the manager does it. Now and then the records are
 * applied to an empty registry, which must then be the same, as its own snapshot shows; so must one that is made from a
 * snapshot and the records that came after it. Records that are damaged, one byte or their length, must leave a
 * registry that can still be audited and freed. */

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/cleanup.h"
#include "core/hand-over.h"
#include "core/record.h"

#define P      UINT64_C(4096)
#define ROUNDS 60000U
#define CHECK  200U /* rounds from one look to the next */
#define VMS    4U
#define NAMES  3U /* of backings in a VM */
#define PAGES  24U

static uint64_t seed;
static Registry *registry;
static RecordBuffer ledger;
static ino_t next_ino;
static uint64_t next_vmm = 1;

static uint32_t next_random(uint32_t below) {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        return (uint32_t) (seed >> 32) % below;
}

static KVMRules rules(void) {
        KVMRules kvm = kvm_rules_of(KVM_GENERATION_DEFAULT);

        return kvm;
}

static void must(int r) {
        if (r < 0) {
                printf("Bail out! out of memory\n");
                exit(EXIT_FAILURE);
        }
}

/* ---- changes ---- */

static VM *any_vm(void) {
        char name[8];

        snprintf(name, sizeof(name), "vm%u", next_random(VMS));
        return registry_find_vm(registry, name);
}

static Backing *any_backing(VM *vm) {
        char name[8];

        snprintf(name, sizeof(name), "ram%u", next_random(NAMES));
        return vm ? vm_find_backing(vm, name) : NULL;
}

static void register_vm(void) {
        char name[8];
        VMSpec spec = {
                .name = name,
                .owner = next_random(3),
                .has_uuid = next_random(2),
                .uuid = { (uint8_t) next_random(256), 7 },
                .exit_policy = (ExitPolicy) next_random(_EXIT_POLICY_MAX),
                .alias_policy = (AliasPolicy) next_random(_ALIAS_POLICY_MAX),
                .type = (VMType) next_random(_VM_TYPE_MAX),
                .retain_usec = next_random(100),
                .retain_guest_memfd = next_random(2),
        };
        VM *vm;

        if (!spec.has_uuid)
                memset(spec.uuid, 0, sizeof(spec.uuid));
        snprintf(name, sizeof(name), "vm%u", next_random(VMS));
        if (vm_new(registry, &spec, &vm) == 0)
                must(record_vm(&ledger, vm));
}

static bool shows_elsewhere(VM *vm) {
        Backing *backing;

        TAILQ_FOREACH(backing, &vm->backings, backings)
                if (backing_shown_by_other(backing))
                        return true;
        return false;
}

static void forget_vm(VM *vm) {
        if (shows_elsewhere(vm))
                return;
        must(record_vm_gone(&ledger, vm));
        vm_free(vm);
}

/* What the manager does when a VMM has exited. */
static void orphan(VM *vm, uint64_t vmm_serial) {
        Backing *backing;

        TAILQ_FOREACH(backing, &vm->backings, backings)
                if (backing->kind == BACKING_GUEST_MEMFD && backing->vmm_serial == vmm_serial)
                        backing_orphan(backing);
}

static void end_hand_over(VM *vm, void (*end)(VM *vm), uint64_t vmm_serial) {
        end(vm);
        orphan(vm, vmm_serial);
}

static void attach(VM *vm) {
        if (vm->outgoing)
                return;
        if (vm->state == VM_ATTACHED) {
                must(record_vmm_gone(&ledger, vm));
                vm->successor = (VMMIdentity) {};
                vm_detach(vm);
                orphan(vm, vm->vmm_serial);
                if (vm->exit_policy == EXIT_POLICY_RETAIN) {
                        vm_set_retained_until(vm, next_random(1000));
                        must(record_retained(&ledger, vm));
                }
                return;
        }
        /* Now and then the process that runs another one too. */
        must(vm_attach(vm, next_random(2) ? 1 : 1 + next_vmm));
        vm->vmm = (VMMIdentity) { .id = registry_new_id(registry), .pid = 77, .uid = 5, .start_time = ++next_vmm };
        must(record_vmm(&ledger, vm));
}

/* A file stays what it is. */
static bool is_private(ino_t ino) {
        return ino % 8 == 0;
}

static VMMIdentity any_process(void) {
        return (VMMIdentity) { .id = registry_new_id(registry), .pid = 78, .uid = 6, .start_time = ++next_vmm };
}

/* Begins a hand-over, or ends it either way. */
static void hand_over(VM *vm) {
        if (vm->state != VM_ATTACHED)
                return;
        if (!vm->outgoing && next_random(2)) {
                vm->successor = next_random(3) ? any_process() : (VMMIdentity) {};
                must(record_successor(&ledger, vm));
        } else if (!vm->outgoing) {
                must(vm_hand_over(vm, 1 + ++next_vmm));
                vm->vmm = any_process();
                must(record_hand_over(&ledger, vm));
        } else if (next_random(2)) {
                must(record_outgoing_gone(&ledger, vm));
                end_hand_over(vm, vm_end_outgoing, vm->outgoing->vmm_serial);
        } else {
                must(record_taken_back(&ledger, vm));
                end_hand_over(vm, vm_take_back, vm->vmm_serial);
        }
}

static void add_backing(VM *vm) {
        /* Inode numbers are used again, and some were shown before they were a backing. */
        ino_t ino = next_random(2) ? ++next_ino : 1 + next_random(40);
        char name[8];
        BackingSpec spec = {
                .name = name,
                .kind = is_private(ino) ? BACKING_GUEST_MEMFD : (BackingKind) next_random(BACKING_GUEST_MEMFD),
                .origin = (BackingOrigin) next_random(_BACKING_ORIGIN_MAX),
                .size = P * PAGES,
                .page_size = P,
                .numa_nodes = next_random(4),
                .dev = 1,
                .ino = ino,
                .seals = next_random(16),
        };
        Backing *backing;

        snprintf(name, sizeof(name), "ram%u", next_random(NAMES));
        if (backing_new(vm, &spec, &backing) == 0)
                must(record_backing(&ledger, backing));
}

static void drop_backing(Backing *backing) {
        if (backing->n_slots > 0)
                return;
        must(record_backing_gone(&ledger, backing));
        (void) backing_release(backing);
}

static void share(Backing *backing, VM *peer) {
        const Share *known = backing_find_share(backing, peer);
        int r;

        if (peer == backing->vm)
                return;
        if (known && backing_count_slots_of(backing, peer) == 0) {
                must(record_share_gone(&ledger, backing, peer));
                backing_unshare(backing, peer);
        } else if (!known) {
                r = next_random(2) ? backing_share(backing, peer) : backing_share_read_only(backing, peer);
                must(r);
                if (r == 0)
                        must(record_share(&ledger, backing, backing_find_share(backing, peer)));
        }
}

/* One ends, or one begins: to up to three backings, of which one may be named twice. */
static void change_claims(VM *vm) {
        Claim *claim = claim_next(vm, vm->n_claims > 0 ? next_random((uint32_t) registry->last_id + 1) : 0);
        Backing *backings[3];
        ClaimSpec spec = {
                .read_only = next_random(2),
                .expires_usec = next_random(1000),
                .backings = backings,
                .digest = { (uint8_t) next_random(256), 1 },
        };

        if (claim && next_random(2)) {
                must(record_claim_gone(&ledger, claim));
                claim_free(claim);
                return;
        }
        for (size_t i = 0; i < 3; i++) {
                backings[spec.n_backings] = any_backing(vm);
                spec.n_backings += backings[spec.n_backings] != NULL;
        }
        if (spec.n_backings > 0 && claim_new(vm, &spec, &claim) == 0)
                must(record_claim(&ledger, claim));
}

static uint64_t any_page(void) {
        return P * next_random(PAGES);
}

/* What could be mapped at the slot: one file or two, a hole between them. */
static size_t any_runs(const SlotSpec *spec, MappedRun runs[2]) {
        uint64_t half = spec->size / 2 & ~(P - 1);
        size_t n = 0;

        for (size_t i = 0; i < 2; i++) {
                uint64_t at = i == 0 ? 0 : half, size = i == 0 && half > 0 ? half : spec->size - at;
                ino_t ino = 1 + next_random(60);

                if (size == 0 || next_random(4) == 0 || (i == 1 && half == 0))
                        continue;
                runs[n++] = (MappedRun) {
                        .kind = is_private(ino) ? MAPPED_GUEST_MEMFD : MAPPED_FILE,
                        .hva = spec->hva + at,
                        .size = size,
                        .dev = 1,
                        .ino = ino,
                        .offset = any_page(),
                };
        }
        return n;
}

/* Of the VM, or of what its former VMM has. */
static void set_slots(VM *whole) {
        VM *vm = whole->outgoing && next_random(2) ? whole->outgoing : whole;
        Backing *backing = any_backing(next_random(3) ? whole : any_vm()), *private = any_backing(whole);
        MappedRun runs[4][2];
        Mapping seen[4];
        SlotSpec specs[4];
        Verdict verdicts[4];
        bool changed[4], accepted;
        size_t n = 1 + next_random(4);
        uint32_t id = next_random(6);

        for (size_t i = 0; i < n; i++) {
                SlotSpec *spec = &specs[i];

                verdict_init(&verdicts[i]);
                *spec = (SlotSpec) {
                        /* What one call sets twice is recorded once, so each only once. */
                        .id = (id + (uint32_t) i) % 6,
                        .as_id = next_random(2),
                        .flags = next_random(3) == 0 ? SLOT_READONLY : 0,
                        .gpa = any_page(),
                        .size = next_random(3) ? P * next_random(6) : 0,
                        .hva = UINT64_C(0x7f0000000000) + any_page(),
                        .backing = next_random(2) ? backing : NULL,
                        .offset = any_page(),
                };
                if (private && private->kind == BACKING_GUEST_MEMFD && next_random(2)) {
                        spec->flags = SLOT_GUEST_MEMFD;
                        spec->guest_memfd = private;
                        spec->guest_memfd_offset = any_page();
                }
                if (!spec->backing && spec->size > 0 && next_random(2)) {
                        seen[i] = (Mapping) { .n_runs = any_runs(spec, runs[i]), .runs = runs[i] };
                        spec->mapping = &seen[i];
                }
        }
        must(slot_set_many(vm, specs, n, /* apply_all= */ true, verdicts, changed, &accepted));
        for (size_t i = 0; i < n; i++) {
                if (changed[i])
                        must(record_slot(&ledger, vm, specs[i].as_id, specs[i].id));
                verdict_done(&verdicts[i]);
        }
}

static void set_attributes(VM *vm) {
        uint64_t gpa = any_page(), size = P * (1 + next_random(5));
        bool private = next_random(2);

        if (attributes_set(&vm->private_ranges, P, gpa, size, private) == 0)
                must(record_memory_attributes(&ledger, vm, gpa, size, private));
}

static void change(void) {
        VM *vm = any_vm();
        uint32_t what = next_random(100);
        Backing *backing = any_backing(vm);

        if (!vm)
                register_vm();
        else if (what < 2)
                forget_vm(vm);
        else if (what < 6)
                attach(vm);
        else if (what < 9)
                hand_over(vm);
        else if (what < 20)
                add_backing(vm);
        else if (what < 25 && backing)
                drop_backing(backing);
        else if (what < 35 && backing && any_vm())
                share(backing, any_vm() ?: vm);
        else if (what < 42)
                set_attributes(vm);
        else if (what < 45)
                change_claims(vm);
        else
                set_slots(vm);
}

/* ---- looking ---- */

static void count(const Slot *slot, const Verdict *verdict, void *userdata) {
        (void) slot;
        (void) verdict;
        ++*(size_t *) userdata;
}

static size_t audit(Registry *r) {
        size_t n = 0;

        must(registry_audit(r, count, &n));
        return n;
}

/* How many records could not be applied. */
static size_t apply(const RecordBuffer *records, Registry **ret) {
        KVMRules kvm = rules();
        RecordReader reader = {};
        size_t failed = 0, offset = 0;
        const void *body;
        RecordHead head;

        must(registry_new(P, &kvm, ret));
        reader.registry = *ret;
        while (record_next(records->bytes, records->size, &offset, &head, &body) > 0) {
                int r = record_apply(&reader, head.type, head.version, body, head.size);

                must(r);
                failed += r > 0;
        }
        record_reader_done(&reader);
        return failed;
}

/* But for the first record, of the ids: those that were given to what never came to be leave no trace. */
static bool same(const RecordBuffer *a, const RecordBuffer *b) {
        size_t skip = sizeof(RecordHead) + sizeof(uint64_t);

        return a->size == b->size && memcmp(a->bytes + skip, b->bytes + skip, a->size - skip) == 0;
}

static const char *look(bool compact) {
        _cleanup_(record_buffer_done) RecordBuffer now = {}, then = {};
        const char *wrong = NULL;
        Registry *copy;

        if (apply(&ledger, &copy) > 0)
                wrong = "a record could not be applied";
        must(record_registry(&now, registry));
        must(record_registry(&then, copy));
        if (!wrong && !same(&now, &then))
                wrong = "the registry and what its records make differ";
        if (!wrong && copy->n_slots != registry->n_slots)
                wrong = "the numbers of slots differ";
        if (!wrong && audit(copy) != audit(registry))
                wrong = "the audits differ";
        registry_free(copy);
        if (!wrong && compact) {
                record_buffer_done(&ledger);
                ledger = now;
                now = (RecordBuffer) {};
        }
        return wrong;
}

static void damage(void) {
        RecordBuffer broken = { .size = ledger.size };
        Registry *copy;

        broken.bytes = malloc(ledger.size ?: 1);
        must(broken.bytes ? 0 : -1);
        memcpy(broken.bytes, ledger.bytes, ledger.size);
        for (uint32_t i = next_random(4) + 1; i > 0 && ledger.size > 0; i--)
                broken.bytes[next_random((uint32_t) ledger.size)] ^= (uint8_t) (1U << next_random(8));
        broken.size -= next_random(2) && broken.size > 64 ? next_random(64) : 0;
        (void) apply(&broken, &copy);
        (void) audit(copy);
        registry_free(copy);
        free(broken.bytes);
}

int main(void) {
        const char *given = getenv("PRIVMEMD_SEED"), *wrong = NULL;
        KVMRules kvm = rules();
        uint64_t first;

        first = seed = given ? strtoull(given, NULL, 10) : (uint64_t) time(NULL) * 2654435761U + 1;
        must(registry_new(P, &kvm, &registry));
        printf("1..1\n");
        for (unsigned round = 1; round <= ROUNDS && !wrong; round++) {
                change();
                if (round % CHECK == 0) {
                        wrong = look(/* compact= */ next_random(4) == 0);
                        damage();
                }
        }
        if (wrong)
                printf("# PRIVMEMD_SEED=%" PRIu64 " repeats it: %s\n", first, wrong);
        printf("%s 1 - a registry and what its records make agree\n", wrong ? "not ok" : "ok");
        registry_free(registry);
        record_buffer_done(&ledger);
        return wrong ? EXIT_FAILURE : EXIT_SUCCESS;
}
