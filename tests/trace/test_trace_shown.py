"""What a recording is shown as: a table, a Chrome trace, a picture."""

import asyncio
import json
import os
import random
import xml.etree.ElementTree as ET
from itertools import accumulate, pairwise

import pytest
from support import Child, inside, kill_self
from support.command import as_json, complaint, printed

import mmapshare
from mmapshare import Share

HOLD, GAVE_UP, SLEEP, CONFLICT, FOUND_DEAD = range(1, 6)
SITE = ("/srv/app.py", 7, "work")
MS = 1_000_000


def _event(kind=HOLD, pid=1, share="a", begun=0, got=0, ended=0, **more):
    facts = {"thread": 5, "is_whole": True, "site": SITE, "before": 1, "after": 2} | more
    return inside.Event(kind, pid=pid, share=share, begun=begun, got=got, ended=ended, **facts)


@pytest.fixture
def recording():
    """Two workers, one of which waits for the other, on two shares."""
    events = [
        _event(begun=MS, got=MS, ended=5 * MS),
        _event(pid=2, begun=2 * MS, got=5 * MS, ended=6 * MS, thread=6),
        _event(share="b", begun=6 * MS, got=6 * MS, ended=7 * MS, after=0),
        _event(CONFLICT, share="b", begun=7 * MS, ended=7 * MS),
        _event(SLEEP, pid=2, begun=7 * MS, ended=9 * MS, thread=6),
        _event(GAVE_UP, share="b", pid=2, begun=9 * MS, ended=10 * MS, site=None),
        _event(FOUND_DEAD, share="b", begun=11 * MS, ended=11 * MS, before=77),
        _event(
            pid=3, share="b", begun=11 * MS, got=11 * MS, ended=21 * MS, is_whole=False, after=0
        ),
    ]
    names = {"a": "jobs", "b": "b"}
    return inside.Recording({1: "one", 2: "two", 3: "<three>"}, names, events)


def test_the_table_says_who_was_waited_for_and_where_it_was_held(recording):
    assert inside.trace_summary(recording).splitlines() == [
        "share  holds  commits  waits  wait p50      p99  hold p50      p99",
        "jobs       2        2      1   3.00 ms  3.00 ms   1.00 ms  1.00 ms",
        "b          2        0      0         -        -   1.00 ms  1.00 ms",
        "gave up waiting: b 1",
        "version conflicts: b 1",
        "holders found dead: b 1",
        "sleeps until a commit: jobs 1",
        "longest holds:",
        "   10.00 ms  b  app.py:7 work  <three> (3), and let go never itself",
        "    4.00 ms  jobs  app.py:7 work  one (1)",
        "    1.00 ms  jobs  app.py:7 work  two (2)",
        "    1.00 ms  b  app.py:7 work  one (1)",
    ]
    assert inside.trace_summary(inside.Recording({}, {}, [])) == "nothing was recorded"
    long = inside.Recording({1: "p"}, {"a": "a"}, [_event(got=1, begun=1, ended=3 * 10**9)])
    assert "3.00 s" in inside.trace_summary(long)


def test_the_chrome_trace_has_a_track_for_each_share_of_a_thread(recording):
    found = list(inside.trace_chrome(recording))
    names = {(e["pid"], e["args"]["name"]) for e in found if e["ph"] == "M"}
    assert (1, "one") in names
    assert (2, "jobs, thread 1") in names
    spans = [(e["pid"], e["name"], e["ts"], e["dur"]) for e in found if e["ph"] == "X"]
    assert spans == [
        (1, "hold jobs", 0.0, 4000.0),
        (2, "wait jobs", 1000.0, 3000.0),
        (2, "hold jobs", 4000.0, 1000.0),
        (1, "hold b", 5000.0, 1000.0),
        (2, "sleep jobs", 6000.0, 2000.0),
        (2, "gave up b", 8000.0, 1000.0),
        (3, "hold b", 10000.0, 10000.0),
    ]
    moments = [(e["name"], e["ts"], e["s"]) for e in found if e["ph"] == "i"]
    assert moments == [
        ("commit jobs", 4000.0, "t"),
        ("commit jobs", 5000.0, "t"),
        ("conflict b", 6000.0, "t"),
        ("found dead b", 10000.0, "t"),
    ]


