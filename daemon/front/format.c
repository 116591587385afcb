/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>
#include <time.h>

#include "core/cleanup.h"
#include "front/format.h"
#include "front/front.h"
#include "front/reason.h"
#include "front/tally.h"
#include "front/words.h"

#define STRING(name, value)               SD_JSON_BUILD_PAIR_STRING(name, value)
#define UNSIGNED(name, value)             SD_JSON_BUILD_PAIR_UNSIGNED(name, value)
#define BOOLEAN(name, value)              SD_JSON_BUILD_PAIR_BOOLEAN(name, value)
#define STRING_IF(condition, name, value) SD_JSON_BUILD_PAIR_CONDITION(condition, name, SD_JSON_BUILD_STRING(value))
#define UNSIGNED_IF(condition, name, value) \
        SD_JSON_BUILD_PAIR_CONDITION(condition, name, SD_JSON_BUILD_UNSIGNED(value))
#define VARIANT_IF(condition, name, value) SD_JSON_BUILD_PAIR_CONDITION(condition, name, SD_JSON_BUILD_VARIANT(value))

#define _cleanup_json_ _cleanup_(sd_json_variant_unrefp)

SlotView slot_view(const VM *vm, const SlotSpec *spec) {
        return (SlotView) {
                .id = spec->id,
                .as_id = spec->as_id,
                .flags = spec->flags,
                .gpa = spec->gpa,
                .size = spec->size,
                .hva = spec->hva,
                .offset = spec->offset,
                .guest_memfd_offset = spec->guest_memfd_offset,
                .backing = spec->backing ? spec->backing->name : NULL,
                .backing_vm = spec->backing && spec->backing->vm != vm_whole(vm) ? spec->backing->vm->name : NULL,
                .guest_memfd = spec->guest_memfd ? spec->guest_memfd->name : NULL,
        };
}

static uint64_t vm_resident(Service *service, const VM *vm) {
        Backing *backing;
        uint64_t sum = 0;

        TAILQ_FOREACH(backing, &vm->backings, backings)
                sum += service_resident(service, backing);
        return sum;
}

/* The two clocks cannot be read at once. Less than a millisecond is no step of theirs, so that two lists say the same. */
uint64_t boot_to_real_time(uint64_t usec) {
        static uint64_t difference;
        uint64_t now = usec_of(CLOCK_REALTIME) - usec_of(CLOCK_BOOTTIME);

        if (now - difference + 1000 > 2000)
                difference = now;
        return usec + difference;
}

int format_vm(Service *service, const VM *vm, sd_json_variant **ret) {
        sd_id128_t uuid;
        pid_t pid = service_vmm_pid(vm), successor = service_successor_pid(vm);
        pid_t outgoing = vm->outgoing ? service_vmm_pid(vm->outgoing) : 0;

        for (size_t i = 0; i < sizeof(uuid.bytes); i++)
                uuid.bytes[i] = vm->uuid[i];
        return sd_json_buildo(ret, STRING("name", vm->name),
                              SD_JSON_BUILD_PAIR_CONDITION(vm->has_uuid, "uuid", SD_JSON_BUILD_UUID(uuid)),
                              UNSIGNED("ownerUID", vm->owner), STRING("state", vm_state_word(vm->state)),
                              STRING("exitPolicy", exit_policy_word(vm->exit_policy)),
                              UNSIGNED_IF(vm->retain_usec > 0, "retainUSec", vm->retain_usec),
                              UNSIGNED_IF(vm->retained_until_usec > 0, "retainedUntilUSec",
                                          boot_to_real_time(vm->retained_until_usec)),
                              BOOLEAN("retainGuestMemfd", vm->retain_guest_memfd),
                              STRING("aliasPolicy", alias_policy_word(vm->alias_policy)),
                              STRING("type", vm_type_word(vm->type)), UNSIGNED_IF(pid > 0, "pid", (uint64_t) pid),
                              UNSIGNED_IF(successor > 0, "successorPID", (uint64_t) successor),
                              UNSIGNED_IF(outgoing > 0, "outgoingPID", (uint64_t) outgoing),
                              UNSIGNED("backings", vm->n_backings), UNSIGNED("slots", slot_count(vm)),
                              UNSIGNED("claims", vm->n_claims), UNSIGNED("promisedBytes", vm->promised_bytes),
                              UNSIGNED("residentBytes", vm_resident(service, vm)),
                              UNSIGNED("generation", vm->generation));
}

