"""CPython's own tests of mappings, on a `SharedDict` and on the view of its block."""

import unittest

import pytest

from mmapshare import SharedDict

mapping_tests = pytest.importorskip(
    "test.mapping_tests", reason="this Python came without the package of its own tests"
)

# Each with the reason why it cannot hold.
EXCEPTIONS = {
    "test_getitem": "a key that equals itself only could not be found once it is pickled",
    "test_pop": "the same",
    "test_copy": "a copy is a plain dict, since a region of its own would be a surprise",
    "test_setdefault": "what is appended to the value that it returned is appended to a copy",
    "test_repr_deep": "a thousand regions at once are more descriptors than a process may have",
}


class SharedDictTest(mapping_tests.TestHashMappingProtocol):
    type2test = SharedDict


for _name in EXCEPTIONS:
    setattr(SharedDictTest, _name, None)


class SimplerTest(mapping_tests.TestMappingProtocol):
    """What the exceptions have to do with other keys."""

    type2test = SharedDict


for _name in dir(SimplerTest):
    if _name.startswith("test_") and _name not in {"test_getitem", "test_pop"}:
        setattr(SimplerTest, _name, None)


@pytest.mark.parametrize("name", sorted(EXCEPTIONS.keys() - {"test_repr_deep"}))
def test_an_exception_is_one_indeed(name):
    """Should it hold one day, it has to leave the list."""

    class Listed(mapping_tests.TestHashMappingProtocol):
        type2test = SharedDict

    result = unittest.TestResult()
    Listed(name).run(result)
    assert not result.wasSuccessful()


def _view_of(*args, **kwargs):
    shared = SharedDict(*args, **kwargs)
    transaction = shared.locked()
    view = transaction.__enter__()
    _open.append((transaction, shared))
    return view


_open = []


class ViewTest(mapping_tests.BasicTestMappingProtocol):
    """The view of a block, with items that are stored and with items that the block has set."""

    def _reference(self):
        return {"1": "2", "key1": "value1", "key2": (1, 2, 3)}

    def _empty_mapping(self):
        return _view_of()

    def _full_mapping(self, data):
        items = list(data.items())
        view = _view_of(items[: len(items) // 2])
        view.update(items[len(items) // 2 :])
        return view

    def tearDown(self):
        while _open:
            transaction, shared = _open.pop()
            transaction.__exit__(None, None, None)
            shared.close()

    test_constructor = test_fromkeys = None  # A view is made by its block.
