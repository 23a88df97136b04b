"""What tells whether a value is the stored one, asked by itself."""

from support import inside


def test_the_same_stream_is_the_same_value_whoever_asks():
    frames = inside.encode([1, "a"])
    assert inside.unchanged([1, "a"], frames, tuple(frames), lambda: frames)
    arrays = (*frames, b"x" * 5000)
    assert inside.unchanged([1, "a"], arrays, list(arrays), lambda: list(arrays))
    assert not inside.unchanged([1, "a"], arrays, arrays, lambda: (*frames, b"y" * 5000))


def test_another_value_is_told_without_any_trust():
    frames = inside.encode([1, 2])
    assert not inside.unchanged([1, 2], frames, inside.encode([1, "other"]), lambda: ())
