import datetime
import ipaddress
import os
import socket
import sqlite3
import ssl
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from study import services
from study.errors import Refusal
from study.execution.address import check_address
from study.masking import without_password
from study.services import check_apart, check_storage, check_tracking, reachable, require


@pytest.fixture
def listening():
    """The address of a server that is there, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def refusing():
    """An address at which nobody listens: bound, so that nobody will."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


@contextmanager
def http_server(status=200, certificate=None, headers=()):
    """An HTTP server's address, and the requests that it gets."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.path, dict(self.headers)))
            self.send_response(status)
            for name, value in headers:
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"127.0.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join()


@contextmanager
def talking(*pieces, pause=0.0):
    """The address of a server that says the pieces, whatever it is asked, and no more."""
    end = threading.Event()

    def talk():
        connection, _ = server.accept()
        with connection:
            for piece in pieces:
                try:
                    connection.sendall(piece)
                except OSError:
                    return
                if end.wait(pause):
                    return

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=talk)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        end.set()
        thread.join()


@contextmanager
def quick(seconds=3.0):
    begin = time.monotonic()
    yield
    assert time.monotonic() - begin < seconds


@pytest.fixture
def impatient(monkeypatch):
    """The same limits, ten times as short."""
    monkeypatch.setattr(services, "SECONDS", services.SECONDS / 10)
    monkeypatch.setattr(services, "TOTAL", services.TOTAL / 10)


def refusal(check, option, *arguments):
    """What a check says, in one line that has the option and no secret."""
    with quick(), pytest.raises(Refusal) as refused:
        check(option, *arguments)
    message = str(refused.value)
    assert refused.value.field == option
    assert "secret" not in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize("status", [200, 302, 401, 403, 404, 500, 503])
@pytest.mark.parametrize("path", ["", "/", "/path", "/path/"])
def test_a_server_that_answers_over_http_is_there(status, path):
    with http_server(status, headers=[("Location", "http://127.0.0.1:9/")]) as (address, asked):
        assert reachable(f"http://{address}{path}") == ""
    assert [where for where, _ in asked] == [path.rstrip("/") + "/health"]


def test_the_probe_sends_no_credentials_and_uses_no_proxy_here(monkeypatch, refusing):
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "secret-token")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret-word")
    monkeypatch.setenv("http_proxy", f"http://{refusing}")
    with http_server() as (address, asked):
        require(("--tracking-uri", f"http://me:secret@{address}"))
    assert len(asked) == 1
    assert "Authorization" not in asked[0][1]
    assert "secret" not in str(asked)


def test_another_host_is_asked_through_the_proxy(monkeypatch):
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with http_server() as (address, asked):
        monkeypatch.setenv("http_proxy", f"http://{address}")
        assert reachable("http://mlflow.invalid:5000") == ""
    assert [where for where, _ in asked] == ["http://mlflow.invalid:5000/health"]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate that nobody else has signed, with its key."""
    x509 = pytest.importorskip("cryptography.x509")  # MLflow brings it along
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("certificate") / "both.pem"
    plain = serialization.NoEncryption()
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    path.write_bytes(key.private_bytes(pem, form, plain) + signed.public_bytes(pem))
    return path


def test_a_certificate_that_nobody_else_signed_does_not_make_a_server_away(certificate):
    with http_server(certificate=certificate) as (address, asked):
        assert reachable(f"https://{address}") == ""
    assert len(asked) == 1


def test_a_server_without_tls_is_away_over_https():
    with http_server() as (address, _):
        assert "SSL" in reachable(f"https://{address}")


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_server_that_accepts_and_says_nothing_is_away(listening, scheme):
    message = refusal(lambda option, url: require((option, url)), "--tracking-uri", f"{scheme}://{listening}")
    assert "timed out" in message


def test_a_server_that_speaks_something_else_is_away():
    with quick(), talking(b"SSH-2.0-OpenSSH_9.6\r\n") as address:
        assert reachable(f"http://{address}") == "it does not speak HTTP"


def test_a_server_that_dribbles_is_away_in_time(impatient):
    with quick(0.4), talking(*[b"HTTP/1.1 "] * 20, pause=0.05) as address:
        assert "no answer" in reachable(f"http://{address}")


