"""Count names over many files by workers on three hosts; one of them is cut off in mid-run.

    python examples/many_hosts.py [--server redis://host:6379/0] [PATH ...]

The hosts are played by this machine: each has two workers, which know nothing but a URL, and a way
of its own to the server. Without --server a redis-server is started for the run. What a worker does
would be the same with ``SharedDict.open("word-count")`` among processes of one machine.

Any worker may be killed, and any host be cut off, at any moment. What was counted in a file and the
note that it is done are one commit. A worker that is cut off cannot know whether its last commit
arrived; so the file goes back just where the note is missing, and who counts a file looks for the
note before the commit. The count is exact.

Needs redis-py (``pip install mmapshare[redis]``) and, without --server, a redis-server.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mmapshare import SharedDict, StoreUnreachableError

NAME = re.compile(r"[^\W\d]\w*")
HOSTS, WORKERS = ("ada", "bob", "cyd"), 2


def count(path: str) -> Counter[str]:
    return Counter(NAME.findall(Path(path).read_text(errors="replace")))


def work(url: str, worker: str) -> None:
    """What runs on a host: take a file, count it, commit; until nothing is left."""
    shared: SharedDict[str, Any] = SharedDict.open(url, create=False)
    while True:
        with shared.locked() as view:
            if not view["pending"]:
                if not view["taken"]:
                    return
                path = None
            else:
                path = view["pending"].pop()
                view["taken"][path] = worker
        if path is None:  # Others are at it; their files may come back.
            shared.wait(timeout=0.1)
            continue
        found = count(path)
        with shared.locked() as view:
            if view["taken"].pop(path, None) and path not in view["done"]:
                view["done"].append(path)
                view["counts"].update(found)


def put_back(shared: SharedDict[str, Any], host: str) -> int:
    """Have others do what a host that is gone had in work."""
    with shared.locked() as view:
        lost = [path for path, worker in view["taken"].items() if worker.startswith(host)]
        for path in lost:
            del view["taken"][path]
            if path not in view["done"]:
                view["pending"].append(path)
    return len(lost)


# --- The stage: a server, and a way to it for each host ------------------------------------------


@contextmanager
def started(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def until_open(port: int) -> None:
    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)
    raise SystemExit(f"nobody answers on port {port}")


async def relay(port: int, host: str, to: int) -> None:
    """One host's network: pass on what comes; when this process ends, the host is cut off."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(1 << 16):
                writer.write(piece)
                await writer.drain()
        writer.close()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection(host, to)
        await asyncio.gather(pump(reader, there[1]), pump(there[0], writer))

    async with await asyncio.start_server(pass_on, "127.0.0.1", port) as server:
        await server.serve_forever()


def main(server: str | None, paths: list[str]) -> int:
    with ExitStack() as stack:
        if server is None:
            program = shutil.which("redis-server")
            if program is None:
                raise SystemExit("no redis-server here: install one, or give --server")
            folder, port = stack.enter_context(tempfile.TemporaryDirectory()), free_port()
            options = ("--port", str(port), "--save", "", "--dir", folder, "--bind", "127.0.0.1")
            stack.enter_context(started(program, *options))
            until_open(port)
            server = f"redis://127.0.0.1:{port}/0"
        first = {"pending": paths, "taken": {}, "done": [], "counts": Counter[str]()}
        shared: SharedDict[str, Any] = SharedDict.open(f"{server}/word-count", first, create=True)
        stack.callback(shared.unlink)
        parts, ways, workers = urlsplit(server), {}, {}
        for host in HOSTS:
            port = free_port()
            there = (str(parts.hostname), str(parts.port or 6379))
            ways[host] = stack.enter_context(
                started(sys.executable, __file__, "relay", str(port), *there)
            )
            until_open(port)
            netloc = parts.netloc.rpartition("@")[:2]
            url = parts._replace(netloc="".join(netloc) + f"127.0.0.1:{port}").geturl()
            for n in range(WORKERS):
                command = (sys.executable, __file__, "work", f"{url}/word-count", f"{host}-{n}")
                workers[f"{host}-{n}"] = stack.enter_context(started(*command))
        shared.wait(lambda view: len(view["done"]) > len(paths) // 3, timeout=120)
        ways["bob"].kill()
        print("bob is cut off")
        for name in [name for name in workers if name.startswith("bob")]:
            workers[name].wait()
        print(f"{put_back(shared, 'bob')} files of bob's go back")
        for name, process in workers.items():
            if process.wait() and not name.startswith("bob"):
                raise SystemExit(f"{name} has failed")
        found, done = shared["counts"], shared["done"]
    expected = sum(map(count, paths), Counter[str]())
    print(
        f"{len(done)} files, {found.total():,} names, {'exact' if found == expected else 'WRONG'}"
    )
    return int(found != expected or sorted(done) != sorted(paths))


if __name__ == "__main__":
    if sys.argv[1:2] == ["relay"]:
        asyncio.run(relay(int(sys.argv[2]), sys.argv[3], int(sys.argv[4])))
    elif sys.argv[1:2] == ["work"]:
        try:
            work(*sys.argv[2:4])
        except StoreUnreachableError as err:
            raise SystemExit(f"{sys.argv[3]} gives up: {str(err).partition('.')[0]}") from None
    else:
        parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
        parser.add_argument("--server", help="its URL, with a database; default: one is started")
        parser.add_argument("paths", nargs="*", help="files; default: 200 of the standard library")
        chosen = parser.parse_args()
        library = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:200]
        raise SystemExit(main(chosen.server, chosen.paths or [str(path) for path in library]))
