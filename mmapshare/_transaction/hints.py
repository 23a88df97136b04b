"""What looks right on a share, a block or a view and is not: errors that say what to write."""

from __future__ import annotations

from typing import Any, Final, NoReturn

_SIGNS: Final = {
    "add": "+", "sub": "-", "mul": "*", "truediv": "/", "floordiv": "//", "mod": "%",
    "pow": "**", "and": "&", "or": "|", "xor": "^", "lshift": "<<", "rshift": ">>", "matmul": "@",
}  # fmt: skip


def refuse_arithmetic(cls: type, message: str) -> None:
    """Let each arithmetic operator on ``cls`` raise ``message``, with {sign} filled in."""
    for name, sign in _SIGNS.items():
        for prefix, written in (("", sign), ("r", sign), ("i", sign + "=")):

            def refuse(self: Any, other: object, text: str = message.format(sign=written)) -> Any:
                raise TypeError(text)

            setattr(cls, f"__{prefix}{name}__", refuse)


class NotAContainer:
    """A share has no items, is not iterable and is no transaction itself."""

    __slots__ = ()

    def __getitem__(self, key: object) -> NoReturn:
        raise TypeError(f"a Share has no items: read share.get()[{key!r}]")

    def __setitem__(self, key: object, item: object) -> NoReturn:
        raise TypeError(
            f"a Share has no items: write  with share.locked() as view: view[{key!r}] = ...  "
            "so that the change is one transaction"
        )

    def __delitem__(self, key: object) -> NoReturn:
        raise TypeError(
            f"a Share has no items: write  with share.locked() as view: del view[{key!r}]"
        )

    def __iter__(self) -> NoReturn:
        raise TypeError("a Share cannot be iterated: iterate over share.get()")

    def __contains__(self, item: object) -> NoReturn:
        raise TypeError(f"a Share has no items: ask  {item!r} in share.get()")

    def __len__(self) -> int:
        raise TypeError("a Share has no length: write  len(share.get())")

    def __bool__(self) -> bool:
        """A share is true, whatever its value; without this Python would ask for a length."""
        return True

    def _no_value(self, *value: object) -> Any:
        raise AttributeError(
            "a Share has no value attribute: read share.get(), replace it with share.set(...), "
            "change it in  with share.locked() as view: view.value = ..."
        )

    value = property(
        _no_value, _no_value, doc="Not there: read ``share.get()``, write ``share.set(...)``."
    )

    def __enter__(self) -> NoReturn:
        raise TypeError("a Share itself is no transaction: write  with share.locked() as view:")

    def __exit__(self, *exc: object) -> None:
        """Never reached; without it Python's own message would hide ours."""


class NotAView:
    """What `locked` returns is no view yet: that is what ``with`` makes of it."""

    __slots__ = ()

    def _refuse(self, *args: object) -> NoReturn:
        raise TypeError("a block begins with  with: write  with share.locked() as view: view[...]")

    __getitem__ = __setitem__ = __delitem__ = __iter__ = __len__ = __contains__ = _refuse

    def __bool__(self) -> bool:
        return True


refuse_arithmetic(
    NotAContainer,
    "a Share does no arithmetic: write  with share.locked() as view: view.value {sign} ...",
)
