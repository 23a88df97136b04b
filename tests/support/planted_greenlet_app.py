"""A web app whose requests yield within their block, as one that asks another server does."""

import os
import pickle
import time

from mmapshare import Share

HANDLE = os.environ.get("COUNTS")
counts = pickle.loads(bytes.fromhex(HANDLE)) if HANDLE else Share(0)


def app(environ, start_response):
    with counts.locked() as view:
        number = view.value
        time.sleep(0.001)
        view.value = number + 1
    body = str(number).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