def _as_perfetto_reads(events):
    """The Trace Event Format, as far as these events use it; spans by their tracks."""
    named, spans = {"process_name": set(), "thread_name": set()}, {}
    for event in events:
        assert event["ph"] in {"M", "X", "i"}
        assert all(type(event[at]) is int and event[at] > 0 for at in ("pid", "tid"))
        assert type(event["ts"]) in {int, float}
        assert event["ts"] >= 0
        assert isinstance(event["name"], str)
        track = event["pid"], event["tid"]
        if event["ph"] == "M":
            assert event["args"]["name"]
            named[event["name"]].add(event["pid"] if event["name"] == "process_name" else track)
            continue
        assert track in named["thread_name"]  # Before it is used.
        assert event["pid"] in named["process_name"]
        assert not any(isinstance(arg, list | dict) for arg in event["args"].values())
        if event["ph"] == "i":
            assert event["s"] in {"t", "p", "g"}
        else:
            assert event["dur"] >= 0
            begin = int(1000 * event["ts"])  # It cuts off, too.
            spans.setdefault(track, []).append((begin, begin + int(1000 * event["dur"])))
    for own in spans.values():
        for (_, end), (start, _) in pairwise(sorted(own)):
            assert start >= end  # Those that cross are dropped.
    # A thread by a process's number is its main one, whichever process it is said to be of.
    threads = {tid for _, tid in named["thread_name"]}
    assert not threads & named["process_name"]
    assert len(threads) == len(named["thread_name"])
    return spans


def test_the_chrome_trace_is_what_perfetto_reads(recording):
    spans = _as_perfetto_reads(inside.trace_chrome(recording))
    assert sorted(map(len, spans.values())) == [1, 1, 1, 1, 3]
    assert _as_perfetto_reads(inside.trace_chrome(inside.Recording({}, {}, []))) == {}


def test_spans_that_meet_to_the_nanosecond_do_not_cross():
    """1.001 times 1,000 was cut off to 1,000, within the span that had ended at 1,001."""
    times = [0, *accumulate(random.Random(1).choices(range(1, 3000), k=2000))]
    events = [
        _event(begun=begun, got=got, ended=ended)
        for begun, got, ended in zip(times[::2], times[1::2], times[2::2], strict=False)
    ]
    spans = _as_perfetto_reads(inside.trace_chrome(inside.Recording({1: "p"}, {"a": "a"}, events)))
    assert list(spans.values()) == [list(pairwise(times))]


def test_tasks_that_wait_side_by_side_have_tracks_of_their_own(tmp_path):
    share = Share({"n": 0})

    async def change():
        async with share.locked():
            await asyncio.sleep(0.001)

    async def all_of_them():
        await asyncio.gather(*[change() for _ in range(4)])

    with mmapshare.trace(tmp_path / "run.json"):
        asyncio.run(all_of_them())
    events = json.loads((tmp_path / "run.json").read_text())["traceEvents"]
    spans = _as_perfetto_reads(events)
    assert sum(map(len, spans.values())) >= 7  # Four holds, and three have waited.
    assert len(spans) == 4
    labels = [event["args"]["name"] for event in events if event["name"] == "thread_name"]
    assert [label.partition("thread 1")[2] for label in labels] == ["", " (2)", " (3)", " (4)"]


def test_a_name_of_any_letters_is_written_as_it_is(tmp_path):
    """Perfetto refused a whole trace for an escape by number, and does so for half a pair."""
    found = inside.Recording({1: "é"}, {"a": "t\udc80"}, [_event(got=1, begun=1, ended=2)])
    inside.TraceOfRecording(None, found).save(tmp_path / "run.json")
    written = (tmp_path / "run.json").read_text()
    assert '"é"' in written
    assert '"t?, thread 1"' in written
    assert "\\u" not in written


