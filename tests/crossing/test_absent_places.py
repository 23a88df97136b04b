"""Handles that lead nowhere for the system's reasons: damage, rights, no /proc, namespaces."""

import errno
import os
import pickle
import shlex
import shutil
import subprocess
import sys
import zlib

import pytest
from support import (
    Child,
    as_somebody_else,
    in_child,
    inside,
    open_fds,
)
from support.children import of_the_dead

from mmapshare import CorruptRegionError, HandleError, Share, SharedDict


def _spoilt(spoil):
    """The pickle of a share of a living process whose region is spoilt."""

    def make_one(child):
        share = Share(1)
        spoil(inside.segment_of(share).map)
        child.say(pickle.dumps(share))
        child.hear()

    return Child(make_one)


def _overwrite(region):
    region[0:8] = b"elsewise"


def _other_format(region):
    body = bytearray(region[: inside.IDENTITY_BYTES - 8])
    body[8:16] = (99).to_bytes(8, "little")
    region[: inside.IDENTITY_BYTES] = body + zlib.crc32(body).to_bytes(8, "little")


@pytest.mark.parametrize(
    ("spoil", "said"), [(_overwrite, "no mmapshare region"), (_other_format, "has format 99")]
)
def test_a_region_that_is_damaged_or_of_another_format_says_so_at_its_first_use(spoil, said):
    before = open_fds()
    maker = _spoilt(spoil)
    absent = pickle.loads(maker.hear())
    with pytest.raises(CorruptRegionError, match=said):
        absent.get()
    assert repr(absent) == "<Share, unreachable>"
    maker.say()
    maker.result()
    assert open_fds() == before


def test_a_folder_that_the_user_may_not_look_into_is_no_gone_one():
    share = Share(1, kind="file")
    raw = pickle.dumps(share)

    def stranger():
        inside.open_here.clear()
        with as_somebody_else():
            absent = pickle.loads(raw)
            with pytest.raises(HandleError, match="may not look into"):
                absent.get()

    if os.geteuid() != 0:  # Whoever is not root has nobody else to be.
        os.chmod(inside.segment_of(share).folder, 0)
    try:
        in_child(stranger)
    finally:
        os.chmod(inside.segment_of(share).folder, 0o700)
        share.close()


def test_a_folder_with_another_region_in_it_is_not_taken_for_the_shares():
    share, other = Share(1, kind="file"), Share(2, kind="file")
    raw = pickle.dumps(share)
    to, source = (os.path.join(inside.segment_of(one).folder, "region") for one in (share, other))

    def load():
        inside.open_here.clear()
        os.rename(source, to)
        with pytest.raises(HandleError, match="another region is in its place"):
            pickle.loads(raw).get()

    in_child(load)
    for one in (share, other):
        folder = inside.segment_of(one).folder
        one.close()
        shutil.rmtree(folder, ignore_errors=True)


def test_without_proc_it_is_proc_that_is_said_to_be_missing(monkeypatch, tmp_path):
    """A share whose process was alive was told to be gone, or it was a bare FileNotFoundError."""
    share = Share(1)
    raw = pickle.dumps(share)
    monkeypatch.setattr(*inside.at("PROC"), str(tmp_path))

    def load():
        inside.open_here.clear()
        absent = pickle.loads(raw)
        with pytest.raises(HandleError, match=f"sees no {tmp_path}"):
            absent.get()
        made = Share(1)
        with pytest.raises(HandleError, match="needs"):
            Share(1, kind="memfd")
        with pytest.raises(HandleError, match="needs"):
            SharedDict(kind="memfd")
        return made.info().kind, pickle.loads(pickle.dumps(made)) is made

    assert in_child(load) == ("file", True)


def test_another_pid_namespace_is_said_to_be_another(monkeypatch):
    absent = pickle.loads(of_the_dead(Share, 1))
    monkeypatch.setattr(*inside.at("own_namespace"), lambda: 1)
    with pytest.raises(HandleError, match="another pid namespace"):
        absent.get()


