"""How type checkers see the public API: checked by mypy --strict and pyright, not run.

Where an error is expected, the ``ignore`` beside it is itself checked: should the call ever be
accepted, the checkers report the comment as unnecessary.
"""

from __future__ import annotations

from collections.abc import Coroutine
from pathlib import Path
from typing import Any, assert_type

from mmapshare import Share, SharedDict, SharedFunction, Snapshot, View, shared_state, trace

share = Share({"hits": 0})
assert_type(share, Share[dict[str, int]])
assert_type(share.get(), dict[str, int])
assert_type(share.snapshot(), Snapshot[dict[str, int]])
assert_type(share.get(copy=False), dict[str, int])
assert_type(share.snapshot(copy=False), Snapshot[dict[str, int]])
share.get(False)  # type: ignore[call-arg]
with share.locked(timeout=5) as view:
    assert_type(view, View[dict[str, int]])
    view["hits"] += 1
    view.update(hits=2)
    assert_type(view.value, dict[str, int])
assert_type(Share(0).update(lambda n, by: n + by, 2), int)


async def tasks() -> None:
    async with share.locked() as view:
        assert_type(view, View[dict[str, int]])
    assert_type(await later(3), str)


@shared_state
def bare(state: View[dict[str, int]], n: int) -> int:
    return int(state["n"]) + n


@shared_state(initial={"calls": 0}, timeout=5)
def tally(state: Any, n: int, *, note: str = "") -> int:
    return int(state["calls"] + n)


@shared_state(share=share)
async def later(state: Any, n: int) -> str:
    return str(n)


@shared_state(share="jobs", initial=0)
def by_name(state: View[int], n: int) -> int:
    return state.value + n


@shared_state(share=Path("jobs.mmapshare"))
def by_path(state: Any) -> None: ...


assert_type(by_name(3), int)
shared_state(share=b"jobs")  # type: ignore[call-overload]
assert_type(bare(3), int)
assert_type(tally(3, note="x"), int)
tally.reset()
tally.share.get()
handed_on: SharedFunction[..., int] = tally

# The two commonest mistakes: the state is passed by hand; an argument of the wrong type.
tally({"calls": 0}, 3)  # type: ignore[call-arg, arg-type]
tally("3")  # type: ignore[arg-type]


class Counter:
    @shared_state(initial=0)
    def add(self, state: View[int], n: int) -> int:
        return state.value + n

    @shared_state
    async def add_later(self, state: Any, n: int) -> int:
        return n

    @staticmethod
    @shared_state
    def of_all(state: Any, n: int) -> int:
        return n


counter = Counter()
assert_type(counter.add(3), int)
assert_type(Counter.of_all(3), int)
coroutine: Coroutine[Any, Any, int] = counter.add_later(3)
counter.add.reset()
counter.add("3")  # type: ignore[arg-type]


@shared_state
class Board:
    def __init__(self, best: float = 0) -> None:
        self.best = best

    def offer(self, value: float) -> bool:
        self.best = max(self.best, value)
        return True


board = Board(1.5)
assert_type(board, Board)
assert_type(board.offer(2), bool)
board.offer("2")  # type: ignore[arg-type]


numbers = SharedDict({"a": 1})
assert_type(numbers, SharedDict[str, int])
assert_type(numbers["a"], int)
assert_type(numbers.get("a", copy=False), int | None)
assert_type(numbers.get("a", "none"), int | str)
numbers["b"] = 2
numbers.update(c=3)
assert_type(numbers.snapshot()["a"], int)
assert_type(list(numbers.items()), list[tuple[str, int]])
with numbers.locked() as draft:
    draft["a"] += 1
    draft.setdefault("b", 1)
numbers["a"] = "one"  # type: ignore[assignment]


@shared_state(share=numbers)
def count(state: Any, key: str) -> None:
    state[key] += 1


count("a")

with trace("run.json") as recorded:
    numbers["a"] = 2
assert_type(recorded.summary(), str)
recorded.save(Path("again.json"))
