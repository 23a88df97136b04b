"""`Share.open` by a URL: what is one, what is found there, and what is made."""

import os
import pickle
import shutil
import subprocess
import sys
import threading

import pytest
from support import Child, in_child, inside, redis_server

from mmapshare import (
    HandleError,
    OpenError,
    Share,
    SharedDict,
    ShareExistsError,
    ShareNotFoundError,
    StoreLostError,
    StoreRefusedError,
    list_shares,
)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://host/0/jobs", "begins with none of"),
        ("redis://host/jobs", "names no database"),
        ("redis://host/0", "ends with no name"),
        ("redis://host/0/", "ends with no name"),
        ("redis://host/0/a b", "ends with no name"),
        ("redis://user:word@host/0/" + "x" * 129, "'redis://host/0/xxx"),
        ("unix:///run/redis.sock", "names no database"),
        ("redis:///run/redis.sock/0/jobs", "names no database"),
        ("redis://host/0/jobs?color=red", "an option that redis-py does not know"),
    ],
)
def test_what_is_no_url_of_a_share_is_refused(url, says):
    with pytest.raises(ValueError, match=says) as caught:
        Share.open(url)
    assert ":word" not in str(caught.value)


def test_a_url_takes_a_lease_and_a_secret_and_no_disk(url):
    with pytest.raises(ValueError, match="lease"):
        Share.open(url, lease=0)
    with pytest.raises(TypeError, match="number of seconds"):
        Share.open(url, lease="long")
    with pytest.raises(OpenError, match="durable=True takes a path"):
        Share.open(url, 1, durable=True)
    assert list_shares(url.rpartition("/")[0]) == []
    with pytest.raises(ValueError, match="secret"):
        Share.open("jobs", secret="s")


def test_a_url_leads_to_one_share_over_a_socket_and_over_tcp(url, tcp, server):
    share = Share.open(url, {"done": 0})
    assert Share.open(url) is share
    assert Share.open(tcp) is share
    assert Share.open(f"valkey://localhost:{server.port}/0/jobs") is share
    assert in_child(lambda: Share.open(tcp).update(lambda v: v | {"a": 1})) == {"done": 0, "a": 1}
    assert share.get() == {"done": 0, "a": 1}
    assert repr(share).startswith(f"<Share {share.address!r}: version 2")
    assert share.info().kind == "redis"
    share.close()


def test_databases_are_apart_and_the_name_may_choose_its_slot(server):
    shares = [
        Share.open(f"{server.url[:-1]}{n}/{name}", (n, name))
        for n in (0, 3)
        for name in ("jobs", "{a}jobs", "a:b")
    ]
    assert [share.get() for share in shares] == [
        (n, name) for n in (0, 3) for name in ("jobs", "{a}jobs", "a:b")
    ]
    assert [one.name for one in list_shares(f"{server.url[:-1]}3")] == ["a:b", "jobs", "{a}jobs"]
    assert server.command("EXISTS", "mmapshare:{jobs}") == b":1"
    assert server.command("EXISTS", "mmapshare:{a}jobs") == b":1"


def test_create_says_whether_it_is_new(url):
    with pytest.raises(ShareNotFoundError, match="there is no share unix:"):
        Share.open(url, create=False)
    share = Share.open(url, 1, create=True)
    with pytest.raises(ShareExistsError, match=r"unlink\(\) it first"):
        Share.open(url, 2, create=True)
    assert Share.open(url, 2, create=False).get() == 1
    share.unlink()
    with pytest.raises(ShareNotFoundError, match="unlinked already"):
        share.unlink()
    with pytest.raises(StoreLostError, match="unlinked, flushed or evicted"):
        share.get()
    with pytest.raises(StoreLostError), share.locked():
        pass


def test_what_is_there_is_opened_as_what_it_is(url):
    share = Share.open(url, 1, max_size="1M")
    with pytest.raises(OpenError, match=r"is a Share: open it with Share\.open"):
        SharedDict.open(url)
    with pytest.raises(OpenError, match="has max_size 1,048,576"):
        Share.open(url, max_size="2M")
    assert Share.open(url, max_size="1M") is share


