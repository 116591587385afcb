# SPDX-License-Identifier: LGPL-2.1-or-later
"""Gateways that speak HTTP, with what is behind them, and those who ask."""

import contextlib
import os
import resource
import select
import socket
import subprocess

from processes import PATIENCE_SECONDS, Failed, await_socket, directory, process
from restart import Link

PATH = "/v1/vms/bench/backings/ram"
BACKING_SIZE = 2 << 20
OTHER_BACKINGS = 100
SUBSCRIBERS = 1000
CLIENT = "URI spiffe://bench/client"

CA = "ca\ncert_signing_key\nexpiration_days = 2\n"
SERVER = 'dns_name = "localhost"\nsigning_key\ntls_www_server\nexpiration_days = 2\n'
PEER = 'uri = "spiffe://bench/client"\nsigning_key\ntls_www_client\nexpiration_days = 2\n'


def certtool(*arguments):
    done = subprocess.run(["certtool", *map(str, arguments)], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        raise Failed(f"certtool: {done.stderr}")


def issue(at, name, template, *authority):
    """A certificate and its key in the directory: NAME.crt, NAME.key."""
    (at / f"{name}.template").write_text(f'cn = "{name}"\n{template}')
    certtool("--generate-privkey", "--key-type=ecdsa", "--curve=secp256r1", f"--outfile={at / name}.key")
    (at / f"{name}.key").chmod(0o600)
    certtool(*(authority or ["--generate-self-signed"]), f"--load-privkey={at / name}.key",
             f"--template={at / name}.template", f"--outfile={at / name}.crt")


def certificates(at):
    issue(at, "ca", CA)
    for name, template in (("server", SERVER), ("client", PEER)):
        issue(at, name, template, "--generate-certificate", f"--load-ca-certificate={at}/ca.crt",
              f"--load-ca-privkey={at}/ca.key")
    (at / "rights").write_text(f"{CLIENT} = manage\n")
    (at / "conf").write_text(f"[Limits]\nConnectionsPerAddress=256\n[TLS]\nCertificate={at}/server.crt\n"
                             f"Key={at}/server.key\nClientCA={at}/ca.crt\nClientRights={at}/rights\n")


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Gateway:
    """privmem-rest before a privmemd, or a bare gateway before a bare server. Both programs have one CPU together, and
    whoever asks has another: so what is compared is what they do, and not how well two of them fit beside each other."""

    def __init__(self, stack, programs, *, is_bare=False, is_secure=False, with_others=True):
        self.path = stack.enter_context(directory())
        self.socket, behind = self.path / "http", self.path / "varlink"
        self.cpus = sorted(os.sched_getaffinity(0))[:2]
        self.is_secure = is_secure
        self.pids = []
        if is_bare:
            self.start(stack, behind, programs["server"], behind, "list")
            self.process = self.start(stack, self.socket, programs["gateway"], self.socket, behind)
            return
        self.start(stack, behind, programs["privmemd"], f"--socket={behind}")
        if with_others:
            with contextlib.closing(Link(behind)) as link:
                self.furnish(link)
        arguments = []
        if is_secure:
            certificates(self.path)
            self.port = free_port()
            arguments = [f"--listen=tls:127.0.0.1:{self.port}", f"--config={self.path}/conf"]
        self.process = self.start(stack, self.socket, programs["rest"], f"--socket={behind}",
                                  f"--listen=unix:{self.socket}", *arguments)

    def start(self, stack, path, *command):
        child = stack.enter_context(process(*map(str, command), cpu=self.cpus[-1]))
        await_socket(path, child)
        self.pids.append(child.pid)
        return child

    def furnish(self, link):
        link.call("RegisterVM", name="bench")
        for name in ("ram", *(f"other{i}" for i in range(OTHER_BACKINGS))):
            link.call("AllocateBacking", vm="bench", name=name, size=BACKING_SIZE, open=False)

    def how_to_connect(self):
        if self.is_secure:
            return ["tls", self.port, *(self.path / name for name in ("ca.crt", "client.crt", "client.key"))]
        return ["unix", self.socket]

    def resident_bytes(self):
        with open(f"/proc/{self.process.pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


class Askers:
    """bench-rest-client, with its connections to a gateway."""

    def __init__(self, stack, program, gateway, connections):
        self.child = stack.enter_context(process(
            *map(str, (program, PATH, connections, *gateway.how_to_connect())), cpu=gateway.cpus[0], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE))

    def batch(self, requests):
        """Seconds a request, of so many."""
        try:
            print(requests, file=self.child.stdin, flush=True)
            if not select.select([self.child.stdout], [], [], PATIENCE_SECONDS)[0]:
                raise Failed("bench-rest-client does not answer")
            return int(self.child.stdout.readline()) / 1e9
        except (BrokenPipeError, ValueError):
            raise Failed("bench-rest-client ended early") from None


def subscribe(stack, path):
    link = stack.enter_context(socket.socket(socket.AF_UNIX))
    link.settimeout(PATIENCE_SECONDS)
    link.connect(str(path))
    link.sendall(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n")
    answer = link.recv(4096)
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise Failed(f"who subscribes is answered {answer!r}")


def bytes_a_subscriber(programs):
    """What the process grows by."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4 * SUBSCRIBERS)), hard))
    with contextlib.ExitStack() as stack:
        gateway = Gateway(stack, programs, with_others=False)
        subscribe(stack, gateway.socket)
        before = gateway.resident_bytes()
        for _ in range(SUBSCRIBERS):
            subscribe(stack, gateway.socket)
        return (gateway.resident_bytes() - before) / SUBSCRIBERS
