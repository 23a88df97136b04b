"""`mmapshare.trace` over processes, and what it leaves when these are killed or interrupted."""

import multiprocessing
import os
import signal
import subprocess
import sys
from multiprocessing import forkserver

import pytest
from support import SEED, Child, in_child, inside, is_free, killed_at_every_step, trap

import mmapshare
from mmapshare import Share, VersionConflict

HOLD = 1


def _of(trace, kind):
    return [event for event in trace.recording.events if event.kind == kind]


def _change(share):
    with share.locked() as view:
        view["n"] += 1


# --- Other processes -------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_record_too_however_they_are_started(method):
    share = Share({"n": 0})
    context = multiprocessing.get_context(method)
    if method == "forkserver":  # One that is there before is not told.
        forkserver._forkserver._stop()
    with mmapshare.trace() as trace:
        child = context.Process(target=_change, args=(share,), name="the child")
        child.start()
        child.join()
        _change(share)
    if method == "forkserver":
        forkserver._forkserver._stop()
    assert child.exitcode == 0
    assert [hold.pid for hold in _of(trace, HOLD)] == [child.pid, os.getpid()]
    assert trace.recording.processes[child.pid] == "the child"


def test_a_program_that_is_not_ours_records_to_the_folder_it_is_told(tmp_path):
    program = (
        "from mmapshare import Share\n"
        "s = Share.open('traced', 0)\n"
        "with s.locked() as view: view.value += 1\n"
        "s.unlink()\n"
    )
    folder = tmp_path / "new" / "run"
    for _ in range(2):
        subprocess.run(
            [sys.executable, "-c", program], check=True,
            env=os.environ | {"MMAPSHARE_TRACE": str(folder)},
        )  # fmt: skip
    trace = inside.trace_opened(folder)
    holds = _of(trace, HOLD)
    assert [hold.site for hold in holds if hold.commits][-1] == ("<string>", 3, "<module>")
    assert len({hold.pid for hold in holds}) == 2
    assert set(trace.recording.names.values()) == {"traced"}
    assert set(trace.recording.processes.values()) == {"-c"}


def test_a_block_within_what_records_already_sees_its_own_time(tmp_path):
    share = Share({"n": 0})
    inside.trace_start(str(tmp_path))
    inside.trace_start(str(tmp_path / "no second one"))
    try:
        _change(share)
        with mmapshare.trace() as outer:
            _change(share)
            with mmapshare.trace(tmp_path / "inner.json") as inner:
                _change(share)
            _change(share)
    finally:
        inside.trace_stop()
        inside.trace_stop()
    assert [hold.before for hold in _of(inner, HOLD)] == [3]
    assert [hold.before for hold in _of(outer, HOLD)] == [2, 3, 4]
    assert len(_of(inside.trace_opened(tmp_path), HOLD)) == 4
    assert (tmp_path / "inner.json").exists()
    assert not (tmp_path / "no second one").exists()


def test_a_child_that_leaves_its_parents_block_ends_nothing():
    share = Share({"n": 0})
    with mmapshare.trace() as trace:
        pid = os.fork()
        if not pid:
            _change(share)
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
    _change(share)
    assert {hold.pid for hold in _of(trace, HOLD)} <= {pid}


def test_who_goes_on_after_the_block_goes_on_without_its_folder(monkeypatch):
    monkeypatch.setattr(*inside.at("TRACE_PAGE_BYTES"), 4096)
    share = Share({"n": 0})

    def work(child):
        _change(share)
        child.say()
        child.hear()
        for _ in range(100):  # More than its page takes.
            _change(share)
        in_child(_change, share)  # Nor has a child of its own anything to write to.
        with mmapshare.trace() as own:
            _change(share)
        return len(_of(own, HOLD))

    with mmapshare.trace() as trace:
        child = Child(work)
        child.hear()
    child.say()
    assert child.result() == 1
    assert share.get() == {"n": 103}
    assert len(_of(trace, HOLD)) == 1


# --- What goes wrong -------------------------------------------------------------------------


@pytest.mark.untraced
def test_a_killed_process_leaves_what_it_had_written_and_takes_nothing_along(monkeypatch):
    """At the bytecodes of a block that is recorded, hooks included."""
    monkeypatch.setattr(*inside.at("TRACE_PAGE_BYTES"), 4096)
    share = Share({"n": 0})
    with mmapshare.trace() as trace:
        _change(share)
        seen = 1

        def check(step):
            nonlocal seen
            value = share.get()["n"]
            assert value in {seen, seen + 1}
            seen = value
            share.lock(timeout=5)
            share.unlock()

        kills = killed_at_every_step(lambda: _change(share), check, stride=29)
    holds = _of(trace, HOLD)
    if sys.gettrace() is not None:  # What measures coverage takes the trap's place in a child.
        return
    assert kills > 10
    theirs = [hold for hold in holds if hold.pid != os.getpid()]
    assert 0 < len(theirs) <= kills + 1
    assert not all(hold.is_whole for hold in theirs)
    # What a killed one committed is there, whether or not it came to say so.
    assert sum(hold.commits for hold in holds) <= seen


