/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "core/backing.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/claim.h"
#include "core/core-private.h"
#include "core/range.h"

int backing_admit(VM *vm, const BackingSpec *spec, Backing **ret) {
        Backing *known;

        assert(name_is_valid(spec->name));

        known = vm_find_backing(vm, spec->name);
        if (known) {
                *ret = known;
                return CORE_E_EXISTS;
        }

        return vm->n_backings >= vm->registry->limits.backings_per_vm ? CORE_E_LIMIT : 0;
}

int backing_new(VM *vm, const BackingSpec *spec, Backing **ret) {
        Backing *backing;
        File *file;
        int admitted;

        assert(spec->size > 0);
        assert(spec->page_size > 0 && is_aligned(spec->page_size, spec->page_size));

        admitted = backing_admit(vm, spec, ret);
        if (admitted == CORE_E_EXISTS)
                return admitted;
        backing = registry_find_file(vm->registry, spec->dev, spec->ino);
        if (backing) {
                *ret = backing;
                return CORE_E_KNOWN_FILE;
        }
        if (admitted != 0)
                return admitted;

        backing = calloc(1, sizeof(Backing));
        if (!backing)
                return -ENOMEM;

        backing->kind = spec->kind;
        backing->origin = spec->origin;
        backing->size = spec->size;
        backing->page_size = spec->page_size;
        backing->numa_policy = spec->numa_policy;
        backing->numa_nodes = spec->numa_nodes;
        backing->dev = spec->dev;
        backing->ino = spec->ino;
        backing->seals = spec->seals;
        backing->id = registry_new_id(vm->registry);
        backing->vmm_serial = vm->vmm_serial;

        backing->name = strdup(spec->name);
        if (!backing->name || file_ref_by_identity(vm->registry, spec->dev, spec->ino, &file) < 0)
                goto fail;
        if (vm_add_backing(vm, backing) < 0) {
                file_unref(vm->registry, file);
                goto fail;
        }

        backing->vm = vm; /* from here on it is in the indexes */
        registry_add_backing(vm->registry, backing);
        file_become_backing(file, backing);
        *ret = backing;
        return 0;

fail:
        backing_free(backing);
        return -ENOMEM;
}

Backing *backing_free(Backing *backing) {
        Claim *claim;

        if (!backing)
                return NULL;

        assert(backing->n_slots == 0);

        while (backing->n_shares > 0)
                backing_unshare(backing, backing->shares[0].vm);
        if (backing->vm) {
                while ((claim = claim_next_with(backing->vm, NULL, backing)))
                        claim_free(claim);
                registry_remove_backing(backing->vm->registry, backing);
                vm_remove_backing(backing->vm, backing);
                backing->file->backing = NULL;
                file_unref(backing->vm->registry, backing->file);
        }
        free(backing->shares);
        free(backing->name);
        free(backing);
        return NULL;
}

void backing_lose(Backing *backing) {
        IntervalCursor cursor;
        Slot *slot;

        while ((slot = showing_first(backing, 0, UINT64_MAX, &cursor).slot))
                slot_free(slot);
        backing_free(backing);
}

int backing_release(Backing *backing) {
        if (backing->n_slots > 0)
                return CORE_E_IN_USE;

        backing_free(backing);
        return 0;
}

void backing_orphan(Backing *backing) {
        backing->is_orphan = true;
}

bool backing_is_orphan(const Backing *backing) {
        return backing->kind == BACKING_GUEST_MEMFD && backing->is_orphan;
}

const char *backing_differs(const Backing *backing, const BackingSpec *spec) {
        if (backing->kind != spec->kind)
                return "kind";
        if (backing->size != spec->size)
                return "size";
        if (backing->page_size != spec->page_size)
                return "pageSize";
        if (backing->numa_policy != spec->numa_policy)
                return "numaPolicy";
        if (backing->numa_nodes != spec->numa_nodes)
                return "numaNodes";
        return NULL;
}

size_t backing_count_slots_of(const Backing *backing, const VM *vm) {
        IntervalCursor cursor;
        size_t n = 0;

        for (SlotShowing s = showing_first(backing, 0, UINT64_MAX, &cursor); s.slot; s = showing_next(&cursor))
                n += vm_whole(s.slot->vm) == vm && showing_counts(&s);
        return n;
}

static bool is_written_by(const Backing *backing, const VM *vm) {
        IntervalCursor cursor;

        for (SlotShowing s = showing_first(backing, 0, UINT64_MAX, &cursor); s.slot; s = showing_next(&cursor))
                if (vm_whole(s.slot->vm) == vm && !(s.slot->spec.flags & SLOT_READONLY))
                        return true;
        return false;
}

static int share(Backing *backing, VM *peer, bool read_only) {
        const Share *known = backing_find_share(backing, peer);
        Share *shares;

        if (peer == backing->vm)
                return 0;
        if (known)
                return known->read_only == read_only ? 0 : CORE_E_EXISTS;
        if (backing->n_shares >= SHARES_PER_BACKING_MAX)
                return CORE_E_LIMIT;
        if (read_only && is_written_by(backing, peer))
                return CORE_E_IN_USE;

        shares = reallocarray(backing->shares, backing->n_shares + 1, sizeof(Share));
        if (!shares)
                return -ENOMEM;

        shares[backing->n_shares++] = (Share) { .vm = peer, .read_only = read_only };
        backing->shares = shares;
        peer->n_shares_taken++;
        return 0;
}

int backing_share(Backing *backing, VM *peer) {
        return share(backing, peer, /* read_only= */ false);
}

int backing_share_read_only(Backing *backing, VM *peer) {
        return share(backing, peer, /* read_only= */ true);
}

void backing_unshare(Backing *backing, VM *peer) {
        size_t i;

        for (i = 0; i < backing->n_shares; i++)
                if (backing->shares[i].vm == peer) {
                        backing->shares[i] = backing->shares[--backing->n_shares];
                        peer->n_shares_taken--;
                        return;
                }
}

const Share *backing_find_share(const Backing *backing, const VM *peer) {
        size_t i;

        for (i = 0; i < backing->n_shares; i++)
                if (backing->shares[i].vm == peer)
                        return &backing->shares[i];

        return NULL;
}

bool backing_is_shared_with(const Backing *backing, const VM *peer) {
        return backing_find_share(backing, peer) != NULL;
}

BackingAccess backing_access_of(const Backing *backing, uid_t uid) {
        BackingAccess access = ACCESS_NONE;
        size_t i;

        if (backing->vm->owner == uid)
                return ACCESS_READ_WRITE;

        for (i = 0; i < backing->n_shares; i++) {
                const Share *given = &backing->shares[i];

                if (given->vm->owner != uid)
                        continue;
                if (!given->read_only)
                        return ACCESS_READ_WRITE;
                access = ACCESS_READ_ONLY;
        }
        return access;
}

VM *backing_shown_by_other(const Backing *backing) {
        IntervalCursor cursor;

        for (SlotShowing s = showing_first(backing, 0, UINT64_MAX, &cursor); s.slot; s = showing_next(&cursor))
                if (vm_whole(s.slot->vm) != backing->vm)
                        return vm_whole(s.slot->vm);
        return NULL;
}
