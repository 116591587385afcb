# SPDX-License-Identifier: LGPL-2.1-or-later
"""privmem-rest over TCP: who gets in by a certificate, who by a token, and what those can do who do not."""

import hashlib
import json
import socket
import ssl
import subprocess
import time

import pytest

from broker import binary, wait_until
from certificates import EXPIRED, SERVER, Authority
from http_peer import Ended, Gateway, Peer, request, start_failure

MANAGER = "URI spiffe://example/orchestrator"
RIGHTS = f"{MANAGER} = manage\nCN watcher = inspect\n"
HASH = hashlib.sha256


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """With a certificate of each kind; a test that revokes one must put things right."""
    made = Authority(tmp_path_factory.mktemp("authority"))
    made.server()
    made.issue("orchestrator", uri="spiffe://example/orchestrator")
    made.issue("watcher")
    made.issue("stranger")
    made.issue("expired", cn="watcher", validity=EXPIRED)
    made.issue("purpose", cn="watcher", purpose=SERVER)
    return made


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    made = Authority(tmp_path_factory.mktemp("foreign"))  # of the same name
    made.issue("watcher")
    return made


class Files:
    """What the settings name, to be changed under way."""

    def __init__(self, directory, authority):
        self.directory = directory / "files"
        self.directory.mkdir()
        self.authority = authority
        self.certificate, self.key = self.directory / "server.crt", self.directory / "server.key"
        self.ca, self.crl = self.directory / "ca.crt", self.directory / "ca.crl"
        self.rights, self.tokens = self.directory / "rights", self.directory / "tokens"
        self.write(self.certificate, (authority.directory / "server.crt").read_text())
        self.write(self.key, (authority.directory / "server.key").read_text(), 0o600)
        self.write(self.ca, authority.crt.read_text())
        self.revoke()
        self.write(self.rights, RIGHTS)

    def write(self, path, text, mode=0o644):
        path.write_text(text)
        path.chmod(mode)

    def revoke(self, *names):
        self.authority.revoke(*names)
        self.write(self.crl, self.authority.crl_path.read_text())

    def token(self, text, name, right, expires="2099-01-01T00:00:00Z"):
        line = f"{name} {right} {expires} {HASH(text.encode()).hexdigest()}\n"
        self.write(self.tokens, (self.tokens.read_text() if self.tokens.exists() else "") + line, 0o600)

    def settings(self, limits="", clients=True, tokens=False):
        lines = [f"[Limits]\n{limits}\n[TLS]\nCertificate={self.certificate}\nKey={self.key}"]
        if clients:
            lines.append(f"ClientCA={self.ca}\nClientCRL={self.crl}\nClientRights={self.rights}")
        if tokens:
            lines.append(f"Tokens={self.tokens}")
        return "\n".join([*lines, ""])


@pytest.fixture
def files(directory, authority):
    return Files(directory, authority)


@pytest.fixture
def begin(daemon, directory):
    """Starts a privmem-rest; it is stopped and looked at in the end."""
    started = []

    def begin_gateway(settings, **options):
        started.append(Gateway(daemon, directory, settings, tls=True, **options))
        return started[-1]

    yield begin_gateway
    for gateway in started:
        running = gateway.process.poll() is None
        status = gateway.stop()
        assert not running or status == 0, gateway.stderr()
        assert not gateway.is_quiet or not gateway.stderr(), gateway.stderr()


def context(authority, name=None, version=ssl.TLSVersion.TLSv1_3, trusted=None):
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = made.maximum_version = version
    made.load_verify_locations((trusted or authority).crt)
    if name:
        made.load_cert_chain(authority.directory / f"{name}.crt", authority.directory / f"{name}.key")
    return made


def status(gateway, client, *headers, method="GET", path="/v1/host"):
    with gateway.connect_tls(client) as peer:
        return peer.get(path, *headers, method=method).status


