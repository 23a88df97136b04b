"""`Share.open` and `SharedDict.open`: one share for a name, in processes that share nothing."""

import gc
import os
import pickle
import subprocess
import sys
import threading

import pytest
from support import in_child, inside, stranger
from support.media import unlink_all

from mmapshare import (
    EmptyShareError,
    HandleError,
    MmapShareError,
    OpenError,
    Share,
    SharedDict,
    ShareExistsError,
    ShareNotFoundError,
    list_shares,
)


@pytest.fixture(autouse=True)
def no_names_are_left():
    yield
    unlink_all()


def _elsewhere(code):
    """What a program prints that has nothing of ours but the environment."""
    done = subprocess.run(
        [sys.executable, "-c", f"from mmapshare import *\n{code}"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout


def test_a_name_leads_to_one_share_from_any_program():
    share = Share.open("jobs", {"done": 0})
    assert _elsewhere(
        "s = Share.open('jobs'); s.update(lambda v: v | {'a': 1}); print(s.get())"
    ) == ("{'done': 0, 'a': 1}\n")
    assert share.get() == {"done": 0, "a": 1}
    with share.locked() as view:
        view["done"] = 5
    assert _elsewhere("print(Share.open('jobs', 'mine').get()['done'])") == "5\n"


def test_a_dict_too_and_the_first_ones_items_count():
    shared = SharedDict.open("jobs", {"a": 1})
    assert _elsewhere("d = SharedDict.open('jobs', {'b': 2}); d['c'] = 3; print(d)") == (
        "{'a': 1, 'c': 3}\n"
    )
    assert shared == {"a": 1, "c": 3}


def test_a_named_share_outlives_the_processes_that_made_it():
    _elsewhere("Share.open('jobs', [1, 2])")
    assert Share.open("jobs", create=False).get() == [1, 2]


def test_opened_twice_it_is_the_same_object_also_from_a_pickle():
    share = Share.open("jobs", 1)
    assert Share.open("jobs") is share
    assert pickle.loads(pickle.dumps(share)) is share
    found = []
    threads = [threading.Thread(target=lambda: found.append(Share.open("b", 1))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(each) for each in found}) == 1


def test_a_thread_that_finds_the_name_before_its_maker_returns_has_the_same_object(monkeypatch):
    give_name, found = inside.give_name, []

    def and_open_it(self, entry):
        given = give_name(self, entry)
        other = threading.Thread(target=lambda: found.append(Share.open("jobs")))
        other.start()
        other.join()
        return given

    monkeypatch.setattr(*inside.at("give_name"), and_open_it)
    share = Share.open("jobs", 1)
    assert found[0] is share
    assert pickle.loads(pickle.dumps(found[0])) is share


def test_who_must_be_the_first_hears_of_another_and_who_must_not_of_none():
    Share.open("jobs", 1, create=True)
    with pytest.raises(ShareExistsError, match="share jobs already"):
        Share.open("jobs", 2, create=True)
    Share.open("jolly")
    with pytest.raises(ShareNotFoundError, match="no share jobz; there are jobs"):
        Share.open("jobz", create=False)
    assert Share.open("jobs").get() == 1


def test_where_no_name_was_ever_given_there_is_none(monkeypatch, tmp_path):
    monkeypatch.setenv("MMAPSHARE_DIR", str(tmp_path / "names"))
    assert list_shares() == []
    with pytest.raises(ShareNotFoundError, match="there is none in"):
        Share.open("jobs", create=False)
    assert not (tmp_path / "names").exists()


def test_without_a_first_value_a_named_share_is_empty():
    share = Share.open("jobs")
    with pytest.raises(EmptyShareError):
        share.get()
    assert in_child(lambda: share.set(3)) == 1
    assert share.get() == 3


def test_what_is_there_has_its_max_size_and_another_one_is_refused():
    Share.open("jobs", 1, max_size="64K")
    assert Share.open("jobs").info().max_size == 64 << 10
    assert Share.open("jobs", max_size=65536).info().max_size == 64 << 10
    with pytest.raises(OpenError, match=r"max_size 65,536, and 2,097,152 was asked for"):
        Share.open("jobs", max_size="2M")


def test_a_dict_is_no_share_and_a_share_no_dict():
    Share.open("one", 1)
    SharedDict.open("many")
    with pytest.raises(OpenError, match=r"one is a Share: open it with Share\.open\(\)"):
        SharedDict.open("one")
    with pytest.raises(OpenError, match=r"many is a SharedDict: open it with SharedDict\.open\(\)"):
        Share.open("many")


def test_a_subclass_opens_names_too_unless_the_name_is_open_as_another():
    class Jobs(Share):
        pass

    jobs = Jobs.open("jobs", 1)
    assert type(jobs) is Jobs
    assert Share.open("jobs") is jobs
    Share.open("else", 1)
    kept = Share.open("else")
    with pytest.raises(OpenError, match="already, as a Share"):
        Jobs.open("else")
    assert kept.get() == 1


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".hidden", "-x", "a b", "ä", "a\0b", "x" * 129, "a\n"]
)
def test_what_is_no_name_is_refused(name):
    with pytest.raises(ValueError, match="no name for a share"):
        Share.open(name)


