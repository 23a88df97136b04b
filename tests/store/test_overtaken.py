"""Readers that a writer overtakes at each of their looks at the header, one after the other.

Beside a real writer it is chance which of the looks is followed by a commit. Here the words of the
header let somebody commit after the look whose turn it is, until a read has no more looks.
"""

import pytest
from support import Child, Wanted, inside, opened_again

from mmapshare import ClosedError, Share, SharedDict

numpy = Wanted("numpy")

pytestmark = pytest.mark.usefixtures("ordered")

MOST_LOOKS = 30
"""Who reads a log that grows with each commit looks ever more often."""


class Words:
    """A region's words; after look number ``turn`` they call ``act``."""

    def __init__(self, words, turn, act):
        self.words, self.turn, self.act = words, turn, act
        self.looks = 0

    def __getitem__(self, index):
        word = self.words[index]
        self.looks += 1
        if self.looks == self.turn:
            self.act()
        return word

    def __setitem__(self, index, word):
        self.words[index] = word

    def release(self):
        self.words.release()


def _forget(share):
    if isinstance(share, SharedDict):
        inside.index_of(share).state = inside.fresh_state(inside.store_of(share))
    else:
        inside.commit_of.set(inside.region_of(share), inside.UNREAD_COMMIT)
        inside.seen_of.set(inside.region_of(share), inside.NOTHING_SEEN)


def _put_words(share, words):
    inside.put_words(inside.store_of(share), words)


def _overtake_each_look(share, forgetful, prepare, act, read):
    """Call ``read`` once for each look that it has, or the first of them; returns how many."""
    words = inside.header_of(share)
    for turn in range(1, MOST_LOOKS + 1):
        prepare()
        if forgetful:
            _forget(share)
        watched = Words(words, turn, act)
        _put_words(share, watched)
        try:
            read()
        finally:
            _put_words(share, words)
        if watched.looks < turn:
            return turn - 1
    return MOST_LOOKS


class Writer:
    """Commits one number after the other as another process would."""

    def __init__(self, share, commit):
        self.share = opened_again(share)
        self.n, self.commit = 0, commit

    def write(self, times):
        for _ in range(times):
            self.n += 1
            self.commit(self.share, self.n)


def _arrays(n, parts):
    """Of another size for each number, so that what is overwritten is nothing any more."""
    return [numpy.full(1000 + n % 7, n) for _ in range(parts)]


@pytest.mark.parametrize("forgetful", [True, False])
@pytest.mark.parametrize("times", [1, 2, 3, 4])
@pytest.mark.parametrize("parts", [1, 3])
def test_a_share_is_read_whole_whichever_look_a_writer_follows(
    monkeypatch, forgetful, times, parts
):
    monkeypatch.setattr(*inside.at("WINDOW_LEAST"), 64)
    monkeypatch.setattr(*inside.at("WINDOW_RECORDS"), 1)
    share = Share(_arrays(0, parts))
    writer = Writer(share, lambda other, n: other.set(_arrays(n, parts)))

    def read():
        before = writer.n
        snapshot = share.snapshot()
        n = snapshot.version - 1
        assert before <= n <= writer.n
        assert [array.tolist() for array in snapshot.value] == [
            array.tolist() for array in _arrays(n, parts)
        ]

    looks = _overtake_each_look(
        share, forgetful, lambda: writer.write(1), lambda: writer.write(times), read
    )
    assert looks >= 4
    writer.share.close()


KEYS = [f"key {n}" for n in range(20)]


ALWAYS, NEVER = -(1 << 30), 1 << 30
"""Spare bytes with which each commit is a snapshot, or none but the first."""


def _value(n):
    return [n, "x" * (n % 7)]


def _all_keys(other, n):
    other.update(dict.fromkeys(KEYS, _value(n)))


def _copied(shared):
    snapshot = shared.snapshot()
    n = snapshot.version - 1
    assert dict(snapshot) == dict.fromkeys(KEYS, _value(n))
    assert list(snapshot) == KEYS
    return n


def _one_key(other, n):
    other[KEYS[0]] = _value(n)


def _read(shared):
    value = shared[KEYS[0]]
    assert value == _value(value[0])
    return value[0]


def _read_all(shared):
    snapshot = shared.snapshot()
    n = snapshot.version - 1
    assert dict(snapshot) == dict.fromkeys(KEYS, _value(0)) | {KEYS[0]: _value(n)}
    return n


@pytest.mark.parametrize("forgetful", [True, False])
@pytest.mark.parametrize("times", [1, 2, 3])
@pytest.mark.parametrize(
    ("before", "meanwhile"), [(ALWAYS, ALWAYS), (NEVER, NEVER), (NEVER, ALWAYS)]
)
@pytest.mark.parametrize("walk", [64, 1 << 20])
@pytest.mark.parametrize(
    ("commit", "read"), [(_all_keys, _copied), (_one_key, _read), (_one_key, _read_all)]
)
def test_a_dict_is_read_at_one_version_whichever_look_a_writer_follows(
    monkeypatch, forgetful, times, before, meanwhile, walk, commit, read
):
    monkeypatch.setattr(*inside.at("LOG_WALK_BYTES"), walk)
    shared = SharedDict(dict.fromkeys(KEYS, _value(0)))
    writer = Writer(shared, commit)

    def prepare():
        monkeypatch.setattr(*inside.at("SPARE_BYTES"), before)
        writer.write(1)
        read(shared)
        writer.write(ahead)

    def overtake():
        monkeypatch.setattr(*inside.at("SPARE_BYTES"), meanwhile)
        writer.write(times)

    def look():
        oldest = writer.n
        assert oldest <= read(shared) <= writer.n

    for ahead in (1, 2):
        assert _overtake_each_look(shared, forgetful, prepare, overtake, look) >= 4
    assert list(shared) == KEYS == list(writer.share)
    writer.share.close()


