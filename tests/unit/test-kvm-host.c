/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Looking at a KVM finds its rules. The KVM is the core's own idea of one, behind open() and ioctl(), so that every
 * generation can be looked at here; that the idea is right is for tests/kvm/oracle.c to show. */

#include "core-fixture.h"

#include <fcntl.h>
#include <linux/kvm.h>
#include <unistd.h>

#include "core/memslot.h"
#include "host/kvm.h"

#define CREATE_GUEST_MEMFD 0xc040aed4

static struct {
        bool missing; /* there is no /dev/kvm */
        bool no_vm;   /* and no VM can be made */
        bool old;     /* older than Linux 6.8 */
        KVMRules rules;
        int device, vm, guest_memfd;
} fake;

int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
int __wrap_open64(const char *path, int flags, ...);
int __wrap_ioctl(int fd, unsigned long request, ...);

static int fake_open(const char *path, int flags) {
        if (strcmp(path, "/dev/kvm") != 0)
                return __real_open(path, flags);
        if (fake.missing) {
                errno = ENOENT;
                return -1;
        }
        fake.device = __real_open("/dev/null", flags);
        return fake.device;
}

int __wrap_open(const char *path, int flags, ...) {
        return fake_open(path, flags);
}

int __wrap_open64(const char *path, int flags, ...) {
        return fake_open(path, flags);
}

static int capability(bool of_vm, long which) {
        switch (which) {
        case KVM_CAP_NR_MEMSLOTS:
                return (int) fake.rules.slots_per_address_space;
        case KVM_CAP_MULTI_ADDRESS_SPACE:
                return fake.rules.address_spaces > 1 ? (int) fake.rules.address_spaces : 0;
        case KVM_CAP_READONLY_MEM:
                return fake.rules.readonly;
        case 234: /* KVM_CAP_GUEST_MEMFD */
                return of_vm ? fake.rules.guest_memfd == KVM_GUEST_MEMFD_ANY_VM :
                               fake.rules.guest_memfd != KVM_GUEST_MEMFD_NONE;
        default:
                return 0;
        }
}

static int fail_with(int e) {
        errno = e;
        return -1;
}

static int set_region(unsigned long request, const void *bytes) {
        Memslot memslot;

        if (fake.old || memslot_decode(MEMSLOT_UPSTREAM, request, bytes, MEMSLOT_BYTES_MAX, &memslot) != 0)
                return fail_with(ENOTTY);
        if (memslot.guest_memfd >= 0 && memslot.guest_memfd == fake.guest_memfd)
                memslot.spec.guest_memfd = f.gmem;
        (void) set(f.vm, memslot.spec);
        return f.verdict.kernel_errno > 0 ? fail_with(f.verdict.kernel_errno) : 0;
}

int __wrap_ioctl(int fd, unsigned long request, ...) {
        void *argument;
        va_list ap;

        va_start(ap, request);
        argument = va_arg(ap, void *);
        va_end(ap);

        if (request == KVM_CREATE_VM && fd == fake.device) {
                if (fake.no_vm)
                        return fail_with(ENOMEM);
                fake.vm = dup(fake.device);
                return fake.vm;
        }
        if (request == KVM_CHECK_EXTENSION)
                return capability(fd != fake.device, (long) argument);
        if ((uint32_t) request == CREATE_GUEST_MEMFD && fd == fake.vm) {
                fake.guest_memfd = dup(fake.device);
                return fake.guest_memfd;
        }
        if (fd == fake.vm)
                return set_region(request, argument);
        return fail_with(ENOTTY);
}

/* ---- tests ---- */

static int setup_fake(void **state) {
        (void) state;
        memset(&fake, 0, sizeof(fake));
        fake.rules = kvm_rules_of(KVM_GENERATION_DEFAULT);
        fake.guest_memfd = -1;
        return 0;
}

static KVMHost look(void) {
        int before = dup(0), after;
        KVMHost host;

        close(before);
        setup_with(&fake.rules);
        kvm_host_probe(&host);
        assert_int_equal(slot_count(f.vm), 0);
        teardown(NULL);
        after = dup(0);
        close(after);
        assert_int_equal(before, after); /* all is given back */
        return host;
}

