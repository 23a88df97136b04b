"""What looks right on a share or a view and is not: TypeErrors that say what to write instead."""

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

    @property
    def value(self) -> Any:
        """Not there: read ``share.get()``, write ``share.set(...)``."""
        raise AttributeError(
            "a Share has no value attribute: read share.get(), replace it with share.set(...), "
            "change it in  with share.locked() as view: view.value = ..."
        )

    def __enter__(self) -> NoReturn:
        raise TypeError("a Share itself is no transaction: write  with share.locked() as view:")

    def __exit__(self, *exc: object) -> None:
        """Never reached; without it Python's own message would hide ours."""


refuse_arithmetic(
    NotAContainer,
    "a Share does no arithmetic: write  with share.locked() as view: view.value {sign} ...",
)