def refused(gateway, client):
    """With TLS 1.3 a client thinks that its handshake is done before its certificate has been looked at."""
    with pytest.raises(Ended) as caught:
        with gateway.connect_tls(client) as peer:
            peer.get()
    return str(caught.value)


# ---- certificates ----


def test_rights(begin, files, authority):
    gateway = begin(files.settings()).wait_ready()
    with gateway.connect_tls(context(authority, "orchestrator")) as peer:
        assert json.loads(peer.get().body)["vms"] == 0
        body = b'{"ownerUID": 12345}'
        assert peer.put("/v1/vms/web1", body).status in (200, 201)
        assert json.loads(peer.get("/v1/vms/web1").body)["ownerUID"] == 12345
    with gateway.connect_tls(context(authority, "watcher")) as peer:
        assert peer.get("/v1/vms/web1").status == 200
        answer = peer.put("/v1/vms/web2", body)
        assert answer.status == 403
        assert answer.headers["content-type"] == "application/problem+json"
        assert "CN watcher" in json.loads(answer.body)["detail"]
        assert peer.get("/v1/vms/web2").status == 404
    with gateway.connect_tls(context(authority, "stranger")) as peer:
        assert peer.get().status == 403
        assert peer.get("/v1/vms/web1", method="DELETE").status == 403


def test_an_owner_must_be_named(begin, files, authority):
    """Over a unix socket it is the peer; here there is none."""
    gateway = begin(files.settings()).wait_ready()
    with gateway.connect_tls(context(authority, "orchestrator")) as peer:
        answer = peer.put("/v1/vms/web1", b"{}")
        assert answer.status in (400, 422)
        assert "ownerUID" in answer.body.decode()


def test_no_certificate(begin, files, authority):
    gateway = begin(files.settings()).wait_ready()
    refused(gateway, context(authority))
    assert status(gateway, context(authority, "watcher")) == 200


@pytest.mark.parametrize("who", ["foreign", "expired", "purpose"])
@pytest.mark.parametrize("tokens", [False, True])
def test_bad_certificate(begin, files, authority, foreign, who, tokens):
    """That another way in is open changes nothing."""
    if tokens:
        files.token("t", "t", "inspect")
    gateway = begin(files.settings(tokens=tokens)).wait_ready()
    gateway.is_quiet = False
    if who == "foreign":
        refused(gateway, context(foreign, "watcher", trusted=authority))
    else:
        refused(gateway, context(authority, who))
    assert status(gateway, context(authority, "watcher")) == 200
    assert "privmem-rest: a client's certificate is refused: " in gateway.stderr()


def test_revoked_by_reload(begin, files, authority):
    gateway = begin(files.settings()).wait_ready()
    gateway.is_quiet = False
    with gateway.connect_tls(context(authority, "watcher")) as watcher, \
            gateway.connect_tls(context(authority, "orchestrator")) as other:
        assert (watcher.get().status, other.get().status) == (200, 200)
        files.revoke("watcher")
        try:
            assert gateway.reload() == ""
            assert (watcher.get().status, other.get().status) == (403, 200)
            refused(gateway, context(authority, "watcher"))
            assert status(gateway, context(authority, "orchestrator")) == 200
        finally:
            files.revoke()
        gateway.reload()
        assert watcher.get().status == 200


def test_streams_end_with_a_reload(begin, files, authority):
    """A subscriber has shown its certificate once, and would keep what it may for ever."""
    gateway = begin(files.settings()).wait_ready()
    with gateway.connect_tls(context(authority, "watcher")) as watcher, gateway.connect() as unix:
        for peer in [watcher, unix]:
            peer.send(request("GET", "/v1/events"))
            assert b"200" in peer._until(b"\r\n")
        files.write(files.rights, "")
        gateway.reload()
        with pytest.raises(Ended):
            while True:
                watcher._receive()
        unix.socket.settimeout(0.3)
        with pytest.raises(TimeoutError):
            while True:
                unix._receive()