def test_of_many_that_open_at_once_one_makes_it(url, server):
    everybody = threading.Barrier(8)
    found = []

    def open_it(n):
        everybody.wait()
        shared = SharedDict.open(url, {"first": n})
        found.append((shared, shared["first"]))

    for make in (open_it,):
        threads = [threading.Thread(target=make, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len({id(shared) for shared, _ in found}) == 1
    assert len({first for _, first in found}) == 1
    beside = server.url + "/s"
    children = [Child(lambda child: Share.open(beside, os.getpid()).get()) for _ in "abc"]
    assert len({child.result() for child in children}) == 1


def test_an_empty_share_and_an_empty_dict_are_made(server):
    share, shared = Share.open(server.url + "/s"), SharedDict.open(server.url + "/d")
    assert (share.version, shared.version, len(shared)) == (0, 0, 0)
    assert share.set(None) == 1
    assert share.get() is None


def test_what_another_version_has_made_is_refused(url, server):
    Share.open(url, 1).close()
    server.command("HSET", "mmapshare:{jobs}", "fmt", "2")
    with pytest.raises(OpenError, match="format 2; this one knows 1"):
        Share.open(url)
    assert list_shares(server.url) == []
    server.command("HSET", "mmapshare:{jobs}", "fmt", "1", "py", "3.1")
    with pytest.raises(OpenError, match=r"made by Python 3\.1"):
        Share.open(url)
    server.command("HDEL", "mmapshare:{jobs}", "fmt")
    with pytest.raises(OpenError, match="format none"):
        Share.open(url)


def test_what_is_no_share_is_not_listed_and_not_opened(url, server):
    server.command("HSET", "mmapshare:{other}", "fmt", "9")
    server.command("HSET", "mmapshare:odd}", "fmt", "1")
    server.command("SET", "mmapshare:{jobs}", "text")
    assert list_shares(server.url) == []
    with pytest.raises(StoreRefusedError, match="something else than a share has that name"):
        Share.open(url)
    with pytest.raises(ValueError, match="names a share"):
        list_shares(url)


def test_shares_are_listed_with_what_they_are(server):
    assert list_shares(server.url) == []
    share = Share.open(server.url + "/a", 1, max_size="1M")
    shared = SharedDict.open(server.url + "/b", {"x": 1})
    with share.locked():
        first, second = list_shares(server.url)
    assert (first.name, first.kind, first.version) == ("a", "Share", 1)
    assert (first.max_size, first.holder_pid) == (1 << 20, os.getpid())
    assert first.resident_bytes > 50
    assert (second.name, second.kind, second.holder_pid) == ("b", "SharedDict", None)
    assert shared.version == 1


def test_shares_are_listed_from_among_many_keys(server):
    made = [Share.open(f"{server.url}/{name}", 0) for name in "ab"]
    fill = "for n = 1, 5000 do redis.call('HSET', 'mmapshare:other' .. n, 'x', 1) end"
    server.command("EVAL", fill, 0)
    assert [one.name for one in list_shares(server.url)] == ["a", "b"]
    for share in made:
        share.close()


def test_a_copied_dump_is_another_share(url, server, start):
    share = Share.open(url, 1)
    copy = start()
    dump = server.command("DUMP", "mmapshare:{jobs}")
    assert copy.command("RESTORE", "mmapshare:{jobs}", "0", dump) == b"+OK"
    with pytest.raises(OpenError, match="is a copy of"):
        Share.open(copy.url + "/jobs")
    share.close()
    assert Share.open(copy.url + "/jobs").get() == 1


# --- Handles, and what is secret in them ---------------------------------------------------------


def _load(raw):
    return pickle.loads(raw).get()


def test_a_handle_is_the_address_without_what_is_secret(start):
    guarded = start("--requirepass", "let-me-in")
    bare = guarded.url + "/jobs"
    with pytest.raises(StoreRefusedError, match="wants a password"):
        Share.open(bare, 1)
    with pytest.raises(StoreRefusedError, match="no such user and password"):
        Share.open(bare.replace("//", "//:wrong@"))
    share = Share.open(bare.replace("//", "//:let-me-in@"), 1)
    assert "let-me-in" not in repr(share) + str(share.address) + repr(share.info())
    raw = pickle.dumps(share)
    assert b"let-me-in" not in raw
    assert pickle.loads(raw) is share

    def loaded(child):
        inside.open_here.clear()
        return _load(raw)

    assert Child(loaded).result() == 1  # It was told the password with all else.
    program = f"import pickle; print(pickle.loads({raw!r}).get())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "StoreRefusedError" in done.stderr
    known = f"from mmapshare import *; Share.open({bare.replace('//', '//:let-me-in@')!r})\n"
    done = subprocess.run([sys.executable, "-c", known + program], capture_output=True, text=True)
    assert done.stdout == "1\n", done.stderr


def test_a_spawned_child_is_told_the_password_and_the_secret(start):
    import multiprocessing

    guarded = start("--requirepass", "let-me-in")
    share = Share.open(guarded.url.replace("//", "//:let-me-in@") + "/jobs", 1, secret="s")
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_add, args=(share,))
    process.start()
    process.join()
    assert (process.exitcode, share.get()) == (0, 2)


def _add(share):
    share.update(lambda n: n + 1)


def test_an_unlinked_shares_handle_leads_nowhere(url):
    share = Share.open(url, 1)
    raw = pickle.dumps(share)
    share.unlink()
    share.close()
    with pytest.raises(HandleError, match="the name unix:"):
        _load(raw)
    again = Share.open(url, 2)
    again.close()
    with pytest.raises(HandleError, match="another region is in its place"):
        _load(raw)


def test_a_user_of_the_servers_acl_needs_no_more_than_is_said(start):
    server = start()
    rights = "~mmapshare:* &mmapshare:* +@hash +@sortedset +@list +@scripting +@pubsub +exists"
    more = "+unlink +pexpire +time +client|id +client|kill +client|list +memory|usage"
    server.command("ACL", "SETUSER", "ann", "on", ">pw", *rights.split(), *more.split())
    url = server.url.replace("//", "//ann:pw@")
    share, shared = Share.open(url + "/jobs", {"n": 0}), SharedDict.open(url + "/dict", {"a": 1})
    with share.locked() as view:
        view["n"] += 1
    shared["b"] = shared.pop("a")
    assert (share.get(), shared) == ({"n": 1}, {"b": 1})
    assert share.wait(timeout=0.01) is False
    assert share.info().holder_pid is None
    server.command("ACL", "SETUSER", "ann", "-@scripting")
    with pytest.raises(StoreRefusedError, match="ACL does not let this user"):
        share.set(2)


# --- Networks --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "beside_us"),
    [("localhost", True), ("127.0.0.1", True), ("[::1]", True), ("10.0.0.7", False), ("h", False)],
)
def test_what_leaves_this_machine_is_told_by_the_host(host, beside_us):
    assert inside.server_of(f"redis://{host}:6379/0").is_beside_us() is beside_us


