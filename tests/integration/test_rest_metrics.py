# SPDX-License-Identifier: LGPL-2.1-or-later
"""GET /metrics: what monitoring systems make of it, and the alert rules that are shipped."""

import contextlib
import http.client
import json
import os
import pathlib
import re
import select
import socket
import subprocess
import threading
import time
import urllib.parse

import pytest

import user
from broker import wait_until
from contract import PROJECT
from memory import MIB, PAGE, fill, slot
from rest import Connection, problem

OPENMETRICS, PLAIN = "application/openmetrics-text", "text/plain"
RULES = PROJECT / "policy" / "privmemd.rules.yml"
HVA = 0x7E0000000000
SAMPLE = re.compile(r'([a-z_]+)(?:\{((?:[a-z_]+="(?:[^"\\]|\\.)*",?)*)\})? (\S+)')
LABEL = re.compile(r'([a-z_]+)="((?:[^"\\]|\\.)*)"')


def scrape(rest, kind=OPENMETRICS, **options):
    answer = rest.get("/metrics", {"Accept": kind}, **options)
    assert (answer.status, answer.type) == (200, kind), answer
    return answer.data.decode()


def samples(text):
    """{name: {(label, value)…: number}}, of text that keeps to the format."""
    found = {}
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        name, labels, value = SAMPLE.fullmatch(line).groups()
        key = tuple(LABEL.findall(labels or ""))
        assert key not in found.setdefault(name, {}), line
        found[name][key] = float(value)
    return found


def value(rest, name, **labels):
    (found,) = [number for key, number in samples(scrape(rest))[name].items() if labels.items() <= dict(key).items()]
    return found


@pytest.fixture
def furnished(client):
    """Something of each kind that is counted."""
    client.register("web1", aliasPolicy="observe")
    client.register("web2", exitPolicy="retain", type="sw_protected")
    fill(client.allocate("ram0", size=4 * PAGE).fd)
    client.allocate("ram1", numaPolicy="bind", numaNodes=[0])
    client.allocate("ram0", vm="web2", size=8 * MIB)
    for number in range(2):
        client.call("SetSlot", vm="web1",
                    slot=slot(number, number * MIB, PAGE, backing="ram0", userspaceAddr=HVA))
    client.fails("SlotRefused", "SetSlot", vm="web2", slot=slot(0, 1, PAGE))
    client.call("SetMemoryAttributes", vm="web2", guestPhysAddr=0, memorySize=MIB, private=True)
    client.call("CreateClaim", vm="web2")
    return client


def test_what_it_says(rest, furnished):
    rest.get("/v1/vms/none")
    text = scrape(rest)
    found = samples(text)
    assert text.endswith("\n# EOF\n")
    assert found["privmem_up"] == {(): 1}
    assert found["privmem_vms"] == {(): 2}
    assert found["privmem_restarts_total"] == {(): 0}
    assert found["privmem_custody"][(("place", "none"),)] == 1
    memory = (("kind", "memfd"), ("page_size", str(PAGE)))
    assert found["privmem_vm_promised_bytes"] == {
        (("vm", "web1"), *memory, ("node", "any")): 4 * PAGE, (("vm", "web1"), *memory, ("node", "0")): MIB,
        (("vm", "web2"), *memory, ("node", "any")): 8 * MIB}
    assert found["privmem_vm_resident_bytes"][(("vm", "web1"), *memory, ("node", "any"))] == 4 * PAGE
    assert set(found["privmem_vm_retained_bytes"].values()) == {0}
    assert found["privmem_vm_slots"] == {(("vm", "web1"),): 2, (("vm", "web2"),): 0}
    assert found["privmem_vm_private_ranges"][(("vm", "web2"),)] == 1
    assert found["privmem_vm_claims"] == {(("vm", "web1"),): 0, (("vm", "web2"),): 1}
    assert found["privmem_vm_slots_refused_total"] == {(("vm", "web2"), ("rule", "guest_phys_addr")): 1}
    assert found["privmem_vm_aliases_observed_total"] == {(("vm", "web1"), ("rule", "undeclared_alias")): 1}
    assert found["privmem_limit"][(("limit", "backingsPerVM"),)] == 256
    assert found["privmem_events_total"][(("kind", "vm_registered"),)] == 2
    assert found["privmem_calls_total"][(("method", "SetSlot"), ("outcome", "ok"))] == 2
    assert found["privmem_calls_total"][(("method", "SetSlot"), ("outcome", "error"))] == 1
    assert found["privmem_call_duration_seconds_count"][(("method", "SetSlot"),)] == 3
    route = (("route", "/v1/vms/{vm}"), ("method", "GET"))
    assert found["privmem_rest_requests_total"][(*route, ("code", "404"))] == 1
    assert found["privmem_rest_request_duration_seconds_count"][route] == 1
    assert 0 < found["privmem_rest_request_duration_seconds_sum"][route] < 5
    assert found["privmem_rest_connections"][()] >= 1
    assert found["privmem_rest_omitted_vms"] == {(): 0}
    assert abs(found["process_start_time_seconds"][()] - time.time()) < 60
    assert found["process_resident_memory_bytes"][()] == pytest.approx(rest.rss(), rel=0.5)


