"""The medium's parts where the whole hardly ever leads: damage, races, what is interrupted."""

import asyncio
import fcntl
import gc
import io
import pickle
import threading
import time
import weakref

import pytest
from support import Child, in_child, inside
from support.remote import add, opened, put, read

from mmapshare import (
    ClosedError,
    CorruptRegionError,
    HandleError,
    OpenError,
    Share,
    SharedDict,
    StoreLostError,
    StoreUnreachableError,
    VersionConflict,
    locked,
)

# --- Words -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said", [b"", b"$5\r\nabc", b"$3\r\nabcde", b"*2\r\n:1\r\n", b"hello\r\n", b":1"]
)
def test_half_a_reply_is_none(said):
    with pytest.raises(ConnectionError):
        inside.reply_from(io.BytesIO(said))


def test_replies_are_what_they_say():
    said = b"*4\r\n:7\r\n$-1\r\n$2\r\n\r\n\r\n*-1\r\n"
    assert inside.reply_from(io.BytesIO(said)) == [7, None, b"\r\n", None]
    refused = inside.reply_from(io.BytesIO(b"-OOM no more\r\n"))
    assert (refused.code, str(refused)) == ("OOM", "OOM no more")


def test_a_holder_that_nobody_can_read_is_somebody_elsewhere(monkeypatch):
    damaged = inside.Holder.unpacked(b"no\0holder")
    assert (damaged.pid, damaged.is_beside_us(), damaged.watch()) == (0, False, -1)
    mine = inside.this_process()
    assert inside.Holder.unpacked(mine.packed()) == mine
    assert (mine.is_beside_us(), mine.has_ended()) == (True, False)
    child = Child(lambda child: inside.this_process())
    gone = child.result()
    assert (gone.has_ended(), gone.watch()) == (True, -1)
    inside.boot_of_holder.cache_clear()
    monkeypatch.setattr(*inside.at("PROC"), "/nowhere")
    assert inside.boot_of_holder() == ""
    assert not mine.has_ended()  # It cannot be looked at: the lease will tell.
    inside.boot_of_holder.cache_clear()


def test_frames_that_do_not_fill_their_field_are_none():
    whole = inside.body_of([b"stream", bytearray(100)], b"definitions")
    frames, definitions = inside.frames_of(whole)
    assert (frames, definitions) == ([b"stream", bytearray(100)], b"definitions")
    assert inside.frames_of(inside.body_of([b"x"], b"d")) == ((b"x",), b"d")
    for damaged in (whole[:-1], whole + b"x", whole[:7], b"", b"\x07", b"\x02" + bytes(12)):
        with pytest.raises(CorruptRegionError, match="none of this format"):
            inside.frames_of(damaged)


def test_a_head_of_a_version_that_is_to_come_is_damage(url, server):
    shared = SharedDict.open(url, {"n": 0})
    with locked(shared) as (view,):
        view["n"] = 1
    shared.close()
    raw = (99).to_bytes(8, "little") + (1).to_bytes(8, "little") + bytes(8)
    server.command("HSET", "mmapshare:{jobs}:heads", "sn", b"\x01" + raw + b"\x8c\x01n\x94.")
    with pytest.raises(CorruptRegionError):
        len(SharedDict.open(url))


# --- What has been closed, and who still has it -----------------------------------------------


def test_the_lock_of_what_is_closed_is_no_more(kind, url):
    shared = opened(kind, url)
    store, lease = inside.store_of(shared), inside.lock_of(shared).process_lock
    assert lease.stands()
    shared.close()
    assert not lease.stands()
    for act in (lease.checked, lambda: store.wire.fresh(), lambda: store.wire.call(b"TIME")):
        with pytest.raises(ClosedError):
            act()


def test_the_lock_of_a_store_that_is_gone_is_no_more(kind, url):
    shared = opened(kind, url)
    lease = inside.lock_of(shared).process_lock
    del shared
    assert not lease.stands()


def test_a_lock_that_is_kept_for_others_in_line_is_told(kind, url, server):
    shared = opened(kind, url)
    lock = inside.lock_of(shared)
    server.command("HSET", "mmapshare:{jobs}", "wr", 10**18)
    add(shared)  # It stands in line, and comes next.
    server.command("HSET", "mmapshare:{jobs}", "wr", 10**18)
    with pytest.raises(BlockingIOError):
        lock.process_lock.flock(0, fcntl.LOCK_EX)
    told = lock.timed_out()
    assert ("others stand in line for it" in str(told), told.holder_pid) == (True, None)
    add(shared)
    assert read(shared) == 2