def test_a_name_that_is_not_looked_up_in_time_is_away(monkeypatch, impatient):
    end = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: end.wait(30) and [])
    for url in ("http://mlflow.invalid:5000", "postgresql+psycopg2://db.invalid/optuna"):
        with quick(0.6):
            assert "no answer" in reachable(url)
    with quick(0.6), pytest.raises(Refusal, match="no answer"):
        check_address("ray.invalid:6379")
    end.set()


def test_two_servers_that_say_nothing_take_the_time_of_one(listening, impatient):
    with quick(0.4), pytest.raises(Refusal, match=r"^one = "):
        require(("one", f"http://{listening}/1"), ("two", f"http://{listening}/2"))
    with http_server() as (address, _), pytest.raises(Refusal, match=r"^two = "):
        require(("one", f"http://{address}"), ("two", f"http://{listening}"))


@pytest.mark.parametrize("url", ["postgresql+psycopg2://me:secret@{}/optuna", "mysql://{}/optuna"])
def test_a_database_s_server_that_listens_is_there(listening, url):
    assert reachable(url.format(listening)) == ""
    require(("--storage", url.format(listening)))


@pytest.mark.parametrize(
    "url",
    [
        "http://{}",
        "http://me:secret@{}",
        "mysql+pymysql://me:secret@{}/optuna",
        "postgresql://me:secret@{}/optuna",
        "postgresql://me:se/secret@{}/optuna",
    ],
)
def test_a_server_that_does_not_listen_is_refused_in_one_line_without_its_password(refusing, url):
    assert "refused" in reachable(url.format(refusing)).lower()
    assert refusing in refusal(lambda option, given: require((option, given)), "--tracking", url.format(refusing))


@pytest.mark.parametrize("url", ["http://127.0.0.1:http", "http://127.0.0.1:70000", "http://me:secret/x@host/"])
def test_a_port_that_is_none_is_refused(url):
    reason = reachable(url)
    assert "port" in reason
    assert "secret" not in reason


@pytest.mark.parametrize(
    "url",
    [
        "",
        "optuna.db",
        "sqlite:///optuna.db",
        "sqlite:////folder/optuna.db",
        "/folder/mlruns",
        "file:///mlruns",
        "databricks",
        "databricks://profile",
        "postgresql:///optuna",
        "postgresql://me@/optuna?host=/run/postgresql",
        "sqlite:////folder/me:key@home/optuna.db",
        "/folder/key=1/optuna.db",
    ],
)
def test_a_file_or_a_local_socket_names_no_server(url):
    assert reachable(url) == ""
    assert without_password(url) == url


# What MLflow and Optuna can use.


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


def test_a_driver_that_is_not_installed_is_named():
    for check, option in ((check_tracking, "--tracking-uri"), (check_storage, "--storage")):
        said = refusal(check, option, "postgresql+asyncpg://me:secret@host/x")
        assert "with the Python module asyncpg it would do" in said


@pytest.mark.parametrize("uri", ["", "mlruns", "./mlruns", "/folder/mlruns", "file:///mlruns", "file:mlruns"])
def test_plain_files_are_refused_with_what_would_do(uri):
    assert "sqlite:///" in refusal(check_tracking, "--tracking-uri", uri)


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
    refusal(check_tracking, "--tracking-uri", uri)
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
    refusal(check_storage, "--storage", url)
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
    assert "another process" in refusal(check, "--storage", url)


@CHECKS
def test_a_database_s_folder_must_be_there_or_be_made(check, tmp_path):
    url = f"sqlite:///{tmp_path / 'home' / 'x.db'}"
    assert f"no folder {tmp_path / 'home'}" in refusal(check, "--storage", url)
    check("--storage", url, tmp_path / "home")
    refusal(check, "--storage", url, tmp_path / "other")
    (tmp_path / "home").mkdir()
    check("--storage", url)
    assert list((tmp_path / "home").iterdir()) == []


@CHECKS
def test_what_lies_where_the_database_should_must_be_one(check, tmp_path):
    path = tmp_path / "x.db"
    url = f"sqlite:///{path}"
    path.mkdir()
    assert "not a file" in refusal(check, "--storage", url)
    path.rmdir()
    os.mkfifo(path)  # which nobody writes: reading it would last for ever
    assert "not a file" in refusal(check, "--storage", url)
    path.unlink()
    path.write_text("SQLite format 4, which is none")
    assert "no SQLite database" in refusal(check, "--storage", url)
    path.write_text("SQL")
    assert "no SQLite database" in refusal(check, "--storage", url)
    path.write_text("")
    check("--storage", url)
    with sqlite3.connect(path) as database:
        database.execute("create table anything (name)")
    database.close()
    check("--storage", url)
    assert f"no folder {path / 'in'}" in refusal(check, "--storage", f"sqlite:///{path / 'in' / 'x.db'}")


