# SPDX-License-Identifier: LGPL-2.1-or-later
"""RegisterVM, UnregisterVM, ListVMs and GetHost."""

import os

import pytest

UUID = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"


def test_register_reply(client):
    reply = client.call("RegisterVM", name="web1")
    assert reply["vm"].pop("generation") > 0
    assert reply == {
        "vm": {"name": "web1", "ownerUID": os.geteuid(), "state": "registered", "exitPolicy": "release",
               "retainGuestMemfd": False, "aliasPolicy": "enforce", "type": "undeclared", "backings": 0, "slots": 0,
               "claims": 0, "promisedBytes": 0, "residentBytes": 0},
        "created": True}


@pytest.mark.root
def test_register_takes_every_field(client):
    vm = client.register(uuid=UUID, ownerUID=12345, exitPolicy="retain", aliasPolicy="observe", type="snp")
    assert vm["uuid"] == UUID
    assert (vm["ownerUID"], vm["exitPolicy"], vm["aliasPolicy"], vm["type"]) == (12345, "retain", "observe", "snp")


def test_register_again_is_the_same_vm(client):
    first = client.call("RegisterVM", name="web1", uuid=UUID)
    again = client.call("RegisterVM", name="web1", uuid=UUID)
    assert (first["created"], again["created"]) == (True, False)
    assert first["vm"] == again["vm"]


def test_register_without_uuid_is_the_same_vm(client):
    client.register(uuid=UUID)
    assert client.call("RegisterVM", name="web1")["created"] is False


@pytest.mark.parametrize("field, present, requested", [
    ("uuid", UUID, UUID.replace("6", "7")),
    pytest.param("ownerUID", 12345, 65534, marks=pytest.mark.root),
    ("exitPolicy", "release", "retain"),
    ("aliasPolicy", "observe", "enforce"),
    ("type", "ordinary", "tdx"),
    ("type", "undeclared", "sev_es"),
])
def test_register_another_under_the_name(client, field, present, requested):
    client.register(**{field: present})
    error = client.fails("NameConflict", "RegisterVM", name="web1", **{field: requested})
    assert (error["name"], error["field"]) == ("web1", field)
    assert (error["present"], error["requested"]) == (str(present), str(requested))


def test_register_without_a_type_is_the_same_vm(client):
    client.register(type="snp")
    assert client.register()["type"] == "snp"
    assert client.register(type="undeclared")["type"] == "snp"


def test_register_a_uuid_where_there_is_none(client, vm):
    error = client.fails("NameConflict", "RegisterVM", name="web1", uuid=UUID)
    assert (error["field"], error["present"], error["requested"]) == ("uuid", "none", UUID)


@pytest.mark.parametrize("name", ["a", "A.b_c:d-9", "9" * 64])
def test_register_good_name(client, name):
    assert client.register(name)["name"] == name


@pytest.mark.parametrize("name", [
    "", "-a", ".a", "..", "a/b", "/", "a b", "a\n", "\x1b[31m", "a\x7f", "\u00e9", "\U0001f600", "a" * 65, "a" * 10240,
    "%s%n",
])
def test_register_bad_name(client, name):
    assert client.fails("InvalidName", "RegisterVM", name=name)["field"] == "name"


@pytest.mark.parametrize("uuid", ["", "none", UUID + "0", UUID[:-1] + "g"])
def test_register_bad_uuid(client, uuid):
    assert client.fails("InvalidName", "RegisterVM", name="web1", uuid=uuid)["field"] == "uuid"


def test_register_up_to_the_limit(client):
    limit = client.call("GetHost")["limits"]["vmsPerUID"]
    for i in range(limit):
        client.register(f"vm{i}")
    error = client.fails("LimitExceeded", "RegisterVM", name="more")
    assert (error["limit"], error["maximum"]) == ("vmsPerUID", limit)
    client.call("UnregisterVM", vm="vm0")
    client.register("more")
    vms = client.listed("ListVMs")
    assert len(vms) == limit
    assert [vm["name"] for vm in vms] == sorted(vm["name"] for vm in vms)
    client.fails("ExpectedMore", "ListVMs")