def test_rights_change_by_reload(begin, files, authority):
    gateway = begin(files.settings()).wait_ready()
    with gateway.connect_tls(context(authority, "watcher")) as peer:
        assert peer.put("/v1/vms/web1", b'{"ownerUID": 1}').status == 403
        files.write(files.rights, "CN watcher = manage\n")
        gateway.reload()
        assert peer.put("/v1/vms/web1", b'{"ownerUID": 1}').status in (200, 201)
        files.write(files.rights, "")
        gateway.reload()
        assert peer.get().status == 403


def test_new_server_certificate_by_reload(begin, files, authority):
    gateway = begin(files.settings()).wait_ready()

    def shown():
        with gateway.connect_tls(context(authority, "watcher")) as peer:
            assert peer.get().status == 200
            return peer.socket.getpeercert()["serialNumber"]

    with gateway.connect_tls(context(authority, "watcher")) as old:
        before = shown()
        crt, key = authority.server("renewed")
        files.write(files.certificate, crt.read_text())
        files.write(files.key, key.read_text(), 0o600)
        gateway.reload()
        assert shown() != before
        assert old.get().status == 200


@pytest.mark.parametrize("name, text, wanted", [
    ("certificate", "nothing\n", "no certificate with its key"),
    ("key", None, "no certificate with its key"),
    ("ca", "nothing\n", "no certificate of an authority"),
    ("crl", "", "no list of revoked certificates"),
    ("rights", "CN watcher = own\n", 'rights:1: the right "own" must be inspect or manage'),
    ("tokens", "t inspect never 00\n", 'tokens:1: t: the expiry "never" must be a time as 2026-01-31T00:00:00Z'),
])
def test_a_broken_file(begin, files, authority, name, text, wanted):
    """At a reload the old ones stay, and the status says why; a start fails."""
    files.token("t", "t", "inspect")
    gateway = begin(files.settings(tokens=True)).wait_ready()
    gateway.is_quiet = False
    path = getattr(files, name)
    files.write(path, authority.key.read_text() if text is None else text, 0o600)
    said = gateway.reload()
    assert wanted in said
    assert wanted in gateway.stderr()
    assert status(gateway, context(authority, "watcher")) == 200
    assert status(gateway, context(authority), "Authorization: Bearer t") == 200
    gateway.stop()
    for left in [gateway.path, gateway.manager.path]:
        left.unlink()
    assert wanted in start_failure(begin(files.settings(tokens=True)))


# ---- the start ----


def test_plain_tcp_is_refused(begin):
    said = start_failure(begin(""))
    assert "TLS" in said and said.count("\n") == 1


@pytest.mark.parametrize("address", ["tcp:127.0.0.1:0", "127.0.0.1:0", "tls:localhost:0"])
def test_address_that_is_none(daemon, directory, address):
    done = subprocess.run([binary("daemon/rest/privmem-rest"), f"--socket={daemon.path}", f"--listen={address}"],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20)
    assert done.returncode == 1
    assert "unix:PATH or tls:ADDRESS:PORT" in done.stderr


def test_tls_needs_a_certificate(daemon, directory):
    done = subprocess.run([binary("daemon/rest/privmem-rest"), f"--socket={daemon.path}", "--listen=tls:127.0.0.1:0"],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20)
    assert done.returncode == 1
    assert "Certificate=" in done.stderr


@pytest.mark.parametrize("name", ["key", "tokens"])
def test_secrets_that_others_may_read(begin, files, name):
    files.token("t", "t", "inspect")
    getattr(files, name).chmod(0o644)
    said = start_failure(begin(files.settings(tokens=True)))
    assert f"{getattr(files, name)}: others may read or change it (mode 0644); it must be 0640 or less" in said


# ---- tokens ----