static int format_seals(unsigned seals, sd_json_variant **ret) {
        static const struct {
                unsigned seal;
                const char *word;
        } words[] = {
                { F_SEAL_SEAL, "seal" },
                { F_SEAL_SHRINK, "shrink" },
                { F_SEAL_GROW, "grow" },
                { F_SEAL_WRITE, "write" },
                { F_SEAL_FUTURE_WRITE, "future_write" },
                { 0x20 /* F_SEAL_EXEC, Linux 6.3 */, "exec" },
        };
        char *list[ELEMENTSOF(words) + 1] = {};
        size_t n = 0;

        for (size_t i = 0; i < ELEMENTSOF(words); i++)
                if (seals & words[i].seal)
                        list[n++] = (char *) words[i].word;
        return sd_json_build(ret, SD_JSON_BUILD_STRV(list));
}

static int format_bits(uint64_t bits, sd_json_variant **ret) {
        int r;

        for (uint64_t i = 0; i < 64; i++)
                if (bits & (UINT64_C(1) << i)) {
                        r = sd_json_variant_append_arrayb(ret, SD_JSON_BUILD_UNSIGNED(i));
                        if (r < 0)
                                return r;
                }
        return 0;
}

static int compare_shares(const void *a, const void *b) {
        const Share *x = a, *y = b;

        return strcmp(x->vm->name, y->vm->name);
}

static int format_shares(const Backing *backing, uid_t uid, sd_json_variant **ret) {
        bool all = uid == 0 || uid == backing->vm->owner;
        Share shares[SHARES_PER_BACKING_MAX];
        size_t n = 0;
        int r;

        for (size_t i = 0; i < backing->n_shares; i++)
                if (all || backing->shares[i].vm->owner == uid)
                        shares[n++] = backing->shares[i];
        qsort(shares, n, sizeof(Share), compare_shares);
        for (size_t i = 0; i < n; i++) {
                r = sd_json_variant_append_arraybo(ret, STRING("vm", shares[i].vm->name),
                                                   STRING("access", access_word(shares[i].read_only)));
                if (r < 0)
                        return r;
        }
        return 0;
}

/* There are few different answers, and each backing has four of them. */
static int format_survival(SurvivalReason reason, sd_json_variant **ret) {
        static sd_json_variant *made[_SURVIVAL_REASON_MAX];
        int r;

        if (!made[reason]) {
                r = sd_json_buildo(&made[reason], BOOLEAN("survives", survival_is_good(reason)),
                                   STRING("reason", survival_reason_word(reason)),
                                   STRING("explanation", survival_reason_sentence(reason)));
                if (r < 0)
                        return r;
        }
        *ret = made[reason]; /* borrowed */
        return 0;
}

static int format_survivals(Service *service, const Backing *backing, sd_json_variant **ret) {
        sd_json_variant *each[_SURVIVAL_EVENT_MAX];
        Custody custody = service_custody(service);
        int r;

        for (SurvivalEvent event = 0; event < _SURVIVAL_EVENT_MAX; event++) {
                r = format_survival(survival_of(backing, event, custody), &each[event]);
                if (r < 0)
                        return r;
        }
        return sd_json_buildo(ret, SD_JSON_BUILD_PAIR_VARIANT("vmmCrash", each[SURVIVAL_VMM_CRASH]),
                              SD_JSON_BUILD_PAIR_VARIANT("vmmUpgrade", each[SURVIVAL_VMM_UPGRADE]),
                              SD_JSON_BUILD_PAIR_VARIANT("daemonRestart", each[SURVIVAL_DAEMON_RESTART]),
                              SD_JSON_BUILD_PAIR_VARIANT("hostKexec", each[SURVIVAL_HOST_KEXEC]));
}