def test_what_was_found_and_is_not_wanted_is_closed(url, monkeypatch):
    share = Share.open(url, 1)
    raw = pickle.dumps(share)
    share.close()

    def refuse(found, kind, *codec):
        raise HandleError("not this one")

    monkeypatch.setattr(*inside.at("open_found"), refuse)
    with pytest.raises(HandleError):
        Share.open(url)
    with pytest.raises(HandleError):
        pickle.loads(raw).get()


# --- Races ------------------------------------------------------------------------------------


def test_who_is_overtaken_while_making_it_takes_what_is_there(kind, url, monkeypatch):
    real, first = inside.give_name_on_server, []

    def slow(address, wire, store):
        if not first:
            first.append("once")
            in_child(lambda: add(opened(kind, url)))
        return real(address, wire, store)

    monkeypatch.setattr(*inside.at("give_name_on_server"), slow)
    shared = opened(kind, url)
    assert read(shared) == 1
    add(shared)
    assert read(shared) == 2


def test_a_share_that_is_made_and_removed_all_the_time_is_told(kind, url, monkeypatch):
    monkeypatch.setattr(*inside.at("give_name_on_server"), lambda *args: False)
    with pytest.raises(OpenError, match="made and removed all the time"):
        opened(kind, url)


def test_a_value_that_is_replaced_between_two_looks_is_read_anew(url):
    shared = SharedDict.open(url, {"a": 0, "b": 0})
    store = inside.store_of(shared)
    assert dict(shared) == {"a": 0, "b": 0}
    seen = []

    def look(state):
        place = state.places["a"]
        inside.forget_seen(store)
        if not seen:
            seen.append(1)
            in_child(shared.__setitem__, "a", 5)
        return store.frames(place)

    assert pickle.loads(store.read(look)[0]) == 5
    seen.clear()
    in_child(shared.__setitem__, "a", 0)
    assert pickle.loads(store.read_known(look)[0]) == 5


def test_who_sets_keys_while_others_do_takes_the_lock_in_the_end(url):
    """Where the key's equals have to be known, each commit of another's comes in between."""
    shared = SharedDict.open(url, {1j: 0})
    store = inside.store_of(shared)
    real = store.wire.run

    def run(script, keys, *arguments):
        if script is inside.PUT_KEYED:
            with inside.as_it_was(store.wire, real):
                in_child(shared.__setitem__, "other", time.monotonic_ns())
        return real(script, keys, *arguments)

    with inside.as_it_was(store.wire, run):
        shared[2j] = 7
    assert shared[2j] == 7
    with inside.as_it_was(store.wire, run):
        shared.transact(lambda view: view.update({3j: view[2j] + 1, 4j: 9}))
    assert (shared[3j], shared[4j]) == (8, 9)


def test_an_index_that_is_made_anew_while_one_asks_is_asked_for_again(url):
    """By another thread: what was told is of what is no more in use."""
    shared = SharedDict.open(url, {"a": 0})
    store = inside.store_of(shared)
    assert len(shared) == 1
    real, met = store.wire.run, []

    def run(script, keys, *arguments):
        reply = real(script, keys, *arguments)
        if not met:
            met.append(script)
            inside.index_in_store(store).changing = True
            assert len(shared) == 2
        return reply

    in_child(shared.__setitem__, "b", 1)
    with inside.as_it_was(store.wire, run):
        assert list(shared) == ["a", "b"]
    assert met


def test_a_commit_that_another_thread_has_read_is_not_noted_once_more(url):
    """Before the one that made it has come to note it itself."""
    shared = SharedDict.open(url, {"a": 0})
    store = inside.store_of(shared)
    assert len(shared) == 1
    real = store.wire.run

    def run(script, keys, *arguments):
        reply = real(script, keys, *arguments)
        with inside.as_it_was(store.wire, real):
            assert len(shared) == 2
        return reply

    with inside.as_it_was(store.wire, run):
        shared["b"] = 1
    assert dict(shared) == {"a": 0, "b": 1}
    shared["b"] = 2
    assert dict(shared) == {"a": 0, "b": 2}


