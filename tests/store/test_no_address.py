"""A store that nothing but a handle leads to: what the contract says for it."""

import pytest
from support import inside
from support.media import OneProcess

from mmapshare import OpenError


@pytest.fixture
def stores():
    medium = OneProcess()
    yield [inside.store_of(made) for made in (medium.share(1), medium.dict(a=1))]
    medium.close()


def test_it_has_no_place_of_its_own_and_cannot_be_durable_or_unlinked(stores):
    for store in stores:
        assert store.address is None
        assert store.location(True) is None
        assert store.is_at(store)
        with pytest.raises(OpenError, match="durable=True takes a path on a disk"):
            store.be_durable()
        with pytest.raises(OpenError, match="no name that could be taken away"):
            store.unlink()