int format_backing(Service *service, const Backing *backing, uid_t uid, sd_json_variant **ret) {
        _cleanup_json_ sd_json_variant *seals = NULL, *nodes = NULL, *shares = NULL, *survival = NULL;
        int r;

        r = format_seals(service_seals(backing), &seals);
        if (r >= 0)
                r = format_bits(backing->numa_nodes, &nodes);
        if (r >= 0)
                r = format_shares(backing, uid, &shares);
        if (r >= 0)
                r = format_survivals(service, backing, &survival);
        if (r < 0)
                return r;
        return sd_json_buildo(
                ret, STRING("vm", backing->vm->name), STRING("name", backing->name),
                STRING("kind", backing_kind_word(backing->kind)),
                STRING("origin", backing_origin_word(backing->origin)), UNSIGNED("size", backing->size),
                UNSIGNED("pageSize", backing->page_size),
                UNSIGNED("effectivePageSize", advice_effective_page_size(backing, service_advice_facts(service))),
                UNSIGNED("device", backing->dev), UNSIGNED("inode", backing->ino),
                SD_JSON_BUILD_PAIR_VARIANT("seals", seals),
                STRING_IF(backing->numa_policy != NUMA_POLICY_NONE, "numaPolicy",
                          numa_policy_word(backing->numa_policy)),
                VARIANT_IF(nodes != NULL, "numaNodes", nodes),
                UNSIGNED("residentBytes", service_resident(service, backing)), UNSIGNED("slots", backing->n_slots),
                SD_JSON_BUILD_PAIR_CONDITION(backing->kind == BACKING_GUEST_MEMFD, "bindable",
                                             SD_JSON_BUILD_BOOLEAN(!backing_is_orphan(backing))),
                VARIANT_IF(shares != NULL, "shares", shares), SD_JSON_BUILD_PAIR_VARIANT("survival", survival));
}

int format_claim(const Claim *claim, sd_json_variant **ret) {
        char *names[BACKINGS_PER_CLAIM_MAX + 1] = {};
        ClaimWord word;

        for (size_t i = 0; i < claim->n_backings; i++)
                names[i] = claim->backings[i]->name;
        return sd_json_buildo(ret, STRING("claim", claim_word(claim->id, word)), STRING("vm", claim->vm->name),
                              SD_JSON_BUILD_PAIR_STRV("backings", names),
                              STRING("access", access_word(claim->read_only)),
                              UNSIGNED("expiresUSec", boot_to_real_time(claim->expires_usec)));
}

static int format_flags(uint32_t flags, sd_json_variant **ret) {
        char *list[SLOT_FLAGS + 1] = {};
        size_t n = 0;

        if (flags == 0)
                return 0;
        for (unsigned bit = 0; bit < SLOT_FLAGS; bit++)
                if (flags & UINT32_C(1) << bit)
                        list[n++] = (char *) slot_flag_word(bit);
        return sd_json_build(ret, SD_JSON_BUILD_STRV(list));
}

int format_slot(const SlotView *view, sd_json_variant **ret) {
        _cleanup_json_ sd_json_variant *flags = NULL;
        int r;

        r = format_flags(view->flags, &flags);
        if (r < 0)
                return r;
        return sd_json_buildo(ret, UNSIGNED("slotId", view->id), UNSIGNED("addressSpace", view->as_id),
                              VARIANT_IF(flags != NULL, "flags", flags), UNSIGNED("guestPhysAddr", view->gpa),
                              UNSIGNED("memorySize", view->size), UNSIGNED("userspaceAddr", view->hva),
                              STRING_IF(view->backing != NULL, "backing", view->backing),
                              STRING_IF(view->backing_vm != NULL, "backingVM", view->backing_vm),
                              UNSIGNED_IF(view->backing != NULL, "backingOffset", view->offset),
                              STRING_IF(view->guest_memfd != NULL, "guestMemfd", view->guest_memfd),
                              UNSIGNED_IF(view->guest_memfd != NULL, "guestMemfdOffset", view->guest_memfd_offset));
}