@CHECKS
def test_a_path_longer_than_sqlite_s_is_refused(check, tmp_path):
    folder = tmp_path / ("d" * 200) / ("d" * 200)
    folder.mkdir(parents=True)
    for length in (services._LONGEST, services._LONGEST + 1):
        path = folder / ("x" * (length - len(str(folder)) - 1))
        if length == services._LONGEST:
            check("--storage", f"sqlite:///{path}")
        else:
            assert "bytes" in refusal(check, "--storage", f"sqlite:///{path}")
    assert "bytes" in refusal(check, "--storage", f"sqlite:////{'x' * 5000}")


@CHECKS
@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_a_folder_that_cannot_be_written_is_refused(check, tmp_path):
    tmp_path.chmod(0o555)
    assert "cannot be written" in refusal(check, "--storage", f"sqlite:///{tmp_path / 'x.db'}")


def test_mlflow_and_optuna_need_databases_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for storage, tracking in [
        ("sqlite:///x.db", "sqlite:///x.db"),
        ("sqlite:///x.db", f"sqlite+pysqlite:///{tmp_path}/x.db?timeout=9"),
        ("postgresql://me:secret@host/x", "postgresql+psycopg2://you@host:5432/x"),
    ]:
        refusal(check_apart, "--storage", storage, tracking)
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


# Ray.


@pytest.fixture
def no_ray(tmp_path, monkeypatch):
    """A machine on which no Ray runs: other tests' are not seen, and none was begun."""
    monkeypatch.setattr(services, "_command_lines", lambda: [b"python\0raylet.py"])
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    (tmp_path / "ray").mkdir()
    return tmp_path / "ray" / "ray_current_cluster"


@pytest.mark.parametrize("address", ["", "local", "{}", "ray://{}"])
def test_the_address_of_a_cluster_that_listens_is_taken(address, listening):
    check_address(address.format(listening))


@pytest.mark.parametrize(
    "address",
    [
        "nonsense",
        "host:",
        "host:notaport",
        "host:0",
        "host:99999",
        "host:-1",
        ":6379",
        "ray://host",
        "ray://",
        "http://127.0.0.1:6379",
        "127.0.0.1:6379/x",
        "a b:6379",
        "AUTO",
        "::1:6379",
        "127.0.0.1:6379\n",
        "host:٣",
    ],
)
def test_an_address_that_is_none_is_refused(address):
    with quick(0.5), pytest.raises(Refusal, match="HOST:PORT") as refused:
        check_address(address)
    assert refused.value.field == "--address"
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("address", ["{}", "ray://{}"])
def test_a_cluster_that_does_not_listen_is_refused(address, refusing):
    with quick(), pytest.raises(Refusal, match="refused"):
        check_address(address.format(refusing))


def test_auto_is_refused_where_no_cluster_is(no_ray):
    with quick(1), pytest.raises(Refusal, match="ray start"):
        check_address("auto")


def test_auto_takes_the_environment_s_address(no_ray, monkeypatch, listening, refusing):
    monkeypatch.setenv("RAY_ADDRESS", listening)
    check_address("auto")
    monkeypatch.setenv("RAY_ADDRESS", refusing)
    with pytest.raises(Refusal, match=r"^RAY_ADDRESS = "):
        check_address("auto")


def test_auto_takes_the_cluster_that_was_last_begun(no_ray, listening, refusing):
    no_ray.write_text(listening + "\n")
    check_address("auto")
    no_ray.write_text(refusing)
    with pytest.raises(Refusal, match=f"^--address auto = '{refusing}'"):
        check_address("auto")
    no_ray.write_bytes(b"\xff")
    with pytest.raises(Refusal, match="ray start"):
        check_address("auto")


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="no /proc")
def test_auto_finds_a_node_by_its_process(no_ray, tmp_path, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    process = subprocess.Popen(["/folder/raylet/raylet", "30"], executable="/bin/sleep")
    try:
        time.sleep(0.2)
        check_address("auto")
    finally:
        process.kill()
        process.wait()
