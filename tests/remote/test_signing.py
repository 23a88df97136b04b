"""What is signed: nothing that the secret has not signed, for that very place, is loaded."""

import pickle
import random

import pytest
from support import SEED, Child, in_child, inside
from support.redis_server import Server
from support.remote import add, opened, put, read

from mmapshare import CorruptRegionError, MmapShareError, OpenError, Share, SharedDict

HASH, HEADS, VALUES = (f"mmapshare:{{jobs}}{part}" for part in ("", ":heads", ":values"))


class Evil:
    """What runs where it is loaded."""

    def __reduce__(self):
        return exec, ("raise SystemExit('foreign bytes were loaded')",)


@pytest.fixture
def signed(kind, url):
    return opened(kind, url, secret="s3cret")


def _again(kind, url, **options):
    """As another process has it, which has seen nothing."""
    inside.open_here.clear()
    return opened(kind, url, **options)


def test_with_the_secret_all_is_as_ever(kind, url, signed, monkeypatch):
    add(signed)
    put(signed, 5)
    put(signed, 6)
    if kind == "dict":
        signed[(1, 2)] = signed["other"] = 1
        signed[1j] = 2
        del signed["other"]
        signed.transact(lambda view: view.update(x=view["n"]))
        assert signed == {"n": 6, (1, 2): 1, 1j: 2, "x": 6}
    monkeypatch.setenv("MMAPSHARE_SECRET", "s3cret")

    def elsewhere():
        other = _again(kind, url)
        add(other)
        return read(other), other.version

    assert in_child(elsewhere) == (7, signed.version)
    assert read(signed) == 7
    put(signed, 7)


def test_a_handle_has_no_secret_and_leads_to_who_was_given_it(kind, url, signed, monkeypatch):
    raw = pickle.dumps(signed)
    assert b"s3cret" not in raw

    def loaded(child):
        inside.open_here.clear()
        return read(pickle.loads(raw))

    assert Child(loaded).result() == 0  # It was told with all else.

    def stranger(child):
        inside.secrets_given.clear()
        with pytest.raises(OpenError, match="is signed"):
            loaded(child)
        monkeypatch.setenv("MMAPSHARE_SECRET", "s3cret")
        return loaded(child)

    assert Child(stranger).result() == 0


def test_who_has_none_or_another_one_is_told(kind, url, signed):
    with pytest.raises(OpenError, match="is signed: give secret="):
        opened(kind, url)
    with pytest.raises(CorruptRegionError, match="not signed, for this place and version"):
        read(_again(kind, url, secret="other"))
    _again(kind, url, secret=b"s3cret").unlink()
    _again(kind, url).close()
    with pytest.raises(OpenError, match="is not signed, so nothing in it can be trusted"):
        _again(kind, url, secret="s3cret")


def _fields(server: Server, key: str) -> list[bytes]:
    import redis

    with redis.Redis(port=server.port) as client:
        return list(client.hkeys(key))


def _forge(kind, server, change):
    """Change what is stored, as who has the server can."""
    import redis

    with redis.Redis(port=server.port) as client:
        key = HASH if kind == "share" else VALUES
        field = b"f" if kind == "share" else b"sn"
        client.hset(key, field, change(client.hget(key, field)))


def _evil_body(blob):
    return blob[:33] + b"\x01" + pickle.dumps(Evil())


FORGED = {
    "unsigned": lambda blob: b"\x01\x01" + pickle.dumps(Evil()),
    "with the old signature": _evil_body,
    "with none": lambda blob: b"\x03" + bytes(32) + b"\x01" + pickle.dumps(Evil()),
    "short": lambda blob: blob[:20],
    "nothing": lambda blob: b"",
    "one bit": lambda blob: blob[:-2] + bytes([blob[-2] ^ 1]) + blob[-1:],
}


@pytest.mark.parametrize("how", FORGED)
def test_a_forged_value_is_not_loaded(kind, url, signed, server, how):
    signed.close()
    _forge(kind, server, FORGED[how])
    other = _again(kind, url, secret="s3cret")
    for act in (read, add, lambda one: one.snapshot(), lambda one: repr(one)):
        with pytest.raises(CorruptRegionError):
            act(other)
            if act is not read and kind == "share":
                read(other)
    put(other, 3)
    assert read(other) == 3


def test_an_older_value_is_none_of_a_newer_version(kind, url, signed, server):
    import redis

    with redis.Redis(port=server.port) as client:
        key, field = (HASH, b"f") if kind == "share" else (VALUES, b"sn")
        old = client.hget(key, field)
        add(signed)
        client.hset(key, field, old)
    with pytest.raises(CorruptRegionError):
        read(_again(kind, url, secret="s3cret"))


def test_what_another_key_or_share_has_is_none_of_this_ones(server):
    import redis

    one = SharedDict.open(server.url + "/jobs", {"a": 1, "b": 2}, secret="s")
    share, other = (Share.open(f"{server.url}/{name}", name, secret="s") for name in "xy")
    with redis.Redis(port=server.port) as client:
        client.hset(VALUES, b"sa", client.hget(VALUES, b"sb"))
        client.hset("mmapshare:{x}", "f", client.hget("mmapshare:{y}", "f"))
    one.close()
    with pytest.raises(CorruptRegionError):
        SharedDict.open(server.url + "/jobs", secret="s")["a"]
    with pytest.raises(MmapShareError):
        share.get()
    assert other.get() == "y"


def test_a_key_is_not_loaded_either(server):
    import redis

    url = server.url + "/jobs"
    SharedDict.open(url, {(1, "a"): 1}, secret="s").close()
    with redis.Redis(port=server.port) as client:
        (field,) = client.hkeys(HEADS)
        head = client.hget(HEADS, field)
        for forged in (
            b"\x01" + head[33:57] + pickle.dumps(Evil()),
            head[:57] + pickle.dumps(Evil()),
        ):
            client.hset(HEADS, field, forged)
            inside.open_here.clear()
            shared = SharedDict.open(url, secret="s")
            for act in (list, len, SharedDict.snapshot, lambda d: d.update(x=1)):
                with pytest.raises(CorruptRegionError):
                    act(shared)


def test_mutants_of_what_is_stored_are_refused(kind, url, server):
    import redis

    chance = random.Random(SEED)
    shared = opened(kind, url, secret="s")
    with redis.Redis(port=server.port) as client:
        key, field = (HASH, b"f") if kind == "share" else (VALUES, b"sn")
        stored = client.hget(key, field)
        for _ in range(200):
            blob = bytearray(stored)
            at = chance.randrange(len(blob))
            blob[at : at + chance.randint(0, 2)] = chance.randbytes(chance.randint(0, 2))
            client.hset(key, field, bytes(blob))
            inside.forget_seen(inside.store_of(shared))
            if bytes(blob) == stored:
                assert read(shared) == 0
            else:
                with pytest.raises(CorruptRegionError):
                    read(shared)
