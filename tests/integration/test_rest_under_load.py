# SPDX-License-Identifier: LGPL-2.1-or-later
"""privmemd is killed and stopped again and again while orchestrators work through privmem-rest: what was answered is so,
and what was not is asked again."""

import random
import signal
import threading
import time

import pytest

from memory import MIB, PAGE
from rest import Rest, problem
from service_manager import ServiceManager

ORCHESTRATORS = 6
RESTARTS = 6
BACKINGS = 8

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")


class Orchestrator(threading.Thread):
    """Has a VM of its own, so that it knows all that may be there. Sends again whatever it is told to, until it is done."""

    def __init__(self, rest, number):
        super().__init__()
        self.draw = random.Random(number)
        self.rest, self.connection = rest, rest.connect()
        self.vm = f"/v1/vms/vm{number}"
        self.backings = set()
        self.stop, self.failure = threading.Event(), None
        self.answered = 0
        self.is_repeated = False  # the last request: it may have been done the first time

    def request(self, verb, path, body=None):
        self.is_repeated = False
        while True:
            answer = self.rest.request(verb, path, body, connection=self.connection)
            if answer.status != 503:
                self.answered += 1
                return answer
            problem(answer, 503)
            assert int(answer.headers["Retry-After"]) >= 1
            assert verb != "GET", "what only looks is asked again by the gateway itself"
            self.is_repeated = True

    def allocate(self, name):
        answer = self.request("PUT", f"{self.vm}/backings/{name}", {"size": MIB})
        assert answer.status in (200, 201), answer
        assert (answer.status == 200) == (name in self.backings) or self.is_repeated, answer
        self.backings.add(name)

    def release(self, name):
        answer = self.request("DELETE", f"{self.vm}/backings/{name}")
        assert answer.status in (200, 404), answer
        assert (answer.status == 200) == (name in self.backings) or self.is_repeated, answer
        self.backings.discard(name)

    def look(self, name):
        answer = self.request("GET", f"{self.vm}/backings/{name}")
        assert answer.status == (200 if name in self.backings else 404), (self.backings, answer)
        listed = self.request("GET", f"{self.vm}/backings").json["backings"]
        assert {one["name"] for one in listed} == self.backings

    def set_slot(self, name):
        if name not in self.backings:
            return
        number = int(name.removeprefix("ram"))
        body = {"guestPhysAddr": number * MIB, "memorySize": PAGE, "backing": name, "userspaceAddr": number * MIB + (1 << 40)}
        for verb, wanted in (("PUT", body), ("DELETE", None)):
            answer = self.request(verb, f"{self.vm}/slots/0/{number}", wanted)
            assert answer.status == 200 or (verb == "DELETE" and self.is_repeated and answer.status in (409, 422)), answer

    def run(self):
        try:
            assert self.request("PUT", self.vm, {"exitPolicy": "retain"}).status in (200, 201)
            while not self.stop.is_set():
                act = self.draw.choice([self.allocate, self.allocate, self.release, self.look, self.set_slot])
                act(f"ram{self.draw.randrange(BACKINGS)}")
            self.look("ram0")
        except BaseException as error:  # the test raises it
            self.failure = error


@pytest.fixture
def manager(directory, contract):
    manager = ServiceManager(directory, contract)
    yield manager
    manager.close()


@pytest.mark.timeout(90)
def test_restarts_under_load(manager, directory):
    manager.start()
    rest = Rest(directory, manager)
    orchestrators = [Orchestrator(rest, number) for number in range(ORCHESTRATORS)]
    try:
        for one in orchestrators:
            one.start()
        for number in range(RESTARTS):
            time.sleep(0.25)
            manager.restart(signal.SIGKILL if number % 2 == 0 else signal.SIGTERM)
        time.sleep(0.25)
    finally:
        for one in orchestrators:
            one.stop.set()
        for one in orchestrators:
            one.join(30)
    for one in orchestrators:
        if one.failure:
            raise one.failure
        assert not one.is_alive()
    client = manager.daemon.connect()
    for number, one in enumerate(orchestrators):
        assert {backing["name"] for backing in client.listed("ListBackings", vm=f"vm{number}")} == one.backings
    assert client.call("GetHost")["slots"] == 0
    assert min(one.answered for one in orchestrators) > 20
    rest.finish()
