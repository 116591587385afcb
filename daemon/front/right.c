/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Who may do what.
 *
 * The right to own is that of a VM's owner uid and of root: all of the VM, with its memory. The right to manage is that of
 * the group of managers and of privmemd's own uid: all VMs, but no file descriptor of their memory. Who has neither sees
 * what is shared with a VM of its own. All goes by what the kernel noted of the peer when it connected. */

#include "front/call.h"
#include "shared/unix-socket.h"

static bool is_in_group(sd_varlink *link, gid_t gid) {
        bool has = false;
        gid_t own;

        if (gid == GID_NONE)
                return false;
        if (sd_varlink_get_peer_gid(link, &own) >= 0 && own == gid)
                return true;
        /* What cannot be found out is no right. */
        return unix_socket_peer_has_group(sd_varlink_get_fd(link), gid, &has) >= 0 && has;
}

bool call_manages(const Call *call) {
        return call->uid == 0 || call->uid == geteuid() || is_in_group(call->link, call->front->settings.manager_gid);
}

bool call_owns(const Call *call, const VM *vm) {
        return call->uid == 0 || call->uid == vm->owner;
}

bool call_may_see(const Call *call, const VM *vm) {
        return call_owns(call, vm) || call_manages(call);
}

uid_t call_sees_as(const Call *call) {
        return call_manages(call) ? 0 : call->uid;
}

bool uid_may_see_backing(uid_t uid, const Backing *backing) {
        return uid == 0 || backing_access_of(backing, uid) != ACCESS_NONE;
}

bool uid_may_see_a_backing(uid_t uid, const VM *vm) {
        const Backing *backing;

        TAILQ_FOREACH(backing, &vm->backings, backings)
                if (uid_may_see_backing(uid, backing))
                        return true;
        return false;
}

/* Whoever manages gets no memory by way of a share either: it could make one for itself. */
static int check_fds(const Call *call, const VM *vm, bool as_peer, Failure *f) {
        bool manages;

        if (call_owns(call, vm))
                return 0;
        manages = call_manages(call);
        if (!manages && as_peer && uid_may_see_a_backing(call->uid, vm))
                return 0;
        return fail_no_fds(f, vm->name, call->uid, manages);
}

int call_check_right(const Call *call, Right right, const VM *vm, Failure *f) {
        switch (right) {
        case VM_OWNER:
                return call_may_see(call, vm) ? 0 : fail_not_permitted_vm(f, vm->name, call->uid);
        case VM_OWN_FDS:
                return check_fds(call, vm, /* as_peer= */ false, f);
        case VM_PEER:
                return check_fds(call, vm, /* as_peer= */ true, f);
        default:
                return -EINVAL;
        }
}
