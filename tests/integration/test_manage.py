# SPDX-License-Identifier: LGPL-2.1-or-later
"""The right to manage: a group does with every VM what needs no file descriptor, and never gets one."""

import os
import socket

import pytest

import memory
from broker import binary
from memory import MIB, PAGE, slot
from user import ALICE, BOB
from wire import INTERFACE, member_of

pytestmark = pytest.mark.root

MANAGERS = 60321
CAROL = 23456
HVA = 0x100000000
CONFIG = f"[Access]\nManagerGroup={MANAGERS}\n"


@pytest.fixture
def daemon(start, directory):
    (directory / "conf").write_text(CONFIG)
    return start(command=[binary(), f"--socket={directory / 'socket'}", f"--config={directory / 'conf'}"])


@pytest.fixture
def carol(daemon):
    with member_of(1, MANAGERS, 7):
        return daemon.connect(CAROL)


@pytest.fixture
def web1(alice):
    alice.register("web1", exitPolicy="retain")
    alice.register("web2")
    alice.allocate()
    alice.call("SetSlot", vm="web1", slot=slot(0, 0, PAGE, backing="ram0", userspaceAddr=HVA))


def test_registers_for_others(carol, alice):
    vm = carol.register("web1", ownerUID=ALICE)
    assert vm["ownerUID"] == ALICE
    assert carol.register("web2")["ownerUID"] == CAROL
    assert carol.register("web3", ownerUID=0)["ownerUID"] == 0
    assert [one["name"] for one in alice.listed("ListVMs")] == ["web1"]
    assert os.fstat(allocated(carol, alice)).st_uid == ALICE


def allocated(carol, alice):
    assert dict(carol.allocate(open=False)) == {"created": True}
    return alice.call("OpenBacking", vm="web1", backing="ram0").fd


CALLS = [
    ("RegisterVM", {"name": "web1", "ownerUID": ALICE}),
    ("AllocateBacking", {"vm": "web1", "name": "ram1", "size": MIB, "open": False}),
    ("AllocateBacking", {"vm": "web1", "name": "ram2", "size": MIB, "dryRun": True}),
    ("ShareBacking", {"vm": "web1", "backing": "ram1", "peer": "web2"}),
    ("SetSlot", {"vm": "web2", "slot": slot(9, 0, MIB, backing="ram1", backingVM="web1", userspaceAddr=HVA)}),
    ("SetSlot", {"vm": "web2", "slot": slot(9, 0, 0)}),
    ("ReclaimBacking", {"vm": "web1", "backing": "ram1", "peer": "web2"}),
    ("PunchBacking", {"vm": "web1", "backing": "ram1", "offset": 0, "size": PAGE}),
    ("ListHolders", {"vm": "web1"}),
    ("SetSlots", {"vm": "web1", "slots": [slot(0, 0, 0)]}),
    ("CheckSlots", {"vm": "web1", "slots": []}),
    ("SetMemoryAttributes", {"vm": "web1", "guestPhysAddr": 0, "memorySize": PAGE, "private": False}),
    ("ListMemory", {"vm": "web1"}),
    ("ListLedger", {}),
    ("CreateClaim", {"vm": "web1", "backings": ["ram0"]}),
    ("ListClaims", {"vm": "web1"}),
    ("DeleteClaim", {"vm": "web1", "claim": "none"}),
    ("ReleaseBacking", {"vm": "web1", "backing": "ram1"}),
    ("UnregisterVM", {"vm": "web2"}),
    ("UnregisterVM", {"vm": "web1"}),
]


def test_does_all_that_needs_no_fd(carol, bob, web1):
    for method, parameters in CALLS:
        bob.fails("NotPermitted", method, **parameters)
        if method == "DeleteClaim":
            carol.fails("NoSuchClaim", method, **parameters)
        else:
            assert carol.call(method, **parameters).fds == [], method


def test_rows_that_are_not_tried_here(carol):
    """Each method is either in CALLS, or for everybody, or has file descriptors."""
    fds = {"AttachVM", "HandOverVM", "AdoptBacking", "OpenBacking", "RedeemClaim"}
    anyone = {"GetHost", "GetMetrics", "ListVMs", "ListBackings", "ListSlots", "ListMetrics", "Subscribe"}
    methods = {name for name, member in carol.contract.members.items() if hasattr(member, "out_type")}
    assert methods - fds - anyone == {method for method, _ in CALLS}


def test_gets_no_fd(carol, web1, donation):
    fd = donation(MIB)
    for method, parameters, fds in [
            ("AllocateBacking", {"vm": "web1", "name": "ram0", "size": MIB}, []),
            ("AllocateBacking", {"vm": "web1", "name": "ram9", "size": MIB, "open": True}, []),
            ("OpenBacking", {"vm": "web1", "backing": "ram0"}, []),
            ("OpenBacking", {"vm": "web1", "backing": "ram0", "access": "read_only"}, []),
            ("AdoptBacking", {"vm": "web1", "name": "given", "fileDescriptor": 0}, [fd]),
            ("AdoptBacking", {"vm": "web1", "name": "given", "kind": "guest_memfd", "size": MIB}, []),
            ("AttachVM", {"vm": "web1"}, []),
            ("HandOverVM", {"vm": "web1"}, [])]:
        error = carol.fails("NotPermitted", method, fds=fds, **parameters)
        assert (error["object"], error["peerUID"]) == ("web1", CAROL), method
        assert "may manage" in error["message"] and "file descriptor" in error["message"]
    assert [one["name"] for one in carol.listed("ListBackings")] == ["ram0"]