def test_the_picture_has_a_row_a_process_with_its_colours(recording):
    root = ET.fromstring(inside.trace_svg(recording))
    (space,) = {root.tag.removesuffix("svg")}
    texts = [text.text for text in root.iter(f"{space}text")]
    assert texts == ["0", "20.00 ms", "one (1)", "two (2)", "<three> (3)"]
    amber, green = {}, {}
    groups = list(root.iter(f"{space}g"))
    for row, pid in enumerate(recording.processes):
        amber[pid], green[pid] = (
            [(int(bar.get("x")), int(bar.get("width"))) for bar in group]
            for group in groups[2 * row : 2 * row + 2]
        )
    assert {pid: len(bars) for pid, bars in amber.items()} == {1: 0, 2: 2, 3: 0}
    assert {pid: len(bars) for pid, bars in green.items()} == {1: 2, 2: 1, 3: 1}
    (waited, _), (held,) = amber[2], green[2]
    assert waited[0] + waited[1] - 1 == held[0]  # It holds from where it had waited to.
    ticks = [path.get("d").count("M") for path in root.iter(f"{space}path")]
    assert ticks == [1, 1, 0]
    assert "amber waits, green holds" in root.find(f"{space}title").text
    assert ET.fromstring(inside.trace_svg(inside.Recording({}, {}, []))) is not None


def test_thousands_of_holds_are_a_few_bars(recording):
    events = [_event(begun=n * 10, got=n * 10, ended=n * 10 + 5) for n in range(5000)]
    drawn = inside.trace_svg(inside.Recording({1: "busy"}, {"a": "a"}, events))
    assert drawn.count("<rect") < 5
    assert len(drawn) < 20_000


def test_a_trace_is_saved_whole_or_not_at_all(tmp_path, monkeypatch):
    share = Share(0)
    path = tmp_path / "run.json"
    with mmapshare.trace(path) as trace:
        share.set(1)
        assert repr(trace) == "<Trace: 1 events, 1 processes>"
    assert [e["name"].split()[0] for e in json.loads(path.read_text())["traceEvents"]] == [
        "process_name", "thread_name", "hold", "commit",
    ]  # fmt: skip
    before = path.read_text()
    monkeypatch.setattr("json.dumps", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        trace.save(path)
    monkeypatch.undo()
    with pytest.raises(FileNotFoundError):
        trace.save(tmp_path / "none" / "run.json")
    assert path.read_text() == before
    assert os.listdir(tmp_path) == ["run.json"]
    shown = trace._repr_mimebundle_()
    assert shown == {"text/plain": trace.summary(), "image/svg+xml": trace.svg()}


def test_a_folder_is_shown_by_the_command_line(tmp_path):
    share = Share.open("jobs", 0)

    def die(child):
        with share.locked():
            kill_self()

    inside.trace_start(str(tmp_path / "run"))
    share.set(1)
    Child(die).wait()
    inside.trace_stop()
    said = printed("trace", str(tmp_path / "run"))
    assert "holds  commits" in said
    assert "jobs" in said
    assert "let go never itself" in said
    files = ["--chrome", str(tmp_path / "run.json"), "--svg", str(tmp_path / "run.svg")]
    printed("trace", str(tmp_path / "run"), *files)
    assert json.loads((tmp_path / "run.json").read_text())["traceEvents"]
    assert (tmp_path / "run.svg").read_text().startswith("<svg")
    found = as_json("trace", str(tmp_path / "run"))
    assert [event["commits"] if "commits" in event else event["after"] for event in found["events"]]
    assert "FileNotFoundError" in complaint("trace", str(tmp_path / "none"))
    share.unlink()
    share.close()