def test_a_process_number_that_came_round_is_no_process_that_has_the_share():
    """Another user's process that has the number now was told to have the share."""
    own, refused = os.getpid(), PermissionError(errno.EACCES, "refused")
    namespace = inside.own_namespace()
    assert "may not look" in inside.why_not(own, inside.start_of(own), namespace, refused)
    assert "is gone" in inside.why_not(own, 0, namespace, refused)


def test_a_process_that_has_ended_and_is_not_waited_for_is_gone():
    """Who is not root may not look into one: that was told instead."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert inside.start_of(pid) is None
    os.waitpid(pid, 0)
    assert inside.start_of(pid) is None


def test_who_lost_sight_of_proc_before_it_forked_says_why_it_cannot_lock(monkeypatch):
    """It was a bare FileNotFoundError, of /proc/self/fd/3."""
    share = Share(1)

    def refuse(*args):
        raise FileNotFoundError(errno.ENOENT, "no such file")

    def forked():
        monkeypatch.setattr(os, "open", refuse)

        def lock():
            assert share.get() == 1
            with pytest.raises(HandleError, match="lost sight of /proc"):
                share.set(2)

        in_child(lock)

    in_child(forked)


_LOAD = (
    "import os, pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer)\n"
    "absent = pickle.load(sys.stdin.buffer)\n"
    "try: print(absent.get())\n"
    "except Exception as err: print(type(err).__name__, err)"
)


def _unshared(options, before, share):
    """What a new interpreter says of a share, in namespaces of its own."""
    python = f"{before} exec {shlex.quote(sys.executable)} -c '{_LOAD}'"
    command = ["unshare", *options, "sh", "-c", python]
    tried = subprocess.run([*command[:-1], f"{before} true"], capture_output=True)
    if tried.returncode:
        pytest.skip(f"unshare is not permitted here: {tried.stderr.decode().strip()}")
    given = pickle.dumps(sys.path) + pickle.dumps(share)
    done = subprocess.run(command, input=given, capture_output=True)
    assert not done.stderr, done.stderr.decode()
    return done.stdout.decode()


@pytest.mark.skipif(shutil.which("unshare") is None, reason="there is no unshare(1)")
@pytest.mark.parametrize(
    ("options", "before", "said"),
    [
        (["--pid", "--fork", "--mount-proc"], "", "another pid namespace"),
        (["--pid", "--fork"], "", "1\n"),  # Its /proc is still the outer one.
        (["--mount"], "mount -t tmpfs none /proc;", "sees no /proc"),
    ],
)
def test_namespaces_of_its_own_are_told_by_what_they_hide(options, before, said):
    share = Share(1)
    assert said in _unshared(options, before, share)


@pytest.mark.skipif(shutil.which("unshare") is None, reason="there is no unshare(1)")
def test_what_an_inner_pid_namespace_made_is_found_from_the_outer_one():
    """Its number there is another one than its number here."""
    make = (
        "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); import mmapshare;"
        "share = mmapshare.Share(7); sys.stdout.buffer.write(pickle.dumps(share));"
        "sys.stdout.flush(); sys.stdin.read()"
    )
    options = ["unshare", "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*options, "true"], capture_output=True).returncode:
        pytest.skip("unshare is not permitted here")
    maker = subprocess.Popen(
        [*options, sys.executable, "-c", make], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert maker.stdin is not None and maker.stdout is not None
    maker.stdin.write(pickle.dumps(sys.path))
    maker.stdin.flush()
    share = pickle.load(maker.stdout)
    assert share.get() == 7
    share.close()
    maker.communicate()


def test_zombies_of_another_user_are_gone_too():
    """Of a process that has ended /proc shows nothing to who is not root."""

    def maker(child):
        child.say(pickle.dumps(Share(1)))

    child = Child(maker)
    raw = child.hear()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)

    def stranger():
        with as_somebody_else():
            absent = pickle.loads(raw)
            with pytest.raises(HandleError, match="is gone"):
                absent.get()

    in_child(stranger)
    child.result()