def test_retained_memory(rest, client, process):
    client.register(exitPolicy="retain")
    fill(client.allocate(size=4 * PAGE).fd)
    vmm = process(os.geteuid(), os.getpid)
    client.call("AttachVM", vm="web1", pidFileDescriptor=0, fds=[vmm.pidfd])
    assert value(rest, "privmem_vm_retained_bytes") == 0
    vmm.end()
    wait_until(lambda: value(rest, "privmem_vm_retained_bytes") == 4 * PAGE)


def test_forms(rest):
    assert rest.get("/metrics").headers["Content-Type"] == \
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    old = rest.get("/metrics", {"Accept": "text/plain;version=0.0.4;q=0.3,application/openmetrics-text;q=0.1"})
    assert old.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert b"# EOF" not in old.data
    assert old.headers["Cache-Control"] == "no-store"
    problem(rest.get("/metrics", {"Accept": "application/json"}), 406)
    problem(rest.post("/metrics", {}), 405)
    head = rest.request("HEAD", "/metrics")
    assert (head.status, head.data) == (200, b"")


def test_families_stand_together_and_are_described(rest, furnished):
    for kind in (OPENMETRICS, PLAIN):
        described, family, seen = {}, None, set()
        for line in scrape(rest, kind).splitlines():
            if line.startswith("# TYPE "):
                family, described[family] = line.split()[2], line.split()[3]
                assert family not in seen
                seen.add(family)
            elif not line.startswith("#"):
                suffix = line.split("{")[0].split(" ")[0].removeprefix(family)
                assert suffix in {"": [""], "counter": ["_total"] if kind == OPENMETRICS else [""],
                                  "histogram": ["_bucket", "_sum", "_count"],
                                  "info": ["_info"], "gauge": [""]}[described[family]], line


