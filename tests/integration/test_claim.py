# SPDX-License-Identifier: LGPL-2.1-or-later
"""A token gives a VM's memory to whoever has it: once, for a time, and nothing else to anybody."""

import fcntl
import hashlib
import json
import mmap
import os
import re
import signal
import subprocess
import threading
import time

import pytest

import memory
import user
from broker import binary, wait_until
from contract import golden
from ledger import Ledger
from memory import MIB
from service_manager import ServiceManager
from wire import Client, Closed, Refusal

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")

ME = os.geteuid()
MINUTE = 60 * 1_000_000
DAY = 24 * 60 * MINUTE
CLAIM = 18


@pytest.fixture
def manager(directory, contract):
    manager = ServiceManager(directory, contract)
    yield manager
    manager.close()


@pytest.fixture
def memory_of(client):
    """web1, with two backings that say who they are."""
    client.register("web1")
    for name in ("ram0", "ram1"):
        memory.write(client.allocate(name, size=MIB).fd, name.encode())
    return client


def claim(client, vm="web1", **parameters):
    return client.call("CreateClaim", vm=vm, **parameters)


def redeem(client, token, vm="web1", **parameters):
    return client.call("RedeemClaim", vm=vm, token=token, **parameters)


def is_refused(client, token, vm="web1", **parameters):
    error = client.fails("ClaimInvalid", "RedeemClaim", vm=vm, token=token, **parameters)
    assert error.keys() == {"message", "vm"}
    return True


def names(client, vm="web1"):
    return [one["claim"] for one in client.listed("ListClaims", vm=vm)]


def contents(reply):
    return {one["name"]: memory.read(reply.fds[one["fileDescriptor"]], 4) for one in reply["backings"]}


def events_of(daemon, kinds, since=0, uid=None):
    """Those that there have been, without what changes from run to run."""
    found = []
    with daemon.connect(uid) as client:
        newest = None
        for reply in client.stream("Subscribe", since=since):
            event = reply["event"]
            newest = newest or event["sequence"]
            if event["kind"] in kinds:
                found.append(event)
            if event["sequence"] >= newest and event["kind"] != "subscribed":
                return found


# ---- what a claim gives ----


def test_a_claim_gives_all_memory(daemon, memory_of):
    made = claim(memory_of)
    assert re.fullmatch(r"pmc_[A-Za-z0-9_-]{43}", made["token"])
    assert made["socket"] == str(daemon.path)
    assert abs(made["expiresUSec"] - time.time() * 1e6 - 5 * MINUTE) < MINUTE
    reply = redeem(daemon.connect(), made["token"])
    assert contents(reply) == {"ram0": b"ram0", "ram1": b"ram1"}
    assert [(one["kind"], one["size"], one["access"]) for one in reply["backings"]] == \
        [("memfd", MIB, "read_write")] * 2
    assert reply["vm"]["name"] == "web1" and reply["vm"]["state"] == "registered"
    assert all(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR for fd in reply.fds)


def test_named_backings_come_in_that_order(memory_of):
    reply = redeem(memory_of, claim(memory_of, backings=["ram1", "ram0", "ram1"])["token"])
    assert [one["name"] for one in reply["backings"]] == ["ram1", "ram0"]
    reply = redeem(memory_of, claim(memory_of, backings=["ram1"])["token"])
    assert contents(reply) == {"ram1": b"ram1"}


def test_what_comes_later_is_not_claimed(memory_of):
    made = claim(memory_of)
    memory_of.allocate("ram2")
    assert [one["name"] for one in redeem(memory_of, made["token"])["backings"]] == ["ram0", "ram1"]


def test_for_reading_only(memory_of):
    reply = redeem(memory_of, claim(memory_of, backings=["ram0"], access="read_only")["token"])
    assert reply["backings"][0]["access"] == "read_only"
    assert contents(reply) == {"ram0": b"ram0"}
    with pytest.raises(OSError):
        os.pwrite(reply.fds[0], b"x", 0)