static int format_conflict(const Conflict *c, sd_json_variant **ret) {
        const Backing *backing = c->backing;
        bool is_file = !backing && c->ino != 0;
        char device[32];

        snprintf(device, sizeof(device), "%u:%u", major(c->dev), minor(c->dev));
        return sd_json_buildo(
                ret, STRING("rule", slot_rule_word(c->rule)), STRING("vm", c->vm->name),
                SD_JSON_BUILD_PAIR_CONDITION(c->vm->heir != NULL, "outgoing", SD_JSON_BUILD_BOOLEAN(true)),
                UNSIGNED("slotId", c->id), UNSIGNED("addressSpace", c->as_id), UNSIGNED("guestPhysAddr", c->gpa),
                UNSIGNED("requestedGuestPhysAddr", c->requested_gpa), UNSIGNED("size", c->size),
                STRING_IF(backing != NULL, "backing", backing ? backing->name : NULL),
                STRING_IF(backing != NULL, "backingVM", backing ? backing->vm->name : NULL),
                UNSIGNED_IF(backing != NULL, "backingOffset", c->offset), STRING_IF(is_file, "device", device),
                UNSIGNED_IF(is_file, "inode", c->ino), UNSIGNED_IF(is_file, "fileOffset", c->offset),
                STRING_IF(c->rule == RULE_MAPPING_MISMATCH, "mapped", mapped_kind_word(c->mapped)));
}

static char *advice_message(const Advice *a) {
        char *text = NULL;
        int r = -1;

        switch (a->kind) {
        case ADVICE_HUGE_PAGES_MISALIGNED:
                r = asprintf(
                        &text,
                        "no huge page can be mapped: guestPhysAddr, userspaceAddr and backingOffset should have the same low 21 bits, but have 0x%" PRIx64
                        ", 0x%" PRIx64 " and 0x%" PRIx64,
                        a->gpa, a->hva, a->offset);
                break;
        case ADVICE_SMALL_PAGES:
                r = asprintf(
                        &text,
                        "the kernel gives memfds no huge pages: allow them in /sys/kernel/mm/transparent_hugepage/shmem_enabled, or allocate with a pageSize of %" PRIu64,
                        a->possible_page_size);
                break;
        case ADVICE_FLAGS_LIMIT_BACKING:
                r = asprintf(&text,
                             "log_dirty_pages makes KVM map pages of %" PRIu64
                             " bytes, where the backing has pages of %" PRIu64 ": set it only while the log is needed",
                             a->page_size, a->possible_page_size);
                break;
        case _ADVICE_KIND_MAX:
                break;
        }
        return r < 0 ? NULL : text;
}

static int append_advice(const Advice *a, sd_json_variant **array) {
        _cleanup_free_ char *message = advice_message(a);
        bool misaligned = a->kind == ADVICE_HUGE_PAGES_MISALIGNED;

        if (!message)
                return -ENOMEM;
        return sd_json_variant_append_arraybo(array, STRING("kind", advice_kind_word(a->kind)),
                                              STRING("message", message), UNSIGNED("pageSize", a->page_size),
                                              UNSIGNED("possiblePageSize", a->possible_page_size),
                                              UNSIGNED_IF(misaligned, "guestPhysAddrLow", a->gpa),
                                              UNSIGNED_IF(misaligned, "userspaceAddrLow", a->hva),
                                              UNSIGNED_IF(misaligned, "backingOffsetLow", a->offset));
}

/* Nearly all verdicts say ok and nothing else, or beside it only what is true of every memfd of the host. Making these
 * once saves more than judging a slot costs. */
