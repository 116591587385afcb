# SPDX-License-Identifier: LGPL-2.1-or-later
"""A VM's whole life over HTTP: by the commands of docs/rest.md, and by an orchestrator that sends everything again."""

import contextlib
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import socket
import subprocess

import pytest

import memory
from broker import binary, wait_until
from contract import golden
from memory import MIB
from rest import problem
from wire import Client

PAGE = pathlib.Path(__file__).parents[2] / "docs/rest.md"
QEMU = "qemu-system-x86_64"
SIZE = 64 * MIB
SOCKET_OF_PAGE = "/run/privmemd/rest"

pytestmark = [
    pytest.mark.plain,
    pytest.mark.skipif(not shutil.which(QEMU), reason=f"{QEMU} is not installed"),
    pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed"),
    pytest.mark.timeout(120),
]


def guest_options(directory):
    """The firmware alone, which says on its debug port what it does."""
    accelerator = ["-accel", "kvm"] if os.access("/dev/kvm", os.R_OK | os.W_OK) else []
    return [*accelerator, "-accel", "tcg", "-nodefaults", "-no-user-config", "-display", "none", "-monitor", "none",
            "-debugcon", f"file:{directory / 'firmware'}", "-global", "isa-debugcon.iobase=0x402"]


def has_booted(directory):
    """SeaBIOS has found its memory, and written its tables there."""
    log = directory / "firmware"
    return log.exists() and b"Scan for VGA option rom" in log.read_bytes()


# ---- the page ----


def blocks():
    return re.findall(r"^<!-- ([a-z-]+) -->\n```sh\n(.*?)^```$", PAGE.read_text(), re.M | re.S)


class Reader:
    """Types what the page has, with a shell of its own for each box."""

    def __init__(self, rest, daemon, directory):
        self.directory = directory
        self.setup = dict(blocks())["setup"]
        assert SOCKET_OF_PAGE in self.setup
        self.prelude = (f"set -euo pipefail\nrun={shlex.quote(str(directory))}\n"
                        f"guest=({shlex.join(guest_options(directory))})\n"
                        + self.setup.replace(SOCKET_OF_PAGE, str(rest.path)))
        self.environment = {**os.environ, "PRIVMEM_SOCKET": str(daemon.path),
                            "PATH": f'{pathlib.Path(binary("client/privmemctl")).parent}:{os.environ["PATH"]}'}
        self.running = []

    def start(self, text):
        self.running.append(subprocess.Popen(["bash", "-c", self.prelude + text], stdin=subprocess.DEVNULL,
                                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                             env=self.environment, start_new_session=True))
        return self.running[-1]

    def run(self, text):
        process = self.start(text)
        output, errors = process.communicate(timeout=60)
        assert process.returncode == 0, (text, output, errors)
        return output

    def end(self):
        for process in self.running:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


@pytest.fixture
def reader(rest, daemon, directory):
    reader = Reader(rest, daemon, directory)
    yield reader
    reader.end()


def is_attached(client):
    (vm,) = client.listed("ListVMs")
    return vm["state"] == "attached"


def test_the_page(reader, client, directory):
    """Each box in its order does what the page says; the VMMs run beside the boxes that follow."""
    printed, machine = {}, None
    for name, text in blocks():
        if name == "setup":
            continue
        if name not in ("run", "run-again"):
            printed[name] = reader.run(text)
            continue
        (directory / "firmware").unlink(missing_ok=True)
        before, machine = machine, reader.start(text)
        wait_until(lambda: is_attached(client) and has_booted(directory), 30, "the guest's boot")
        if before:
            assert before.poll() == 0  # SIGTERM ends QEMU in an orderly way
        assert {one["name"] for one in client.listed("ListBackings") if one["residentBytes"] > 0} >= {"ram0"}
    assert '"guestMemfd"' in printed["host"]
    assert '"created":true' in printed["vm"]
    assert printed["memory"].count('"created":true') == 2
    assert '"claims":[{' in printed["claims"] and "pmc_" not in printed["claims"]
    kinds = [json.loads(line)["kind"] for line in printed["events"].splitlines()]
    assert kinds[0] == "subscribed"
    assert [kind for kind in kinds if kind in ("vm_registered", "backing_allocated", "vm_attached", "claim_redeemed")] \
        == ["vm_registered", "backing_allocated", "vm_attached", "claim_redeemed"]
    assert '"qemu-system-x86"' in printed["look"]
    assert "io.privmemd.Memory.VMChanged" in printed["etag"]
    assert "io.privmemd.Memory.NoSuchVM" in printed["problem"]
    assert client.listed("ListVMs") == [] and client.call("GetHost")["promisedBytes"] == 0


def test_every_curl_of_the_page_is_in_a_box():
    boxes = "".join(text for _, text in blocks())
    commands = re.findall(r"^.*\b(?:curl -|api /|api ').*$", PAGE.read_text(), re.M)
    assert len(commands) > 15 and all(command in boxes for command in commands)


