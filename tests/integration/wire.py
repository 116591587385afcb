# SPDX-License-Identifier: LGPL-2.1-or-later
"""A varlink client that hides nothing: bytes, file descriptors and malformed input as the test wants them.

Every message that it receives is held against the contract."""

import array
import contextlib
import json
import os
import socket

from contract import INTERFACE, Breach

FDS_MAX = 253  # SCM_MAX_FD
TIMEOUT = 20


class Closed(Exception):
    """The daemon closed the connection."""


class Refusal(Exception):
    """The daemon answered with an error."""

    def __init__(self, error, parameters):
        super().__init__(f"{error}: {parameters}")
        self.error = error
        self.parameters = parameters

    def __reduce__(self):
        return Refusal, (self.error, self.parameters), self.__dict__


class Reply(dict):
    """The parameters of a reply, and the file descriptors that came with it."""

    def __init__(self, parameters, fds):
        super().__init__(parameters)
        self.fds = fds

    @property
    def fd(self):
        return self.fds[self["fileDescriptor"]]


@contextlib.contextmanager
def member_of(*groups, primary=None):
    """Whoever connects meanwhile is in these groups and in no other."""
    before = os.getgroups(), os.getegid()
    os.setgroups(groups)
    os.setegid(before[1] if primary is None else primary)
    try:
        yield
    finally:
        os.setegid(before[1])
        os.setgroups(before[0])


@contextlib.contextmanager
def effective_uid(uid):
    """The kernel tells the daemon the effective uid of whoever connects."""
    if uid is None or uid == os.geteuid():
        yield
        return
    before = os.geteuid()
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(before)


class Client:
    def __init__(self, path, contract, uid=None, connected=None):
        self.contract = contract
        self.socket = connected or socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self.socket.settimeout(TIMEOUT)
        self.largest = 0  # bytes of the largest message
        self._buffer = bytearray()
        self._searched = 0
        self._arrived = []  # fds of the message that is being read
        self._owned = []
        if not connected:
            with effective_uid(uid):
                self.socket.connect(str(path))

    def close(self):
        self.socket.close()
        self.close_fds()

    def close_fds(self):
        """All that have come so far."""
        for fd in self._owned + self._arrived:
            with contextlib.suppress(OSError):
                os.close(fd)
        self._owned, self._arrived = [], []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # ---- messages ----

    def send_bytes(self, data, fds=()):
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        sent = self.socket.sendmsg([data], ancillary)
        if sent < len(data):
            self.socket.sendall(data[sent:])

    def send(self, method, parameters, fds=(), more=False, oneway=False):
        name = method if "." in method else f"{INTERFACE}.{method}"
        message = {"method": name, "parameters": parameters}
        if more:
            message["more"] = True
        if oneway:
            message["oneway"] = True
        self.send_bytes(json.dumps(message).encode() + b"\0", fds)

    def _read_some(self):
        data, ancillary, flags, _ = self.socket.recvmsg(
            1 << 18, socket.CMSG_SPACE(4 * FDS_MAX), socket.MSG_CMSG_CLOEXEC)
        for level, kind, payload in ancillary:
            assert (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
            fds = array.array("i")
            fds.frombytes(payload[:len(payload) - len(payload) % fds.itemsize])
            self._arrived.extend(fds)
        assert not flags & socket.MSG_CTRUNC
        if not data:
            raise Closed
        self._buffer += data

    def receive(self):
        """The next message as it is, and its file descriptors, which the client closes in the end."""
        while (end := self._buffer.find(b"\0", self._searched)) < 0:
            self._searched = len(self._buffer)
            try:
                self._read_some()
            except (ConnectionResetError, BrokenPipeError) as error:
                raise Closed from error
        message = json.loads(self._buffer[:end].decode())
        self.largest = max(self.largest, end + 1)
        del self._buffer[:end + 1]
        self._searched = 0
        fds, self._arrived = self._arrived, []
        self._owned += fds
        return message, fds

    def receive_reply(self, method):
        """The next message as an answer to the method, and whether more will come."""
        message, fds = self.receive()
        if message.keys() - {"parameters", "error", "continues"}:
            raise Breach(f"a reply with unknown fields: {message}")
        parameters = message.get("parameters") or {}
        if "error" in message:
            if fds:
                raise Breach("an error with file descriptors")
            self.contract.check_error(message["error"], parameters)
            if "." not in method:
                self.contract.check_may_fail(method, message["error"])
            raise Refusal(message["error"], parameters)
        if "." not in method:
            self.contract.check_reply(method, parameters)
            carriers = [parameters, *(parameters["backings"] if method == "RedeemClaim" else ())]
            if len(fds) != sum("fileDescriptor" in carrier for carrier in carriers):
                raise Breach(f"{method} sent {len(fds)} file descriptors with {parameters}")
        return Reply(parameters, fds), message.get("continues", False)

    # ---- calls ----

    def call(self, method, /, *, fds=(), **parameters):
        self.send(method, parameters, fds)
        reply, continues = self.receive_reply(method)
        assert not continues
        return reply

    def fails(self, error, method, /, *, fds=(), **parameters):
        """The call must fail with this error; returns the error's parameters."""
        try:
            reply = self.call(method, fds=fds, **parameters)
        except Refusal as refusal:
            if refusal.error != self.contract.full_name(error):
                raise AssertionError(f"{method} failed with {refusal}, not with {error}") from refusal
            return refusal.parameters
        raise AssertionError(f"{method} succeeded with {reply}, and did not fail with {error}")

    def stream(self, method, /, **parameters):
        """Every reply of a call with more, as they come."""
        self.send(method, parameters, more=True)
        continues = True
        while continues:
            reply, continues = self.receive_reply(method)
            yield reply

    def listed(self, method, /, **parameters):
        """Every object of a list, in however many messages it comes."""
        return [thing for reply in self.stream(method, **parameters) for (things,) in [reply.values()]
                for thing in things]

    # ---- what most tests begin with ----

    def register(self, name="web1", **parameters):
        return self.call("RegisterVM", name=name, **parameters)["vm"]

    def allocate(self, name="ram0", size=1 << 20, vm="web1", **parameters):
        return self.call("AllocateBacking", vm=vm, name=name, size=size, **parameters)

    def vms(self):
        """Every VM, but for the generation, which a restart changes."""
        return [{key: value for key, value in vm.items() if key != "generation"} for vm in self.listed("ListVMs")]

    def backing(self, name="ram0", vm="web1"):
        """What a list says of the backing."""
        (found,) = [one for one in self.listed("ListBackings", vm=vm) if one["name"] == name]
        return found

    def adopt(self, fd, name="ram0", vm="web1", **parameters):
        return self.call("AdoptBacking", vm=vm, name=name, fileDescriptor=0, fds=[fd], **parameters)