static int format_plain_verdict(const Advice *small_pages, sd_json_variant **ret) {
        static sd_json_variant *plain[2];
        _cleanup_json_ sd_json_variant *advice = NULL;
        sd_json_variant **made = &plain[small_pages != NULL];
        int r = 0;

        if (!*made && small_pages)
                r = append_advice(small_pages, &advice);
        if (!*made && r >= 0)
                r = sd_json_buildo(made, STRING("outcome", outcome_word(OUTCOME_OK)), UNSIGNED("kernelErrno", 0),
                                   SD_JSON_BUILD_PAIR_EMPTY_ARRAY("conflicts"),
                                   VARIANT_IF(advice != NULL, "advice", advice));
        if (r < 0)
                return r;
        *ret = sd_json_variant_ref(*made);
        return 0;
}

int format_verdict(const VM *vm, const SlotSpec *spec, const Verdict *v, size_t max_conflicts,
                   const AdviceFacts *facts, sd_json_variant **ret) {
        _cleanup_json_ sd_json_variant *conflicts = NULL, *advice = NULL;
        _cleanup_free_ char *reason = NULL;
        Advice list[_ADVICE_KIND_MAX];
        size_t n_advice = 0;
        int r;

        if (facts && v->outcome != OUTCOME_REFUSED)
                n_advice = advice_on_slot(spec, facts, list);
        if (v->outcome == OUTCOME_OK && v->rule == RULE_NONE && v->kernel_errno == 0 && v->n_conflicts == 0 &&
            (n_advice == 0 || (n_advice == 1 && list[0].kind == ADVICE_SMALL_PAGES)))
                return format_plain_verdict(n_advice > 0 ? &list[0] : NULL, ret);
        for (size_t i = 0; i < n_advice; i++) {
                r = append_advice(&list[i], &advice);
                if (r < 0)
                        return r;
        }
        for (size_t i = 0; i < v->n_conflicts && i < max_conflicts; i++) {
                _cleanup_json_ sd_json_variant *conflict = NULL;

                r = format_conflict(&v->conflicts[i], &conflict);
                if (r >= 0)
                        r = sd_json_variant_append_array(&conflicts, conflict);
                if (r < 0)
                        return r;
        }
        if (v->rule != RULE_NONE) {
                reason = reason_of(vm, spec, v);
                if (!reason)
                        return -ENOMEM;
        }
        return sd_json_buildo(
                ret, STRING("outcome", outcome_word(v->outcome)),
                STRING_IF(v->rule != RULE_NONE, "rule", slot_rule_word(v->rule)),
                STRING_IF(reason != NULL, "reason", reason), UNSIGNED("kernelErrno", (uint64_t) v->kernel_errno),
                SD_JSON_BUILD_PAIR_CONDITION(conflicts != NULL, "conflicts", SD_JSON_BUILD_VARIANT(conflicts)),
                SD_JSON_BUILD_PAIR_CONDITION(conflicts == NULL, "conflicts", SD_JSON_BUILD_EMPTY_ARRAY),
                VARIANT_IF(advice != NULL, "advice", advice));
}

static int format_pools(const HostReport *report, sd_json_variant **ret_pools, sd_json_variant **ret_sizes) {
        int r;

        r = sd_json_build(ret_pools, SD_JSON_BUILD_EMPTY_ARRAY);
        if (r >= 0)
                r = sd_json_build(ret_sizes, SD_JSON_BUILD_EMPTY_ARRAY);
        for (size_t i = 0; r >= 0 && i < report->n_pools; i++) {
                const PoolReport *p = &report->pools[i];

                r = sd_json_variant_append_arraybo(ret_pools, UNSIGNED("pageSize", p->page_size),
                                                   UNSIGNED_IF(p->node >= 0, "node", (uint64_t) p->node),
                                                   UNSIGNED("total", p->total), UNSIGNED("free", p->free),
                                                   UNSIGNED_IF(p->node < 0, "reserved", p->reserved));
                if (r >= 0 && p->node < 0)
                        r = sd_json_variant_append_arrayb(ret_sizes, SD_JSON_BUILD_UNSIGNED(p->page_size));
        }
        return r;
}

