# SPDX-License-Identifier: LGPL-2.1-or-later
"""privmem-rest under systemd: who may connect to its socket, what it may do, and TLS through a socket that is passed."""

import json
import os
import shutil

import pytest

from certificates import Authority
from user import ALICE

SERVICE, SOCKET, TLS_SOCKET = "privmem-rest.service", "privmem-rest.socket", "privmem-rest-tls.socket"
PATH = "/run/privmemd/rest"
MEMBER = ["setpriv", f"--reuid={ALICE}", f"--regid={ALICE}", "--groups=privmem", "--"]
OTHER = ["setpriv", f"--reuid={ALICE}", f"--regid={ALICE}", "--clear-groups", "--"]
CURL = ["curl", "--silent", "--show-error", "--max-time", "20", "--write-out", "\n%{http_code}"]


@pytest.fixture
def rest(service):
    """Its socket listens, and it does not run."""
    stop(service)
    service.systemctl("start", SOCKET)
    yield service
    stop(service)


def stop(machine):
    machine.systemctl("stop", TLS_SOCKET, SOCKET, SERVICE)
    machine.systemctl("reset-failed")


def curl(machine, path, *arguments, who=(), check=True):
    """Status and JSON of the answer."""
    done = machine.run(*who, *CURL, "--unix-socket", PATH, *arguments, f"http://localhost{path}", check=check)
    return answer_of(done)


def answer_of(done):
    body, _, status = done.stdout.rpartition("\n")
    return int(status), json.loads(body) if body else None


def put(body):
    return ["--request", "PUT", "--header", "Content-Type: application/json", "--data", json.dumps(body)]


def test_socket_activation(rest):
    assert rest.show("ActiveState", unit=SERVICE) == "inactive"
    assert curl(rest, "/v1/host") == (200, rest.varlink("GetHost"))
    assert rest.show("ActiveState", "SubState", unit=SERVICE) == ["active", "running"]


def test_who_may_connect(rest):
    """Root and the members of the group privmem; nobody else comes as far as HTTP."""
    mode, group, owner = rest.run("stat", "--format=%a %G %U", PATH).stdout.split()
    assert (mode, group, owner) == ("660", "privmem", "root")
    assert curl(rest, "/v1/host")[0] == 200
    assert curl(rest, "/v1/host", who=MEMBER)[0] == 200
    refused = rest.run(*OTHER, *CURL, "--unix-socket", PATH, "http://localhost/v1/host", check=False)
    assert refused.returncode == 7  # failed to connect
    assert refused.stdout.strip() == "000"


def test_it_may_manage(rest):
    """By the group of its user, though it is neither root nor the owner."""
    assert rest.run("id", "--groups", "--name", "privmem-rest").stdout.split() == ["privmem-rest", "privmem"]
    assert curl(rest, "/v1/vms/web1", *put({"ownerUID": 4711}), who=MEMBER)[0] == 201
    assert curl(rest, "/v1/vms/web1")[1]["ownerUID"] == 4711
    size = {"size": 2 << 20}
    assert curl(rest, "/v1/vms/web1/backings/ram", *put(size), who=MEMBER)[0] == 201
    assert curl(rest, "/v1/vms/web1/backings/ram")[1]["name"] == "ram"
    for path in ["/v1/vms/web1/backings/ram", "/v1/vms/web1"]:
        assert curl(rest, path, "--request", "DELETE", who=MEMBER)[0] in (200, 204)


def test_it_holds_nothing(rest):
    """No capability, no file descriptor of memory, no other user's name space to see."""
    assert curl(rest, "/v1/host")[0] == 200
    pid = rest.show("MainPID", unit=SERVICE)
    status = dict(line.split(":\t", 1) for line in rest.run("cat", f"/proc/{pid}/status").stdout.splitlines()
                  if ":\t" in line)
    for name in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]:
        assert int(status[name], 16) == 0
    assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2"
    links = rest.run("sh", "-c", f"readlink /proc/{pid}/fd/*").stdout
    assert "memfd" not in links


def test_units_are_clean(rest):
    done = rest.run("systemd-analyze", "verify", "--man=no", SERVICE, SOCKET, TLS_SOCKET)
    assert (done.stdout, done.stderr) == ("", "")


