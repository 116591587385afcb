# SPDX-License-Identifier: LGPL-2.1-or-later
"""ListLedger and privmemctl ledger: what is written down, printed while privmemd goes on writing."""

import json
import mmap
import os
import pathlib
import socket
import subprocess
import sys
import threading

import pytest

import memory
from broker import binary, wait_until
from contract import golden
from ledger import Ledger, record
from memory import MIB, PAGE, slot
from service_manager import ServiceManager
from wire import Client, member_of

PROJECT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(PROJECT / "tests" / "check"))
import records as check  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")

ME = os.geteuid()
HVA = 0x7E0000000000
NEWER = 4711  # a type that no privmemd knows

root = pytest.mark.skipif(ME != 0, reason="must be root to list the ledger")


@pytest.fixture
def manager(directory, contract):
    manager = ServiceManager(directory, contract)
    yield manager
    manager.close()


def stored(manager):
    (fd,) = [fd for name, fd in manager.store if name.startswith("ledger-")]
    return Ledger(fd)


def listed(client):
    return [one for reply in client.stream("ListLedger") for one in reply["records"]]


def fields(one):
    return {field["name"]: field["value"] for field in one["fields"]}


def ctl(manager, *arguments, status=0):
    done = subprocess.run([binary("client/privmemctl"), f"--socket={manager.path}", *arguments],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done


# ---- every type of record ----


def run_vmm(path, vm):
    client = Client(path, golden())
    client.register(vm, exitPolicy="retain", retainUSec=10**12)
    client.call("AttachVM", vm=vm)
    mapped = mmap.mmap(client.allocate(vm=vm, name="ram0").fd, MIB)
    hva = memory.address_of(mapped)
    client.call("SetSlot", vm=vm, slot=slot(0, 0, MIB, backing="ram0", userspaceAddr=hva))
    client.close()
    run_vmm.kept = mapped
    return os.getpid()


def with_process(client, method, vm, process):
    client.call(method, vm=vm, pidFileDescriptor=0, fds=[process.pidfd])


def vm_of(client, name):
    return client.call("ListVMs", vm=name)["vms"][0]


def hand_over(client, process, path, vm, new_exits):
    """One of both exits, and the VM is the other one's."""
    old, new = process(ME, run_vmm, path, vm), process(ME, os.getpid)
    with_process(client, "HandOverVM", vm, new)
    with_process(client, "AttachVM", vm, new)
    leaving, staying = (new, old) if new_exits else (old, new)
    leaving.kill()
    wait_until(lambda: [vm_of(client, vm).get(key) for key in ("pid", "outgoingPID")] == [staying.result, None])
    return staying


def change_everything(client, process, path):
    """Whatever a record is written of."""
    client.register("web1", uuid="5d5e8b6a-0f7c-4d3c-9d2b-6a1f5e8f0c11", aliasPolicy="observe", type="sw_protected")
    client.allocate("ram0")
    client.allocate("gone")
    client.call("ReleaseBacking", vm="web1", backing="gone")
    client.register("web2")
    client.call("ShareBacking", vm="web1", backing="ram0", peer="web2", access="read_only")
    client.call("ReclaimBacking", vm="web1", backing="ram0", peer="web2")
    client.call("SetSlot", vm="web1", slot=slot(3, 0, MIB, backing="ram0", userspaceAddr=HVA))
    client.call("SetSlot", vm="web1", slot={"slotId": 3, "guestPhysAddr": 0, "memorySize": 0})
    client.call("SetMemoryAttributes", vm="web1", guestPhysAddr=MIB, memorySize=2 * MIB, private=True)
    client.call("UnregisterVM", vm="web2")
    claim = client.call("CreateClaim", vm="web1", backings=["ram0"])["claim"]
    client.call("DeleteClaim", vm="web1", claim=claim)
    hand_over(client, process, path, "web3", new_exits=True)
    hand_over(client, process, path, "web4", new_exits=False).kill()
    wait_until(lambda: vm_of(client, "web4")["state"] == "retained")


def wanted_fields():
    """What check/records.py says that each type has."""
    text = {name: (PROJECT / name).read_text(encoding="utf-8") for name in (check.ENUM, check.BODIES, check.READER)}
    structs, bodies = check.structs(text[check.BODIES]), check.bodies(text[check.READER])
    return {name: list(dict.fromkeys(field.split(".")[0] for _, size, field in structs[bodies[name]]
                                     if size > 0 and not field.startswith("unused")))
            for name in check.numbers(text[check.ENUM])}


@root
def test_every_type_of_record_is_printed(manager, process):
    client = manager.start().connect()
    change_everything(client, process, manager.path)
    everything = listed(client)
    found = {one["type"]: one for one in everything}
    missing = wanted_fields().keys() - found.keys()
    assert not missing, f"change_everything() must make these records too: {missing}"
    for one in everything:
        assert [name for name in fields(one) if "[" not in name] == wanted_fields()[one["type"]]
    printed = ctl(manager, "ledger").stdout
    for name in found:
        assert f" {name} " in printed


@root
def test_values_are_those_of_the_objects(manager):
    client = manager.start().connect()
    uuid = "5d5e8b6a-0f7c-4d3c-9d2b-6a1f5e8f0c11"
    client.register("web1", uuid=uuid, aliasPolicy="observe", type="sev_es")
    client.allocate("ram0", size=3 * MIB)
    client.call("SetSlot", vm="web1", slot=slot(3, 16 * PAGE, MIB, backing="ram0", backingOffset=MIB,
                                                userspaceAddr=HVA, flags=["log_dirty_pages"]))
    vm, backing, the_slot = listed(client)[-3:]
    assert (vm["type"], vm["vm"], vm["version"], vm["size"]) == ("VM", "web1", 1, 64 + len("web1"))
    assert vm.get("backingId") is None
    seen = fields(vm)
    assert (seen["id"], seen["name"], seen["owner"]) == (str(vm["vmId"]), "web1", str(ME))
    assert seen["uuid"] == uuid.replace("-", "")
    assert (seen["exit_policy"], seen["alias_policy"], seen["type"], seen["state"]) == (
        "release", "observe", "sev_es", "registered")
    assert (backing["type"], backing["vm"], backing["backing"]) == ("BACKING", "web1", "ram0")
    seen, file = fields(backing), os.fstat(client.call("OpenBacking", vm="web1", backing="ram0").fd)
    assert (seen["kind"], seen["origin"], seen["numa_policy"], seen["size"]) == (
        "memfd", "allocated", "none", str(3 * MIB))
    assert (seen["dev"], seen["ino"]) == (f"{os.major(file.st_dev)}:{os.minor(file.st_dev)}", str(file.st_ino))
    assert (the_slot["type"], the_slot["vm"], the_slot["backing"]) == ("SLOT", "web1", "ram0")
    seen = fields(the_slot)
    assert (seen["as_id"], seen["id"], seen["gpa"], seen["size"], seen["hva"], seen["offset"], seen["flags"]) == (
        "0", "3", hex(16 * PAGE), hex(MIB), hex(HVA), hex(MIB), "0x1")
    assert [one["sequence"] for one in (vm, backing, the_slot)] == [1, 2, 3]
    ledger = stored(manager)
    assert [one["offset"] for one in (vm, backing, the_slot)] == [at + 40 for at, _ in ledger.frames[-3:]]


@root
def test_what_is_gone_keeps_its_name(manager):
    client = manager.start().connect()
    client.register("web1")
    client.allocate("ram0")
    client.call("ReleaseBacking", vm="web1", backing="ram0")
    client.call("UnregisterVM", vm="web1")
    backing, vm = listed(client)[-2:]
    assert (backing["type"], backing["vm"], backing["backing"]) == ("BACKING_GONE", "web1", "ram0")
    assert (vm["type"], vm["vm"], vm.get("backing")) == ("VM_GONE", "web1", None)


# ---- while it is written, and after a restart ----


@root
def test_it_is_the_same_after_a_restart_and_goes_on(manager):
    client = manager.start().connect()
    client.register("web1")
    client.allocate("ram0")
    before = listed(client)
    client = manager.restart().connect()
    after = listed(client)
    assert after[:len(before)] == before
    assert [one["type"] for one in after[len(before):]] == ["IDS"]
    client.allocate("ram1")
    assert [one["backing"] for one in listed(client)[len(after):]] == ["ram1"]
    client = manager.restart().connect()
    assert [one["name"] for one in client.listed("ListBackings")] == ["ram0", "ram1"]


@root
def test_a_long_one_does_not_hold_up_anybody(manager):
    client = manager.start().connect()
    client.register("web1")
    client.allocate("ram0", size=4096 * PAGE)
    slots = [slot(i, i * PAGE, PAGE, backing="ram0", backingOffset=i * PAGE, userspaceAddr=HVA + i * PAGE)
             for i in range(4096)]
    client.call("SetSlots", vm="web1", slots=slots)
    other = manager.daemon.connect()
    stream = other.stream("ListLedger")
    first = next(stream)
    # The list stands still, for nobody reads it, and what happens now is not in it.
    for i in range(50):
        client.allocate(f"later{i}", size=PAGE)
    rest = [one for reply in stream for one in reply["records"]]
    assert len(first["records"]) == 128
    assert len(first["records"]) + len(rest) == 3 + 4096
    assert (first["frames"], first["bytes"]) == (4, stored(manager).frames[3][0] + stored(manager).frames[3][1])
    assert sum(one["type"] == "BACKING" for one in listed(client)) == 51


@root
def test_a_new_generation_does_not_end_a_list(manager):
    client = manager.start().connect()
    client.register("web1")
    client.allocate("ram0", size=4096 * PAGE)
    slots = [slot(i, i * PAGE, PAGE, backing="ram0", backingOffset=i * PAGE, userspaceAddr=HVA + i * PAGE)
             for i in range(4096)]
    client.call("SetSlots", vm="web1", slots=slots)
    stream = manager.daemon.connect().stream("ListLedger")
    replies = [next(stream)]
    generation = replies[0]["generation"]
    for i in range(8):  # twice the snapshot and a mebibyte
        client.call("SetSlots", vm="web1", slots=[{**one, "flags": ["log_dirty_pages"] * (i % 2 == 0)} for one in slots])
    wait_until(lambda: stored(manager).generation > generation)
    replies += stream
    assert {reply["generation"] for reply in replies} == {generation}
    assert sum(len(reply["records"]) for reply in replies) == 3 + 4096


@root
def test_records_of_a_newer_privmemd(manager):
    manager.start()
    manager.end()
    ledger = stored(manager)
    ledger.append(ledger.frame(record(NEWER, b"whatever"), record(2, bytes(64), version=9)))
    client = manager.start(is_quiet=False).connect()
    first, second, _ = listed(client)[-3:]
    assert (first["type"], first["version"], first["size"], first["fields"]) == (str(NEWER), 1, 8, [])
    assert (second["type"], second["version"], second["size"], second["fields"]) == ("2", 9, 64, [])
    assert f" {NEWER} " in ctl(manager, "ledger").stdout


# ---- damage ----


@pytest.fixture
def damaged(manager):
    """A privmemd whose ledger somebody writes into while it runs."""
    client = manager.start().connect()
    for i in range(5):
        client.register(f"web{i}")
    return manager, client, stored(manager)


@root
def test_damage_is_printed_for_what_it_is(damaged):
    manager, client, ledger = damaged
    (at, size), (_, next_size) = ledger.frames[2:4]
    ledger.flip(at + 60)
    ledger.flip(at + size + 60)
    seen = listed(client)
    assert [one["type"] for one in seen] == ["IDS", "VM", "DAMAGED", "VM", "VM"]
    gap = seen[2]
    assert (gap["sequence"], gap["offset"], gap["size"], gap["version"]) == (2, at, size + next_size, 0)
    assert fields(gap) == {"missing_frames": "2"}
    done = ctl(manager, "ledger")
    assert "DAMAGED" in done.stdout and "missing_frames=2" in done.stdout
    assert "cannot be read any more" in done.stderr


@root
def test_damage_at_the_end_is_no_torn_frame(damaged):
    _, client, ledger = damaged
    at, size = ledger.frames[-1]
    ledger.flip(at + 60)
    seen = listed(client)
    assert [one["type"] for one in seen] == ["IDS"] + 4 * ["VM"] + ["DAMAGED"]
    assert (seen[-1]["offset"], seen[-1]["size"], fields(seen[-1])) == (at, size, {"missing_frames": "1"})


@root
def test_torn_frame_is_printed_for_what_it_is(damaged):
    manager, client, ledger = damaged
    frame = ledger.frame(record(2, b"\1" * 64))
    ledger.append(frame[:-10])
    seen = listed(client)
    assert (seen[-1]["type"], seen[-1]["sequence"], seen[-1]["offset"], seen[-1]["size"]) == (
        "TORN", 6, ledger.end, len(frame) - 10)
    assert "Nobody was told of it" in ctl(manager, "ledger").stderr


# ---- who may, and without a ledger ----


@pytest.mark.root
def test_whoever_manages_may(start, directory):
    (directory / "conf").write_text("[Access]\nManagerGroup=60321\n")
    daemon = start(command=[binary(), f"--socket={directory / 'socket'}", f"--config={directory / 'conf'}"])
    with member_of(60321):
        client = daemon.connect(uid=4711)
    assert client.call("ListLedger")["records"] == []
    error = daemon.connect(uid=4711).fails("NotPermitted", "ListLedger")
    assert (error["object"], error["peerUID"]) == ("the ledger", 4711)
    assert "who has the right to manage" in error["message"]


@root
def test_without_a_ledger(daemon, client):
    assert client.call("ListLedger") == {"custody": "none", "generation": 0, "bytes": 0, "frames": 0, "records": []}
    assert "keeps no ledger" in ctl(daemon, "ledger").stdout


@root
def test_ledger_in_a_directory(directory, start):
    state = directory / "state"
    state.mkdir(mode=0o700)
    daemon = start(command=[binary(), f"--socket={directory}/socket", f"--ledger={state}"])
    client = daemon.connect()
    client.register("web1")
    reply = client.call("ListLedger")
    assert reply["custody"] == "runtime_file"
    assert [one["type"] for one in reply["records"]] == ["IDS", "VM"]


@root
def test_lists_are_few(manager):
    client = manager.start().connect()
    client.register("web1")
    client.allocate("ram0", size=4096 * PAGE)
    client.call("SetSlots", vm="web1", slots=[
        slot(i, i * PAGE, PAGE, backing="ram0", backingOffset=i * PAGE, userspaceAddr=HVA + i * PAGE)
        for i in range(4096)])
    streams = [manager.daemon.connect().stream("ListLedger") for _ in range(4)]
    for stream in streams:
        next(stream)
    error = client.fails("LimitExceeded", "ListLedger")
    assert (error["limit"], error["maximum"]) == ("ledgerListsPerUID", 4)
    for stream in streams:
        assert sum(len(reply["records"]) for reply in stream) == 3 + 4096 - 128
    assert client.fails("org.varlink.service.ExpectedMore", "ListLedger") == {}


# ---- privmemctl ----


@root
def test_table(manager):
    client = manager.start().connect()
    client.register("web1")
    client.allocate("ram0")
    done = ctl(manager, "ledger")
    head, empty, titles, *lines = done.stdout.splitlines()
    assert head.startswith("Generation 1: ") and head.endswith(" in 3 frames (fd_store)")
    assert (empty, titles.split()) == ("", ["FRAME", "OFFSET", "RECORD", "VM/BACKING", "FIELDS"])
    assert [line.split()[:4:2] for line in lines] == [["0", "IDS"], ["1", "VM"], ["2", "BACKING"]]
    assert lines[2].split()[3] == "web1/ram0"
    assert " name=ram0 kind=memfd " in lines[2]
    assert done.stderr == ""


@root
def test_json(manager):
    client = manager.start().connect()
    client.register("web1")
    replies = [json.loads(line) for line in ctl(manager, "--json", "ledger").stdout.splitlines()]
    assert [one for reply in replies for one in reply["records"]] == listed(client)


def strange(path, replies):
    """A server that answers one call with whatever a test wants."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(1)

    def serve():
        with listener, listener.accept()[0] as link:
            link.recv(4096)
            for i, reply in enumerate(replies):
                link.sendall(json.dumps({"parameters": reply, "continues": i + 1 < len(replies)}).encode() + b"\0")
            link.recv(1)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


def test_answers_of_another_privmemd(directory):
    """A later one may say more, and a broken one less."""
    path = directory / "strange"
    thread = strange(path, [
        {"custody": "in_the_cloud", "generation": 3, "records": [{}, {"type": 5, "fields": [{}, 7]}]},
        {"records": [{"type": "NEW", "version": 7, "size": 3, "vmId": 12, "backingId": 13, "fields": []}]},
        {"records": "none"}])
    done = subprocess.run([binary("client/privmemctl"), f"--socket={path}", "ledger"], capture_output=True, text=True,
                          timeout=30, check=False)
    thread.join()
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "Generation 3: - in - frames (in_the_cloud)"
    assert lines[-1].split() == ["0", "0", "NEW", "#12/#13", "3", "bytes", "of", "version", "7"]
