/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* AdoptBacking: what is looked at before a file that somebody else made comes into custody. */

#include <fcntl.h>
#include <inttypes.h>
#include <sys/stat.h>

#include "core/range.h"
#include "front/words.h"
#include "manager-private.h"

/* Whether the file is what the caller says. */
static int check_claim(const MemoryIdentity *identity, int kind, uint64_t size, Failure *f) {
        if (kind >= 0 && (BackingKind) kind != identity->kind)
                return fail_not_memory(f, backing_kind_word(identity->kind));
        if (size > 0 && size != identity->size)
                return fail_invalid_value(f, "size of the donated file", identity->size, size, size, 0);
        return 0;
}

/* Whether a file that is not yet a backing may be given by whom it comes from, and will stay as large as it is. */
static int check_donation(const MemoryIdentity *identity, const VM *vm, uid_t peer, Failure *f) {
        unsigned missing = (F_SEAL_SHRINK | F_SEAL_GROW) & ~identity->seals;

        if (identity->size == 0 || !is_aligned(identity->size, identity->page_size))
                return fail_invalid_value(f, "size of the donated file", identity->size, identity->page_size,
                                          INT64_MAX & ~(identity->page_size - 1), identity->page_size);
        if (identity->kind == BACKING_GUEST_MEMFD)
                return 0;
        /* Whoever holds an fd for reading only, or of a file of somebody else's, must not get more by donating it. */
        if (!identity->writable)
                return fail_not_memory(f, "memfd opened for reading only");
        if (identity->uid != vm->owner && peer != 0)
                return fail_not_permitted(f, "a memfd that another uid created", peer);
        return missing ? fail_not_sealed(f, missing) : 0;
}

/* A memfd is born with mode 0777, so that whoever gets it for reading could open it again for writing. */
static int take_over(int fd, const MemoryIdentity *identity, const VM *vm, Failure *f) {
        if (identity->kind == BACKING_GUEST_MEMFD)
                return 0;
        if (fchmod(fd, 0600) < 0 || (identity->uid != vm->owner && fchown(fd, vm->owner, (gid_t) -1) < 0))
                return fail_host(f, "taking over the donated file", errno);
        return 0;
}

static int fail_another_file(Failure *f, const Backing *present, ino_t requested) {
        char a[24], b[24];

        snprintf(a, sizeof(a), "%" PRIu64, (uint64_t) present->ino);
        snprintf(b, sizeof(b), "%" PRIu64, (uint64_t) requested);
        return fail_backing_differs(f, present, "inode", a, b);
}

static int adopt_new(Manager *manager, VM *vm, const BackingSpec *spec, int donated, const MemoryIdentity *identity,
                     Backing **ret, Failure *f) {
        _cleanup_close_ int fd = -EBADF;
        int r;

        r = backing_admit(vm, spec, ret);
        if (r == CORE_E_EXISTS)
                return fail_another_file(f, *ret, identity->ino);
        if (r == CORE_E_LIMIT)
                return fail_limit(f, "backingsPerVM", vm->registry->limits.backings_per_vm);
        if (r < 0)
                return r;
        fd = fcntl(donated, F_DUPFD_CLOEXEC, 3);
        if (fd < 0)
                return fail_host(f, "duplicating the donated fd", errno);
        r = take_over(fd, identity, vm, f);
        if (r != 0)
                return r;
        r = custody_enter(manager, vm, spec, fd, ret, f);
        if (r != 0)
                return r;
        TAKE_FD(fd);
        return 0;
}

int service_adopt(Service *service, VM *vm, const char *name, int fd, int kind, uint64_t size, uid_t peer,
                  Backing **ret, bool *ret_created, Failure *f) {
        MemoryIdentity identity;
        BackingSpec spec;
        const char *found;
        int r;

        r = memory_file_identify(&service->memory, fd, &identity, &found);
        if (r == MEMORY_E_NOT_MEMORY)
                return fail_not_memory(f, found);
        if (r < 0)
                return fail_host(f, "looking at the donated fd", r);
        r = check_claim(&identity, kind, size, f);
        if (r != 0)
                return r;
        *ret = registry_find_file(service->registry, identity.dev, identity.ino);
        *ret_created = !*ret;
        if (*ret) {
                /* One file is one backing; it stays whose it is. */
                if (peer != 0 && (*ret)->vm->owner != vm->owner)
                        return fail_not_permitted(f, "another owner's backing", peer);
                return backing_is_orphan(*ret) ?
                               fail_not_supported(
                                       f,
                                       "the VMM that made this guest_memfd has exited, and no kernel can bind it to another VM") :
                               0;
        }
        r = check_donation(&identity, vm, peer, f);
        if (r != 0)
                return r;
        spec = (BackingSpec) {
                .name = name,
                .kind = identity.kind,
                .origin = BACKING_ADOPTED,
                .size = identity.size,
                .page_size = identity.page_size,
                .dev = identity.dev,
                .ino = identity.ino,
                .seals = identity.seals,
        };
        return adopt_new(service, vm, &spec, fd, &identity, ret, f);
}