static uint64_t host_resident(Service *service) {
        uint64_t sum = 0;
        VM *vm;

        TAILQ_FOREACH(vm, &service_registry(service)->vms, vms)
                sum += vm_resident(service, vm);
        return sum;
}

int format_host(const Front *front, Service *service, sd_json_variant **ret) {
        _cleanup_json_ sd_json_variant *pools = NULL, *sizes = NULL, *features = NULL, *limits = NULL;
        const Registry *registry = service_registry(service);
        HostReport report = {};
        struct utsname uts;
        int r;

        if (uname(&uts) < 0)
                return -errno;
        r = service_host_report(service, &report);
        if (r < 0)
                return r;
        r = format_pools(&report, &pools, &sizes);
        free(report.pools);
        if (r < 0)
                return r;
        r = sd_json_buildo(&features, BOOLEAN("kvm", report.kvm), BOOLEAN("guestMemfd", report.guest_memfd),
                           UNSIGNED("guestMemfdFlags", report.guest_memfd_flags),
                           BOOLEAN("cachestat", report.cachestat), BOOLEAN("noexecSeal", report.noexec_seal),
                           SD_JSON_BUILD_PAIR_VARIANT("hugePageSizes", sizes));
        if (r < 0)
                return r;
        r = sd_json_buildo(
                &limits, UNSIGNED("vmsPerUID", registry->limits.vms_per_uid),
                UNSIGNED("backingsPerVM", registry->limits.backings_per_vm),
                UNSIGNED("claimsPerVM", CLAIMS_PER_VM_MAX), UNSIGNED("claimsPerUID", CLAIMS_PER_UID_MAX),
                UNSIGNED("backingsPerClaim", BACKINGS_PER_CLAIM_MAX),
                UNSIGNED("slotsPerAddressSpace", registry->kvm.slots_per_address_space),
                UNSIGNED("addressSpaces", registry->kvm.address_spaces),
                UNSIGNED("sharesPerBacking", SHARES_PER_BACKING_MAX), UNSIGNED("aliasesPerSlot", SLOT_ALIASES_MAX),
                UNSIGNED("privateRangesPerVM", PRIVATE_RANGES_MAX), UNSIGNED("slotsPerCall", SLOTS_PER_CALL_MAX),
                UNSIGNED("connections", front_settings(front)->connections),
                UNSIGNED("connectionsPerUID", front_settings(front)->connections_per_uid),
                UNSIGNED("subscribersPerUID", SUBSCRIBERS_PER_UID_MAX),
                UNSIGNED("vmsPerSubscription", VMS_PER_SUBSCRIPTION_MAX),
                UNSIGNED("holderListsPerUID", HOLDER_LISTS_PER_UID_MAX),
                UNSIGNED("ledgerListsPerUID", LEDGER_LISTS_PER_UID_MAX));
        if (r < 0)
                return r;
        return sd_json_buildo(
                ret, STRING("version", PRIVMEMD_VERSION), STRING("kernelRelease", uts.release),
                UNSIGNED("pageSize", (uint64_t) sysconf(_SC_PAGESIZE)),
                SD_JSON_BUILD_PAIR_VARIANT("features", features), SD_JSON_BUILD_PAIR_VARIANT("hugePagePools", pools),
                SD_JSON_BUILD_PAIR_VARIANT("limits", limits),
                STRING("custody", custody_word(service_custody(service))), UNSIGNED("vms", registry->n_vms),
                UNSIGNED("backings", registry->n_backings), UNSIGNED("slots", registry->n_slots),
                UNSIGNED("promisedBytes", registry->promised_bytes),
                UNSIGNED("residentBytes", host_resident(service)));
}
