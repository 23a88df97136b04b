"""gunicorn's settings in the tests: a worker says when it serves, and heeds signals."""

import os
import pickle

ready = pickle.loads(bytes.fromhex(os.environ["READY"]))


def post_worker_init(worker):
    ready.update(int.__add__, 1)