def test_another_machine_without_a_secret_warns_once(start):
    url = f"redis://0.0.0.0:{start().port}/0"  # As good as any that is not said to be this one.
    Share.open(url + "/signed", 1, secret="s").close()
    with pytest.warns(RuntimeWarning, match="can have this process run any code"):
        Share.open(url + "/a", 1)
    Share.open(url + "/b", 1)  # Once is enough: else this would be an error.


def test_tls_goes_by_redis_pys_options(start, tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here")
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert,
         "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"],
        check=True, capture_output=True,
    )  # fmt: skip
    port = redis_server.free_port()
    start(
        "--tls-port", str(port), "--tls-cert-file", str(cert), "--tls-key-file", str(key),
        "--tls-ca-cert-file", str(cert), "--tls-auth-clients", "no",
    )  # fmt: skip
    url = f"rediss://localhost:{port}/0/jobs?ssl_ca_certs={cert}"
    share = Share.open(url, {"n": 0})
    with share.locked() as view:
        view["n"] += 1
    assert in_child(share.get) == {"n": 1}
    assert share.wait(timeout=0.01) is False
    threading.Timer(0.05, share.set, ({"n": 2},)).start()
    assert share.wait(lambda value: value["n"] == 2, timeout=10)
    share.close()


def test_importing_the_package_imports_no_client_and_without_one_it_says_what_to_install(url):
    program = (
        "import sys; import mmapshare; from mmapshare import *; "
        "assert not {'redis', 'hmac'} & sys.modules.keys(); "
        "Share.open('doctest-lean', 1).unlink(); assert 'redis' not in sys.modules; "
        "sys.modules['redis'] = None\n"
        f"try: Share.open({url!r})\n"
        "except OpenError as err: print(err)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "pip install 'mmapshare[redis]'" in done.stdout, done.stderr
