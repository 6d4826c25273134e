"""The files for Docker, against a linter and Compose's schema; and what they run."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result

from study.recipes import docker


def compose(folder: Path) -> Any:
    return yaml.safe_load((folder / "compose.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("source", ["", "longtail_study-9-py3-none-any.whl"])
def test_the_linter_finds_nothing_in_the_dockerfile(recipe: Callable[..., Path], tmp_path: Path, source: str) -> None:
    (tmp_path / "longtail_study-9-py3-none-any.whl").touch()
    folder = recipe("docker", *(["--source", source] if source else []), "table9")
    done = subprocess.run(["hadolint", str(folder / "Dockerfile")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_image_holds_the_versions_that_are_installed_here(recipe: Callable[..., Path]) -> None:
    text = (recipe("docker", "table9") / "Dockerfile").read_text(encoding="utf-8")
    assert f"'ray[default,tune]=={metadata.version('ray')}'" in text
    assert f" torch=={metadata.version('torch').partition('+')[0]} " in text
    assert re.search(r"^USER 1000$", text, re.MULTILINE)


def test_a_new_source_does_not_install_the_packages_again(
    recipe: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    extra = ["click>=1; extra == 'postgres'", "not-here[x]>=2; extra == 'postgres'", "pytest>=1; extra == 'dev'"]
    monkeypatch.setattr(metadata, "requires", lambda _: ["torch>=2", *extra])
    text = (recipe("docker", "table9") / "Dockerfile").read_text(encoding="utf-8")
    packages, wheel = text.index(" torch=="), text.index("COPY --from=wheel")
    assert packages < wheel < text.index("/wheels/*.whl")
    assert f" click=={metadata.version('click')} \\\n  'not-here[x]>=2'\nCOPY" in text
    assert "pytest" not in text


@pytest.mark.parametrize(
    "choices",
    [
        (),
        ("--name", "null"),
        ("--nodes", "2", "--cpus", "4", "--gpus", "2", "--memory", "32G", "--store", "s3://bucket/x"),
    ],
)
def test_compose_accepts_the_file(
    recipe: Callable[..., Path], schema: Callable[[str, Any], None], choices: tuple[str, ...]
) -> None:
    written = compose(recipe("docker", *choices, "table9"))
    schema("compose-spec.json", written)
    broken = written | {"services": {"head": {"imagge": "x"}}}
    with pytest.raises(Exception, match="imagge"):
        schema("compose-spec.json", broken)


def test_each_worker_has_gpus_of_its_own(recipe: Callable[..., Path]) -> None:
    services = compose(recipe("docker", "--nodes", "2", "--cpus", "4", "--gpus", "2", "table9"))["services"]
    devices = [services[name]["deploy"]["resources"]["reservations"]["devices"][0] for name in ("worker1", "worker2")]
    assert [device["device_ids"] for device in devices] == [["0", "1"], ["2", "3"]]
    assert {"--num-gpus=2", "--num-cpus=4"} <= set(services["worker1"]["command"])
    assert "--num-cpus=0" in services["head"]["command"]


def test_only_mlflow_has_a_port_and_it_is_on_loopback(recipe: Callable[..., Path]) -> None:
    services = compose(recipe("docker", "--nodes", "2", "--cpus", "1", "--port", "5001", "table9"))["services"]
    assert {name: each["ports"] for name, each in services.items() if "ports" in each} == {
        "mlflow": ["127.0.0.1:5001:5000"]
    }
    assert not [name for name, each in services.items() if each.get("network_mode") or each.get("privileged")]


def test_postgres_is_healthy_only_when_others_reach_it(recipe: Callable[..., Path]) -> None:
    """Its image makes the databases with a server that listens on no network."""
    test = compose(recipe("docker", "table9"))["services"]["postgres"]["healthcheck"]["test"]
    assert test[1:3] == ["pg_isready", "--host=127.0.0.1"]


def test_passwords_are_in_one_file_and_differ(recipe: Callable[..., Path], tmp_path: Path) -> None:
    folder = recipe("docker", "table9")
    lines = [line for line in (folder / ".env").read_text().splitlines() if not line.startswith("#")]
    values = dict(line.split("=") for line in lines)
    assert set(values) == {"COMPOSE_PROJECT_NAME", "STUDY_PGPASSWORD", "STUDY_RAY_TOKEN"}
    assert len(set(values.values())) == 3
    for path in folder.rglob("*"):
        if path.is_file() and path.name != ".env":
            assert not [value for value in values.values() if value in path.read_text(encoding="utf-8")], path


def test_no_variable_of_the_shell_replaces_one_of_the_file_of_passwords(recipe: Callable[..., Path]) -> None:
    """Compose prefers the shell's: its PGPASSWORD is that of another server."""
    text = (recipe("docker", "--nodes", "2", "--cpus", "1", "table9") / "compose.yaml").read_text()
    assert set(re.findall(r"\$\{(\w+)\}", text)) == {"STUDY_PGPASSWORD", "STUDY_RAY_TOKEN"}
    services = yaml.safe_load(text)["services"]
    assert (
        services["head"]["environment"].items()
        >= {
            "PGPASSWORD": "${STUDY_PGPASSWORD}",
            "RAY_AUTH_TOKEN": "${STUDY_RAY_TOKEN}",
        }.items()
    )


