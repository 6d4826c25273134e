"""Whether a server answers that the user named: found out in time, without secrets."""

import datetime
import ipaddress
import socket
import ssl
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from helpers import quick, refused_option

from study import services
from study.errors import Refusal
from study.masking import without_password
from study.services import reachable, require, require_login


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


@pytest.fixture
def impatient(monkeypatch):
    """The same limits, ten times as short."""
    monkeypatch.setattr(services, "SECONDS", services.SECONDS / 10)
    monkeypatch.setattr(services, "TOTAL", services.TOTAL / 10)


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
    message = refused_option(lambda option, url: require((option, url)), "--tracking-uri", f"{scheme}://{listening}")
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
    end.set()


def test_two_servers_that_say_nothing_take_the_time_of_one(listening, impatient):
    words = rf"^one: 'http://{listening}/1' does not answer within 0\.2 s \(.*\)\. Start the server"
    with quick(0.4), pytest.raises(Refusal, match=words):
        require(("one", f"http://{listening}/1"), ("two", f"http://{listening}/2"))
    with http_server() as (address, _), pytest.raises(Refusal, match=r"^two: "):
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
    said = refused_option(lambda option, given: require((option, given)), "--tracking", url.format(refusing))
    assert refusing in said


def test_a_database_that_lets_the_user_in_is_taken(postgres, monkeypatch, tmp_path):
    require_login(("--storage", postgres), ("--tracking-uri", "http://host"), ("--tracking-uri", "sqlite:///x.db"))
    monkeypatch.setenv("PGPASSWORD", "hunter2-postgres")
    require_login(("--storage", postgres.replace(":hunter2-postgres", "")))
    monkeypatch.delenv("PGPASSWORD")
    address = postgres.rpartition("@")[2].replace("/postgres", "")
    (tmp_path / "pass").write_text(f"{address}:postgres:me:hunter2-postgres\n")
    (tmp_path / "pass").chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "pass"))
    require_login(("--storage", postgres.replace(":hunter2-postgres", "")))


@pytest.mark.parametrize(
    ("given", "wrong", "reason"),
    [
        (":hunter2-postgres", ":secret", 'password authentication failed for user "me"'),
        (":hunter2-postgres", "", "no password supplied"),
        ("me:", "you:", 'password authentication failed for user "you"'),
        ("/postgres", "/starting up", 'database "starting up" does not exist'),
    ],
)
def test_a_database_that_refuses_the_user_is_refused_by_name_and_in_time(postgres, given, wrong, reason, monkeypatch):
    monkeypatch.setenv("PGPASSFILE", "/dev/null")
    url = postgres.replace(given, wrong)
    said = refused_option(lambda option, given_url: require_login((option, given_url)), "--storage", url)
    assert f"{without_password(url)!r} refuses the connection (" in said
    assert reason in said
    assert "PGPASSWORD" in said
    assert "hunter2" not in said


@pytest.mark.parametrize(
    "reason",
    [
        "the database system is starting up",
        "the database system is shutting down",
        "the database system is in recovery mode",
        "sorry, too many clients already",
        "remaining connection slots are reserved for roles with the SUPERUSER attribute",
        "connection failed: server closed the connection unexpectedly",
        'connection failed: connection to server at "10.0.0.1", port 5432 failed: timeout expired',
        "(2002, \"Can't connect to MySQL server on 'db' (115)\")",
        "no answer within 2.5 s",
    ],
)
def test_what_may_pass_is_an_outage_and_no_refusal(monkeypatch, reason):
    monkeypatch.setattr(services, "_log_in", lambda _: reason)
    require_login(("--storage", "postgresql://me@host/optuna"))


def test_a_database_that_is_away_refuses_nobody(refusing, listening, impatient):
    for address in (refusing, listening):
        with quick(2):
            require_login(("--storage", f"postgresql://me:secret@{address}/optuna"))


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
