"""A store on S3: its bucket, its server, its credentials."""

import re
import socket
from urllib.request import Request, urlopen

import pytest
from helpers import HEADER, KEY, PLAN, put, refused_place, s3_url

from study.errors import Away, Damaged
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


def test_a_server_that_is_away_or_mute_is_refused(s3, monkeypatch):
    monkeypatch.setattr("study.store.places.ANSWER_SECONDS", 0.5)
    with socket.socket() as away:
        away.bind(("127.0.0.1", 0))
        assert "refused" in refused_place(s3_url(f"127.0.0.1:{away.getsockname()[1]}", "folder"))
    with socket.create_server(("127.0.0.1", 0)) as mute:
        assert "timed out" in refused_place(s3_url(f"127.0.0.1:{mute.getsockname()[1]}", "folder"))


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
