"""Which URLs MLflow and Optuna can use; no server is asked."""

import os
import sqlite3
import subprocess
import sys

import pytest
from helpers import refused_option

from study import services
from study.services import check_apart, check_storage, check_tracking


@pytest.mark.parametrize(
    "uri",
    [
        "http://host",
        "https://host:5000/path",
        "HTTP://host",
        "http://[::1]:5000",
        "http://me:secret@host",
        "databricks",
        "databricks://profile",
        "sqlite:///mlflow.db",
        "sqlite:///a b.db",
        "sqlite+pysqlite:///mlflow.db",
    ],
)
def test_what_mlflow_can_use_is_taken(uri, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_tracking("--tracking-uri", uri)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("scheme", "module", "command"),
    [
        ("postgresql+psycopg", "psycopg", """'pip install "longtail-study[postgres]"'"""),
        ("postgresql+psycopg2", "psycopg2", "'pip install psycopg2-binary'"),
        ("mysql", "MySQLdb", "'pip install mysqlclient'"),
        ("mysql+pymysql", "pymysql", "'pip install pymysql'"),
    ],
)
@pytest.mark.parametrize("check", [check_tracking, check_storage])
def test_a_driver_that_is_not_installed_is_named_with_the_command(check, scheme, module, command, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    said = refused_option(check, "--option", f"{scheme}://me:secret@host/x")
    assert said == f"--option: the driver of '{scheme}://me:***@host/x' is not installed. {command} installs it"


@pytest.mark.parametrize("uri", ["", "mlruns", "./mlruns", "/folder/mlruns", "file:///mlruns", "file:mlruns"])
def test_plain_files_are_refused_with_what_would_do(uri):
    assert "sqlite:///" in refused_option(check_tracking, "--tracking-uri", uri)


@pytest.mark.parametrize(
    "uri",
    [
        "localhost:5000",
        "ftp://host",
        "postgres://me:secret@host/x",
        "s3://key:secret@bucket",
        "redis://host",
        "uc",
        "http://",
        "http:///path",
        "http://host:port",
        "http://host:99999",
        "http:host",
        "http://[::1",
        "http://a b",
        "sqlite",
        "sqlite:",
        "sqlite:mlflow.db",
        "sqlite:/mlflow.db",
        "sqlite://mlflow.db",
        "sqlite://folder/mlflow.db",
        "sqlite+no_such_driver:///x.db",
        "mssql+no_such_driver://me:secret@host/x",
        "postgresql+asyncpg://host/x",
        "postgresql://me:p@host:secret@x/db",
        "postgresql+psycopg2+x://host/x",
    ],
)
def test_what_mlflow_cannot_use_is_refused(uri, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused_option(check_tracking, "--tracking-uri", uri)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url",
    [
        "",
        "optuna.db",
        "optuna.log",
        "journal.log",
        "file:///optuna.db",
        "redis://host:6379",
        "rediss://host/0",
        "http://host",
        "grpc://host:13000",
        "sqlite//x",
        "oracle://me:secret@host/x",
        "mssql://me:secret@host/x",
        "postgresql+no_such_driver://me:secret@host/x",
        "postgresql://me:p@host:secret@x/db",
        "sqlite:///{x}.db",
        "sqlite:///{}.db",
        "sqlite:///{.db",
        "sqlite:///{SCHEMA_VERSION.x}.db",
        "sqlite:///a}b.db",
    ],
)
def test_what_optuna_cannot_use_is_refused(url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused_option(check_storage, "--storage", url)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["sqlite:///optuna.db", "sqlite+pysqlite:///optuna.db", "sqlite:///a{{b}}.db"])
def test_what_optuna_can_use_is_taken(url, tmp_path, monkeypatch):
    from study.search.studies import open_storage

    monkeypatch.chdir(tmp_path)
    check_storage("--storage", url)
    assert list(tmp_path.iterdir()) == []
    storage = open_storage(url)
    storage.remove_session()
    assert len(list(tmp_path.iterdir())) == 1


CHECKS = pytest.mark.parametrize("check", [check_tracking, check_storage])


@CHECKS
@pytest.mark.parametrize(
    "url", ["sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite:///file::memory:?uri=true", "sqlite+pysqlite://"]
)
def test_a_database_in_memory_is_refused(check, url):
    assert "Other processes could not see a database in memory" in refused_option(check, "--storage", url)


@CHECKS
def test_a_database_s_folder_must_be_there_or_be_made(check, tmp_path):
    url = f"sqlite:///{tmp_path / 'home' / 'x.db'}"
    assert f"no folder {tmp_path / 'home'}" in refused_option(check, "--storage", url)
    check("--storage", url, tmp_path / "home")
    refused_option(check, "--storage", url, tmp_path / "other")
    (tmp_path / "home").mkdir()
    check("--storage", url)
    assert list((tmp_path / "home").iterdir()) == []


@CHECKS
def test_what_lies_where_the_database_should_must_be_one(check, tmp_path):
    path = tmp_path / "x.db"
    url = f"sqlite:///{path}"
    path.mkdir()
    assert "not a file" in refused_option(check, "--storage", url)
    path.rmdir()
    os.mkfifo(path)  # which nobody writes: reading it would last for ever
    assert "not a file" in refused_option(check, "--storage", url)
    path.unlink()
    path.write_text("SQLite format 4, which is none")
    assert "no SQLite database" in refused_option(check, "--storage", url)
    path.write_text("SQL")
    assert "no SQLite database" in refused_option(check, "--storage", url)
    path.write_text("")
    check("--storage", url)
    with sqlite3.connect(path) as database:
        database.execute("create table anything (name)")
    database.close()
    check("--storage", url)
    assert f"no folder {path / 'in'}" in refused_option(check, "--storage", f"sqlite:///{path / 'in' / 'x.db'}")


@CHECKS
def test_a_path_longer_than_sqlite_s_is_refused(check, tmp_path):
    folder = tmp_path / ("d" * 200) / ("d" * 200)
    folder.mkdir(parents=True)
    for length in (services._LONGEST, services._LONGEST + 1):
        path = folder / ("x" * (length - len(str(folder)) - 1))
        if length == services._LONGEST:
            check("--storage", f"sqlite:///{path}")
        else:
            assert "bytes" in refused_option(check, "--storage", f"sqlite:///{path}")
    assert "bytes" in refused_option(check, "--storage", f"sqlite:////{'x' * 5000}")


@CHECKS
@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_a_folder_that_cannot_be_written_is_refused(check, tmp_path):
    tmp_path.chmod(0o555)
    assert "cannot be written" in refused_option(check, "--storage", f"sqlite:///{tmp_path / 'x.db'}")


def test_mlflow_and_optuna_need_databases_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for storage, tracking in [
        ("sqlite:///x.db", "sqlite:///x.db"),
        ("sqlite:///x.db", f"sqlite+pysqlite:///{tmp_path}/x.db?timeout=9"),
        ("postgresql://me:secret@host/x", "postgresql+psycopg2://you@host:5432/x"),
    ]:
        refused_option(check_apart, "--storage", storage, tracking)
    check_apart("--storage", "sqlite:///x.db", "sqlite:///y.db")
    check_apart("--storage", "postgresql://host/x", "postgresql://host/y")
    check_apart("--storage", "sqlite:///x.db", "http://host:port")
    check_apart("--storage", "sqlite:///x.db", "databricks")


def test_the_checks_import_nothing_heavy():
    program = (
        "import sys; from study import services\n"
        "services.check_tracking('--tracking-uri', 'sqlite:///mlflow.db')\n"
        "services.check_storage('--storage', 'sqlite:///optuna.db')\n"
        "print(sorted({'torch', 'ray', 'mlflow', 'optuna', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
