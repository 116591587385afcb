/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The verbs: one function each, which gets what stands behind its name and returns an exit code. */

#include "session.h"

typedef struct Verb {
        const char *name;
        const char *usage;   /* what may stand behind the name */
        const char *summary; /* one line */
        int (*function)(Session *s, const struct Verb *verb, char **arguments);
} Verb;

#define VERBS(X) \
        X(list, "", "list the VMs") \
        X(show, "VM", "show a VM and its backings") \
        X(register, \
          "VM [--uuid=UUID] [--owner=USER] [--exit-policy=release|retain]\n" \
          "[--retain=TIME] [--retain-guest-memfd] [--alias-policy=enforce|observe]\n" \
          "[--type=undeclared|ordinary|sw_protected|sev|sev_es|snp|tdx]", \
          "register a VM") \
        X(allocate, \
          "VM BACKING SIZE [--kind=memfd|hugetlb] [--page-size=SIZE]\n" \
          "[--numa=bind|preferred|interleave:NODES]", \
          "allocate memory for a VM") \
        X(share, "VM BACKING PEER [--read-only]", "let another VM show a backing too") \
        X(reclaim, "VM BACKING PEER", "take a share back") \
        X(claim, "VM [BACKING]… [--read-only] [--lifetime=TIME]", \
          "make a token with which a process can fetch a VM's memory") \
        X(claims, "VM [--delete=CLAIM]", "list the claims of a VM, or delete one") \
        X(holders, "VM [BACKING]", "show who has the memory of a VM open or mapped") \
        X(slots, "VM [--backing=BACKING] [--guest=ADDRESS[+SIZE]]", \
          "list the slots of a VM, or those that show a backing of it") \
        X(memory, "VM [--guest=ADDRESS[+SIZE]]", "show which memory of a guest is private, and what both sides take") \
        X(check, "VM FILE|-", "say whether these slots would be set") \
        X(release, "VM BACKING", "give a backing's memory back to the host") \
        X(attach, "VM PID", "make a process the VMM of a VM") \
        X(handover, "VM PID|--take-back", "name the process that may take over from a VM's VMM") \
        X(unregister, "VM", "forget a VM and release its backings") \
        X(events, "[--since=SEQUENCE]", "print what happens, until interrupted") \
        X(host, "", "show what the host can do, and its memory") \
        X(ledger, "", "print what privmemd has written down to outlive itself") \
        X(call, "METHOD [PARAMETERS] [--more]", "call a method with a JSON object, and print the answer") \
        X(run, \
          "VM [--backing=NAME=SIZE[,kind=KIND][,page-size=SIZE][,numa=POLICY:NODES]]…\n" \
          "[--uuid=UUID] [--owner=USER] [--exit-policy=…] [--retain=TIME]\n" \
          "[--retain-guest-memfd] [--alias-policy=…] [--type=…] [--take-over]\n" \
          "-- COMMAND…\n" \
          "VM --claim=TOKEN|@FILE [--take-over] -- COMMAND…", \
          "become a VMM that runs on memory from privmemd") \
        X(upgrade, "VM --monitor=SOCKET [--backing=…]… [--timeout=TIME] -- COMMAND…", \
          "replace a running QEMU by another one, on the same memory")

#define VERB_DECLARE(name, usage, summary) int verb_##name(Session *s, const Verb *verb, char **arguments);
VERBS(VERB_DECLARE)
#undef VERB_DECLARE

/* Sorts the arguments of a verb, of which least to most are no options. Returns EXIT_OK with ret->help set if
 * help was asked for, and has been printed. */
struct Arguments;
struct Option;
int verb_parse(Session *s, const Verb *verb, char **arguments, const struct Option *options, size_t least, size_t most,
               struct Arguments *ret);