def test_hugetlb_and_adopted_memory(memory_of, donation, request):
    memory_of.adopt(donation(), "given")
    assert redeem(memory_of, claim(memory_of, backings=["given"])["token"])["backings"][0]["size"] == MIB


def test_as_many_as_one_message_takes(daemon, client):
    client.register("web1")
    for i in range(253):
        client.allocate(f"ram{i}", size=memory.PAGE)
    reply = redeem(daemon.connect(), claim(client)["token"])
    assert len({memory.identity(fd) for fd in reply.fds}) == len(reply["backings"]) == 253
    client.close_fds()
    client.allocate("more", size=memory.PAGE)
    error = client.fails("InvalidValue", "CreateClaim", vm="web1")
    assert (error["value"], error["maximum"]) == (254, 253)
    claim(client, backings=["more"])


@pytest.mark.parametrize("parameters, field", [
    ({"lifetimeUSec": 0}, "lifetimeUSec"),
    ({"lifetimeUSec": DAY + 1}, "lifetimeUSec"),
    ({"backings": []}, "number of backings"),
    ({"backings": ["ram0"] * 254}, "number of backings"),
])
def test_values_out_of_range(memory_of, parameters, field):
    assert memory_of.fails("InvalidValue", "CreateClaim", vm="web1", **parameters)["field"] == field
    assert names(memory_of) == []


def test_a_backing_that_there_is_not(memory_of):
    error = memory_of.fails("NoSuchBacking", "CreateClaim", vm="web1", backings=["ram0", "ram7"])
    assert error["backing"] == "ram7"


def test_a_vm_without_memory(client):
    client.register("web1")
    assert client.fails("InvalidValue", "CreateClaim", vm="web1")["value"] == 0


# ---- once, and for a time ----


def test_once(daemon, memory_of):
    token = claim(memory_of)["token"]
    redeem(memory_of, token)
    assert is_refused(memory_of, token) and is_refused(daemon.connect(), token)
    assert names(memory_of) == []