# ---- the orchestrator ----


class Orchestrator:
    """Sends each request once. One that insists sends it, hangs up without an answer, and sends it twice more."""

    def __init__(self, rest, insists):
        self.rest = rest
        self.insists = insists

    def cut(self, verb, path, body):
        data = b"" if body is None else json.dumps(body).encode()
        head = f"{verb} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n"
        if body is not None:
            head += "Content-Type: application/json\r\n"
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self.rest.path))
            client.sendall(f"{head}\r\n".encode() + data)

    def send(self, verb, path, body=None):
        """The answers, of which any may be the first that was done."""
        if self.insists:
            self.cut(verb, path, body)
        return [self.rest.request(verb, path, body) for _ in range(2 if self.insists else 1)]

    def put(self, path, body):
        answers = self.send("PUT", path, body)
        assert {answer.status for answer in answers} <= {200, 201}, answers
        return answers[-1].json

    def delete(self, path):
        answers = self.send("DELETE", path)
        assert {answer.status for answer in answers} <= {200, 204, 404}, answers

    def get(self, path):
        (answer,) = self.send("GET", path)[-1:]
        assert answer.status == 200, answer
        return answer.json

    def claim(self, vm, **body):
        """Makes one claim more for each time that it was sent, and has the token of the last alone."""
        answers = self.send("POST", f"/v1/vms/{vm}/claims", body)
        assert {answer.status for answer in answers} == {201}
        made = answers[-1]
        assert made.headers["Location"] == f"/v1/vms/{vm}/claims/{made.json['claim']}"
        return made.json

    def drop_claims(self, vm):
        for one in self.get(f"/v1/vms/{vm}/claims")["claims"]:
            self.delete(f"/v1/vms/{vm}/claims/{one['claim']}")

    def state(self, vm):
        """All that there is, but for numbers that differ from run to run."""
        changing = {"pid", "generation", "residentBytes", "device", "inode"}
        one = {key: value for key, value in self.get(f"/v1/vms/{vm}").items() if key not in changing}
        backings = [{key: value for key, value in backing.items() if key not in changing}
                    for backing in self.get(f"/v1/vms/{vm}/backings")["backings"]]
        return one, backings


class Machine:
    """A QEMU that privmemctl run has become, with a claim from its environment; QMP on a socket."""

    def __init__(self, daemon, directory, token, backings, generation):
        self.monitor = directory / f"qmp-{generation}"
        objects = [argument for name in backings for argument in (
            "-object", f"memory-backend-file,id={name},size={SIZE},mem-path={{{name}}},share=on")]
        dimms = [argument for name in backings[1:] for argument in ("-device", f"pc-dimm,memdev={name},id=dimm-{name}")]
        (directory / "firmware").unlink(missing_ok=True)
        self.process = subprocess.Popen(
            [binary("client/privmemctl"), f"--socket={daemon.path}", "run", "web1", "--",
             QEMU, "-machine", "pc-q35-10.0,memory-backend=ram0", "-m", "64M,slots=2,maxmem=512M", *objects, *dimms,
             "-qmp", f"unix:{self.monitor},server=on,wait=off", *guest_options(directory)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, "PRIVMEM_CLAIM": token})
        self.directory = directory

    def wait_boot(self):
        wait_until(lambda: self.process.poll() is not None or has_booted(self.directory), 30, "the guest's boot")
        assert self.process.poll() is None, self.process.communicate()[0]
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(30)
        self.socket.connect(str(self.monitor))
        self.qmp = self.socket.makefile("rw", encoding="utf-8")
        self.qmp.readline()
        self.command("qmp_capabilities")
        return self

    def command(self, name, **arguments):
        self.qmp.write(json.dumps({"execute": name, "arguments": arguments}) + "\n")
        self.qmp.flush()
        while "return" not in (answer := json.loads(self.qmp.readline())):
            assert "error" not in answer, answer
        return answer["return"]

    def quit(self):
        self.command("quit")
        assert self.process.wait(30) == 0

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        if hasattr(self, "socket"):
            self.qmp.close()
            self.socket.close()


@pytest.fixture
def boot(daemon, directory):
    """Boots machines, and ends them."""
    booted = []

    def boot_machine(token, *backings):
        booted.append(Machine(daemon, directory, token, backings, len(booted)))
        return booted[-1].wait_boot()

    yield boot_machine
    for machine in booted:
        machine.end()


def redeem_and_hang_up(daemon, token):
    """What a VMM does that dies at the wrong moment: the claim is used up, and nobody has the memory."""
    with Client(daemon.path, golden()) as client:
        client.send("RedeemClaim", {"vm": "web1", "token": token})
    with Client(daemon.path, golden()) as client:
        client.call("GetHost")
        wait_until(lambda: refuses(client, token))