def test_promtool_has_nothing_to_say(rest, furnished):
    done = subprocess.run(["promtool", "check", "metrics"], input=scrape(rest, PLAIN).encode(), capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_promtool_likes_the_rules():
    done = subprocess.run(["promtool", "check", "rules", RULES], capture_output=True, text=True)
    assert done.returncode == 0, done
    done = subprocess.run(["promtool", "test", "rules", pathlib.Path(__file__).with_name("privmemd.rules.test.yml")],
                          capture_output=True, text=True)
    assert done.returncode == 0, done


def test_rules_ask_for_what_there_is(rest, furnished):
    """A name that nobody exports would never fire."""
    there = set(samples(scrape(rest)))
    expressions = re.findall(r"^ +expr: (.*)$", RULES.read_text(), re.M)
    assert len(expressions) >= 10
    asked = {name for expression in expressions for name in re.findall(r"\bprivmem_\w+", expression)}
    assert asked <= there


def test_every_alert_is_tested():
    tested = pathlib.Path(__file__).with_name("privmemd.rules.test.yml").read_text()
    for alert in re.findall(r"alert: (\w+)", RULES.read_text()):
        assert re.search(rf"alertname: {alert}\n +exp_alerts:", tested), alert


def test_without_privmemd(rest, daemon):
    assert value(rest, "privmem_up") == 1
    daemon.stop()
    found = samples(scrape(rest))
    assert found["privmem_up"] == {(): 0}
    assert "process_open_fds" in found and "privmem_vms" not in found


def test_many_at_once_share_one_answer(rest, client):
    client.register()

    def calls():
        (count,) = [one["succeeded"] for one in client.call("GetMetrics")["methods"] if one["method"] == "GetHost"]
        return count

    before = calls()
    connections = [rest.connect() for _ in range(8)]
    for connection in connections:
        connection.connect()
    for connection in connections:
        connection.sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    texts = []
    for connection in connections:
        response = http.client.HTTPResponse(connection.sock)
        response.begin()
        assert response.status == 200
        texts.append(response.read())
    assert all(text.endswith(b"# EOF\n") for text in texts)
    assert calls() - before <= 8


def test_client_that_goes_while_it_waits(rest, client):
    for _ in range(20):
        with contextlib.closing(Connection(rest.path)) as connection:
            connection.connect()
            connection.sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert value(rest, "privmem_up") == 1


@pytest.mark.root
def test_who_has_no_right_reads_nothing(rest):
    rest.path.chmod(0o666)
    problem(rest.get("/metrics", uid=user.ALICE), 403)


@pytest.mark.plain
@pytest.mark.root
def test_ten_thousand_vms(rest, daemon):
    """So many are all there, in bounded memory and time."""
    names = iter(range(10000))
    for uid in range(20000, 20010):
        with daemon.connect() as client:
            for _ in range(1000):
                name = f"vm{next(names)}"
                client.call("RegisterVM", name=name, ownerUID=uid)
                client.call("AllocateBacking", vm=name, name="ram0", size=PAGE, open=False)
    before = rest.rss()
    start = time.monotonic()
    text = scrape(rest)
    elapsed = time.monotonic() - start
    with open(f"/proc/{rest.pid}/status", encoding="ascii") as status:
        peak = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    grown = peak - before
    print(f"{len(text) / MIB:.1f} MiB in {elapsed:.2f} s, {grown / MIB:.1f} MiB more")
    assert len(samples(text)["privmem_vm_promised_bytes"]) == 10000
    assert grown < 64 * MIB
    assert elapsed < 10
    # Others are served meanwhile, and nothing piles up.
    for _ in range(3):
        scrape(rest)
    assert rest.rss() - before < 64 * MIB


# ---- a real Prometheus ----


class Forwarder:
    """TCP on 127.0.0.1 to the unix socket, for a scraper that knows no unix sockets."""

    def __init__(self, path):
        self.path = str(path)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                threading.Thread(target=self._forward, args=[client], daemon=True).start()

    def _forward(self, client):
        with client, socket.socket(socket.AF_UNIX) as server, contextlib.suppress(OSError):
            server.connect(self.path)
            while True:
                for one in select.select([client, server], [], [])[0]:
                    if not (data := one.recv(1 << 16)):
                        return
                    (server if one is client else client).sendall(data)

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as one:
        return one.getsockname()[1]


class Prometheus:
    def __init__(self, directory, target):
        self.port = free_port()
        config = directory / "prometheus.yml"
        config.write_text(json.dumps({
            "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"},
            "rule_files": [str(RULES)],
            "scrape_configs": [{"job_name": "privmem", "static_configs": [{"targets": [target]}]}],
        }))
        self.log = directory / "prometheus.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={directory / 'prometheus'}",
                 f"--web.listen-address=127.0.0.1:{self.port}"], stdout=log, stderr=log)

    def ask(self, path, **query):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", f"/api/v1/{path}?{urllib.parse.urlencode(query)}")
            answer = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        assert answer["status"] == "success", answer
        return answer["data"]

    def is_up(self):
        if self.process.poll() is not None:
            raise AssertionError(self.log.read_text(errors="replace"))
        try:
            (target,) = self.ask("targets")["activeTargets"]
        except (ConnectionRefusedError, ValueError):
            return False
        assert not target["lastError"], target
        return target["health"] == "up"

    def value(self, expression):
        found = self.ask("query", query=expression)["result"]
        return float(found[0]["value"][1]) if found else None

    def stop(self):
        self.process.terminate()
        self.process.wait(20)


@pytest.fixture
def prometheus(rest, directory):
    forwarder = Forwarder(rest.path)
    started = Prometheus(directory, f"127.0.0.1:{forwarder.port}")
    yield started
    started.stop()
    forwarder.close()


@pytest.mark.plain
def test_prometheus_scrapes_it(furnished, rest, prometheus):
    wait_until(prometheus.is_up, 20, "the first scrape")
    wait_until(lambda: prometheus.value("privmem_up") == 1, what="a sample")
    assert prometheus.value('sum(privmem_vm_promised_bytes{vm="web2"})') == 8 * MIB
    assert prometheus.value('privmem_vm_slots_refused_total{vm="web2"}') == 1
    assert prometheus.value('privmem_call_duration_seconds_count{method="SetSlot"}') == 3
    metadata = prometheus.ask("metadata", metric="privmem_vm_promised_bytes")["privmem_vm_promised_bytes"]
    assert metadata == [{"type": "gauge", "help": "Sum of their sizes.", "unit": "bytes"}]
    (group,) = prometheus.ask("rules")["groups"]
    assert {rule["health"] for rule in group["rules"]} <= {"ok", "unknown"}
    wait_until(lambda: {rule["health"] for rule in prometheus.ask("rules")["groups"][0]["rules"]} == {"ok"},
               what="the first evaluation of the rules")
    # The second VM wants what the first one has: an alert fires.
    furnished.call("RegisterVM", name="web3")
    refused = slot(0, 0, PAGE, backing="ram0", backingVM="web1", userspaceAddr=HVA)
    assert furnished.fails("SlotRefused", "SetSlot", vm="web3", slot=refused)["verdict"]["rule"] == "undeclared_alias"

    def alerts():
        return {(one["labels"]["alertname"], one["labels"].get("vm")): one["state"]
                for one in prometheus.ask("alerts")["alerts"]}

    wait_until(lambda: alerts().get(("PrivmemAliasRefused", "web3")) == "firing", 10, "the alert")
    assert alerts().get(("PrivmemCustodyNone", None)) == "pending"
