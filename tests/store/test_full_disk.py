"""Real file systems: a small one that gets full, one that may not be written to any more."""

import errno
import gc
import os
import shlex
import shutil
import subprocess
import sys

import pytest
from support import inside

from mmapshare import RegionFullError, Share, SharedDict

SIZE = 8 << 20
NAMESPACE = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
MEMORY = "mount -t tmpfs -o size={size} none {at}"
DISK = "mkfs.ext4 -q -F {image} && mount -o loop {image} {at}"
NO_DISK = "a file cannot be mounted as a disk here"


def _on(how, tmp_path, code, *args):
    """What a program prints whose current folder is the file system that is mounted so."""
    image, at = tmp_path / "image", tmp_path / "at"
    at.mkdir(exist_ok=True)
    image.write_bytes(b"")
    os.truncate(image, SIZE)
    mount = how.format(size=SIZE, image=image, at=at)
    command = [*NAMESPACE, "sh", "-c"]
    tried = subprocess.run([*command, mount], capture_output=True)
    if tried.returncode:
        pytest.skip(NO_DISK if how == DISK else f"no mounts here: {tried.stderr.decode().strip()}")
    program = shlex.join(
        [sys.executable, "-c", f"import os\nfrom mmapshare import *\n{code}", *args]
    )
    done = subprocess.run(
        [*command, f"{mount} && cd {at} && exec {program}"],
        capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert not done.returncode, done.stderr
    return done.stdout


FULL = """
import sys
durable = sys.argv[1] == "durable"
def fails(change):
    try:
        change()
    except RegionFullError as err:
        assert "the disk has no room" in str(err), err
        return
    raise AssertionError("there was room")
def free():
    found = os.statvfs(".")
    return found.f_bfree * found.f_frsize
share = Share.open("./value", b"old", max_size="64M", durable=durable)
shared = SharedDict.open("./dict", {"old": 1}, max_size="64M", durable=durable)
had = free()
fails(lambda: share.set(bytes(had * 2)))
assert share.get() == b"old" and free() == had  # Nothing is kept of what was in vain.
with open("filler", "wb", buffering=0) as filler:
    try:
        while filler.write(bytes(65536)):
            pass
    except OSError:
        pass
os.sync()
fails(lambda: share.set(bytes(1 << 20)))
def fill():
    for number in range(1000):
        shared[number] = bytes(8000)
fails(fill)
count = len(shared)
assert list(shared) == ["old", *range(count - 1)] and count < 1000
fails(lambda: Share.open("./another", 1, durable=durable))
fails(lambda: SharedDict.open("./another", {}, durable=durable))
share.set(b"small")  # What has its memory already goes on.
with share.locked() as view:
    view.value = b"block"
assert share.get() == b"block"
assert sorted(os.listdir()) == sorted({"value", "dict", "filler", *sys.argv[2:]})
os.unlink("filler")
os.sync()
share.set(bytes(1 << 20))
shared["new"] = bytes(8000)
assert len(share.get()) == 1 << 20 and len(shared) == count + 1
Share.open("./another", 1, durable=durable)
print("done")
"""


@pytest.mark.skipif(shutil.which("unshare") is None, reason="there is no unshare(1)")
@pytest.mark.parametrize(
    ("how", "args"),
    [
        (MEMORY, ["plain"]),
        (DISK, ["plain", "lost+found"]),
        (DISK, ["durable", "lost+found"]),
    ],
)
def test_a_full_disk_takes_nothing_from_what_is_there(tmp_path, how, args):
    assert _on(how, tmp_path, FULL, *args) == "done\n"


READ_ONLY = """
import subprocess
share = Share.open("./value", 1)
share.close()
del share
subprocess.run(["mount", "-o", "remount,ro", os.getcwd()], check=True)
for name in ("./value", "./another"):
    try:
        Share.open(name, 2)
    except OpenError as err:
        print(err)
"""


@pytest.mark.skipif(shutil.which("unshare") is None, reason="there is no unshare(1)")
@pytest.mark.parametrize("how", [MEMORY, DISK])
def test_a_disk_that_may_only_be_read_is_said(tmp_path, how):
    said = _on(how, tmp_path, READ_ONLY).splitlines()
    assert len(said) == 2
    for line, name in zip(said, ("value", "another"), strict=True):
        assert f"at/{name} cannot be opened or made here: Read-only file system" in line


@pytest.mark.parametrize("kind", [Share, SharedDict])
def test_after_a_boot_a_full_disk_takes_nothing_of_what_is_stored(kind, tmp_path, monkeypatch):
    """Memory is counted from the page in which the newest version ends, and that one is kept."""
    value = {"a": os.urandom(5000)}
    path = tmp_path / "one"
    kind.open(path, value, max_size="1M").close()
    gc.collect()
    with open(path, "r+b") as file:  # The machine starts again.
        file.seek(8 * inside.BOOT[0])
        file.write(bytes(range(16)))
    share = kind.open(path)

    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    change = share.set if kind is Share else share.update
    with monkeypatch.context() as context:
        context.setattr(os, "posix_fallocate", full)
        for key in ("b", "c"):
            with pytest.raises(RegionFullError, match="the disk has no room"):
                change({key: os.urandom(100_000)})
    shown = "found.get()" if kind is Share else "found"
    read = f"from mmapshare import *; import sys; found = {kind.__name__}.open(sys.argv[1])"
    read += f"; print({shown})"
    done = subprocess.run([sys.executable, "-c", read, path], capture_output=True, text=True)
    assert done.stdout == f"{value}\n", done.stderr