@pytest.mark.parametrize("read", [Share.get, lambda share: share.snapshot().value])
def test_a_share_that_another_thread_closes_says_so_whichever_look_that_follows(read):
    """It was a ValueError about memory that is gone."""
    for turn in range(1, 10):
        share = Share(_arrays(1, 2))
        _forget(share)
        words = Words(inside.header_of(share), turn, share.close)
        _put_words(share, words)
        try:
            assert len(read(share)) == 2
        except ClosedError:
            assert words.looks >= turn
        if words.looks < turn:
            break
    assert turn > 3
    share.close()


@pytest.mark.core("python")
@pytest.mark.parametrize("read", [Share.get, Share.snapshot])
@pytest.mark.parametrize("error", [ValueError, TypeError])
def test_a_share_whose_memory_goes_in_the_middle_of_a_copy_says_so(monkeypatch, read, error):
    share = Share(_arrays(1, 2))
    store = type(inside.index_of(share))
    copy = store.read

    def closed_meanwhile(self):
        monkeypatch.setattr(store, "read", copy)
        share.close()
        raise error("mmap closed or invalid")

    monkeypatch.setattr(store, "read", closed_meanwhile)
    with pytest.raises(ClosedError):
        read(share)


def test_an_optimistic_function_whose_value_is_overwritten_runs_again(monkeypatch):
    """Its value was copied while writers came back to the place where it was."""
    monkeypatch.setattr(*inside.at("SPARE_BYTES"), ALWAYS)
    shared = SharedDict(a=_value(1), b=0)
    writer = Writer(shared, lambda other, n: other.update(b="b" * n))
    real, runs = inside.index_frames, []

    def frames(index, extents):
        copy = real(index, extents)
        if index is inside.index_of(shared) and len(runs) == 1:
            writer.write(3)
        return copy

    def work(view):
        runs.append(writer.n)
        view["c"] = view["a"]

    monkeypatch.setattr(*inside.at("index_frames"), frames)
    shared.transact(work)
    assert runs == [0, 3]
    assert shared["c"] == _value(1)
    writer.share.close()


# --- Always overtaken --------------------------------------------------------------------------


def _hold(child, share):
    with share.locked():
        child.say()
        child.hear()


def _fails(times, real):
    """An attempt that is overtaken so often, and then is not; and how often it was made."""
    made = []

    def attempt(*args):
        made.append(args)
        return None if len(made) <= times else real(*args)

    return attempt, made


def test_a_share_that_another_holds_is_read_without_its_lock(monkeypatch):
    """While the lock cannot be borrowed its holder may commit: there is another attempt."""
    share = Share("value")
    _forget(share)
    holder = Child(_hold, share)
    holder.hear()
    attempt, made = _fails(20, inside.region_try_read)
    monkeypatch.setattr(*inside.at("region_try_read"), attempt)
    assert share.get() == "value"
    assert len(made) == 21
    holder.say()
    holder.result()


def test_a_dict_that_another_holds_is_read_without_its_lock(monkeypatch):
    shared = SharedDict(a=1)
    holder = Child(_hold, shared)
    holder.hear()
    attempt, made = _fails(20, inside.index_try_read)
    monkeypatch.setattr(*inside.at("index_try_read"), attempt)
    assert shared.copy() == {"a": 1}
    assert len(made) == 21
    holder.say()
    holder.result()


def test_a_dicts_reader_who_is_always_overtaken_borrows_the_lock(monkeypatch):
    shared = SharedDict(a=1)
    attempt, _ = _fails(inside.ATTEMPTS_BEFORE_LOCK, inside.index_try_read)
    monkeypatch.setattr(*inside.at("index_try_read"), attempt)
    lock, free = inside.lock_of(shared), []

    def look(state):
        free.append(lock.token is None)
        return list(state.places)

    assert inside.index_of(shared).read(look) == ["a"]
    assert free == [False]
    assert lock.token is None


# --- Where stores are not ordered --------------------------------------------------------------


@pytest.fixture
def unordered(monkeypatch, ordered):
    monkeypatch.setattr(*inside.at("ORDERED_STORES_in_memory"), False)
    monkeypatch.setattr(*inside.at("ORDERED_STORES_in_keyed"), False)
    monkeypatch.setattr(*inside.at("keyed_newest"), lambda store, key: None)


def test_where_stores_are_not_ordered_a_dicts_readers_wait_for_the_lock(unordered):
    shared = SharedDict(a=1, b=numpy.arange(5000))

    def hold(child):
        with shared.locked() as view:
            child.say()
            child.hear()
            view["a"] = 2

    holder = Child(hold)
    holder.hear()
    reader = Child(lambda child: (shared["a"], len(shared), int(shared["b"][-1])))
    reader.sleeps()
    holder.say()
    holder.result()
    assert reader.result() == (2, 2, 4999)
    assert inside.token_of(shared) is None


def test_where_stores_are_not_ordered_the_holder_reads_without_waiting_for_itself(unordered):
    shared = SharedDict(a=1)
    with shared.locked() as view:
        view["a"] = 2
        assert shared["a"] == 1
        with pytest.raises(KeyError):
            shared["none"]
    assert shared == {"a": 2}
