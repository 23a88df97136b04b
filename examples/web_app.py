"""A web app whose workers share a counter, a rate limit, and a rule that requests swap.

    gunicorn --workers 4 --chdir examples web_app:app
    uvicorn --workers 4 --app-dir examples web_app:asgi

    curl 'localhost:8000/?user=anna'                          # counted, limited, asks the rule
    curl -H 'X-Request-Id: 7' 'localhost:8000/?user=anna'     # sent again: counted once
    curl -d 'rule=percent&value=20' localhost:8000/rule       # from now on, in every worker
    curl localhost:8000/stats
    python examples/web_app.py --forget                       # the count, the limit and the rule

Each worker imports this module, and opens the two shares at its top by their names. So they are
theirs together whoever is whose parent, with ``--preload`` or without, and also those of workers
which take the place of others: after a kill, ``--max-requests``, a SIGHUP, a new version of the
app beside the old one. They last until they are forgotten or the machine starts again. Let
MMAPSHARE_DIR name another folder for another deployment by the same user.

- ``requests``: the bucket of `rate_limiter`, which also counts, and what the latest requests were
  answered. One transaction takes a token and notes the answer: a request whose worker is killed
  was either not counted, or is known when the client sends it again under the same id.
- ``rule``: a closure that says who sees the new feature. Reading it takes no lock.

A request names one of the `RULES` and its value; it never brings code. Whoever can choose what is
evaluated, or unpickled, can do whatever this process can. Here all that is unpickled was stored
by the app's own workers. Still, keep ``/rule`` from strangers as you would any switch.

RATE and BURST in the environment set the limit where there is none yet, by default 1000 a second
and 2000 at once. Needs gunicorn or uvicorn (``pip install mmapshare[examples]``), or another
server for WSGI or ASGI.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import time
import uuid
import zlib
from collections.abc import Awaitable, Callable, Iterable
from typing import Any
from urllib.parse import parse_qs

from rate_limiter import Call, full_bucket, take

from mmapshare import Share, SharedDict

Environ = dict[str, Any]
Answer = tuple[str, dict[str, Any]]
Rule = Callable[[str], bool]

KEPT = 10_000
"""So many answers are remembered for clients that ask again."""


# --- The rules: factories of closures, by the names that requests use -----------------------


def everybody(value: str) -> Rule:
    return lambda user: True


def some(value: str) -> Rule:
    users = frozenset(value.split(","))
    return lambda user: user in users


def percent(value: str) -> Rule:
    most = int(value)
    return lambda user: zlib.crc32(user.encode()) % 100 < most


RULES = {factory.__name__: factory for factory in (everybody, some, percent)}


# --- What the workers share ------------------------------------------------------------------

limit = int(os.environ.get("RATE", "1000")), int(os.environ.get("BURST", "2000"))
requests: SharedDict[Any, Any] = SharedDict.open(
    "web_app.requests", {"bucket": full_bucket(*limit)}
)
rule: Share[Rule] = Share.open("web_app.rule", everybody(""))


def count(request_id: str) -> Call:
    """Number a request and ask the limit for it, once however often it is sent."""
    with requests.locked() as view:
        known: Call | None = view.get(("id", request_id))
        if known is not None:
            return known
        bucket = view["bucket"]
        now_ns = time.monotonic_ns()
        call = Call(bucket["calls"], now_ns, take(bucket, now_ns))
        slot = call.number % KEPT
        if slot in view:
            del view["id", view[slot]]
        view[slot], view["id", request_id] = request_id, call
    return call


# --- The pages -------------------------------------------------------------------------------


def visit(environ: Environ) -> Answer:
    user = parse_qs(environ["QUERY_STRING"]).get("user", ["nobody"])[0]
    call = count(environ.get("HTTP_X_REQUEST_ID") or uuid.uuid4().hex)
    asked = rule.snapshot()
    return "200 OK" if call.allowed else "429 Too Many Requests", {
        **call._asdict(),
        "feature": asked.value(user),
        "rule": asked.version,
        "worker": os.getpid(),
    }


def swap(environ: Environ) -> Answer:
    form = parse_qs(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)).decode())
    name, value = (form.get(key, [""])[0] for key in ("rule", "value"))
    try:
        made = RULES[name](value)
    except (KeyError, ValueError):
        return "400 Bad Request", {"error": f"no rule {name!r} of {value!r}", "rules": [*RULES]}
    return "200 OK", {"rule": rule.set(made)}


def stats(environ: Environ) -> Answer:
    info = requests.info()
    return "200 OK", {
        "bucket": requests["bucket"],
        "rule": rule.version,
        "commits": info.commits,
        "killed_in_a_transaction": info.holders_found_dead,
    }


PAGES = {("GET", "/"): visit, ("POST", "/rule"): swap, ("GET", "/stats"): stats}


def respond(environ: Environ) -> tuple[str, bytes]:
    page = PAGES.get((environ["REQUEST_METHOD"], environ["PATH_INFO"]))
    if page is None:
        status, answer = "404 Not Found", {"pages": [" ".join(key) for key in PAGES]}
    else:
        status, answer = page(environ)
    return status, json.dumps(answer).encode() + b"\n"


def app(environ: Environ, start_response: Callable[..., object]) -> Iterable[bytes]:
    """For servers of WSGI, such as gunicorn."""
    status, body = respond(environ)
    start_response(status, [("Content-Type", "application/json")])
    return [body]


async def asgi(
    scope: Environ,
    receive: Callable[[], Awaitable[Environ]],
    send: Callable[[Environ], Awaitable[object]],
) -> None:
    """For servers of ASGI, such as uvicorn: the same pages, each in a thread of the worker."""
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    sent, more = b"", True
    while more:
        message = await receive()
        sent, more = sent + message.get("body", b""), message.get("more_body", False)
    environ = {
        "REQUEST_METHOD": scope["method"],
        "PATH_INFO": scope["path"],
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "CONTENT_LENGTH": len(sent),
        "wsgi.input": io.BytesIO(sent),
    }
    for name, value in scope["headers"]:
        environ["HTTP_" + name.decode("latin-1").upper().replace("-", "_")] = value.decode(
            "latin-1"
        )
    status, body = await asyncio.to_thread(respond, environ)
    headers = [(b"content-type", b"application/json")]
    start = {"type": "http.response.start", "status": int(status[:3]), "headers": headers}
    await send(start)
    await send({"type": "http.response.body", "body": body})


def main() -> None:
    parser = argparse.ArgumentParser(description="A web app; a server runs it, see the top.")
    parser.add_argument("--forget", action="store_true", required=True, help="what workers share")
    parser.parse_args()
    requests.unlink()
    rule.unlink()


if __name__ == "__main__":
    main()