def test_one_of_many_at_once(daemon, memory_of):
    token = claim(memory_of)["token"]
    clients = [daemon.connect() for _ in range(16)]
    won, lost = [], []

    def try_it(client):
        try:
            won.append(redeem(client, token))
        except Refusal as refusal:
            lost.append(refusal.error)

    threads = [threading.Thread(target=try_it, args=[client]) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1 and lost == ["io.privmemd.Memory.ClaimInvalid"] * 15


def test_it_expires(daemon, memory_of):
    token = claim(memory_of, lifetimeUSec=50_000)["token"]
    later = claim(memory_of, lifetimeUSec=DAY)["claim"]
    wait_until(lambda: names(memory_of) == [later])
    assert is_refused(memory_of, token)
    (expired,) = events_of(daemon, ["claim_expired"])
    assert expired["vm"] == "web1"


def test_the_first_to_expire_need_not_be_the_first_made(memory_of):
    claim(memory_of, lifetimeUSec=MINUTE)
    claim(memory_of, lifetimeUSec=200_000)
    claim(memory_of, lifetimeUSec=20_000)
    wait_until(lambda: len(names(memory_of)) == 1)


def test_a_deleted_claim(daemon, memory_of):
    one, other = claim(memory_of), claim(memory_of)
    assert names(memory_of) == [one["claim"], other["claim"]]
    assert memory_of.call("DeleteClaim", vm="web1", claim=one["claim"]) == {}
    assert is_refused(memory_of, one["token"])
    redeem(memory_of, other["token"])
    for gone in (one["claim"], other["claim"], "c", "", "c0", "c18446744073709551616", f"{one['claim']} ", "ram0"):
        assert memory_of.fails("NoSuchClaim", "DeleteClaim", vm="web1", claim=gone)["vm"] == "web1"


def test_a_claim_ends_with_its_backing(daemon, memory_of):
    one, other = claim(memory_of), claim(memory_of, backings=["ram1"])
    memory_of.call("ReleaseBacking", vm="web1", backing="ram0")
    assert names(memory_of) == [other["claim"]]
    memory_of.allocate("ram0")
    assert is_refused(memory_of, one["token"])
    redeem(memory_of, other["token"])
    (deleted,) = events_of(daemon, ["claim_deleted"])
    assert (deleted["claim"], deleted["backing"], deleted["reason"]) == (one["claim"], "ram0", "requested")


def test_a_claim_ends_with_its_vm(daemon, memory_of):
    one = claim(memory_of)
    memory_of.call("UnregisterVM", vm="web1")
    assert is_refused(memory_of, one["token"])
    memory_of.register("web1")
    memory_of.allocate("ram0")
    assert is_refused(memory_of, one["token"])
    (deleted,) = events_of(daemon, ["claim_deleted"])
    assert deleted["claim"] == one["claim"]


# ---- nothing else to anybody ----


def test_a_list_has_no_token(memory_of):
    made = claim(memory_of, backings=["ram1", "ram0"], access="read_only")
    reply = memory_of.call("ListClaims", vm="web1")
    (listed,) = reply["claims"]
    assert listed.keys() == {"claim", "vm", "backings", "access", "expiresUSec"}
    assert (listed["claim"], listed["vm"], listed["backings"], listed["access"]) == \
        (made["claim"], "web1", ["ram1", "ram0"], "read_only")
    assert abs(listed["expiresUSec"] - made["expiresUSec"]) < 100_000
    assert memory_of.call("ListVMs")["vms"][0]["claims"] == 1


def test_a_long_list(memory_of):
    made = [claim(memory_of)["claim"] for _ in range(64)]
    assert names(memory_of) == made
    memory_of.fails("ExpectedMore", "ListClaims", vm="web1")
    assert memory_of.fails("LimitExceeded", "CreateClaim", vm="web1")["limit"] == "claimsPerVM"
    limits = memory_of.call("GetHost")["limits"]
    assert (limits["claimsPerVM"], limits["claimsPerUID"], limits["backingsPerClaim"]) == (64, 1024, 253)


def test_limit_of_an_owner(client):
    for i in range(17):
        client.register(f"vm{i}")
        client.allocate(vm=f"vm{i}", size=memory.PAGE)
    for i in range(1024):
        claim(client, f"vm{i // 64}")
    assert client.fails("LimitExceeded", "CreateClaim", vm="vm16")["limit"] == "claimsPerUID"
    client.call("UnregisterVM", vm="vm0")
    claim(client, "vm16")


@pytest.mark.parametrize("token", ["", "pmc_", "x" * 47, "pmc_" + "A" * 43, "pmc_" + "A" * 100_000, "ram0", "pmc_é"])
def test_what_is_no_token(memory_of, token):
    made = claim(memory_of)
    assert is_refused(memory_of, token)
    redeem(memory_of, made["token"])


def test_nearly_the_token(memory_of):
    token = claim(memory_of)["token"]
    assert all(is_refused(memory_of, other) for other in (token[:-1], token + "A", token[4:], token.swapcase(),
                                                          token[:5] + chr(ord(token[5]) ^ 1) + token[6:]))
    redeem(memory_of, token)


def test_another_vms_token(memory_of):
    memory_of.register("web2")
    memory_of.allocate(vm="web2")
    token = claim(memory_of)["token"]
    assert is_refused(memory_of, token, "web2") and is_refused(memory_of, token, "no-such-vm")
    assert is_refused(memory_of, claim(memory_of, "web2")["token"])
    redeem(memory_of, token)


def test_a_vm_that_there_is_not_is_refused_alike(memory_of):
    """But for the name that was given."""
    token = claim(memory_of)["token"]
    there = memory_of.fails("ClaimInvalid", "RedeemClaim", vm="web1", token="pmc_wrong")
    not_there = memory_of.fails("ClaimInvalid", "RedeemClaim", vm="web9", token="pmc_wrong")
    assert {key: value.replace("web9", "web1") for key, value in not_there.items()} == there
    redeem(memory_of, token)


@pytest.mark.root
def test_only_the_owner_makes_claims_and_anybody_redeems_them(daemon, client, alice, bob):
    alice.register("alices")
    memory.write(alice.allocate(vm="alices").fd, b"hers")
    made = claim(alice, "alices")
    for method, parameters in (("CreateClaim", {}), ("ListClaims", {}), ("DeleteClaim", {"claim": made["claim"]})):
        assert bob.fails("NotPermitted", method, vm="alices", **parameters)["peerUID"] == user.BOB
        bob.fails("NoSuchVM", method, vm="nobodys", **parameters)
    assert names(client, "alices") == names(alice, "alices") == [made["claim"]]
    assert contents(redeem(bob, made["token"], "alices")) == {"ram0": b"hers"}


def test_a_call_that_wants_no_answer_redeems_nothing(memory_of):
    token = claim(memory_of)["token"]
    memory_of.send("RedeemClaim", {"vm": "web1", "token": token}, oneway=True)
    redeem(memory_of, token)


def test_whoever_hangs_up_has_used_it_up(daemon, memory_of):
    token = claim(memory_of)["token"]
    other = daemon.connect()
    other.send("RedeemClaim", {"vm": "web1", "token": token})
    other.close()
    wait_until(lambda: names(memory_of) == [])
    assert is_refused(memory_of, token)


def test_it_is_logged_once_and_told(daemon, memory_of):
    made = claim(memory_of)
    since = events_of(daemon, ["claim_created"])
    redeem(memory_of, made["token"])
    line = (f"claim {made['claim']} of VM web1, 2 backings, read_write, "
            f"was redeemed by process {os.getpid()} of uid {ME}\n")
    assert daemon.stderr().count(line) == 1
    assert made["token"] not in daemon.stderr()
    (created,) = since
    assert (created["vm"], created["claim"], created["peerUID"]) == ("web1", made["claim"], ME)
    redeemed, *granted = events_of(daemon, ["claim_redeemed", "backing_granted"], created["sequence"])
    assert (redeemed["claim"], redeemed["peerUID"], redeemed["pid"]) == (made["claim"], ME, os.getpid())
    assert [(one["kind"], one["backing"], one["access"]) for one in granted] == \
        [("backing_granted", name, "read_write") for name in ("ram0", "ram1")]


# ---- becoming the VMM ----


def become(path, token, vm="web1"):
    """A VMM that has redeemed its claim and mapped its memory."""
    client = Client(path, golden())
    reply = redeem(client, token, vm, attach=True)
    mapped = [mmap.mmap(fd, MIB) for fd in reply.fds]
    client.close()
    become.kept = mapped
    return reply["vm"]


def test_the_caller_becomes_the_vmm(daemon, memory_of, process):
    made = claim(memory_of)
    memory_of.close_fds()
    vmm = process(ME, become, daemon.path, made["token"])
    assert (vmm.result["state"], vmm.result["pid"]) == ("attached", vmm.pid)
    attached, redeemed = events_of(daemon, ["vm_attached", "claim_redeemed"])
    assert attached["pid"] == redeemed["pid"] == vmm.pid


def test_a_living_vmm_is_in_the_way_and_the_claim_stays_good(daemon, client, process):
    client.register("web1", exitPolicy="retain")
    client.allocate("ram0")
    client.close_fds()
    first, second = claim(client), claim(client)
    vmm = process(ME, become, daemon.path, first["token"])
    assert client.fails("VMInUse", "RedeemClaim", vm="web1", token=second["token"], attach=True)["pid"] == vmm.pid
    assert names(client) == [second["claim"]]
    vmm.kill()
    wait_until(lambda: client.call("ListVMs")["vms"][0]["state"] == "retained")
    next_vmm = process(ME, become, daemon.path, second["token"])
    assert next_vmm.result["pid"] == next_vmm.pid
    assert names(client) == []


def hold(path):
    client = Client(path, golden())
    hold.kept = client, client.call("OpenBacking", vm="web1", backing="ram0")


def test_a_fenced_vm_and_the_claim_stays_good(daemon, client, process):
    client.register("web1", exitPolicy="retain")
    client.allocate("ram0")
    client.close_fds()
    process(ME, become, daemon.path, claim(client)["token"]).kill()
    holder = process(ME, hold, daemon.path)
    wait_until(lambda: client.call("ListVMs")["vms"][0]["state"] == "retained")
    made = claim(client)
    with pytest.raises(Refusal, match="Fenced"):
        process(ME, become, daemon.path, made["token"])
    assert names(client) == [made["claim"]]
    holder.kill()
    vmm = process(ME, become, daemon.path, made["token"])
    assert vmm.result["pid"] == vmm.pid


def test_one_of_many_becomes_the_vmm_of_a_retained_vm(daemon, client, process):
    """Each looks at all processes first, and all at the same time."""
    client.register("web1", exitPolicy="retain")
    client.allocate("ram0")
    client.close_fds()
    process(ME, become, daemon.path, claim(client)["token"]).kill()
    wait_until(lambda: client.call("ListVMs")["vms"][0]["state"] == "retained")
    token = claim(client)["token"]
    callers = [daemon.connect() for _ in range(8)]
    for caller in callers:
        caller.send("RedeemClaim", {"vm": "web1", "token": token, "attach": True})
    outcomes = []
    for caller in callers:
        try:
            outcomes.append(len(caller.receive_reply("RedeemClaim")[0].fds))
        except Refusal as refusal:
            outcomes.append(refusal.error.rpartition(".")[2])
    assert sorted(map(str, outcomes)) == ["1"] + ["ClaimInvalid"] * 7


def test_a_claim_that_ends_during_the_look(daemon, client, process):
    """privmemd gets both at once, and looks only while there is nothing else to do."""
    client.register("web1", exitPolicy="retain")
    client.allocate("ram0")
    client.close_fds()
    process(ME, become, daemon.path, claim(client)["token"]).kill()
    wait_until(lambda: client.call("ListVMs")["vms"][0]["state"] == "retained")
    for method in ("DeleteClaim", "UnregisterVM"):
        made = claim(client)
        caller, other = daemon.connect(), daemon.connect()
        other.call("GetHost")
        daemon.process.send_signal(signal.SIGSTOP)
        caller.send("RedeemClaim", {"vm": "web1", "token": made["token"], "attach": True})
        other.send(method, {"vm": "web1", **({"claim": made["claim"]} if method == "DeleteClaim" else {})})
        daemon.process.send_signal(signal.SIGCONT)
        other.receive_reply(method)
        with pytest.raises(Refusal, match="ClaimInvalid"):
            caller.receive_reply("RedeemClaim")


@pytest.mark.root
def test_a_stranger_gets_the_memory_and_does_not_become_the_vmm(daemon, alice, bob):
    alice.register("alices")
    alice.allocate(vm="alices")
    made = claim(alice, "alices")
    bob.fails("NotPermitted", "RedeemClaim", vm="alices", token=made["token"], attach=True)
    assert names(alice, "alices") == [made["claim"]]
    assert len(redeem(bob, made["token"], "alices").fds) == 1


# ---- privmemctl ----


@pytest.fixture
def privmemctl(daemon):
    def run(*arguments, status=0, **options):
        done = subprocess.run([binary("client/privmemctl"), f"--socket={daemon.path}", *arguments],
                              capture_output=True, text=True, timeout=30, **options)
        assert done.returncode == status, done.stderr
        return done
    return run


def test_claim_prints_the_token_alone(privmemctl, memory_of):
    done = privmemctl("claim", "web1", "ram1", "--read-only", "--lifetime=90s")
    assert re.fullmatch(r"pmc_[\w-]{43}\n", done.stdout)
    (listed,) = memory_of.listed("ListClaims", vm="web1")
    assert f"claim {listed['claim']}: good once, for 1min " in done.stderr
    assert (listed["backings"], listed["access"]) == (["ram1"], "read_only")
    made = json.loads(privmemctl("claim", "web1", "--json").stdout)
    assert made.keys() == {"claim", "token", "expiresUSec", "socket"}
    assert [one["name"] for one in redeem(memory_of, made["token"])["backings"]] == ["ram0", "ram1"]


def test_claims_lists_and_deletes(privmemctl, memory_of):
    one, other = claim(memory_of), claim(memory_of, backings=["ram1"], access="read_only")
    title, *rows = [re.split(r" {2,}", line) for line in privmemctl("claims", "web1").stdout.splitlines()]
    assert title == ["CLAIM", "ACCESS", "ENDS IN", "BACKINGS"]
    assert [(row[0], row[1], row[3]) for row in rows] == [(one["claim"], "read_write", "ram0,ram1"),
                                                          (other["claim"], "read_only", "ram1")]
    assert privmemctl("claims", "web1", f"--delete={one['claim']}").stdout == \
        f"Claim {one['claim']} of VM web1 is deleted.\n"
    assert [row["claim"] for row in json.loads(privmemctl("claims", "web1", "--json").stdout)["claims"]] == \
        [other["claim"]]
    assert "c99" in privmemctl("claims", "web1", "--delete=c99", status=1).stderr


READ = ["sh", "-c", 'head -c 4 "$0"; head -c 4 /dev/fd/$1; test -z "$PRIVMEM_CLAIM"', "{ram1}", "{ram0.fd}"]


def test_run_on_a_claim(privmemctl, memory_of, directory):
    token = claim(memory_of)["token"]
    memory_of.close_fds()
    (directory / "token").write_text(f"  {token} \nmore\n")
    memory_of.register("web2", exitPolicy="retain")
    memory.write(memory_of.allocate("ram0", vm="web2").fd, b"two0")
    memory_of.close_fds()
    assert privmemctl("run", "web1", f"--claim=@{directory / 'token'}", "--", *READ).stdout == "ram1ram0"
    for given in ([f"--claim={claim(memory_of, 'web2')['token']}"], []):
        options = {} if given else {"env": {**os.environ, "PRIVMEM_CLAIM": claim(memory_of, "web2")["token"]}}
        assert privmemctl("run", "web2", *given, "--", "head", "-c4", "{ram0}", **options).stdout == "two0"
    assert memory_of.call("ListVMs", vm="web2")["vms"][0]["claims"] == 0


def test_run_says_what_the_command_does_not_use(privmemctl, memory_of):
    memory_of.close_fds()
    token = claim(memory_of)["token"]
    done = privmemctl("run", "web1", f"--claim={token}", "--", "sh", "-c", "ls -l /proc/$$/fd", "{ram1}")
    assert "does not use the backing ram0 of the claim" in done.stderr
    assert "web1/ram1" in done.stdout and "web1/ram0" not in done.stdout


@pytest.mark.parametrize("arguments, words", [
    (["--claim=x", "--backing=ram0=1M"], "a claim is for a VM and memory that are there"),
    (["--claim=x", "--type=snp"], "a claim is for a VM and memory that are there"),
    (["--claim="], "the claim is empty"),
    (["--claim=@/dev/null"], "the claim is empty"),
    (["--claim=@/no/such/file"], "cannot read the claim from /no/such/file: No such file or directory."),
    (["--claim=@/"], "cannot read the claim from /: Is a directory."),
])
def test_run_refuses_before_it_asks(privmemctl, client, arguments, words):
    assert words in privmemctl("run", "web1", *arguments, "--", "true", status=2).stderr


def test_run_that_is_refused_leaves_the_claim(privmemctl, memory_of, process, daemon):
    made = claim(memory_of)
    process(ME, become, daemon.path, claim(memory_of)["token"])
    given = f"--claim={made['token']}"
    assert "is attached to VM web1" in privmemctl("run", "web1", given, "--", "true", status=1).stderr
    privmemctl("run", "web1", given, "--", "no-such-command", status=127)
    assert names(memory_of) == [made["claim"]]
    privmemctl("run", "web1", given, "--take-over", "--", "true", "{ram0}{ram1}")
    assert names(memory_of) == []
    assert "Ask for a new claim" in privmemctl("run", "web1", "--claim=pmc_no", "--", "true", status=1).stderr


def test_run_that_cannot_execute_says_that_the_claim_is_used_up(privmemctl, memory_of, directory):
    program = directory / "program"
    program.write_text("no program")
    program.chmod(0o755)
    memory_of.close_fds()
    given = f"--claim={claim(memory_of)['token']}"
    done = privmemctl("run", "web1", given, "--", str(program), "{ram0}{ram1}", status=126)
    assert "the claim is used up; ask for another one." in done.stderr


# ---- over a restart ----


def furnish(manager):
    client = manager.daemon.connect()
    client.register("web1")
    for name in ("ram0", "ram1"):
        memory.write(client.allocate(name).fd, name.encode())
    return client


def test_claims_outlive_privmemd(manager):
    manager.start()
    client = furnish(manager)
    kept, used, deleted = claim(client, backings=["ram1"], access="read_only"), claim(client), claim(client)
    ended, short = claim(client, backings=["ram0"]), claim(client, backings=["ram1"], lifetimeUSec=200_000)
    redeem(client, used["token"])
    client.call("DeleteClaim", vm="web1", claim=deleted["claim"])
    client.call("ReleaseBacking", vm="web1", backing="ram0")
    before = client.listed("ListClaims", vm="web1")
    assert [one["claim"] for one in before] == [kept["claim"], short["claim"]]
    manager.end()
    time.sleep(0.3)
    client = manager.start(is_quiet=False).connect()
    wait_until(lambda: names(client) == [kept["claim"]])
    for gone in (used, deleted, ended, short):
        assert is_refused(client, gone["token"])
    client = manager.restart(is_quiet=False).connect()
    (one,) = client.listed("ListClaims", vm="web1")
    assert abs(one["expiresUSec"] - before[0]["expiresUSec"]) < 100_000
    reply = redeem(client, kept["token"])
    assert contents(reply) == {"ram1": b"ram1"} and reply["backings"][0]["access"] == "read_only"
    client = manager.restart(is_quiet=False).connect()
    assert is_refused(client, kept["token"])
    assert claim(client)["claim"] not in [one["claim"] for one in (kept, used, deleted, ended, short)]


def test_a_new_generation_of_the_ledger_has_them(manager):
    manager.start()
    client = furnish(manager)
    made = claim(client)
    before = manager.names()
    for _ in range(12000):
        client.call("DeleteClaim", vm="web1", claim=claim(client, backings=["ram0"])["claim"])
        if manager.names() != before:
            break
    else:
        raise AssertionError("there was no new generation")
    client = manager.restart().connect()
    assert contents(redeem(client, made["token"])) == {"ram0": b"ram0", "ram1": b"ram1"}


def test_the_ledger_has_the_digest_and_not_the_token(manager):
    manager.start()
    made = claim(furnish(manager))
    ledger = Ledger([fd for name, fd in manager.store if name.startswith("ledger-")][-1])
    (body,) = [body for kind, body in ledger.records() if kind == CLAIM]
    assert body[32:64] == hashlib.sha256(made["token"].encode()).digest()
    assert made["token"].encode() not in ledger.data and made["token"][4:].encode() not in ledger.data


@pytest.mark.plain
@pytest.mark.parametrize("step, is_used", [("commit.begun:5", False), ("commit.done:5", True)])
def test_killed_while_it_redeems(directory, contract, step, is_used):
    """The fifth commit is the one of the redemption, which comes before the answer."""
    manager = ServiceManager(directory, contract, program="tests/kill/privmemd-steps")
    try:
        manager.start(environment={"PRIVMEMD_KILL_AT": step})
        client = furnish(manager)
        made = claim(client)
        with pytest.raises(Closed):
            redeem(client, made["token"])
        manager.wait_end()
        client = manager.start(is_quiet=False).connect()
        assert names(client) == ([] if is_used else [made["claim"]])
        assert is_refused(client, made["token"]) if is_used else redeem(client, made["token"])
    finally:
        manager.close()