def test_an_interrupt_at_any_step_of_a_recorded_block_leaves_the_lock_free():
    share = Share({"n": 0})

    def interrupt():
        raise KeyboardInterrupt

    with mmapshare.trace() as trace:
        _change(share)
        step, interrupted, is_over = 1 + SEED % 5, 0, False
        print("first step", step)
        while not is_over:
            try:
                with trap(step, interrupt):
                    _change(share)
                is_over = True
            except KeyboardInterrupt:
                interrupted += 1
            step += 5
            assert inside.token_of(share) is None, step
            assert not inside.header_of(share)[16], step
    assert interrupted > 10
    assert is_free(share)
    assert _of(trace, HOLD)


def test_more_than_a_page_goes_to_the_next_and_after_all_of_them_nowhere(monkeypatch):
    monkeypatch.setattr(*inside.at("TRACE_PAGE_BYTES"), 4096)  # Of 64 records.
    monkeypatch.setattr(*inside.at("TRACE_PAGES_MOST"), 3)
    share = Share({"n": 0})
    with mmapshare.trace() as trace:
        for _ in range(150):
            _change(share)
        assert len(_of(trace, HOLD)) == 150
        for _ in range(100):
            _change(share)
        with pytest.raises(VersionConflict):
            share.set({}, if_version=1)
    assert [hold.before for hold in _of(trace, HOLD)] == list(range(1, 193))
    assert share.get() == {"n": 250}


def test_what_was_cut_off_in_the_middle_of_a_line_is_read_up_to_there(tmp_path):
    share = Share({"n": 0})
    inside.trace_start(str(tmp_path))
    _change(share)
    inside.trace_stop()
    (names,) = tmp_path.glob("*.names")
    with open(names, "ab") as file:
        file.write(b'{"number": 7, "fi')
    assert len(_of(inside.trace_opened(tmp_path), HOLD)) == 1
    again = names.with_name(f"{os.getpid()}-1.names")
    again.write_bytes(b"")  # One that had our pid once, and had said nothing yet.
    inside.trace_start(str(tmp_path))
    _change(share)
    inside.trace_stop()
    assert len(_of(inside.trace_opened(tmp_path), HOLD)) == 2


def test_a_folder_that_cannot_be_written_to_is_an_error_at_the_begin(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        inside.trace_start(str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.mkdtemp", lambda **_: str(tmp_path / "file"))
    with pytest.raises(OSError, match="file"), mmapshare.trace():
        pass
    assert "MMAPSHARE_TRACE" not in os.environ


def test_a_program_that_cannot_record_goes_on_without(tmp_path):
    (tmp_path / "file").write_text("")
    done = subprocess.run(
        [sys.executable, "-c", "from mmapshare import Share; print(Share(1).get())"],
        capture_output=True, text=True, env=os.environ | {"MMAPSHARE_TRACE": f"{tmp_path}/file"},
    )  # fmt: skip
    assert done.stdout == "1\n"
    assert "RuntimeWarning: MMAPSHARE_TRACE says to record to" in done.stderr


def test_what_the_environment_said_before_it_says_again(monkeypatch, tmp_path):
    monkeypatch.setenv("MMAPSHARE_TRACE", str(tmp_path))
    with mmapshare.trace():
        assert os.environ["MMAPSHARE_TRACE"] != str(tmp_path)
    assert os.environ["MMAPSHARE_TRACE"] == str(tmp_path)


def test_two_threads_that_find_a_page_full_turn_it_once(tmp_path):
    recorder = inside.TraceRecorder(str(tmp_path))
    number = recorder.number_of("a share", {"share": "a", "name": None})
    assert recorder.number_of("a share", {}) == number  # Said by two at once, too.
    full = recorder.page
    turned = inside.turn_page(recorder, full)
    assert turned is not full
    assert inside.turn_page(recorder, full) is turned
    recorder.close()
    recorder.close()


def test_a_trace_is_one_block():
    trace = mmapshare.trace()
    with trace:
        pass
    with pytest.raises(mmapshare.TransactionError), trace:
        pass


def test_shares_that_are_closed_or_dropped_while_recorded_leave_nothing():
    with mmapshare.trace() as trace:
        share = Share({"n": 0})
        _change(share)
        share.close()
        _change(Share({"n": 0}))
        fds = os.listdir("/proc/self/fd")
        for _ in range(20):
            _change(Share({"n": 0}))
        assert len(os.listdir("/proc/self/fd")) == len(fds)
    assert len({hold.share for hold in _of(trace, HOLD)}) == 22


def test_signals_do_not_disturb_what_records(monkeypatch):
    """The handler records too, in the middle of what records, a new page perhaps."""
    monkeypatch.setattr(*inside.at("TRACE_PAGE_BYTES"), 4096)
    share, other = Share({"n": 0}), Share({"n": 0})

    def handle(*_):
        _change(other)
        signal.setitimer(signal.ITIMER_REAL, 1e-3)  # Once more; faster ones would starve it.

    before = signal.signal(signal.SIGALRM, handle)
    try:
        with mmapshare.trace() as trace:
            signal.setitimer(signal.ITIMER_REAL, 1e-3)
            while other.get()["n"] < 20:
                _change(share)
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    holds = _of(trace, HOLD)
    assert sum(hold.commits for hold in holds) == share.version + other.version - 2
    assert all(hold.is_whole for hold in holds)