def test_a_commit_whose_answer_an_interrupt_has_eaten_is_made_once(kind, url):
    shared = opened(kind, url)
    store = inside.store_of(shared)
    real = store.wire.run

    def run(*arguments):
        real(*arguments)
        raise KeyboardInterrupt

    shared.lock()
    if kind == "share":
        changes = store.current()[1]
    else:
        changes = (), (("n", store.frames(store.current().places["n"])),), {}
    with inside.as_it_was(store.wire, run), pytest.raises(KeyboardInterrupt):
        store.commit(changes)
    assert store.commit(changes) == 2
    shared.unlock()
    assert (shared.version, read(shared)) == (2, 0)
    add(shared)
    assert (shared.version, read(shared)) == (3, 1)


def test_a_conflict_is_told_under_the_lock_too(url):
    share = Share.open(url, 1)
    share.lock()
    with pytest.raises(VersionConflict):
        share.set(2, if_version=9)
    assert share.set(2, if_version=1) == 2
    share.unlock()
    shared = SharedDict.open(url + "-dict", {"a": 1})
    shared.lock()
    shared["a"] = 1
    shared["a"] = 2
    shared.unlock()
    assert shared.version == 2


def test_an_index_that_was_left_in_mid_change_is_made_anew(url):
    shared = SharedDict.open(url, {"a": 1})
    store = inside.store_of(shared)
    assert len(shared) == 1

    def left(view):
        inside.index_in_store(store).changing = True
        view["e"] = view["a"]

    for act in (
        lambda: shared["a"],
        lambda: shared.__setitem__("b", 2),
        lambda: shared.__setitem__(1j, 2),
        lambda: shared.update(c=3),
        lambda: len(shared),
        lambda: shared.transact(lambda view: view.update(d=view["a"])),
        lambda: shared.transact(left),
    ):
        inside.index_in_store(store).changing = True
        act()
    inside.index_in_store(store).changing = True
    assert in_child(lambda: dict(shared)) == {"a": 1, "b": 2, 1j: 2, "c": 3, "d": 1, "e": 1}


def test_what_a_value_names_lives_while_that_is_there(kind, url):
    shared = opened(kind, url)
    put(shared, Share("inner"))
    gc.collect()
    assert read(shared).get() == "inner"
    inner = weakref.ref(read(shared))
    put(shared, 0)
    gc.collect()
    assert inner() is None


def test_a_large_value_is_not_kept_and_is_compared_all_the_same(url):
    share = Share.open(url, {"n": 0, "pad": "x" * 100_000})
    for n in (1, 2):
        with share.locked() as view:
            view["n"] = n
        assert share.get()["n"] == n
    share.set({"n": 9}, if_version=3)
    in_child(share.set, {"n": 10})
    with share.locked() as view:
        assert view["n"] == 10


# --- By steps -----------------------------------------------------------------------------------


async def _add(shared):
    async with shared.locked() as view:
        view["n"] += 1


def test_a_task_sends_again_what_was_lost_and_what_the_server_forgot(kind, start):
    server = start()
    shared = opened(kind, server.url + "/jobs")

    async def main():
        await _add(shared)
        server.command("SCRIPT", "FLUSH")
        await _add(shared)
        server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await _add(shared)
        server.pause()
        threading.Timer(1.3, server.resume).start()
        await _add(shared)

    asyncio.run(main())
    assert read(shared) == 4
    server.command("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(Exception, match="maxmemory"):
        asyncio.run(_add(shared))
    server.kill()
    with pytest.raises(StoreUnreachableError):
        asyncio.run(_add(shared))
    shared.close()


def test_a_first_wish_for_the_lock_meets_a_server_that_has_gone(kind, start):
    server = start()
    shared = opened(kind, server.url + "/jobs")
    server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    add(shared)

    def child_of(child):
        child.say()
        child.hear()
        add(shared)

    child = Child(child_of)
    child.hear()
    server.pause()
    threading.Timer(0.5, server.resume).start()
    child.say()
    child.result()
    assert read(shared) == 2


def test_a_lost_share_is_told_by_each_script(kind, url, server):
    shared = opened(kind, url)
    shared.lock()
    server.command("FLUSHALL")
    with pytest.raises(StoreLostError):
        put(shared, 1)
    shared.unlock()
    with pytest.raises(StoreLostError):
        shared.snapshot()