def test_makes_claims_for_others_alone(carol, alice, bob, web1):
    for redeemer, is_good in ((carol, False), (bob, True)):
        token = carol.call("CreateClaim", vm="web1", backings=["ram0"])["token"]
        if is_good:
            assert redeemer.call("RedeemClaim", vm="web1", token=token)["backings"][0]["name"] == "ram0"
        else:
            assert "may manage" in redeemer.fails("NotPermitted", "RedeemClaim", vm="web1", token=token)["message"]
            assert alice.call("RedeemClaim", vm="web1", token=token)["backings"], "it is still good"
    carol.fails("ClaimInvalid", "RedeemClaim", vm="nobody", token=token)


def test_gets_no_fd_by_a_share_with_itself(carol, web1):
    """Its group is asked before its own VM."""
    carol.register("mine")
    carol.call("ShareBacking", vm="web1", backing="ram0", peer="mine")
    carol.fails("NotPermitted", "OpenBacking", vm="web1", backing="ram0")
    assert carol.allocate("own", vm="mine").fds, "of its own VM it is the owner"


def test_owner_is_no_less_for_its_group(daemon, web1):
    with member_of(MANAGERS):
        alice = daemon.connect(ALICE)
    assert alice.call("OpenBacking", vm="web1", backing="ram0").fds


def test_lists_show_all(carol, bob, alice, web1):
    bob.register("db1")
    alice.call("ShareBacking", vm="web1", backing="ram0", peer="db1")
    root = {method: carol.listed(method) for method in ("ListVMs", "ListBackings", "ListSlots", "ListMetrics")}
    assert [vm["name"] for vm in root["ListVMs"]] == ["db1", "web1", "web2"]
    assert root["ListBackings"][0]["shares"] == [{"vm": "db1", "access": "read_write"}]
    assert root["ListSlots"] and len(root["ListMetrics"]) == 3
    assert {one.get("uid") for one in carol.call("GetMetrics")["quotas"]} == {None, ALICE, BOB}
    assert carol.call("ListVMs", vm="web1")["vms"][0]["name"] == "web1"
    assert carol.call("ListBackings", vm="web1", backing="ram0")["backings"] == root["ListBackings"]
    assert [page["vms"][0]["name"] for page in (carol.call("ListVMs", limit=1),)] == ["db1"]


def test_hears_of_all(daemon, carol, alice):
    events = carol.stream("Subscribe")
    next(events)
    alice.register("web1")
    assert next(events)["event"]["vm"] == "web1"


@pytest.mark.parametrize("groups, primary, wanted", [
    ((MANAGERS,), None, True),
    ((), MANAGERS, True),
    ((1, 2, 3), 4, False),
    ((), None, False),
    ((0,), 0, False),
    (tuple(range(100000, 100000 + 1000)) + (MANAGERS,), 5, True),
    (tuple(range(100000, 100000 + 1000)), 5, False),
])
def test_who_is_a_member(daemon, web1, groups, primary, wanted):
    with member_of(*groups, primary=primary):
        client = daemon.connect(BOB)
    assert [vm["name"] for vm in client.listed("ListVMs")] == (["web1", "web2"] if wanted else [])


def test_groups_are_those_of_when_it_connected(daemon, web1):
    client = daemon.connect(BOB)
    with member_of(MANAGERS):
        assert client.listed("ListVMs") == []


def test_without_a_group_nobody_manages(start, directory, contract):
    (directory / "conf").write_text("[Access]\nManagerGroup=\n")
    daemon = start(command=[binary(), f"--socket={directory / 'socket'}", f"--config={directory / 'conf'}"])
    daemon.connect(ALICE).register("web1")
    with member_of(MANAGERS, 0):
        daemon.connect(CAROL).fails("NotPermitted", "UnregisterVM", vm="web1")


def test_own_uid_manages(start, directory):
    """A service that has the capabilities to own for others, but is not root."""
    os.chmod(directory, 0o777)
    daemon = start(command=["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups", "--inh-caps=+chown,+fowner",
                            "--ambient-caps=+chown,+fowner", binary(), f"--socket={directory / 'socket'}"])
    os.chmod(directory / "socket", 0o666)
    daemon.connect(ALICE).register("web1")
    own = daemon.connect(54321)
    own.allocate(open=False)
    assert own.listed("ListBackings")[0]["vm"] == "web1"
    own.fails("NotPermitted", "OpenBacking", vm="web1", backing="ram0")


def test_what_outsiders_are_told(bob, web1):
    told = bob.fails("NotPermitted", "ReleaseBacking", vm="web1", backing="ram0")["message"]
    assert told == (f"uid {BOB} may not do this to VM web1: only its owner, root and who has the right to manage may. "
                    "Call as one of them.")
    told = bob.fails("NotPermitted", "OpenBacking", vm="web1", backing="ram0")["message"]
    assert told == f"uid {BOB} may not do this to VM web1: only its owner and root may. Call as one of them."


def test_memory_that_a_manager_allocates_is_the_owners(carol, alice, process, daemon):
    carol.register("web1", ownerUID=ALICE, exitPolicy="retain")
    carol.allocate(open=False)
    memory.write(alice.call("OpenBacking", vm="web1", backing="ram0").fd, b"alice's")
    freed = carol.call("ReleaseBacking", vm="web1", backing="ram0")["freedBytes"]
    assert freed == PAGE


def test_client_that_has_no_room_for_fds(carol, web1):
    """What privmem-rest does; there is nothing to drop."""
    carol.send("AllocateBacking", {"vm": "web1", "name": "ram1", "size": MIB, "open": False})
    data, ancillary, flags, _ = carol.socket.recvmsg(4096, socket.CMSG_SPACE(4))
    assert INTERFACE.encode() not in data and ancillary == [] and not flags & socket.MSG_CTRUNC