def test_unregister(client, vm):
    assert client.call("UnregisterVM", vm="web1") == {"freedBytes": 0}
    client.fails("NoSuchVM", "UnregisterVM", vm="web1")
    assert client.call("ListVMs") == {"vms": []}


def test_unregister_frees_the_backings(client, vm):
    fd = client.allocate(size=1 << 20).fd
    os.pwrite(fd, bytes(8192), 0)
    assert client.call("UnregisterVM", vm="web1") == {"freedBytes": 8192}
    assert client.call("ListBackings") == {"backings": []}
    assert client.register()["backings"] == 0


def test_unknown_vm_is_named(client):
    error = client.fails("NoSuchVM", "UnregisterVM", vm="web2")
    assert error["vm"] == "web2"
    assert "web2" in error["message"]


def test_unknown_vm_with_control_characters_is_made_harmless(client):
    error = client.fails("NoSuchVM", "UnregisterVM", vm="\x1b[2J" + "x" * 10240)
    assert error["message"].isprintable()
    assert len(error["message"]) < 200 and len(error["vm"]) < 100


def test_list_one_vm(client, vm):
    client.register("web2")
    assert [vm["name"] for vm in client.call("ListVMs", vm="web2")["vms"]] == ["web2"]
    client.fails("NoSuchVM", "ListVMs", vm="web3")


def test_list_counts(client, vm):
    fd = client.allocate(size=1 << 20).fd
    os.pwrite(fd, bytes(4096), 0)
    client.allocate("ram1", size=1 << 21)
    client.call("SetSlot", vm="web1", slot={"slotId": 0, "guestPhysAddr": 0, "memorySize": 4096,
                                            "userspaceAddr": 1 << 32, "backing": "ram0"})
    (listed,) = client.call("ListVMs")["vms"]
    assert (listed["backings"], listed["slots"], listed["promisedBytes"], listed["residentBytes"]) == (
        2, 1, 3 << 20, 4096)
    host = client.call("GetHost")
    assert (host["vms"], host["backings"], host["slots"], host["promisedBytes"], host["residentBytes"]) == (
        1, 2, 1, 3 << 20, 4096)


def test_host(client):
    host = client.call("GetHost")
    assert host["kernelRelease"] == os.uname().release
    assert host["pageSize"] == os.sysconf("SC_PAGESIZE")
    limits = host["limits"]
    assert limits == {"vmsPerUID": 1024, "backingsPerVM": 256, "slotsPerAddressSpace": 32764,
                      "claimsPerVM": 64, "claimsPerUID": 1024, "backingsPerClaim": 253,
                      "addressSpaces": limits["addressSpaces"], "sharesPerBacking": 64, "aliasesPerSlot": 256,
                      "privateRangesPerVM": 32768, "slotsPerCall": 4096, "connections": 4096, "connectionsPerUID": 1024,
                      "subscribersPerUID": 64, "vmsPerSubscription": 64, "holderListsPerUID": 8,
                      "ledgerListsPerUID": 4}
    assert limits["addressSpaces"] in (1, 2)
    assert host["features"]["kvm"] == os.access("/dev/kvm", os.R_OK | os.W_OK)


def test_host_lists_the_pools_of_the_kernel(client):
    host = client.call("GetHost")
    directory = "/sys/kernel/mm/hugepages"
    sizes = {int(name.removeprefix("hugepages-").removesuffix("kB")) << 10 for name in os.listdir(directory)}
    assert set(host["features"]["hugePageSizes"]) == sizes
    assert {pool["pageSize"] for pool in host["hugePagePools"] if pool.get("node") is None} == sizes
    assert all("reserved" in pool for pool in host["hugePagePools"] if pool.get("node") is None)
