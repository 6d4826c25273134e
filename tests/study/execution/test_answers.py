"""Every class of answers of a proxy before MLflow's server: it is said at once, tried again, and nothing is lost."""

from __future__ import annotations

import base64
import http.client
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path

import pytest
from helpers import wait_until
from test_projection import Run, close
from test_server import end, free_port, recorded, records, serve

from study.errors import Refusal
from study.store.states import Store

pytestmark = pytest.mark.slow

PAGE = "<html><title>Sign in</title></html>"
ANSWERS = {  # a status, its body and headers; None: the connection is reset
    "400": (400, '{"error_code": "INVALID_PARAMETER_VALUE", "message": "no"}', {}),
    "401": (401, "You are not authenticated", {}),
    "403": (403, '{"error_code": "PERMISSION_DENIED", "message": "the token has expired"}', {}),
    "404": (404, "404 page not found", {}),
    "409": (409, PAGE, {}),
    "413": (413, PAGE, {}),
    "429": (429, '{"error_code": "REQUEST_LIMIT_EXCEEDED", "message": "slow down"}', {"Retry-After": "1"}),
    "500": (500, "oops", {}),
    "502": (502, PAGE, {}),
    "503": (503, '{"error_code": "TEMPORARILY_UNAVAILABLE", "message": "soon"}', {"Retry-After": "1"}),
    "a page": (200, PAGE, {}),
    "reset": None,
}


class Proxy:
    """A proxy on loopback. While `answer` is set, it gives this answer to calls whose path contains `path`."""

    def __init__(self, port: int) -> None:
        self.answer: str = ""
        self.path = "/runs/log-batch"
        self.answered = 0
        self.tokens: set[str] = set()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def forward(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                proxy.tokens.add(self.headers.get("Authorization", ""))
                if proxy.answer and proxy.path in self.path:
                    proxy.answered += 1
                    answer = ANSWERS[proxy.answer]
                    if answer is None:
                        self.connection.close()
                        return
                    status, text, headers = answer
                    self.reply(status, text.encode(), headers)
                    return
                server = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                kept = {name: value for name, value in self.headers.items() if name.lower() != "host"}
                server.request(self.command, self.path, body, kept)
                response = server.getresponse()
                self.reply(response.status, response.read(), dict(response.getheaders()))

            def reply(self, status: int, body: bytes, headers: dict[str, str]) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    if name.lower() not in ("transfer-encoding", "content-length", "connection", "date", "server"):
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = forward

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    port = free_port()
    process = serve(tmp_path_factory.mktemp("server"), port)
    proxy = Proxy(port)
    yield proxy
    proxy.close()
    end(process)


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch, proxy: Proxy) -> None:
    monkeypatch.setattr("study.execution.follower.RETRY_SECONDS", 0.05)
    monkeypatch.setattr("study.execution.follower.LONGEST_RETRY_SECONDS", 0.2)
    monkeypatch.setattr("study.execution.projection.PATIENCE_SECONDS", 60.0)
    monkeypatch.setattr("study.services.SECONDS", 2.0)
    proxy.answer, proxy.path, proxy.answered = "", "/runs/log-batch", 0


@pytest.fixture
def run(tmp_path: Path, proxy: Proxy) -> Run:
    disturbed = recorded(Run(tmp_path, Store(str(tmp_path / "store"))))
    disturbed.uri = proxy.url
    return disturbed


def undisturbed(run: Run, tmp_path: Path) -> object:
    reference = recorded(Run(tmp_path, run.store))
    projection = reference.driver()
    projection.reconcile(reference.ledger())
    assert close(projection, "FINISHED", lambda: {"report.md": "| IB⇒CR |"}) == ""
    return records(reference)


