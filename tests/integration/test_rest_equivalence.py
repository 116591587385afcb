# SPDX-License-Identifier: LGPL-2.1-or-later
"""The same random operations by REST and by varlink: two privmemds give the same answers, and end in the same state.

What is called is drawn in the words of varlink. The rows of operations.def say what that is in REST, so each row that
somebody adds is known here, and each method that has an address is tried. The seed of a difference is in its message."""

import json
import pathlib
import random
import re
import urllib.parse

import pytest

from broker import Daemon
from contract import INTERFACE, PROJECT
from memory import MIB, PAGE, slot
from rest import Rest
from wire import Refusal

OPERATIONS = 1500
HVA = 0x100000000
VMS = ["web1", "web2", "db:1"]
BACKINGS = ["ram0", "ram1", "a.b_c-d"]
# Two privmemds cannot have these alike.
OF_ITS_OWN = {"inode", "device", "generation", "expiresUSec", "token", "socket", "startedUSec", "totalUSec", "within",
              "message", "detail", "timestampUSec", "present", "requested"}

ROUTE = re.compile(r'^ROUTE\((\w+),\s*(\w+),\s*"([^"]*)",\s*(NULL|"[^"]*"),\s*(NULL|"(?:[^"\\]|\\.)*"),\s*(\w+),'
                   r'\s*(NULL|"\w+")\)', re.M)
ERROR = re.compile(r'^ERROR\((\w+),\s*\w+,\s*(\d+),', re.M)


def text_of(literal):
    return None if literal == "NULL" else json.loads(literal)


def rows():
    text = (PROJECT / "api" / "operations.def").read_text().replace(",\n      ", ", ")
    return [(method, verb, path, text_of(body), json.loads(text_of(fixed) or "{}"), answer, text_of(member))
            for method, verb, path, body, fixed, answer, member in ROUTE.findall(text)]


ROWS = rows()
STATUS = {name: int(status) for name, status in ERROR.findall(
    (pathlib.Path(PROJECT) / "api" / "errors.def").read_text())}


# ---- a call in the words of REST ----

def is_within(fixed, parameters):
    return all(key in parameters and (is_within(value, parameters[key]) if isinstance(value, dict)
                                      else parameters[key] == value) for key, value in fixed.items())


def without(fixed, parameters):
    kept = {}
    for key, value in parameters.items():
        if key not in fixed:
            kept[key] = value
        elif isinstance(value, dict):
            kept[key] = without(fixed[key], value)
    return kept


def fill(path, parameters):
    """The path with its fields, and what of the parameters is left; None if one is not there."""
    rest = json.loads(json.dumps(parameters))
    for field in re.findall(r"{([^}]*)}", path):
        *outer, key = field.split(".")
        place = rest
        for name in outer:
            place = place.get(name, {})
        if key not in place:
            return None
        path = path.replace("{" + field + "}", urllib.parse.quote(str(place.pop(key)), safe=""))
    return path, rest


def word(value):
    return str(value).lower() if isinstance(value, bool) else str(value)


def request_of(method, parameters):
    """The address that takes most of the parameters into its path: (row, verb, path with query, body, headers)."""
    best = None
    for row in ROWS:
        if row[0] == method and is_within(row[4], parameters) and (filled := fill(row[2], parameters)):
            if best is None or row[2].count("{") + len(row[4]) > best[0][2].count("{") + len(best[0][4]):
                best = row, *filled
    row, path, rest = best
    rest = without(row[4], rest)
    headers = {"If-Match": f'"{rest.pop("ifGeneration")}"'} if "ifGeneration" in rest else {}
    query = {"dryRun": rest.pop("dryRun")} if "dryRun" in rest else {}
    body = None
    if row[1] in ("GET", "DELETE"):
        query |= {key: value for key, value in rest.items() if value != {}}
    elif row[3] is not None:
        body = rest.get(row[3], {}) if row[3] else rest
    if query:
        path += "?" + urllib.parse.urlencode({key: word(value) for key, value in query.items()})
    return row, row[1], path, body, headers


# ---- both sides ----

def comparable(value):
    if isinstance(value, dict):
        return {key: comparable(inner) for key, inner in value.items() if key not in OF_ITS_OWN}
    return [comparable(inner) for inner in value] if isinstance(value, list) else value


def by_varlink(client, method, parameters):
    try:
        return None, dict(client.call(method, **parameters))
    except Refusal as refusal:
        return refusal.error, refusal.parameters


def by_rest(rest, connection, method, parameters):
    row, verb, path, body, headers = request_of(method, parameters)
    response = rest.request(verb, path, body, headers, connection=connection)
    document = response.json if response.data else {}
    if response.status >= 400:
        return row, response.status, document.pop("type"), {
            key: value for key, value in document.items() if key not in ("title", "status", "detail")}
    return row, response.status, None, document