def test_tokens(begin, files, authority):
    files.token("seesall", "watch", "inspect")
    files.token("doesall", "orchestrate", "manage")
    files.token("toolate", "late", "manage", "2020-01-01T00:00:00Z")
    gateway = begin(files.settings(tokens=True)).wait_ready()
    client = context(authority)
    with gateway.connect_tls(client) as peer:
        answer = peer.get()
        assert (answer.status, answer.headers["www-authenticate"]) == (401, 'Bearer realm="privmemd"')
        assert peer.get("/v1/host", "Authorization: Bearer seesall").status == 200
        body = b'{"ownerUID": 12345}'
        answer = peer.put("/v1/vms/web1", body, "Authorization: Bearer seesall")
        assert answer.status == 403
        assert answer.headers["www-authenticate"] == 'Bearer realm="privmemd", error="insufficient_scope"'
        assert peer.put("/v1/vms/web1", body, "Authorization: bearer  doesall").status in (200, 201)
        for bad in ["Bearer toolate", "Bearer seesal", "Bearer seesalll", "Bearer", "Bearer ", "Basic c2Vlc2FsbDo=",
                    f"Bearer {HASH(b'seesall').hexdigest()}", "Bearer seesall doesall", "seesall",
                    "Bearer seesall\r\nAuthorization: Bearer doesall"]:
            answer = peer.get("/v1/host", f"Authorization: {bad}")
            assert answer.status == 401, bad
            assert answer.headers["www-authenticate"] == 'Bearer realm="privmemd", error="invalid_token"'
        assert peer.get().status == 401  # a token counts for one request


def test_tokens_are_reloaded(begin, files, authority):
    files.token("one", "one", "inspect")
    gateway = begin(files.settings(tokens=True, clients=False)).wait_ready()
    with gateway.connect_tls(context(authority)) as peer:
        assert peer.get("/v1/host", "Authorization: Bearer one").status == 200
        files.tokens.unlink()
        files.token("two", "two", "inspect")
        gateway.reload()
        assert peer.get("/v1/host", "Authorization: Bearer one").status == 401
        assert peer.get("/v1/host", "Authorization: Bearer two").status == 200


def test_token_and_certificate(begin, files, authority):
    """A token that is shown is what counts, a wrong one too."""
    files.token("seesall", "watch", "inspect")
    gateway = begin(files.settings(tokens=True)).wait_ready()
    with gateway.connect_tls(context(authority, "orchestrator")) as peer:
        assert peer.put("/v1/vms/web1", b'{"ownerUID": 1}').status in (200, 201)
        assert peer.put("/v1/vms/web1", b'{"ownerUID": 1}', "Authorization: Bearer seesall").status == 403
        assert peer.get("/v1/host", "Authorization: Bearer wrong").status == 401
        assert peer.get().status == 200


def test_a_token_is_nothing_on_the_unix_socket(begin, files):
    files.token("seesall", "watch", "inspect")
    gateway = begin(files.settings(tokens=True)).wait_ready()
    with gateway.connect() as peer:
        assert peer.get("/v1/host", "Authorization: Bearer wrong").status == 200


def test_new_token(begin, files, authority):
    done = subprocess.run([binary("daemon/rest/privmem-rest"), "--new-token=ci,inspect,2d"], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=20, check=True)
    token, line = done.stdout.splitlines()
    assert done.stderr == ""
    files.write(files.tokens, line + "\n", 0o640)
    gateway = begin(files.settings(tokens=True, clients=False)).wait_ready()
    assert status(gateway, context(authority), f"Authorization: Bearer {token}") == 200
    bad = subprocess.run([binary("daemon/rest/privmem-rest"), "--new-token=ci,own,2d"], stdin=subprocess.DEVNULL,
                         capture_output=True, text=True, timeout=20)
    assert bad.returncode == 1
    assert 'the right "own" must be inspect or manage' in bad.stderr


# ---- the wire ----


def test_tls_1_2(begin, files, authority):
    gateway = begin(files.settings()).wait_ready()
    refused(gateway, context(authority, "watcher", ssl.TLSVersion.TLSv1_2))
    assert status(gateway, context(authority, "watcher")) == 200


