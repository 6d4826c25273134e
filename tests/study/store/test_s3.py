"""A store on S3: its bucket, its server, its credentials."""

import os
import re
import select
import socket
import socketserver
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.request import Request, urlopen

import pytest
from helpers import HEADER, KEY, PLAN, put, quick, refused_place, s3_url

from study.errors import Away, Damaged
from study.execution.job import Job
from study.planning.stored import Resources
from study.store import s3 as buckets
from study.store.states import Store


def test_an_upload_that_is_refused_leaves_what_was_there(s3):
    store = Store(s3_url(s3, "refused"))
    store.write_record(PLAN, {"run": "old"})
    with credentials_required(s3), pytest.raises(Away, match="AWS Error"):
        store.write_record(PLAN, {"run": "new"})
    assert store.read_record(PLAN) == {"run": "old"}


def test_a_bucket_holds_no_markers_and_nothing_is_made_by_reading(s3):
    address = f"http://{s3}/bucket?list-type=2&prefix=marks"
    for create in (False, True):
        assert Store(s3_url(s3, "marks/below/"), create=create).keys() == set()
    store = Store(s3_url(s3, "marks/below"))
    with urlopen(address, timeout=10) as listing:
        assert b"<Key>" not in listing.read()
    store.save(KEY, HEADER, b"tensors")
    store.write_record(PLAN, {"run": "r"})
    with urlopen(address, timeout=10) as listing:
        assert sorted(re.findall(rb"<Key>(.*?)</Key>", listing.read())) == [
            b"marks/below/runs/r/plan.json",
            b"marks/below/states/ab/ab12",
        ]


class credentials_required:  # noqa: N801
    """The server asks for credentials, of which it knows none."""

    def __init__(self, address):
        self.url = f"http://{address}/moto-api/reset-auth"

    def __enter__(self):
        self.after(b"0")

    def __exit__(self, *_):
        self.after(b"inf")

    def after(self, requests):
        urlopen(Request(self.url, requests, {"Content-Type": "text/plain"}), timeout=10).close()


@pytest.mark.parametrize("create", [True, False])
def test_a_bucket_that_cannot_be_used_is_refused(s3, create):
    assert "does not exist" in refused_place(s3_url(s3, "folder", bucket="no-such-bucket"), create)
    with credentials_required(s3):
        assert "Access Key" in refused_place(s3_url(s3, "folder"), create)


def test_a_server_that_is_away_or_mute_is_refused_within_five_seconds(refusing, listening):
    for address, reason in (
        (refusing, "Could not connect"),
        (listening, "Operation too slow"),
        ("s3.invalid", "resolve"),
    ):
        with quick(5):
            said = refused_place(s3_url(address, "folder"))
        assert "Reason: its endpoint does not answer (" in said
        assert reason in said


@pytest.fixture
def variables(monkeypatch):
    """Sets AWS's variables, which are then the only ones."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")

    def give(**given):
        for name, value in given.items():
            monkeypatch.setenv(f"AWS_{name}", value)

    return give


KEYS = {"ACCESS_KEY_ID": "key", "SECRET_ACCESS_KEY": "hunter2"}


@pytest.mark.parametrize("name", ["ENDPOINT_URL", "ENDPOINT_URL_S3"])
def test_an_endpoint_of_one_s_own_is_named_by_aws_s_variables(s3, variables, refusing, name):
    variables(ENDPOINT_URL=f"http://{refusing}", **KEYS)
    variables(**{name: f"http://{s3}/"})
    store = Store(f"s3://bucket/{name}")
    assert store.save(KEY, HEADER, b"tensors")
    assert Store(s3_url(s3, name)).keys() == {KEY}


def test_the_url_goes_before_the_variables(s3, variables, refusing):
    variables(ENDPOINT_URL=f"https://{refusing}", REGION="eu-test-9", **KEYS)
    assert Store(s3_url(s3, "by-url")).keys() == set()


def test_keys_and_a_region_are_read_from_the_files_of_a_profile(variables, tmp_path):
    (tmp_path / "config").write_text("[profile lab]\nregion = lab-1\n")
    (tmp_path / "credentials").write_text("[lab]\naws_access_key_id = LABKEY\naws_secret_access_key = hunter2\n")
    variables(CONFIG_FILE=str(tmp_path / "config"), SHARED_CREDENTIALS_FILE=str(tmp_path / "credentials"))
    program = "from study.store.states import Store; Store('s3://bucket/folder')"  # the client reads the files once
    with answering(403) as (address, asked):
        variables(PROFILE="lab", ENDPOINT_URL=f"http://{address}")
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "refuses the credentials" in done.stderr
    assert "Credential=LABKEY/" in asked[0]
    assert "/lab-1/s3/" in asked[0]


@contextmanager
def answering(status, **headers):
    """The address of a server with one answer, and the ``Authorization`` of its requests."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.headers["Authorization"] or "")
            self.send_response(status)
            for name, value in {"Content-Length": "0", **headers}.items():
                self.send_header(name, value)
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"127.0.0.1:{server.server_port}", asked
        server.shutdown()


