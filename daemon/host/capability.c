/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "host/capability.h"

#include <linux/capability.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

/* glibc has no capget(); libcap would be a library for this one call. */
bool capability_have(unsigned capability) {
        struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
        struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];

        if (capability >= 32 * _LINUX_CAPABILITY_U32S_3 || syscall(SYS_capget, &header, data) < 0)
                return false;
        return data[capability / 32].effective & (UINT32_C(1) << capability % 32);
}