@pytest.mark.parametrize("answer", [name for name in ANSWERS if name not in ("400", "413")])
def test_an_answer_that_may_change_is_said_and_tried_again(run: Run, proxy: Proxy, tmp_path: Path, answer: str) -> None:
    projection = run.driver()
    projection.check()
    proxy.answer = answer
    for key in run.train():
        projection.state(key)
    wait_until(lambda: proxy.answered >= 2)
    assert len(run.said) == 1
    assert run.said[0].startswith("MLflow is unavailable (")
    assert len(run.said[0]) < 500
    proxy.answer = ""
    assert close(projection, "FINISHED", lambda: {"report.md": "| IB⇒CR |"}) == ""
    assert run.said[1:] == ["MLflow is available again and catches up"]
    assert records(run) == undisturbed(run, tmp_path)


@pytest.mark.parametrize("answer", ["400", "413"])
def test_a_record_that_is_rejected_is_left_out_and_the_next_start_writes_it(
    run: Run, proxy: Proxy, tmp_path: Path, answer: str
) -> None:
    projection = run.driver()
    projection.check()
    proxy.answer = answer
    for key in run.train():
        projection.state(key)
    reason = close(projection, "FINISHED", lambda: {"report.md": "| IB⇒CR |"})
    assert reason.startswith("MLflow is not up to date (")
    (line,) = run.said
    assert line.startswith("MLflow does not take a record (")
    proxy.answer = ""
    projection = run.driver()
    projection.reconcile(run.ledger())
    assert close(projection, "FINISHED", lambda: {"report.md": "| IB⇒CR |"}) == ""
    assert records(run) == undisturbed(run, tmp_path)


def test_records_that_were_rejected_for_a_while_are_whole_at_the_end(run: Run, proxy: Proxy, tmp_path: Path) -> None:
    projection = run.driver()
    projection.check()
    proxy.answer = "400"
    for key in run.train():
        projection.state(key)
    wait_until(lambda: run.said)
    proxy.answer = ""
    projection.refresh()
    projection.reconcile(run.ledger())
    assert close(projection, "FINISHED", lambda: {"report.md": "| IB⇒CR |"}) == ""
    assert records(run) == undisturbed(run, tmp_path)


@pytest.mark.parametrize("answer", ["401", "403"])
def test_a_token_that_is_wrong_at_the_start_is_refused(run: Run, proxy: Proxy, answer: str) -> None:
    proxy.answer, proxy.path = answer, "/experiments/"
    projection = run.driver()
    with pytest.raises(Refusal, match="--tracking-uri must be a tracking store or server that MLflow can use"):
        projection.check()
    projection.abandon()


def test_a_refreshed_password_is_used_without_a_new_start(
    run: Run, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    credentials = tmp_path / ".mlflow" / "credentials"
    credentials.parent.mkdir()
    names = count()

    def refresh() -> None:
        credentials.write_text(f"[mlflow]\nmlflow_tracking_username = me{next(names)}\nmlflow_tracking_password = x\n")

    refresh()
    projection = run.driver()
    projection.check()
    proxy.answer = "403"
    for key in run.train():
        projection.state(key)
    wait_until(lambda: run.said)
    proxy.tokens.clear()
    refresh()
    proxy.answer = ""
    assert close(projection, "FINISHED", dict) == ""
    assert {base64.b64decode(token.split()[-1]) for token in proxy.tokens} >= {b"me1:x"}


def test_a_run_that_the_user_deletes_while_training_is_made_again(run: Run, tmp_path: Path) -> None:
    import mlflow

    states = run.train()
    projection = run.driver()
    projection.state(states[0])
    client = mlflow.MlflowClient(run.uri)

    def children() -> list[str]:
        experiment = client.get_experiment_by_name(run.plan.run)
        filter_string = "tags.`study.kind` = 'replicate'"
        return [each.info.run_id for each in client.search_runs([experiment.experiment_id], filter_string)]

    wait_until(lambda: client.get_experiment_by_name(run.plan.run) and children())
    client.delete_run(children()[0])
    for key in states:
        projection.state(key)
    assert close(projection, "FINISHED", lambda: {"report.md": "| IB⇒CR |"}) == ""
    assert run.said == []
    assert records(run) == undisturbed(run, tmp_path)
