"""`study cluster`: which files are written, with which permissions, and what is refused."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import click
import pytest
from helpers import Study

from study.errors import Refusal

KUBERAY = ("cluster", "kuberay", "--out", "sweep", "--image", "r.example/study", "--cpus", "8", "--memory", "64G")


def test_passwords_are_for_their_user_and_scripts_can_be_run(study: Study) -> None:
    study("cluster", "slurm", "--out", "sweep", "table9")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in Path("sweep").iterdir()}
    assert modes == {"sweep.sbatch": 0o644, "node.sh": 0o755, "driver.sh": 0o755, "secrets.env": 0o600}
    study("cluster", "docker", "--out", "docker", "table9")
    assert stat.S_IMODE(Path("docker/.env").stat().st_mode) == 0o600


def test_containers_can_read_the_files_whatever_the_umask_is(study: Study, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("from search_spaces.table9 import space\n")
    study("cluster", "docker", "--out", "docker", "table9")
    Path("docker/.env").chmod(0o644)
    before = os.umask(0o077)
    try:
        study("cluster", "docker", "--out", "docker", "--force", str(tmp_path / "mine.py"))
    finally:
        os.umask(before)
    modes = {
        path: stat.S_IMODE(Path("docker", path).stat().st_mode) for path in ("files", "files/mine.py", "run.sh", ".env")
    }
    assert modes == {"files": 0o755, "files/mine.py": 0o644, "run.sh": 0o755, ".env": 0o600}


def test_files_are_replaced_only_by_force_and_passwords_never(study: Study) -> None:
    study(*KUBERAY, "table9")
    password, job = Path("sweep/secrets.env").read_text(), Path("sweep/rayjob.yaml").read_text()
    refused = study(*KUBERAY, "--nodes", "3", "table9", code=2)
    assert "--out must hold no file of that name (got 'sweep/rayjob.yaml'). --force replaces it" in str(
        refused.exception
    )
    assert Path("sweep/rayjob.yaml").read_text() == job
    study(*KUBERAY, "--nodes", "3", "--force", "table9")
    assert "replicas: 3\n" in Path("sweep/rayjob.yaml").read_text()
    assert Path("sweep/secrets.env").read_text() == password


@pytest.mark.parametrize(
    ("choices", "options"),
    [
        (("--home", "studies"), ""),
        (("--home", "shared home"), ' --home "{here}/shared home"'),
        (("--home", "studies", "--store", "states"), " --store {here}/states"),
        (("--home", "h", "--store", "s3://bucket/x"), " --home {here}/h --store s3://bucket/x"),
    ],
)
def test_the_next_command_names_the_run_s_home_and_store(study: Study, choices: tuple[str, ...], options: str) -> None:
    said = study("cluster", "slurm", "--out", "sweep", *choices, "table9").stderr
    named = options.format(here=Path.cwd())
    assert said == f"\nNext: sbatch sweep/sweep.sbatch · squeue --me · study status{named}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("table99",), "unknown space 'table99'. Did you mean 'table9'? 'study list' shows all"),
        (("table9", "--seeds", "many"), "--seeds must be a whole number (got 'many')"),
        (("--", "table9", "--home", "x"), "--home must not come after SPACE (got 'x')"),
        (("--", "table9", "--detach"), "--detach must not come after SPACE (got True)"),
        (
            ("--", "table9", "--storage", "postgresql://me:hunter2@db/y"),
            "--storage must not come after SPACE (got 'postgresql://me:***@db/y')",
        ),
        (("table9", "--data", "nope"), "dataset must be cifar10, "),
        (("table9", "--loss", "nope"), "loss must be cross_entropy, "),
        (("table9", "--paper", "--short"), "--short must be left out with --paper"),
        (("table9", "-o", "nothing=3"), "unknown option -o nothing=3"),
        (("--gpus", "0", "table9", "--gpu-steps", "recorded"), "--gpu-steps must be auto or eager"),
        (("--storage", "nonsense", "table9"), "--storage must be a database such as"),
        (("--tracking-uri", "nonsense", "table9"), "--tracking-uri must be http://HOST:PORT"),
        (("--store", "s3:/bucket", "table9"), "--store must be a folder or s3://BUCKET/PREFIX"),
        (("--home", "s3://bucket/x", "table9"), "--home must be a folder"),
        (("--store", "~nobody-here/x", "table9"), "--store must be a folder (got '~nobody-here/x')"),
        (("--out", "~nobody-here/x", "table9"), "--out must be a folder (got '~nobody-here/x')"),
        (("--drain", "90000", "table9"), "--drain must be at least 30 s"),
        (("--shared", "--nodes", "2", "table9"), "--nodes must be 1 with --shared (got 2)"),
        (("--partition", "a b", "table9"), "--partition must be a name of Slurm"),
        (
            ("--storage", "postgresql://me:x@db/y", "table9"),
            "--storage must hold no password (got 'postgresql://me:***@db/y')",
        ),
    ],
)
def test_what_is_wrong_is_refused_and_nothing_is_written(
    study: Study, arguments: tuple[str, ...], message: str
) -> None:
    refused = study("cluster", "slurm", "--out", "sweep", *arguments, code=2)
    assert str(refused.exception).startswith(message)
    assert not Path("sweep").exists()


def test_an_unknown_option_of_study_run_is_refused(study: Study) -> None:
    from study.cli import cli

    with pytest.raises(click.NoSuchOption):
        cli(["cluster", "slurm", "--out", "sweep", "table9", "--sedes", "2"], prog_name="study", standalone_mode=False)
    assert not Path("sweep").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--image", "r.example/study", "--memory", "64G", "table9"), "--cpus must be given"),
        (("--image", "r.example/study", "--cpus", "8", "table9"), "--memory must be given"),
        ((*KUBERAY[4:], "table9", "--data", "folder:./images"), "dataset must be an absolute path"),
        ((*KUBERAY[4:], "--out", "~nobody-here/x", "table9"), "--out must be a writable folder (got '~nobody-here/x')"),
        ((*KUBERAY[4:], "--store", "./st", "table9"), "--store must be s3://BUCKET/PREFIX or a folder in /study"),
        (
            (*KUBERAY[4:], "--store", "s3://bucket/x", "table9", "--download"),
            "--download must come with --claim, or be left out",
        ),
        ((*KUBERAY[4:], "--namespace", "Lab", "table9"), "--namespace must be a name of Kubernetes"),
        ((*KUBERAY[4:], "--image", "r.example/$(id)", "table9"), "--image must be the name of an image"),
        ((*KUBERAY[4:], "--claim-size", "100", "table9"), "--claim-size must be a whole number with Mi, Gi or Ti"),
        ((*KUBERAY[4:], "--storage", "postgresql://me@db/x", "table9"), "--storage must come with the other one"),
        (
            (*KUBERAY[4:], "--time", "00:05:00", "table9"),
            "--drain must be at least 30 s, at most 65535 s and less than",
        ),
    ],
)
def test_what_kubernetes_cannot_have_is_refused(study: Study, arguments: tuple[str, ...], message: str) -> None:
    refused = study("cluster", "kuberay", "--out", "sweep", *arguments, code=2)
    assert str(refused.exception).startswith(message)
    assert not Path("sweep").exists()


def test_what_only_the_cluster_has_is_not_looked_for_here(study: Study) -> None:
    pytest.importorskip("psycopg")
    study(*KUBERAY, "table9", "--data", "folder:/study/images", "--gpu-steps", "eager")
    study(*KUBERAY, "--force", "--gpus", "1", "table9", "--gpu-steps", "recorded", "--paper")  # without data, or a GPU
    assert not Path("studies").exists()


def test_a_second_run_in_a_namespace_needs_only_its_job(study: Study) -> None:
    once, _, then = study(*KUBERAY, "--name", "second", "table9").stderr.strip().splitlines()
    kubectl = "kubectl -n default"
    assert once == (
        f"Once in a namespace: {kubectl} create secret generic study-secrets --from-env-file=sweep/secrets.env"
        f" · {kubectl} apply -f sweep/claim.yaml · {kubectl} apply -f sweep/services.yaml"
    )
    assert then == f"Next: {kubectl} apply -f sweep/rayjob.yaml"


def test_the_image_is_of_the_source_or_of_a_wheel(study: Study, tmp_path: Path) -> None:
    refused = study("cluster", "docker", "--out", "a", "--source", str(tmp_path), "table9", code=2)
    assert str(refused.exception).startswith("--source must be the folder of the project's source")
    (tmp_path / "longtail_study-9-py3-none-any.whl").touch()
    study("cluster", "docker", "--out", "b", "--source", "longtail_study-9-py3-none-any.whl", "table9")
    assert 'COPY ["longtail_study-9-py3-none-any.whl", "/wheels/"]\n' in Path("b/Dockerfile").read_text()
    assert "pip wheel" not in Path("b/Dockerfile").read_text()


def test_a_folder_that_cannot_be_written_is_one_line(study: Study, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused = study("cluster", "slurm", "--out", "file/sweep", "table9", code=2)
    assert isinstance(refused.exception, Refusal)
    assert str(refused.exception).startswith("--out must be a writable folder (got 'file/sweep'). ")
