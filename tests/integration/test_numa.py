# SPDX-License-Identifier: LGPL-2.1-or-later
"""The NUMA policy of a backing: set on the file, so whoever maps it has it."""

import mmap

import pytest

pytestmark = pytest.mark.usefixtures("vm")

SIZE = 1 << 20


def policy_of(fd):
    """What /proc/self/numa_maps says of a mapping of the file, once a page of it is there."""
    with mmap.mmap(fd, SIZE) as mapped:
        mapped[0] = 1
        with open("/proc/self/numa_maps", encoding="utf-8") as file:
            (line,) = [line for line in file if "privmemd:web1/ram0" in line]
    return line.split()[1]


@pytest.mark.parametrize("policy, shown", [
    ("bind", "bind:0"), ("preferred", "prefer:0"), ("interleave", "interleave:0"), (None, "default"),
])
def test_policy_is_set_on_the_file(client, policy, shown):
    parameters = {"numaPolicy": policy, "numaNodes": [0]} if policy else {}
    reply = client.allocate(size=SIZE, **parameters)
    backing = client.backing()
    assert (backing.get("numaPolicy"), backing.get("numaNodes")) == (policy, [0] if policy else None)
    assert backing["residentBytes"] == 0
    assert policy_of(reply.fd) == shown


def test_policy_outlives_whoever_mapped_the_file(client):
    policy_of(client.allocate(size=SIZE, numaPolicy="bind", numaNodes=[0]).fd)
    assert policy_of(client.call("OpenBacking", vm="web1", backing="ram0").fd) == "bind:0"


def test_same_request_again(client):
    client.allocate(numaPolicy="bind", numaNodes=[0])
    assert client.allocate(numaPolicy="bind", numaNodes=[0, 0])["created"] is False


@pytest.mark.parametrize("node", [63, 64, 1 << 40, (1 << 64) - 1])
def test_node_that_is_not_there(client, node):
    error = client.fails("InvalidValue", "AllocateBacking", vm="web1", name="ram0", size=SIZE, numaPolicy="bind",
                         numaNodes=[0, node])
    assert (error["field"], error["value"]) == ("numaNodes", node)


@pytest.mark.parametrize("parameters, count", [
    ({"numaPolicy": "bind"}, 0), ({"numaPolicy": "bind", "numaNodes": []}, 0), ({"numaNodes": [0]}, 1),
    ({"numaPolicy": "preferred", "numaNodes": [0, 0]}, 2),
])
def test_policy_and_nodes_that_do_not_fit(client, parameters, count):
    error = client.fails("InvalidValue", "AllocateBacking", vm="web1", name="ram0", size=SIZE, **parameters)
    assert (error["field"], error["value"]) == ("number of numaNodes", count)


@pytest.mark.parametrize("nodes", [[-1], ["0"], [0.5], [None], [True], [[0]], {"0": 0}, "0"])
def test_nodes_of_the_wrong_type(client, nodes):
    error = client.fails("InvalidParameter", "AllocateBacking", vm="web1", name="ram0", size=SIZE, numaPolicy="bind",
                         numaNodes=nodes)
    assert error["parameter"] == "numaNodes"