def test_exposure(rest):
    rest.run("systemd-analyze", "security", "--no-pager", "--threshold=4", SERVICE)


def test_settings(rest):
    path = rest.configuration().with_name("privmem-rest.conf")
    project = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    with open(os.path.join(project, "policy", "privmem-rest.conf"), encoding="utf-8") as file:
        assert path.read_text() == file.read()


# ---- TLS ----


@pytest.fixture
def secured(rest, tmp_path):
    """With certificates where the administrator would put them."""
    authority = Authority(tmp_path / "authority")
    crt, key = authority.server()
    authority.issue("watcher")
    settings = rest.configuration().with_name("privmem-rest.conf")
    place = settings.with_name("rest")
    place.mkdir()
    rest.place = "/" + str(place.relative_to(rest.root))
    before = settings.read_text()
    names = {"server.crt": crt, "server.key": key, "ca.crt": authority.crt, "ca.crl": authority.crl_path,
             "watcher.crt": authority.directory / "watcher.crt", "watcher.key": authority.directory / "watcher.key"}
    for name, source in names.items():
        (place / name).write_text(source.read_text())
    (place / "rights").write_text("CN watcher = inspect\n")
    rest.run("chgrp", "privmem-rest", f"{rest.place}/server.key")
    rest.run("chmod", "640", f"{rest.place}/server.key")
    settings.write_text("[TLS]\n" + "".join(f"{name}={rest.place}/{file}\n" for name, file in [
        ("Certificate", "server.crt"), ("Key", "server.key"), ("ClientCA", "ca.crt"), ("ClientCRL", "ca.crl"),
        ("ClientRights", "rights")]))
    rest.systemctl("start", TLS_SOCKET)
    yield rest
    settings.write_text(before)
    for path in place.iterdir():
        path.unlink()
    place.rmdir()


def secure_curl(machine, *arguments, check=True, client=True):
    shown = ["--cert", f"{machine.place}/watcher.crt", "--key", f"{machine.place}/watcher.key"] if client else []
    return machine.run(*CURL, "--cacert", f"{machine.place}/ca.crt", *shown, *arguments, "https://localhost:8443/v1/host",
                       check=check)


def test_tls(secured):
    """The service has no network of its own, and is asked over TCP all the same."""
    assert answer_of(secure_curl(secured))[0] == 200
    assert secured.show("PrivateNetwork", "RestrictAddressFamilies", unit=SERVICE) == ["yes", "AF_UNIX"]
    assert secure_curl(secured, client=False, check=False).returncode != 0
    assert curl(secured, "/v1/host", who=MEMBER)[0] == 200


def test_reload_of_certificates(secured):
    assert answer_of(secure_curl(secured))[0] == 200
    pid = secured.show("MainPID", unit=SERVICE)
    rights = secured.configuration().with_name("rest") / "rights"
    rights.write_text("CN watcher = own\n")
    secured.expect("certificates and tokens stay as they were")
    secured.systemctl("reload", SERVICE)
    assert "rights:1: " in secured.show("StatusText", unit=SERVICE)
    assert answer_of(secure_curl(secured))[0] == 200
    rights.write_text("")
    secured.systemctl("reload", SERVICE)
    assert secured.show("MainPID", "StatusText", unit=SERVICE) == [pid, ""]
    assert answer_of(secure_curl(secured))[0] == 403


@pytest.fixture
def once(rest):
    """It is not started again when it has failed."""
    directory = rest.root / "run" / "systemd" / "system" / f"{SERVICE}.d"
    directory.mkdir(parents=True)
    (directory / "test.conf").write_text("[Service]\nRestart=no\n")
    rest.systemctl("daemon-reload")
    yield rest
    shutil.rmtree(directory)
    rest.systemctl("daemon-reload")


def test_tcp_without_tls(once):
    """Nothing is served in plain text: it does not start, and says why."""
    rest = once
    rest.expect("there is no TCP without TLS", "Failed to start", "Failed with result", "Main process exited",
                "Trigger limit hit")
    rest.systemctl("start", TLS_SOCKET)
    done = rest.run(*CURL, "--max-time", "2", "http://localhost:8443/v1/host", check=False)
    assert done.stdout.strip() == "000"
    rest.wait_for("ActiveState", "failed", unit=SERVICE)
