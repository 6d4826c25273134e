"""The choices of a recipe: what is refused, and how the user's own files are named on a cluster."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from study.errors import Refusal
from study.recipes.sweep import Nodes, Places, Sweep, packed, seconds, with_paths

ONE = Nodes(1, None, 0, None)
HERE = Places("/home")


def test_the_command_trains_where_ray_runs_and_names_every_place() -> None:
    places = Places("/shared/studies", "s3://bucket/x", "/data", "http://mlflow:5000", "postgresql://me@db/optuna")
    command = Sweep("mine", ("table9", "--seeds", "2"), ONE, places).command()
    assert command[:7] == ["study", "run", "table9", "--seeds", "2", "--address", "auto"]
    assert command[7:] == [
        *("--home", "/shared/studies", "--store", "s3://bucket/x", "--data-dir", "/data"),
        *("--tracking-uri", "http://mlflow:5000", "--storage", "postgresql://me@db/optuna"),
    ]


@pytest.mark.parametrize(
    ("choose", "message"),
    [
        (lambda: Nodes(0, None, 0, None), "--nodes must be between 1 and 9999 (got 0)"),
        (lambda: Nodes(1, 0, 0, None), "--cpus must be between 1 and 9999 (got 0)"),
        (lambda: Nodes(1, None, -1, None), "--gpus must be between 0 and 9999 (got -1)"),
        (lambda: Nodes(1, None, 0, "64 GB"), "--memory must be a whole number with M, G or T"),
        (
            lambda: Sweep("My job", (), ONE, HERE),
            "--name must be 1 to 40 small letters, digits and dashes, with a letter first and no dash last",
        ),
        (lambda: seconds("--time", "90"), "--time must be HH:MM:SS or D-HH:MM:SS, such as 24:00:00, and more than 0"),
        (lambda: seconds("--time", "0:00:00"), "--time must be HH:MM:SS or D-HH:MM:SS"),
        (lambda: with_paths(["./none.py"], str), "file must be a file on this machine (got './none.py')"),
        (lambda: Places("/home", store="gs://x"), "--store must be a folder or s3://BUCKET/PREFIX (got 'gs://x')"),
        (lambda: Places("/home", store="s3:/bucket"), "--store must be a folder or s3://BUCKET/PREFIX"),
        (lambda: Places("/home", store="s3:///x"), "--store must be a folder or s3://BUCKET/PREFIX"),
        *(
            (
                lambda store=store: Places("/study", store=store).check_contained(),
                f"--store must be s3://BUCKET/PREFIX or a folder in /study, the volume (got '{store}')",
            )
            for store in ("./st", "/elsewhere")
        ),
        (
            lambda: Places("/study", data_dir="data").check_contained(),
            "--data-dir must be an absolute path in the containers, such as /study/data (got 'data')",
        ),
    ],
)
def test_a_choice_that_no_cluster_can_have_is_refused(choose: Callable[[], object], message: str) -> None:
    with pytest.raises(Refusal) as refused:
        choose()
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize(
    ("field", "url", "variable"),
    [
        ("storage", "postgresql://me:hunter2@db/optuna", "PGPASSWORD"),
        ("storage", "postgresql://db/optuna?user=me&password=hunter2", "PGPASSWORD"),
        ("tracking_uri", "https://me:hunter2@mlflow.example", "MLFLOW_TRACKING_PASSWORD"),
        ("store", "s3://key:hunter2@bucket/x", "AWS_SECRET_ACCESS_KEY"),
        ("store", "s3://bucket/x?secret_key=hunter2", "AWS_SECRET_ACCESS_KEY"),
    ],
)
def test_a_url_with_a_password_is_refused_without_showing_it(field: str, url: str, variable: str) -> None:
    with pytest.raises(Refusal, match=variable) as refused:
        Places("/home", **{field: url})
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(("text", "expected"), [("00:10:00", 600), ("24:00:00", 86400), ("2-01:00:01", 176401)])
def test_times_are_slurm_s(text: str, expected: int) -> None:
    assert seconds("--time", text) == expected


@pytest.mark.parametrize("store", [None, "s3://bucket", "s3://bucket/x?region=eu-central-1", "/study/states"])
def test_containers_share_a_store(store: str | None) -> None:
    Places("/study", store, "/data").check_contained()


def test_own_files_get_their_names_in_a_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("mine.py", "lr=0.1/loss.py", "notes.txt"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(f"# {name}\n")
    words = [
        "./mine.py:space",
        "--loss=./lr=0.1/loss.py:Margin(m=1)",
        "-o",
        "notes=@notes.txt",
        "--name",
        "x",
    ]
    renamed, files = packed(words)
    assert renamed == (
        *("/files/mine.py:space", "--loss=/files/loss.py:Margin(m=1)", "-o", "notes=@/files/notes.txt"),
        *("--name", "x"),
    )
    assert files == {"mine.py": "# mine.py\n", "loss.py": "# lr=0.1/loss.py\n", "notes.txt": "# notes.txt\n"}
    renamed, _ = packed(["lr=0.1/loss.py:Margin", "-o", "loss=lr=0.1/loss.py:Margin"])
    assert renamed == ("/files/loss.py:Margin", "-o", "loss=/files/loss.py:Margin")
    assert with_paths(words, str)[0] == f"{tmp_path}/mine.py:space"


def test_own_files_that_cannot_be_packed_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a/mine.py", "b/mine.py", "my space.py"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text("x = 1\n")
    Path("large.py").write_text("#" * 500_001)
    Path("latin.py").write_bytes(b"# \xe9")
    with pytest.raises(Refusal, match=r"must have another name than .*a/mine\.py"):
        packed(["a/mine.py", "b/mine.py"])
    for name, words in (("my space.py", "must be named with"), ("large.py", "500 kB"), ("latin.py", "UTF-8")):
        with pytest.raises(Refusal, match=words):
            packed([name])
