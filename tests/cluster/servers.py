"""The servers of a cluster's test: S3 by moto, PostgreSQL by Debian, MLflow with authentication."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from cluster.nodes import Node, Unavailable

PASSWORD = "hunter2"
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
        self.variables = {
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": PASSWORD,
            "AWS_EC2_METADATA_DISABLED": "true",
            "PGPASSWORD": PASSWORD,
            "MLFLOW_TRACKING_USERNAME": "admin",
            "MLFLOW_TRACKING_PASSWORD": f"{PASSWORD}-of-mlflow",  # it must have 12 characters
        }
        self._programs = self._start_postgres()
        moto = f"from moto.server import main; main(['-H', '{address}', '-p', '9000'])"
        host.popen([sys.executable, "-W", "ignore", "-c", moto], host.folder / "moto.log")
        self._start_mlflow()

    def wait(self) -> None:
        """Wait until all of them answer."""
        host, address = self.host, self.host.address
        host.run(sys.executable, "-c", _WAIT, f"http://{address}:9000/bucket", f"{self.tracking}/health", seconds=120)
        deadline = time.monotonic() + 60
        while host.run(str(self._programs / "pg_isready"), "-h", address, code=None).returncode:
            assert time.monotonic() < deadline, (host.folder / "postgres.log").read_text()
            time.sleep(0.2)

    def store(self, folder: str) -> str:
        """Return the URL of a store in a folder of the bucket."""
        endpoint = f"endpoint_override={self.host.address}:9000&scheme=http&region=us-east-1"
        return f"s3://bucket/{folder}?{endpoint}"

    def _start_postgres(self) -> Path:
        found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
        if not found or shutil.which("setpriv") is None:
            raise Unavailable("there is no PostgreSQL: install postgresql")
        programs, folder = found[-1], self.host.folder / "postgres"
        folder.mkdir()
        shutil.chown(folder, "postgres", "postgres")
        (self.host.folder / "password").write_text(PASSWORD)
        user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]  # it refuses to be run by root
        data, access = "/mnt/postgres/data", "host all all 0.0.0.0/0 scram-sha-256"
        make = [f"{programs}/initdb", "-D", data, "-U", "study", "-A", "scram-sha-256", "--pwfile=/mnt/password", "-N"]
        self.host.run(*user, *make)
        with (folder / "data" / "pg_hba.conf").open("a") as file:
            file.write(f"{access}\n")
        settings = {"listen_addresses": self.host.address, "unix_socket_directories": "", "fsync": "off"}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        self.host.popen([*user, f"{programs}/postgres", "-D", data, *options], self.host.folder / "postgres.log")
        return programs

    def _start_mlflow(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth", "--workers", "1"]
        command += ["--host", self.host.address, "--port", "5000", "--allowed-hosts", f"{self.host.address}:5000"]
        command += [
            "--backend-store-uri",
            "sqlite:////mnt/work/mlflow.db",
            "--artifacts-destination",
            "/mnt/work/files",
        ]
        return self.host.popen(
            command,
            self.host.folder / "mlflow.log",
            MLFLOW_AUTH_ADMIN_PASSWORD=self.variables["MLFLOW_TRACKING_PASSWORD"],
            MLFLOW_FLASK_SERVER_SECRET_KEY=os.urandom(16).hex(),
            MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false",
        )
