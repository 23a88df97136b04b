"""Clients on other hosts, which have addresses of their own: killed, and cut off."""

import mmap
import select
import time

import pytest
from support import networks
from support.networks import Host
from support.remote import add, opened, read

from mmapshare import LeaseLostError, StoreUnreachableError


@pytest.fixture
def hosts():
    if why := networks.why_not():
        pytest.skip(why)
    made = [Host() for _ in range(3)]
    yield made
    for host in made:
        host.close()


@pytest.fixture
def served(start, hosts):
    """A server that listens to all of them."""
    return start("--bind", "127.0.0.1", *[host.here for host in hosts], "--protected-mode", "no")


def _opened(kind, server, address, lease=30, patience=5):
    url = f"redis://{address}:{server.port}/0/jobs?socket_timeout={patience}"
    return opened(kind, url, lease=lease, secret="secret")


def _hold(child, *where):
    shared = _opened(*where)
    try:
        with shared.locked() as view:
            view["n"] += 100
            child.say("held")
            child.hear()
    except (LeaseLostError, StoreUnreachableError) as err:
        child.say(type(err))
    child.hear()
    add(shared)


def test_a_client_that_is_killed_on_another_host_frees_the_lock_in_about_a_second(
    kind, served, hosts
):
    """Its lease is over in half a minute; its connection, which only the server sees, at once."""
    shared = _opened(kind, served, "127.0.0.1")
    holder = hosts[0].start(_hold, kind, served, hosts[0].here)
    assert holder.hear() == "held"
    waiter = hosts[1].start(lambda child: add(_opened(kind, served, hosts[1].here)))
    while b"blpop" not in served.command("CLIENT", "LIST"):
        pass
    began = time.monotonic()
    holder.kill()
    waiter.result()
    assert time.monotonic() - began < 3  # One second, and what a busy machine adds.
    assert (read(shared), shared.info().holders_found_dead) == (1, 1)


@pytest.mark.parametrize(
    ("kind", "joins", "patience", "told"),
    [("share", False, 0.2, StoreUnreachableError), ("dict", True, 5, LeaseLostError)],
)
def test_a_host_that_is_cut_off_keeps_the_lock_for_its_lease_and_then_writes_nothing(
    kind, joins, patience, told, served, hosts
):
    lease, began = 1.0, time.monotonic()
    holder = hosts[0].start(_hold, kind, served, hosts[0].here, lease, patience)
    assert holder.hear() == "held"
    shared = _opened(kind, served, "127.0.0.1", lease)
    hosts[0].cut_off()
    add(shared)
    assert lease < time.monotonic() - began < lease + 3
    if joins:
        hosts[0].join()
    holder.say()
    assert holder.hear() is told
    assert read(shared) == 1
    hosts[0].join()
    holder.say()
    holder.result()
    assert read(shared) == 2


def _add_many(child, done, place, *where):
    """Until one is told to stop; returns of how many nobody knows whether they have arrived."""
    shared, unknown = _opened(*where), 0
    while not select.select([child.reads], [], [], 0)[0]:
        try:
            add(shared)
        except StoreUnreachableError:
            unknown += 1
        except LeaseLostError:
            pass
        else:
            done[place] += 1
    return unknown


def test_the_count_is_exact_though_one_host_is_cut_off_and_anothers_client_is_killed(
    kind, served, hosts
):
    lease, patience = 0.5, 0.2
    with mmap.mmap(-1, 8 * len(hosts)) as memory, memoryview(memory).cast("Q") as done:

        def until_more(*places):
            before = list(done)
            while any(done[place] < before[place] + 5 for place in places):
                time.sleep(0.001)

        clients = [
            host.start(_add_many, done, place, kind, served, host.here, lease, patience)
            for place, host in enumerate(hosts)
        ]
        until_more(0, 1, 2)
        hosts[0].cut_off()
        until_more(1, 2)
        clients[1].kill()
        until_more(2)
        hosts[0].join()
        until_more(0, 2)
        unknown = 1  # What the killed one was at.
        for place in (0, 2):
            clients[place].say()
            unknown += clients[place].result()
        found = read(_opened(kind, served, "127.0.0.1"))
        assert sum(done) <= found <= sum(done) + unknown