@pytest.mark.parametrize("kept", [True, False])
def test_volumes_are_those_of_the_file_that_has_their_password(recipe: Callable[..., Path], kept: bool) -> None:
    """A project of the same name with another password could not open its database."""

    def project(*name: str) -> str:
        folder = recipe("docker", "--force", *name, "table9")
        assert "name" not in compose(folder)
        (line,) = re.findall(r"^COMPOSE_PROJECT_NAME=(.+)$", (folder / ".env").read_text(), re.MULTILINE)
        return str(line)

    first = project()
    if not kept:
        Path("sweep/.env").unlink()
    assert (project() == first) == kept
    Path("sweep/.env").unlink()
    assert project("--name", "mine") == "mine"


def test_no_password_becomes_part_of_an_image(recipe: Callable[..., Path]) -> None:
    """The folder of the files may be in that of the source, which is copied for the build."""
    ignored = (recipe("docker", "table9") / "Dockerfile.dockerignore").read_text().splitlines()
    assert {"**/.env", "**/secrets.env", ".git"} <= set(ignored)


def test_the_command_plans_the_run(
    recipe: Callable[..., Path],
    study_run: Callable[[str], list[str]],
    dry_run: Callable[..., Result],
    checked_by_shellcheck: Callable[[Path], None],
) -> None:
    script = recipe("docker", "table9", "--seeds", "1") / "run.sh"
    checked_by_shellcheck(script)
    words = study_run(script.read_text(encoding="utf-8"))
    assert words[words.index("--storage") + 1] == docker.STORAGE
    assert '"table9"' in dry_run(words).stdout


@pytest.mark.parametrize("store", ["s3://bucket/x", None])
def test_commands_in_a_container_see_the_run(recipe: Callable[..., Path], store: str | None) -> None:
    folder = recipe("docker", *(["--store", store] if store else []), "table9")
    assert "STUDY_HOME=/study\n" in (folder / "Dockerfile").read_text()
    for name in ("head", "worker1"):
        assert compose(folder)["services"][name]["environment"].get("STUDY_STORE") == store


def test_own_files_are_mounted(recipe: Callable[..., Path], small_space: Callable[..., str]) -> None:
    folder = recipe("docker", small_space())
    (copied,) = [path for path in (folder / "files").iterdir() if path.suffix == ".py"]
    assert copied.read_text() == Path(small_space()).read_text()
    assert f"study run /files/{copied.name} \\\n" in (folder / "run.sh").read_text()
    assert "./files:/files:ro" in compose(folder)["services"]["head"]["volumes"]
