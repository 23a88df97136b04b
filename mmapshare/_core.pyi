from typing import Any

IN_CORE: object
"""What a token is busy with while the core works."""
PLANTED: int
"""Which of the proof's bugs it was built with; 0 for none."""

def bind(names: dict[str, Any], /) -> None: ...
def method(cls: type, name: str, place: str, said: str, /) -> Any: ...
def is_encoding() -> bool: ...
