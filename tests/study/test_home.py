"""Where everything lies: what is refused, and what is left behind."""

import os
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from study.errors import Refusal
from study.home import Home
from study.store.states import Store


def refused(function, *arguments):
    """What is said of --home, in one line."""
    with pytest.raises(Refusal) as refusal:
        function(*arguments)
    assert refusal.value.field == "--home"
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


def everything(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize(
    "path",
    [
        "",
        "home\0",
        "x" * 256,
        "a/" + "x" * 256,
        "a/" * 3000,
        "FILE",
        "FILE/home",
        "FILE/a/b",
        "~no_such_user_anywhere/home",
        "\ud800",
        "a?b",
        "100%",
        "{home}",
        "s3://bucket/home",
    ],
)
def test_a_path_that_no_folder_can_have_is_refused_and_nothing_made(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").touch()
    refused(lambda: Home(path, None).make())
    assert everything(tmp_path) == ["FILE"]


def test_a_home_on_a_server_is_refused_without_its_password():
    with pytest.raises(Refusal) as told:
        Home("s3://key:hunter2@bucket/home", None)
    assert str(told.value).startswith("--home must be a folder (got 's3://key:***@bucket/home'). States may be on a")


def test_a_home_in_a_folder_that_cannot_be_made_leaves_no_parents(tmp_path):
    home = Home(str(tmp_path / "a" / "b" / "home"), "nowhere://x/y")
    with pytest.raises(Refusal):
        home.make()
    assert everything(tmp_path) == []
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "mine").touch()
    with pytest.raises(Refusal):
        home.make()
    assert everything(tmp_path) == ["a", "a/mine"]


def test_half_a_path_is_not_left_behind(tmp_path):
    home = Home(str(tmp_path / "home"), None)
    home.path = tmp_path / "a" / ("x" * 255) / ("y" * 255)
    home.path /= "z" * 256  # as if the file system had become another one
    refused(home.make)
    home.path = tmp_path / "a" / ("\ud800")
    refused(home.make)
    assert everything(tmp_path) == []


def test_a_home_is_made_with_its_store_and_made_again(tmp_path):
    home = Home(str(tmp_path / "a" / "home"), None)
    assert isinstance(home.make(), Store)
    assert isinstance(home.make(), Store)
    assert "a/home/store" in everything(tmp_path)


def test_a_home_that_a_verb_reads_is_not_made(tmp_path):
    for store in (
        None,
        str(tmp_path / "store"),
        f"file://{tmp_path}/store",
        "x" * 5000,
        "~no_such_user_anywhere",
        f"{tmp_path}/{'x' * 300}",
    ):
        home = Home(str(tmp_path / "home"), store)
        with pytest.raises(Refusal) as refusal:
            home.existing_store()
        assert refusal.value.field == ("--home" if store is None else "--store")
        assert "\n" not in str(refusal.value)
    with pytest.raises(Refusal) as refusal:
        Home(str(tmp_path / "home"), None).existing_store("mine")
    assert str(refusal.value) == (
        f"run 'mine' does not exist: {tmp_path}/home has no runs yet. 'study run SPACE' makes one"
    )
    assert everything(tmp_path) == []


def test_the_next_command_can_be_copied(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Home("studies", None).options() == ""
    assert Home("./studies", str(tmp_path / "studies" / "store")).options() == ""
    assert Home("other", None).options() == f" --home {tmp_path}/other"
    for path, store in (("my home; rm x", None), ("studies", "a b"), ("it's", "s3://b/x?a=1&region=eu")):
        words = shlex.split(Home(path, store).options())
        named = dict(zip(words[::2], words[1::2], strict=True))
        assert Path(named.get("--home", "studies")).name == Path(path).name
        assert named.get("--store") == store


def test_the_next_command_has_no_secret():
    options = Home("studies", "s3://KEY:SECRET@bucket/x?session_token=SECRET&region=eu").options()
    assert options == ' --store "s3://KEY:***@bucket/x?session_token=***&region=eu"'


@pytest.fixture
def silent():
    """A server that accepts and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_services_are_refused_before_anything_is_written(tmp_path, monkeypatch, silent):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    home = Home("home", None)
    home.check_services("", "")
    for tracking, storage, field in (
        ("mlruns", "", "--tracking-uri"),
        (silent, "", "--tracking-uri"),
        ("", "journal.log", "--storage"),
        ("", "sqlite:///absent/optuna.db", "--storage"),
        ("", "postgresql://me:secret@127.0.0.1:9/x", "--storage"),
        ("sqlite:///x.db", "sqlite:///x.db", "--storage"),
        ("", f"sqlite:///{home.path / 'mlflow.db'}", "--storage"),
        (silent, "sqlite://", "--storage"),
    ):
        begin = time.monotonic()
        with pytest.raises(Refusal) as refusal:
            home.check_services(tracking, storage)
        assert time.monotonic() - begin < 3
        assert refusal.value.field == field
        assert "secret" not in str(refusal.value)
    assert everything(tmp_path) == []


def test_mlflow_may_be_away_but_not_malformed(tmp_path, silent):
    home = Home(str(tmp_path / "home"), None)
    home.check_services(silent, "", may_be_away=True)
    with pytest.raises(Refusal, match="timed out"):
        home.check_services(silent, "")
    with pytest.raises(Refusal):
        home.check_services("mlruns", "", may_be_away=True)


def test_a_refused_uri_of_the_environment_is_called_by_its_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "./mlruns")
    home = Home(str(tmp_path / "home"), None)
    with pytest.raises(Refusal, match=r"^MLFLOW_TRACKING_URI must be .* \(got '\./mlruns'\)"):
        home.check_services(*home.chosen(None, None))
    with pytest.raises(Refusal, match=r"^--tracking-uri must be .* \(got 'mlruns'\)"):
        home.check_services(*home.chosen("mlruns", None))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    tmp_path.chmod(0o555)
    refused(Home(str(tmp_path), None).make)
    assert everything(tmp_path) == []


def test_a_store_that_is_not_made_yet_is_none_and_one_that_cannot_be_reached_is_refused(tmp_path):
    assert Home(str(tmp_path), None).store_if_any() is None
    assert Home(str(tmp_path), (tmp_path / "later").as_uri()).store_if_any() is None
    assert Home(str(tmp_path), None).make().keys() == Home(str(tmp_path), None).store_if_any().keys() == set()
    with pytest.raises(Refusal, match="--store"):
        Home(str(tmp_path), "s3://bucket/x?endpoint_override=127.0.0.1:9&scheme=http").store_if_any()


def test_a_store_that_was_opened_for_reading_is_refused_where_it_cannot_be_written(tmp_path, monkeypatch):
    store = Home(str(tmp_path), None).make()
    store.require_writable()
    monkeypatch.setattr("os.access", lambda _path, mode: not mode & 2)
    with pytest.raises(Refusal, match=r"--store must be a directory or URL that can be written \(got .*\)\. Reason: "):
        store.require_writable()


@pytest.mark.parametrize("store", ["/dev/null/store", "~no-such-user/store"])
def test_a_dry_run_refuses_a_store_whose_folder_cannot_be_made(store, tmp_path):
    Home(str(tmp_path), str(tmp_path / "elsewhere/store")).check_writable()
    with pytest.raises(Refusal, match="--store must be a writable folder"):
        Home(str(tmp_path), store).check_writable()
    assert everything(tmp_path) == []


HOMELESS = """
import os
del os.environ["HOME"]
os.getuid = lambda: 2**31 - 2  # without an entry in passwd
import study.tracking.runs
print(os.path.expanduser("~"))
"""


def test_a_user_without_home_and_entry_in_passwd_can_use_mlflow() -> None:
    done = subprocess.run([sys.executable, "-c", HOMELESS], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "/\n"), done.stderr
