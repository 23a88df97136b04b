"""A cluster of three nodes on this machine: each share is on one of them, which is found."""

import time

import pytest
from support import in_child, inside
from support.remote import add, opened, put, read

from mmapshare import Share, SharedDict, locked


@pytest.fixture
def nodes(start):
    options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000")
    made = [start(*options) for _ in range(3)]
    for number, (node, first, last) in enumerate(
        zip(made, (0, 5461, 10923), (5460, 10922, 16383), strict=True)
    ):
        assert node.command("CLUSTER", "ADDSLOTSRANGE", first, last) == b"+OK"
        node.command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
    for node in made[1:]:
        made[0].command("CLUSTER", "MEET", "127.0.0.1", node.port)
    end = time.monotonic() + 30
    while not all(b"cluster_state:ok" in node.command("CLUSTER", "INFO") for node in made):
        assert time.monotonic() < end
        time.sleep(0.05)
    return made


def _owner(nodes, name):
    return [node for node in nodes if node.command("EXISTS", f"mmapshare:{{{name}}}") == b":1"]


@pytest.mark.untraced
def test_a_share_is_found_by_whichever_node_one_asks(nodes, kind):
    for number in range(6):
        name = f"jobs-{number}"
        shared = opened(kind, f"{nodes[number % 3].url}/{name}")
        add(shared)
        put(shared, 5)
        assert len(_owner(nodes, name)) == 1
        for node in nodes:
            assert opened(kind, f"{node.url}/{name}") is shared

        def elsewhere(name=name):
            inside.open_here.clear()
            other = opened(kind, f"{nodes[2].url}/{name}")
            add(other)
            return read(other)

        assert in_child(elsewhere) == 6
        since = shared.version
        in_child(put, shared, 9)
        assert shared.wait(since=since - 1, timeout=5)
        assert read(shared) == 9
        shared.unlink()
        shared.close()


def test_names_with_braces_are_together_and_others_need_not_be(nodes):
    url = nodes[0].url
    one = Share.open(f"{url}/{{team}}jobs", 1)
    two = SharedDict.open(f"{url}/{{team}}done", {"n": 0})
    holds = [node.command("DBSIZE") for node in nodes]
    assert sorted(holds) == [b":0", b":0", b":5"]
    far = [Share.open(f"{url}/far-{n}", 0) for n in range(4)]
    with locked(one, two, *far) as (first, second, *others):
        first.value += 1
        second["n"] += 1
        for view in others:
            view.value += 1
    assert (one.get(), two["n"], [share.get() for share in far]) == (2, 1, [1] * 4)


def test_a_slot_that_moves_is_followed(nodes):
    share = Share.open(f"{nodes[0].url}/mover", {"n": 0})
    (old,) = _owner(nodes, "mover")
    new = next(node for node in nodes if node is not old)
    slot = int(old.command("CLUSTER", "KEYSLOT", "mover")[1:])
    ids = {node.port: node.command("CLUSTER", "MYID").decode() for node in nodes}
    new.command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[old.port])
    old.command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[new.port])
    assert old.command("MIGRATE", "127.0.0.1", new.port, "mmapshare:{mover}", 0, 5000) == b"+OK"
    for node in (new, old, *nodes):
        node.command("CLUSTER", "SETSLOT", slot, "NODE", ids[new.port])
    with share.locked() as view:
        view["n"] += 1
    assert share.get() == {"n": 1}
    assert _owner(nodes, "mover") == [new]
