"""`shared_state(share="name")`: functions of programs that share nothing work on one state."""

import multiprocessing
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.media import unlink_all

from mmapshare import (
    OpenError,
    Share,
    SharedDict,
    ShareExistsError,
    list_shares,
    shared_state,
)

PROGRAM = """
import asyncio
from mmapshare import Share, SharedDict, shared_state

@shared_state(share="jobs", initial={"theirs": 1})
def tally(state, n):
    state["n"] = state.get("n", 0) + n
    return state.value

@shared_state(share="jobs")
async def tally_async(state, n):
    state["n"] = state.get("n", 0) + n
    return state.value

class Counter:
    @shared_state(share="jobs")
    def tally(self, state, n):
        state["n"] = state.get("n", 0) + n
        return state.value
"""
"""What unrelated programs both say."""


@pytest.fixture(autouse=True)
def no_names_are_left() -> Iterator[None]:
    yield
    unlink_all()


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a module of this program's, and of others'."""
    (tmp_path / "named_app.py").write_text(PROGRAM)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, [tmp_path, *sys.path])))
    yield "named_app"
    sys.modules.pop("named_app", None)


def _program(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )  # fmt: skip
    return done.stdout.strip()


def test_functions_of_unrelated_programs_work_on_one_state_which_the_first_one_began() -> None:
    @shared_state(share="jobs", initial={"mine": 1})
    def tally(state, n):
        state["n"] = state.get("n", 0) + n
        return state["n"]

    assert tally(1) == 1
    assert _program(PROGRAM + "print(tally(2))") == "{'mine': 1, 'n': 3}"
    assert _program(PROGRAM + "print(asyncio.run(tally_async(3)))") == "{'mine': 1, 'n': 6}"
    assert _program(PROGRAM + "print(Counter().tally(4))") == "{'mine': 1, 'n': 10}"
    assert tally(5) == 15
    assert tally.share is Share.open("jobs")
    assert repr(tally).endswith("on <Share 'jobs': version 6, value {'mine': 1, 'n': 15}>>")


@pytest.mark.parametrize("where", [str, Path])
def test_a_path_leads_there_too(where: type, tmp_path: Path) -> None:
    file = tmp_path / "jobs.mmapshare"

    @shared_state(share=where(file), initial=0, max_size="64K")
    def add(state):
        state.value += 1

    add()
    add()
    assert Share.open(file, create=False).get() == 2
    assert add.share.info().max_size == 64 << 10


def test_what_was_opened_by_its_user_may_be_a_dict_or_have_to_be_new() -> None:
    @shared_state(share=SharedDict.open("many", {"a": 1}))
    def add(state, key):
        state[key] += 1
        return state[key]

    code = PROGRAM.replace('share="jobs"', 'share=SharedDict.open("many")').replace(
        ', initial={"theirs": 1}', ""
    )
    assert _program(code + 'tally(2); print(SharedDict.open("many"))') == "{'a': 1, 'n': 2}"
    assert add("n") == 3

    Share.open("jobs", 1)
    with pytest.raises(ShareExistsError):
        shared_state(share=Share.open("jobs", create=True))


def test_without_a_value_it_begins_as_a_dict_and_reset_is_to_the_value_given_here() -> None:
    @shared_state(share="jobs")
    def first(state, key):
        state[key] = 1

    @shared_state(share="jobs", initial={"a": 0})
    def second(state):
        return state.value

    first("x")
    assert second() == {"x": 1}
    second.reset()
    assert second() == {"a": 0}
    first.reset()
    assert second() == {}


def test_a_spawned_child_that_imports_it_anew_has_the_same_state(app: str) -> None:
    """A function without a name has to be handed on."""
    module = __import__(app)
    module.tally(1)
    assert pickle.loads(pickle.dumps(module.tally)) is module.tally
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(module.tally, (2,)) == {"theirs": 1, "n": 3}
        assert pool.apply(module.Counter().tally, (3,)) == {"theirs": 1, "n": 6}
        pool.close()
        pool.join()
    assert module.tally(0)["n"] == 6
    handed_on = pickle.dumps(module.tally).hex()
    code = f"import pickle; print(pickle.loads(bytes.fromhex({handed_on!r}))(4)['n'])"
    assert _program(code) == "10"


def test_what_cannot_be_right_is_an_error_at_decoration_and_makes_nothing() -> None:
    def add(state):
        pass

    def no_state():
        pass

    for share in (3, b"jobs", None, Share):
        with pytest.raises(TypeError, match="the name or path of a Share, not"):
            shared_state(share=share)  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="no name for a share"):
        shared_state(share="my jobs")(add)
    with pytest.raises(ValueError, match="no name for a share"):
        shared_state(share="")(add)
    with pytest.raises(TypeError, match=r"write  def no_state\(state"):
        shared_state(share="jobs")(no_state)
    with pytest.raises(TypeError, match="each instance of a class"):
        shared_state(share="jobs")(type("Jobs", (), {}))
    assert list_shares() == []

    SharedDict.open("many")
    with pytest.raises(OpenError, match=r"many is a SharedDict: open it with SharedDict\.open\(\)"):
        shared_state(share="many")(add)
    Share.open("small", 1, max_size="64K")
    with pytest.raises(OpenError, match="max_size 65,536, and 1,048,576 was asked for"):
        shared_state(share="small", max_size="1M")(add)
