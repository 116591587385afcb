/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "words.h"

#include <stddef.h>
#include <string.h>

#include "privmem.h"

const char *const exit_policy_words[3] = {
        [PRIVMEM_EXIT_POLICY_RELEASE] = "release",
        [PRIVMEM_EXIT_POLICY_RETAIN] = "retain",
};

const char *const alias_policy_words[3] = {
        [PRIVMEM_ALIAS_POLICY_ENFORCE] = "enforce",
        [PRIVMEM_ALIAS_POLICY_OBSERVE] = "observe",
};

const char *const vm_type_words[7] = {
        [PRIVMEM_VM_TYPE_UNDECLARED] = "undeclared",
        [PRIVMEM_VM_TYPE_ORDINARY] = "ordinary",
        [PRIVMEM_VM_TYPE_SW_PROTECTED] = "sw_protected",
        [PRIVMEM_VM_TYPE_SEV] = "sev",
        [PRIVMEM_VM_TYPE_SEV_ES] = "sev_es",
        [PRIVMEM_VM_TYPE_SNP] = "snp",
        [PRIVMEM_VM_TYPE_TDX] = "tdx",
};

const char *const kind_words[4] = {
        [PRIVMEM_KIND_MEMFD] = "memfd",
        [PRIVMEM_KIND_HUGETLB] = "hugetlb",
        [PRIVMEM_KIND_GUEST_MEMFD] = "guest_memfd",
};

const char *const numa_policy_words[4] = {
        [PRIVMEM_NUMA_BIND] = "bind",
        [PRIVMEM_NUMA_PREFERRED] = "preferred",
        [PRIVMEM_NUMA_INTERLEAVE] = "interleave",
};

const char *const access_words[2] = {
        [PRIVMEM_ACCESS_READ_WRITE] = "read_write",
        [PRIVMEM_ACCESS_READ_ONLY] = "read_only",
};

const char *const outcome_words[3] = {
        [PRIVMEM_OUTCOME_OK] = "ok",
        [PRIVMEM_OUTCOME_ALLOWED] = "allowed",
        [PRIVMEM_OUTCOME_REFUSED] = "refused",
};

const char *word_at(const char *const *words, unsigned n, unsigned value) {
        return value < n ? words[value] : "invalid";
}

int value_in(const char *const *words, unsigned n, const char *word) {
        if (!word)
                return -1;
        for (unsigned i = 0; i < n; i++)
                if (words[i] && strcmp(words[i], word) == 0)
                        return (int) i;
        return -1;
}