@pytest.mark.parametrize("data", [
    pytest.param(request("GET", "/v1/host"), id="http"),
    pytest.param(b"\0" * 4096, id="zeros"),
    pytest.param(b"\x16\x03\x01\xff\xff" + b"\1" * 70000, id="too-long"),
    pytest.param(b"SSH-2.0-x\r\n", id="ssh"),
])
def test_no_tls(begin, files, authority, data):
    gateway = begin(files.settings()).wait_ready()
    with Peer(gateway.connect_tcp()) as peer:
        try:
            peer.send(data)
            peer.socket.shutdown(socket.SHUT_WR)
        except (Ended, OSError):
            pass  # it had seen enough
        try:
            peer._until(b"HTTP")
        except Ended:
            pass
        else:
            raise AssertionError("it has answered in plain text")
    assert status(gateway, context(authority, "watcher")) == 200


def test_slow_handshake(begin, files, authority):
    """Others are served meanwhile, and it ends when a header would have to be there."""
    gateway = begin(files.settings("HeaderSec=1")).wait_ready()
    client = context(authority, "watcher")
    before = time.monotonic()
    silent = [Peer(gateway.connect_tcp()) for _ in range(20)]
    trickling = Peer(gateway.connect_tcp())
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
    with gateway.connect_tls(client) as peer:
        for n in range(8):
            trickling.send(hello[n:n + 1])
            assert peer.get().status == 200
            time.sleep(0.05)
    for one in [trickling, *silent]:
        one.expect_end(seconds=3)
        one.close()
    assert 0.9 < time.monotonic() - before < 4
    assert status(gateway, client) == 200


def test_handshake_flood(begin, files, authority):
    """An address has so many handshakes a second, and no more; later it has some again."""
    gateway = begin(files.settings("HandshakesPerSecond=5")).wait_ready()
    client = context(authority, "watcher")
    ended = good = 0
    begun = time.monotonic()
    for _ in range(100):
        try:
            assert status(gateway, client) == 200
            good += 1
        except Ended:
            ended += 1
    allowed = 10 + 5 * (time.monotonic() - begun)
    assert 10 <= good <= allowed + 1 and good + ended == 100 and ended > 0
    with gateway.connect() as unix:
        assert unix.get().status == 200
    wait_until(lambda: is_served(gateway, client), what="another handshake")


def is_served(gateway, client):
    try:
        return status(gateway, client) == 200
    except Ended:
        return False


def test_connections_of_one_address(begin, files, authority):
    gateway = begin(files.settings("ConnectionsPerAddress=4")).wait_ready()
    client = context(authority, "watcher")
    peers = [gateway.connect_tls(client) for _ in range(4)]
    assert [peer.get().status for peer in peers] == [200] * 4
    refused(gateway, client)
    assert [peer.get().status for peer in peers] == [200] * 4
    peers.pop().close()
    wait_until(lambda: is_served(gateway, client), what="a connection less")
    for peer in peers:
        peer.close()


def test_stop_amid_all_of_this(begin, files, authority):
    gateway = begin(files.settings()).wait_ready()
    client = context(authority, "watcher")
    idle, streaming, silent = gateway.connect_tls(client), gateway.connect_tls(client), Peer(gateway.connect_tcp())
    assert idle.get().status == 200
    streaming.send(request("GET", "/v1/events"))
    assert b"200" in streaming._until(b"\r\n")
    assert gateway.stop() == 0
    for peer in [idle, streaming, silent]:
        peer.close()


@pytest.mark.plain
def test_memory_of_many_handshakes(begin, files, authority):
    gateway = begin(files.settings("HandshakesPerSecond=10000")).wait_ready()
    client = context(authority, "watcher")
    for _ in range(50):
        assert status(gateway, client) == 200
    fds, before = gateway.settle(), gateway.rss()
    for _ in range(250):
        assert status(gateway, client) == 200
    assert gateway.settle() == fds
    assert gateway.rss() - before < 512 * 1024