def test_on_aws_the_region_is_that_of_the_bucket(s3, variables, monkeypatch, refusing):
    variables(**KEYS)
    monkeypatch.setattr(buckets, "AWS", f"http://{s3}")
    assert buckets._region("bucket") == "us-east-1"
    assert "does not exist on AWS" in refused_place("s3://no-such-bucket/folder")
    with answering(301, **{"x-amz-bucket-region": "eu-central-1"}) as (address, asked):
        monkeypatch.setattr(buckets, "AWS", f"http://{address}")
        client, path = buckets.connect("s3://bucket/folder/below/")
        assert (client.region, path) == ("eu-central-1", "bucket/folder/below")
    assert asked == [""]
    monkeypatch.setattr(buckets, "AWS", f"http://{refusing}")
    with quick(5):
        said = refused_place("s3://bucket/folder")
    assert "AWS does not say the region of the bucket" in said
    assert "set AWS_ENDPOINT_URL" in said
    variables(REGION="eu-west-1")
    assert buckets.connect("s3://bucket/folder")[0].region == "eu-west-1"


def test_a_bucket_in_another_region_is_refused_by_its_region():
    with answering(301) as (address, _):
        assert "Reason: its bucket is in another region, which AWS_REGION" in refused_place(s3_url(address, "folder"))


def test_a_machine_without_keys_that_is_none_of_aws_s_is_refused_within_five_seconds(s3, variables, monkeypatch):
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    with socket.socket() as full:  # connections to it time out, as those to an address that nobody has
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(full.getsockname())
        variables(EC2_METADATA_SERVICE_ENDPOINT=f"http://127.0.0.1:{full.getsockname()[1]}")
        with credentials_required(s3), quick(5):
            refused_place(s3_url(s3, "folder"))
        for each in waiting:
            each.close()
    assert os.environ["AWS_EC2_METADATA_DISABLED"] == "true"


def test_keys_that_the_server_does_not_know_are_refused_by_name(s3):
    with credentials_required(s3):
        said = refused_place(s3_url(s3, "folder"))
    assert "its endpoint refuses the credentials, which come from the URL, AWS_ACCESS_KEY_ID" in said
    assert "hunter2" not in said


@pytest.fixture
def proxy(s3):
    """The address of a proxy of the S3 server, and what makes it refuse connections for some seconds."""
    refuse_until = [0.0]
    host, port = s3.split(":")

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            if time.monotonic() < refuse_until[0]:
                return
            with socket.create_connection((host, int(port))) as server:
                pipes = {self.request: server, server: self.request}
                while ready := select.select([*pipes], [], [], 5)[0]:
                    for each in ready:
                        data = each.recv(1 << 16)
                        if not data:
                            return
                        pipes[each].sendall(data)

    def away(seconds):
        refuse_until[0] = time.monotonic() + seconds

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}", away
        server.shutdown()


@pytest.mark.slow
def test_a_server_that_is_away_for_a_while_is_waited_for(proxy):
    address, away = proxy
    store = Store(s3_url(address, "outage"))
    for call in (
        lambda: store.save(KEY, HEADER, b"tensors"),
        lambda: store.load(KEY)[1] == b"tensors",
        lambda: store.write_record(PLAN, {"run": "new"}) is None,
        lambda: store.read_record(PLAN) == {"run": "new"},
        lambda: store.keys() == {KEY},
        lambda: Store(store.url, wait=True).keys() == {KEY},
    ):
        away(6)
        assert call()
    away(30)
    with quick(5):
        refused_place(store.url)
    with quick(15), pytest.raises(Away):
        store.impatient().read_record(PLAN)
    store.patience = 3.0
    with quick(15), pytest.raises(Away, match="NETWORK_CONNECTION"):
        store.keys()


def test_the_variables_of_a_driver_replace_those_of_a_worker_s_machine(variables):
    variables(ENDPOINT_URL="http://driver", REGION="here", CA_BUNDLE="/driver", **KEYS)
    given = buckets.variables()
    assert given == {
        "AWS_ENDPOINT_URL": "http://driver",
        "AWS_REGION": "here",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "hunter2",
    }
    assert "hunter2" not in repr(Job("run", "s3://me:hunter2@bucket", Resources(), 1, given))
    variables(ACCESS_KEY_ID="other", SECRET_ACCESS_KEY="other", SESSION_TOKEN="other", PROFILE="kept")
    buckets.set_variables(given)
    assert buckets.variables() == {**given, "AWS_PROFILE": "kept"}
    buckets.set_variables({})
    assert buckets.variables() == {**given, "AWS_PROFILE": "kept"}


@pytest.mark.parametrize(
    "url",
    [
        "s3://me:hunter2@no-such-bucket/folder{}",
        "s3://me:hunter2%2Fhunter2@bucket/folder{}&nonsense=1",
        "s3://me:hunter2/hunter2@bucket/folder{}",
        "s3://bucket/folder{}&secret_key=hunter2",
        "s3://me:hunter2@",
        "nonsense://me:hunter2@host/folder",
    ],
)
def test_a_password_is_never_shown(s3, url):
    query = f"?endpoint_override={s3}&scheme=http&region=us-east-1"
    for create in (True, False):
        said = refused_place(url.format(query), create)
        assert "hunter2" not in said
        assert "***" in said


def test_a_password_is_kept_for_workers_and_in_no_message(s3):
    store = Store(s3_url(s3, "secret").replace("s3://", "s3://me:hunter2@"))
    assert store.shown == s3_url(s3, "secret").replace("s3://", "s3://me:***@")
    put(store, PLAN, b"torn")
    with pytest.raises(Damaged) as noticed:
        Store(store.url, create=False).read_record(PLAN)
    assert str(noticed.value) == f"{store.shown}/{PLAN} is not the record that was written"
