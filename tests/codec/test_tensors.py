"""Tensors: looked at, stored and shared as arrays are."""

import pickle
import subprocess
import sys
import types

import cloudpickle
import pytest
from support import in_child, inside
from support.inside import decode, encode
from support.values import Job, look, look_at_key

from mmapshare import Share, SharedDict


def tensors(torch):
    base = torch.arange(40_000)
    return {
        "small": torch.ones(3),
        "large": torch.zeros(100_000),
        "none": torch.empty(0),
        "views": [base[::2], base[5:9]],
        "parameter": torch.nn.Parameter(torch.ones(2000)),
        "model": torch.nn.Linear(64, 64),
        "sparse": torch.eye(50).to_sparse(),
        "half": torch.ones(5, dtype=torch.bfloat16),
        "storage": torch.ones(9).untyped_storage(),
        "elsewhere": torch.empty(3, device="meta"),
        "beside a lambda and a set": [torch.ones(9), lambda: 1, {f"x{n}" for n in range(30)}],
    }


def test_a_look_at_a_tensor_publishes_nothing():
    """Its own pickle holds the address of its storage."""
    torch = pytest.importorskip("torch")
    for value in tensors(torch).values():
        share, shared = Share(value), SharedDict(k=value)
        look(share)
        look_at_key(shared)
        in_child(look, share)
        assert (share.version, shared.version) == (1, 1)


def test_tensors_come_back_equal_and_share_what_they_shared():
    torch = pytest.importorskip("torch")
    value = decode(encode(tensors(torch)))
    again = tensors(torch)
    for name in ("small", "large", "none", "parameter", "half"):
        assert value[name].equal(again[name])
    assert value["sparse"].to_dense().equal(torch.eye(50))
    one, other = value["views"]
    one[3] = 77
    assert other[1] == 77
    assert list(value["storage"]) == list(again["storage"])
    share = Share(torch.zeros(5000))
    with share.locked() as view:
        view.value[7] += 1
    assert share.get()[7] == 1 and len(inside.region_of(share).read()[1]) == 2


def test_a_storage_lives_as_long_as_its_buffer():
    torch = pytest.importorskip("torch")

    class Made:
        def __reduce__(self):
            return list, ((torch.full((5000,), 7.0),),)

    frames = encode([Made(), lambda: 1])
    others = [torch.zeros(5000) for _ in range(50)]
    assert decode(frames)[0][0].eq(7).all() and len(others) == 50


def test_what_others_pickle_is_left_as_it_is():
    torch = pytest.importorskip("torch")
    encode(torch.ones(3))
    assert b"mmapshare" not in pickle.dumps(torch.ones(3))
    assert b"mmapshare" not in cloudpickle.dumps([torch.ones(3), lambda: 1])


def test_a_torch_whose_import_is_under_way_is_none_yet(monkeypatch):
    """A program's other thread may be importing it at this very moment."""
    monkeypatch.setattr(*inside.at("reducers"), {})
    monkeypatch.setitem(sys.modules, "torch", types.ModuleType("torch"))
    assert decode(encode([lambda: 1, Job("torch")]))[1].id == "torch"
    assert decode(encode([Job("torch")]))[0].id == "torch"
    assert not inside.reducers


def test_torch_is_not_imported_for_values_without_tensors():
    code = (
        "import sys, mmapshare; mmapshare.Share([lambda: 1]).get(); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