def check_same(method, parameters, ours, theirs):
    error, reply = theirs
    row, status, kind, document = ours
    where = f"{method} {parameters}: by varlink {error or ''} {reply}, by REST {status} {kind or ''} {document}"
    if row[5] == "ITEM" and error is None:
        # No element is no object.
        reply = reply[row[6]]
        assert (status == 404) == (reply == []), where
        if reply == []:
            return
        (reply,) = reply
    assert kind == error, where
    if error is None:
        created = row[5] == "CREATED" or (row[5] == "REPLY" and reply.get("created") is True)
        assert status == (201 if created and not parameters.get("dryRun") else 200) or (status == 204 and not reply), where
    elif error.startswith(INTERFACE):
        assert status in (STATUS[error.removeprefix(f"{INTERFACE}.")], 404, 422), where
    assert comparable(document) == comparable(reply), where


def everything(client):
    seen = {method: comparable(client.listed(method)) for method in ("ListVMs", "ListBackings", "ListSlots")}
    for vm in client.vms():
        seen[vm["name"]] = [comparable(client.listed(method, vm=vm["name"])) for method in ("ListMemory", "ListClaims")]
    return seen


# ---- what is drawn ----

def some_slot(draw):
    number = draw.randrange(6)
    if draw.random() < 0.2:
        return slot(number, 0, 0, addressSpace=0)
    return slot(number, draw.choice([number * MIB, draw.randrange(4) * MIB, PAGE // 2]), draw.choice([PAGE, 8 * PAGE]),
                addressSpace=0, userspaceAddr=HVA + number * MIB,
                **draw.choice([{}, {"flags": ["log_dirty_pages"]}, {"flags": ["readonly"]}]),
                **draw.choice([{}, {"backing": draw.choice(BACKINGS), "backingOffset": draw.randrange(4) * PAGE},
                               {"backing": draw.choice(BACKINGS), "backingVM": draw.choice(VMS)}]))


def some_size(draw):
    return draw.choice([MIB, MIB, MIB, 2 * MIB, PAGE, PAGE + 1, 0])


def some_policy(draw):
    return draw.choice([{}, {}, {"exitPolicy": "retain"}, {"exitPolicy": "retain", "retainUSec": 10 ** 9},
                        {"retainUSec": 5}, {"aliasPolicy": "observe"}, {"type": "sw_protected"}, {"uuid": "x"},
                        {"ownerUID": 12345}])


def some_page(draw):
    return draw.choice([{}, {"limit": draw.choice([1, 2, 1000, 0])}])


CALLS = {
    "GetHost": lambda d: {},
    "RegisterVM": lambda d: {"name": d.choice([*VMS, "-"]), **some_policy(d)},
    "UnregisterVM": lambda d: {"vm": d.choice(VMS)},
    "AllocateBacking": lambda d: {"vm": d.choice(VMS), "name": d.choice(BACKINGS), "size": some_size(d), "open": False,
                                  **d.choice([{}, {}, {"kind": "memfd"}, {"numaPolicy": "bind", "numaNodes": [0]},
                                              {"pageSize": PAGE}, {"kind": "guest_memfd"}])},
    "ReleaseBacking": lambda d: {"vm": d.choice(VMS), "backing": d.choice(BACKINGS)},
    "PunchBacking": lambda d: {"vm": d.choice(VMS), "backing": d.choice(BACKINGS), "offset": d.randrange(3) * PAGE,
                               "size": d.choice([PAGE, MIB, 5])},
    "ShareBacking": lambda d: {"vm": d.choice(VMS), "backing": d.choice(BACKINGS), "peer": d.choice([*VMS, "nobody"]),
                               **d.choice([{}, {"access": "read_only"}])},
    "ReclaimBacking": lambda d: {"vm": d.choice(VMS), "backing": d.choice(BACKINGS), "peer": d.choice(VMS)},
    "SetSlot": lambda d: {"vm": d.choice(VMS), "slot": some_slot(d)},
    "SetSlots": lambda d: {"vm": d.choice(VMS), "slots": [some_slot(d) for _ in range(d.randrange(4))]},
    "CheckSlots": lambda d: {"vm": d.choice(VMS), "slots": [some_slot(d) for _ in range(d.randrange(4))]},
    "SetMemoryAttributes": lambda d: {"vm": d.choice(VMS), "guestPhysAddr": d.randrange(8) * PAGE,
                                      "memorySize": d.choice([PAGE, 3 * PAGE, 7]), "private": d.random() < 0.5},
    "CreateClaim": lambda d: {"vm": d.choice(VMS), **d.choice([{}, {"backings": [d.choice(BACKINGS)]},
                                                               {"access": "read_only", "lifetimeUSec": 10 ** 10}])},
    "DeleteClaim": lambda d: {"vm": d.choice(VMS), "claim": "1"},
    "ListVMs": lambda d: {**d.choice([{}, {"vm": d.choice(VMS)}]), **some_page(d)},
    "ListBackings": lambda d: d.choice([some_page(d), {"vm": d.choice(VMS), **some_page(d)},
                                        {"vm": d.choice(VMS), "backing": d.choice(BACKINGS)}]),
    "ListSlots": lambda d: d.choice([
        some_page(d), {"vm": d.choice(VMS), **some_page(d)}, {"vm": d.choice(VMS), "backing": d.choice(BACKINGS)},
        {"guestPhysAddr": d.randrange(3) * MIB, "memorySize": MIB, **some_page(d)},
        {"vm": d.choice(VMS), "addressSpace": 0, "slotId": d.randrange(6)}]),
    "ListMemory": lambda d: {"vm": d.choice(VMS), **some_page(d)},
    "ListClaims": lambda d: {"vm": d.choice(VMS), **some_page(d)},
    "ListHolders": lambda d: {"vm": d.choice(VMS), **d.choice([{}, {"backing": d.choice(BACKINGS)}])},
    "ListMetrics": lambda d: d.choice([some_page(d), {"vm": d.choice(VMS)}]),
    "ListLedger": lambda d: {},
}
# An endless answer, and one that counts the calls themselves.
NOT_DRAWN = {"Subscribe", "GetMetrics"}
OFTEN = ["RegisterVM", "AllocateBacking", "AllocateBacking", "SetSlot", "SetSlot", "SetSlots", "ShareBacking"]
DRY = {"AllocateBacking", "SetSlot", "SetSlots"}


@pytest.fixture
def sides(directory, contract, huge_pages_lock):
    """One that is asked by varlink, and one that is asked by REST: (client, gateway, client of the latter's privmemd)."""
    made = []
    for name in ("varlink", "rest"):
        (directory / name).mkdir()
        made.append(Daemon(directory / name, contract))
    rest = Rest(directory, made[1])
    yield made[0].connect(), rest, made[1].connect()
    rest.finish()
    for daemon in made:
        daemon.finish()


def test_every_method_with_an_address_is_tried():
    assert {row[0] for row in ROWS} == set(CALLS) | NOT_DRAWN
    reached = set()
    draw = random.Random(1)
    for method, make in CALLS.items():
        for _ in range(200):
            reached.add(request_of(method, make(draw))[0][:3])
    assert reached == {row[:3] for row in ROWS if row[0] not in NOT_DRAWN}


@pytest.mark.parametrize("seed", [1, 2])
def test_same_answers_and_same_state(sides, contract, seed):
    client, rest, behind = sides
    draw, connection = random.Random(seed), rest.connect()
    outcomes, cursors, claims = set(), {}, {}
    takes_condition = {name for name, member in contract.members.items()
                       if hasattr(member, "in_type") and "ifGeneration" in member.in_type.fields}
    for number in range(OPERATIONS):
        method = draw.choice([*CALLS, *OFTEN])
        parameters = CALLS[method](draw)
        if method in cursors and parameters.get("limit") and draw.random() < 0.5:
            parameters = cursors.pop(method)
        if method == "DeleteClaim" and draw.random() < 0.8:
            parameters["claim"] = claims.get(parameters["vm"], "none")
        if method in DRY and draw.random() < 0.2:
            parameters["dryRun"] = True
        conditions = [{}, {}]
        if method in takes_condition and draw.random() < 0.15:
            of, is_stale = parameters.get("vm", parameters.get("name")), draw.random() < 0.5
            conditions = [{"ifGeneration": vm["generation"] - is_stale} for one in (client, behind)
                          for vm in one.listed("ListVMs") if vm["name"] == of] or [{"ifGeneration": 1}] * 2
        theirs = by_varlink(client, method, {**parameters, **conditions[0]})
        ours = by_rest(rest, connection, method, {**parameters, **conditions[1]})
        try:
            check_same(method, parameters, ours, theirs)
            if number % 50 == 0:
                assert everything(behind) == everything(client)
        except AssertionError as error:
            error.add_note(f"seed {seed}, operation {number}")
            raise
        outcomes.add((method, theirs[0]))
        if method == "CreateClaim" and theirs[0] is None:
            claims[parameters["vm"]] = theirs[1]["claim"]
        if theirs[1].get("nextCursor"):
            cursors[method] = {**parameters, "cursor": theirs[1]["nextCursor"]}
    assert everything(behind) == everything(client)
    assert {method for method, error in outcomes if error is None} == set(CALLS)
    assert len(outcomes) > 60