def test_what_is_no_name_and_no_path_is_refused():
    with pytest.raises(ValueError, match="begins with none of redis://"):
        Share.open("https://host/jobs")
    with pytest.raises(TypeError, match="by a name or a path, not by int"):
        Share.open(3)
    with pytest.raises(TypeError, match="create is True, False, or None"):
        Share.open("jobs", create="yes")
    for options in ({"timeout": -1}, {"max_size": 0}):
        with pytest.raises(ValueError, match="seconds|byte"):
            Share.open("jobs", **options)
    assert list_shares() == []


def test_a_first_value_that_cannot_be_stored_makes_no_share():
    with pytest.raises(MmapShareError):
        Share.open("jobs", threading.Lock())
    with pytest.raises(MmapShareError):
        SharedDict.open("jobs", {"a": threading.Lock()})
    with pytest.raises(MmapShareError):
        Share.open("jobs", b"x" * 5000, max_size=4000)
    assert list_shares() == []


def test_a_share_that_is_unlinked_goes_on_for_who_has_it():
    share = Share.open("jobs", 1)
    share.unlink()
    assert share.set(2) == 2
    assert in_child(lambda: (share.set(3), share.get())) == (3, 3)
    assert share.get() == 3
    other = Share.open("jobs", "new")
    assert other is not share
    assert other.get() == "new"
    with pytest.raises(ShareNotFoundError, match="unlinked already"):
        share.unlink()
    other.unlink()


def test_an_unlinked_share_is_handed_on_by_who_has_it():
    share = Share.open("jobs", 1)
    share.unlink()
    Share.open("jobs", "another")
    stranger([share], "shares[0].update(lambda n: n + 1)")
    assert share.get() == 2


def test_a_handle_to_a_name_that_is_gone_says_so():
    share = Share.open("jobs", 1)
    handle = pickle.dumps(share)
    share.unlink()
    share.close()
    del share
    gc.collect()
    loaded = pickle.loads(handle)
    with pytest.raises(HandleError, match="the name jobs is gone"):
        loaded.get()
    other = Share.open("jobs", 2)
    with pytest.raises(HandleError, match="another region is in its place"):
        loaded.get()
    other.unlink()


def test_a_share_that_came_by_pickle_is_handed_on_once_it_is_unlinked():
    share = Share.open("jobs", 1)
    loads = f"import pickle; share = pickle.loads({pickle.dumps(share)!r}); print(share.get())"
    assert _elsewhere(
        f"{loads}; share.unlink(); print(pickle.loads(pickle.dumps(share)) is share)"
    ) == ("1\nTrue\n")


def test_a_share_without_a_name_has_no_address_and_cannot_be_unlinked(medium):
    share = medium.share(1)
    if medium.kind in {"name", "path", "redis"}:
        assert "test-" in share.address
        return
    assert share.address is None
    with pytest.raises(OpenError, match="no name that could be taken away"):
        share.unlink()


def test_a_name_is_shown():
    share = Share.open("jobs", 1)
    assert share.address == "jobs"
    assert repr(share) == "<Share 'jobs': version 1, value 1>"
    assert share.info().kind == "name"
    card = share._repr_mimebundle_()
    assert card["text/plain"].startswith("Share 'jobs'; value 1; opened by Share.open('jobs'); ")
    assert "Share.open(&#x27;jobs&#x27;)" in card["text/html"]
    assert "opened by" not in Share(1)._repr_mimebundle_()["text/plain"]


def test_names_are_listed_with_who_holds_them():
    share, shared = Share.open("b", 1), SharedDict.open("a", {"x": 1}, max_size="1M")
    share.set(2)
    with shared.locked():
        one, other = list_shares()
    assert (one.name, one.kind, one.version, one.max_size) == ("a", "SharedDict", 1, 1 << 20)
    assert (other.name, other.kind, other.version) == ("b", "Share", 2)
    assert (one.holder_pid, other.holder_pid) == (os.getpid(), None)
    assert 0 < one.resident_bytes < 1 << 20
    shared.unlink()
    assert [each.name for each in list_shares()] == ["b"]


def test_a_name_whose_file_was_removed_takes_no_change_any_more():
    """Who opened the name then had another share, and both went on in silence."""
    share = Share.open("jobs", 1)
    folder = os.environ["MMAPSHARE_DIR"]
    os.unlink(f"{folder}/jobs.mmapshare")
    inside.looked_ns_of.set(inside.lock_of(share), 0)
    with pytest.raises(ShareNotFoundError, match="the file of share jobs has been removed"):
        share.set(2)
    with pytest.raises(ShareNotFoundError, match="has been removed"):
        share.unlink()
    assert share.get() == 1
    assert in_child(lambda: share.get()) == 1
    share.close()
