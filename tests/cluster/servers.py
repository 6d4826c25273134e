"""The servers of a cluster's test: S3 by moto, PostgreSQL by Debian, MLflow with authentication."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster.nodes import PRIVATE, Node, Unavailable, kill

PASSWORD = "hunter2"
_POSTGRES = ("setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups")  # it refuses to be run by root
_DATA = "/mnt/postgres/data"
_WAIT = """
import sys, time, urllib.error, urllib.request
for url in sys.argv[1:]:
    while True:
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="PUT" if "bucket" in url else "GET"), timeout=20)
        except urllib.error.HTTPError:
            break
        except OSError:
            time.sleep(0.3)
        else:
            break
"""


# S3 by moto. While a file exists, whoever writes is refused, as by a bucket's policy.
_S3 = """
import sys
from pathlib import Path

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple
from werkzeug.wrappers import Response

address, is_read_only = sys.argv[1], Path(sys.argv[2])
moto = DomainDispatcherApplication(create_backend_app)

def serve(environment, start_response):
    if environment["REQUEST_METHOD"] != "GET" and environment["REQUEST_METHOD"] != "HEAD" and is_read_only.exists():
        error = "<Error><Code>AccessDenied</Code><Message>The bucket is read-only</Message></Error>"
        return Response(error, 403, content_type="application/xml")(environment, start_response)
    return moto(environment, start_response)

run_simple(address, 9000, serve, threaded=True)
"""


class Servers:
    """The servers on a machine, which are being started, with the URLs and the variables of their users.

    Raises:
        Unavailable: if PostgreSQL is not installed.
    """

    def __init__(self, host: Node) -> None:
        self.host = host
        address = host.address
        self.storage = f"postgresql://study@{address}/postgres"
        self.tracking = f"http://{address}:5000"
        self.tracking_file = f"sqlite:///{PRIVATE}/mlflow.db"  # of MLflow's server, on its own machine
        self.variables = {
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": PASSWORD,
            "AWS_EC2_METADATA_DISABLED": "true",
            "PGPASSWORD": PASSWORD,
            "MLFLOW_TRACKING_USERNAME": "admin",
            "MLFLOW_TRACKING_PASSWORD": f"{PASSWORD}-of-mlflow",  # it must have 12 characters
        }
        self._programs = self._make_postgres()
        self._postgres = self._serve_postgres()
        host.popen([sys.executable, "-W", "ignore", "-c", _S3, address, "/mnt/read-only"], host.folder / "moto.log")
        self._mlflow = self._start_mlflow()

    def wait(self) -> None:
        """Wait until all of them answer."""
        host, address = self.host, self.host.address
        host.run(sys.executable, "-c", _WAIT, f"http://{address}:9000/bucket", f"{self.tracking}/health", seconds=300)
        deadline = time.monotonic() + 120
        while host.run(str(self._programs / "pg_isready"), "-h", address, code=None).returncode:
            assert time.monotonic() < deadline, (host.folder / "postgres.log").read_text()
            time.sleep(0.2)

    def store(self, folder: str) -> str:
        """Return the URL of a store in a folder of the bucket."""
        endpoint = f"endpoint_override={self.host.address}:9000&scheme=http&region=us-east-1"
        return f"s3://bucket/{folder}?{endpoint}"

    @contextmanager
    def read_only_store(self) -> Iterator[None]:
        """Within the context, let S3 refuse whoever writes."""
        flag = self.host.folder / "read-only"
        flag.touch()
        try:
            yield
        finally:
            flag.unlink()

    @contextmanager
    def without_mlflow(self) -> Iterator[None]:
        """Within the context, let there be no MLflow server."""
        kill(self._mlflow)
        try:
            yield
        finally:
            self._mlflow = self._start_mlflow()

    @contextmanager
    def without_postgres(self) -> Iterator[None]:
        """Within the context, let there be no PostgreSQL server."""
        kill(self._postgres)
        try:
            yield
        finally:
            self._postgres = self._serve_postgres()

    def _make_postgres(self) -> Path:
        found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
        if not found or shutil.which("setpriv") is None:
            raise Unavailable("there is no PostgreSQL: install postgresql")
        programs, folder = found[-1], self.host.folder / "postgres"
        folder.mkdir()
        shutil.chown(folder, "postgres", "postgres")
        (self.host.folder / "password").write_text(PASSWORD)
        make = ["-D", _DATA, "-U", "study", "-A", "scram-sha-256", "--pwfile=/mnt/password", "-N"]
        self.host.run(*_POSTGRES, f"{programs}/initdb", *make)
        with (folder / "data" / "pg_hba.conf").open("a") as file:
            file.write("host all all 0.0.0.0/0 scram-sha-256\n")
        return programs

    def _serve_postgres(self) -> subprocess.Popen[str]:
        settings = {"listen_addresses": self.host.address, "unix_socket_directories": "", "fsync": "off"}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        command = [*_POSTGRES, f"{self._programs}/postgres", "-D", _DATA, *options]
        return self.host.popen(command, self.host.folder / "postgres.log")

    def _start_mlflow(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth", "--workers", "1"]
        command += ["--host", self.host.address, "--port", "5000", "--allowed-hosts", f"{self.host.address}:5000"]
        command += [
            "--backend-store-uri",
            self.tracking_file,
            "--artifacts-destination",
            f"{PRIVATE}/files",
        ]
        return self.host.popen(
            command,
            self.host.folder / "mlflow.log",
            MLFLOW_AUTH_ADMIN_PASSWORD=self.variables["MLFLOW_TRACKING_PASSWORD"],
            MLFLOW_FLASK_SERVER_SECRET_KEY=os.urandom(16).hex(),
            MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false",
        )