static void assert_same_rules(const KVMRules *found, const KVMRules *wanted) {
        assert_int_equal(found->slots_per_address_space, wanted->slots_per_address_space);
        assert_int_equal(found->address_spaces, wanted->address_spaces);
        assert_int_equal(found->readonly, wanted->readonly);
        assert_int_equal(found->guest_memfd, wanted->guest_memfd);
        assert_int_equal(found->binding_errno, wanted->binding_errno);
        assert_int_equal(found->binding_after_arch, wanted->binding_after_arch);
        assert_int_equal(found->signed_offsets, wanted->signed_offsets);
        assert_int_equal(found->user_end, wanted->user_end);
        assert_int_equal(found->max_gpa, wanted->max_gpa);
}

static void assert_found(void) {
        KVMHost host = look();

        assert_true(host.present);
        assert_true(host.probed);
        assert_same_rules(&host.rules, &fake.rules);
}

static void every_generation(void **state) {
        (void) state;
        for (KVMGeneration generation = 0; generation < _KVM_GENERATION_MAX; generation++) {
                fake.rules = kvm_rules_of(generation);
                fake.rules.max_gpa = MAX_GPA;
                assert_found();
        }
}

static void signed_offsets(void **state) {
        (void) state;
        fake.rules.signed_offsets = true;
        assert_found();
}

static void every_width_of_guest_addresses(void **state) {
        (void) state;
        for (unsigned bits = 32; bits < 63; bits++) {
                fake.rules.max_gpa = UINT64_C(1) << bits;
                assert_found();
        }
        fake.rules.max_gpa = 0;
        assert_found();
}

static void every_width_of_user_addresses(void **state) {
        (void) state;
        for (unsigned bits = 32; bits < 64; bits++) {
                fake.rules.user_end = UINT64_C(1) << bits;
                assert_found();
                fake.rules.user_end -= P;
                assert_found();
        }
}

static void what_the_capabilities_say(void **state) {
        (void) state;
        fake.rules.address_spaces = 1;
        fake.rules.readonly = false;
        fake.rules.slots_per_address_space = 509;
        assert_found();
}

static void no_guest_memfd(void **state) {
        KVMHost host;

        (void) state;
        fake.rules.guest_memfd = KVM_GUEST_MEMFD_NONE;
        host = look();
        assert_same_rules(&host.rules, &fake.rules);
        assert_false(host.guest_memfd);
}

static void defaults_where_there_is_no_kvm(void **state) {
        const KVMRules defaults = kvm_rules_of(KVM_GENERATION_DEFAULT);
        KVMHost host;

        (void) state;
        fake.rules.address_spaces = 1;
        fake.missing = true;
        host = look();
        assert_false(host.present);
        assert_false(host.probed);
        assert_same_rules(&host.rules, &defaults);
}

static void defaults_where_no_vm_can_be_made(void **state) {
        const KVMRules defaults = kvm_rules_of(KVM_GENERATION_DEFAULT);
        KVMHost host;

        (void) state;
        fake.rules.address_spaces = 1;
        fake.no_vm = true;
        host = look();
        assert_true(host.present);
        assert_false(host.probed);
        assert_same_rules(&host.rules, &defaults);
}

static void defaults_where_kvm_is_too_old(void **state) {
        const KVMRules defaults = kvm_rules_of(KVM_GENERATION_DEFAULT);
        KVMHost host;

        (void) state;
        fake.rules.address_spaces = 1;
        fake.old = true;
        host = look();
        assert_false(host.probed);
        assert_same_rules(&host.rules, &defaults);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup(every_generation, setup_fake),
                cmocka_unit_test_setup(signed_offsets, setup_fake),
                cmocka_unit_test_setup(every_width_of_guest_addresses, setup_fake),
                cmocka_unit_test_setup(every_width_of_user_addresses, setup_fake),
                cmocka_unit_test_setup(what_the_capabilities_say, setup_fake),
                cmocka_unit_test_setup(no_guest_memfd, setup_fake),
                cmocka_unit_test_setup(defaults_where_there_is_no_kvm, setup_fake),
                cmocka_unit_test_setup(defaults_where_no_vm_can_be_made, setup_fake),
                cmocka_unit_test_setup(defaults_where_kvm_is_too_old, setup_fake),
        };

        return cmocka_run_group_tests_name("kvm-host", tests, NULL, NULL);
}