def refuses(client, token):
    client.fails("ClaimInvalid", "RedeemClaim", vm="web1", token=token, attach=True)
    return True


def plug(daemon, machine, token):
    """The process beside QEMU redeems, and QEMU opens the memory there."""
    with Client(daemon.path, golden()) as client:
        reply = client.call("RedeemClaim", vm="web1", token=token)
        (backing,) = reply["backings"]
        fd = reply.fds[backing["fileDescriptor"]]
        machine.command("object-add", **{"qom-type": "memory-backend-file", "id": "ram1", "size": SIZE, "share": True,
                                         "mem-path": f"/proc/{os.getpid()}/fd/{fd}"})
    machine.command("device_add", driver="pc-dimm", memdev="ram1", id="dimm-ram1")
    assert machine.command("query-memory-size-summary") == {"base-memory": SIZE, "plugged-memory": SIZE}


def events_since(rest, since):
    answer = subprocess.run(["curl", "-sN", "--max-time", "1", "--unix-socket", str(rest.path), "-H",
                             "Accept: application/x-ndjson", f"http://localhost/v1/events?since={since}&vm=web1"],
                            capture_output=True, text=True, timeout=20)
    assert answer.returncode == 28, answer
    return [json.loads(line) for line in answer.stdout.splitlines()]


def live(orchestrator, daemon, rest, boot):
    """The story; returns what there was at each turn of it."""
    seen = []
    say = orchestrator.insists
    orchestrator.put("/v1/vms/web1", {"exitPolicy": "retain"})
    orchestrator.put("/v1/vms/web1/backings/ram0", {"size": SIZE})
    if say:
        redeem_and_hang_up(daemon, orchestrator.claim("web1")["token"])
    first = boot(orchestrator.claim("web1")["token"], "ram0")
    orchestrator.drop_claims("web1")
    seen.append(orchestrator.state("web1"))
    pid = orchestrator.get("/v1/vms/web1")["pid"]
    assert pid == first.process.pid
    assert problem(rest.delete("/v1/vms/web1"), 409)["pid"] == pid

    orchestrator.put("/v1/vms/web1/backings/ram1", {"size": SIZE})
    plug(daemon, first, orchestrator.claim("web1", backings=["ram1"])["token"])
    orchestrator.drop_claims("web1")
    seen.append(orchestrator.state("web1"))
    holders = orchestrator.get("/v1/vms/web1/holders")["holders"]
    assert {(one["backing"], one["pid"]) for one in holders} == {("ram0", pid), ("ram1", pid)}

    first.quit()
    wait_until(lambda: orchestrator.get("/v1/vms/web1")["state"] == "retained")
    if say:
        redeem_and_hang_up(daemon, orchestrator.claim("web1")["token"])
    second = boot(orchestrator.claim("web1")["token"], "ram0", "ram1")
    orchestrator.drop_claims("web1")
    seen.append(orchestrator.state("web1"))
    assert orchestrator.get("/v1/vms/web1")["pid"] == second.process.pid != pid

    second.quit()
    wait_until(lambda: orchestrator.get("/v1/vms/web1")["state"] == "retained")
    orchestrator.delete("/v1/vms/web1/backings/ram1")
    seen.append(orchestrator.state("web1"))
    orchestrator.delete("/v1/vms/web1")
    seen.append((orchestrator.get("/v1/vms"), orchestrator.get("/v1/backings"),
                 orchestrator.get("/v1/host")["promisedBytes"]))
    return seen


STORY = ["vm_registered", "backing_allocated", "vm_attached", "backing_allocated", "vmm_exited", "vm_attached",
         "vmm_exited", "backing_released", "backing_released", "vm_unregistered"]


def told(events):
    return [event["kind"] for event in events if event["kind"] in STORY]


def test_whoever_sends_everything_again_ends_where_others_do(daemon, rest, boot):
    """Requests that nobody waits for, requests that come twice, and VMMs that die with their claim change nothing."""
    calm = live(Orchestrator(rest, insists=False), daemon, rest, boot)
    events = events_since(rest, 0)
    assert told(events) == STORY
    assert sum(event["kind"] == "claim_redeemed" for event in events) == 3
    insistent = live(Orchestrator(rest, insists=True), daemon, rest, boot)
    assert told(events_since(rest, events[-1]["sequence"])) == STORY
    assert insistent == calm
    states = [state[0] for state in calm[:4]]
    assert [(vm["state"], vm["backings"], vm["claims"], vm["promisedBytes"]) for vm in states] == [
        ("attached", 1, 0, SIZE), ("attached", 2, 0, 2 * SIZE), ("attached", 2, 0, 2 * SIZE), ("retained", 1, 0, SIZE)]
    assert calm[4] == ({"vms": []}, {"backings": []}, 0)
