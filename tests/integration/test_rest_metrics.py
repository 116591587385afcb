# SPDX-License-Identifier: LGPL-2.1-or-later
"""GET /metrics: what monitoring systems make of it, and the alert rules that are shipped."""

import contextlib
import hashlib
import http.client
import json
import os
import pathlib
import re
import subprocess
import time

import pytest

import user
from broker import wait_until
from certificates import Authority
from contract import INTERFACE, PROJECT
from http_peer import Gateway
from memory import MIB, PAGE, fill, slot
from prometheus import Prometheus
from rest import Connection, problem

OPENMETRICS, PLAIN = "application/openmetrics-text", "text/plain"
RULES = PROJECT / "policy" / "privmemd.rules.yml"
HVA = 0x7E0000000000
TOKEN = "only-for-this-test"
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


@pytest.mark.plain
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


def test_manual_has_every_metric_and_alert(rest, furnished):
    manual = (PROJECT / "docs" / "monitoring.md").read_text()
    manual = re.sub(r"`(privmem_\w+)_size_bytes`, `…_free_bytes`(, `…_reserved_bytes`)?",
                    r"`\1_size_bytes` `\1_free_bytes` `\1_reserved_bytes`", manual)
    names = {re.sub(r"_(bucket|sum|count)$", "", name) for name in samples(scrape(rest))}
    assert [name for name in sorted(names) if f"`{name}`" not in manual] == []
    assert [name for name in re.findall(r"alert: (\w+)", RULES.read_text()) if f"`{name}`" not in manual] == []


def test_without_privmemd(start_rest, daemon):
    rest = start_rest(daemon, arguments=["--wait=1"])
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
    for owner in range(10):
        with daemon.connect() as client:
            messages = []
            for number in range(1000):
                name = f"vm{1000 * owner + number}"
                messages += [("RegisterVM", {"name": name, "ownerUID": 20000 + owner}),
                             ("AllocateBacking", {"vm": name, "name": "ram0", "size": PAGE, "open": False})]
            client.send_bytes(b"".join(
                json.dumps({"method": f"{INTERFACE}.{method}", "parameters": parameters, "oneway": True}).encode() + b"\0"
                for method, parameters in messages))
            client.call("GetHost")
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


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    made = Authority(tmp_path_factory.mktemp("authority"))
    made.server()
    made.issue("prometheus")
    return made


@pytest.fixture
def tls(directory, daemon, authority):
    """A privmem-rest that takes a token, or a certificate, for the right to inspect."""
    rights, tokens = directory / "rights", directory / "tokens"
    rights.write_text("CN prometheus = inspect\n")
    tokens.write_text(f"prometheus inspect 2099-01-01T00:00:00Z {hashlib.sha256(TOKEN.encode()).hexdigest()}\n")
    tokens.chmod(0o600)
    gateway = Gateway(daemon, directory, "\n".join([
        "[TLS]", f"Certificate={authority.directory / 'server.crt'}", f"Key={authority.directory / 'server.key'}",
        f"ClientCA={authority.crt}", f"ClientCRL={authority.crl_path}", f"ClientRights={rights}",
        f"Tokens={tokens}", ""]), tls=True)
    yield gateway.wait_ready()
    assert gateway.stop() == 0


@pytest.fixture
def prometheus(directory, tls, authority):
    """Comes in by a token, by a certificate, and by a token that is none."""
    trust = {"ca_file": str(authority.crt)}
    certificate = {"cert_file": str(authority.directory / "prometheus.crt"),
                   "key_file": str(authority.directory / "prometheus.key")}
    started = Prometheus(directory, RULES, tls.port, {
        "privmem": {"tls_config": trust, "authorization": {"credentials": TOKEN}},
        "certificate": {"tls_config": {**trust, **certificate}},
        "stranger": {"tls_config": trust, "authorization": {"credentials": "wrong"}},
    })
    yield started
    started.stop()


@pytest.mark.plain
def test_prometheus_scrapes_it_and_raises_an_alert(furnished, prometheus):
    health = wait_until(prometheus.health, 20, "the first scrapes")
    assert (health["privmem"], health["certificate"]) == (("up", ""), ("up", ""))
    assert health["stranger"][0] == "down" and "401" in health["stranger"][1]
    wait_until(lambda: prometheus.value('privmem_up{job="privmem"}') == 1, what="a sample")
    assert prometheus.value('sum(privmem_vm_promised_bytes{vm="web2",job="privmem"})') == 8 * MIB
    assert prometheus.value('privmem_vm_slots_refused_total{vm="web2"}') == 1
    assert prometheus.value('privmem_call_duration_seconds_count{method="SetSlot"}') == 3
    metadata = prometheus.ask("metadata", metric="privmem_vm_promised_bytes")["privmem_vm_promised_bytes"]
    assert metadata == [{"type": "gauge", "help": "Sum of their sizes.", "unit": "bytes"}]
    wait_until(lambda: set(prometheus.rules().values()) == {"ok"}, what="the first evaluation of the rules")
    # A VM wants what another one has.
    furnished.call("RegisterVM", name="web3")
    alias = slot(0, 0, PAGE, backing="ram0", backingVM="web1", userspaceAddr=HVA)
    assert furnished.fails("SlotRefused", "SetSlot", vm="web3", slot=alias)["verdict"]["rule"] == "undeclared_alias"
    wait_until(lambda: prometheus.alerts().get(("PrivmemAliasRefused", "web3")) == "firing", 10, "the alert")
    assert prometheus.alerts().get(("PrivmemCustodyNone", None)) == "pending"
