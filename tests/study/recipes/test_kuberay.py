"""The files for KubeRay, against the schemas of Kubernetes and of the RayJob; and what they run."""

from __future__ import annotations

import copy
import shlex
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from click.testing import Result
from ray.scripts.scripts import drain_node

POD = ("--image", "r.example/study:1", "--cpus", "8", "--memory", "64G")
OWN = ("--tracking-uri", "http://mlflow.example:5000", "--storage", "postgresql+psycopg://me@db.example/optuna")
VERSION = "1.32"  # of Kubernetes

CHOICES = {
    "of CPUs": (),
    "of GPUs": ("--nodes", "4", "--gpus", "8", "--time", "2-00:00:00", "--storage-class", "fast"),
    "on S3": ("--store", "s3://bucket/studies"),
    "on a claim and services of one's own": ("--claim", "lab-share", *OWN),
    "of names that YAML reads as other values": ("--name", "null", "--claim", "1.5", "--storage-class", "2"),
}


def objects(folder: Path) -> list[Any]:
    """The objects of all manifests."""
    return [each for path in sorted(folder.glob("*.yaml")) for each in yaml.safe_load_all(path.read_text("utf-8"))]


def rayjob(folder: Path) -> Any:
    (job,) = [each for each in objects(folder) if each["kind"] == "RayJob"]
    return job


def groups(job: Any) -> list[Any]:
    cluster = job["spec"]["rayClusterSpec"]
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def pods(job: Any) -> list[Any]:
    """The templates of a RayJob's pods: the submitter's, the head's and the workers'."""
    return [job["spec"]["submitterPodTemplate"], *(group["template"] for group in groups(job))]


def validate(schema: Callable[[str, Any], None], manifest: Any) -> None:
    """Check an object as Kubernetes does that knows KubeRay; unknown fields are errors."""
    if manifest["kind"] == "RayJob":
        schema("rayjob-crd.json", manifest)
        for template in pods(manifest):
            kubernetes_validate.validate(
                {"apiVersion": "v1", "kind": "PodTemplate", "template": template}, VERSION, strict=True
            )
    else:
        kubernetes_validate.validate(manifest, VERSION, strict=True)


@pytest.mark.parametrize("choices", CHOICES.values(), ids=CHOICES)
def test_kubernetes_accepts_every_object(
    recipe: Callable[..., Path], schema: Callable[[str, Any], None], choices: tuple[str, ...]
) -> None:
    written = objects(recipe("kuberay", *POD, *choices, "--namespace", "123", "table9"))
    assert {each["metadata"]["namespace"] for each in written} == {"123"}
    for manifest in written:
        validate(schema, manifest)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda job: job["spec"].update(entrypont="x"),
        lambda job: job["spec"].update(backoffLimit="none"),
        lambda job: job["spec"]["rayClusterSpec"]["authOptions"].update(mode="password"),
        lambda job: groups(job)[1].update(replicas="2"),
        lambda job: pods(job)[1]["spec"]["containers"][0].update(imagge="x"),
        lambda job: pods(job)[2]["spec"].pop("containers"),
    ],
)
def test_the_schemas_find_mistakes(
    recipe: Callable[..., Path], schema: Callable[[str, Any], None], spoil: Callable[[Any], None]
) -> None:
    job = rayjob(recipe("kuberay", *POD, "table9"))
    validate(schema, copy.deepcopy(job))
    spoil(job)
    with pytest.raises(Exception, match=r"entrypont|none|password|'2'|imagge|containers"):
        validate(schema, job)


def test_the_choices_are_in_the_job(recipe: Callable[..., Path]) -> None:
    job = rayjob(recipe("kuberay", *POD, "--nodes", "4", "--gpus", "8", "--name", "mine", "table9"))
    head, workers = groups(job)
    assert job["metadata"]["name"] == "mine"
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == metadata.version("ray")
    assert (workers["replicas"], head["rayStartParams"]["num-cpus"]) == (4, "0")
    resources = workers["template"]["spec"]["containers"][0]["resources"]
    assert resources["requests"] == {"cpu": 8, "memory": "64Gi", "nvidia.com/gpu": 8}
    assert resources["limits"]["nvidia.com/gpu"] == 8
    assert {pod["spec"]["containers"][0]["image"] for pod in pods(job)} == {"r.example/study:1"}


def test_a_pod_that_is_evicted_announces_it_to_ray_and_has_time_to_save(recipe: Callable[..., Path]) -> None:
    pod = groups(rayjob(recipe("kuberay", *POD, "--drain", "90", "table9")))[1]["template"]["spec"]
    shell, option, command = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    assert (shell, option) == ("sh", "-c")
    drain, wait = (shlex.split(part) for part in command.split("&&"))
    assert drain[:4] == ["timeout", "20", "ray", "drain-node"]
    options = drain_node.make_context("drain-node", drain[4:]).params  # what Ray would understand
    assert (options["reason"], options["deadline_remaining_seconds"]) == ("DRAIN_NODE_REASON_PREEMPTION", 90)
    assert (wait, pod["terminationGracePeriodSeconds"]) == (["sleep", "90"], 120)


def test_passwords_are_references_to_a_secret(recipe: Callable[..., Path]) -> None:
    folder = recipe("kuberay", *POD, "table9")
    (line,) = [line for line in (folder / "secrets.env").read_text().splitlines() if not line.startswith("#")]
    name, _, password = line.partition("=")
    assert (name, len(password)) == ("PGPASSWORD", 48)
    assert not [path for path in folder.glob("*.yaml") if password in path.read_text()]
    head = groups(rayjob(folder))[0]["template"]["spec"]["containers"][0]
    assert head["envFrom"] == [{"secretRef": {"name": "study-secrets"}}]
    references = [
        variable["valueFrom"]["secretKeyRef"]
        for each in objects(folder)
        if each["kind"] == "Deployment"
        for container in each["spec"]["template"]["spec"]["containers"]
        for variable in container["env"]
        if "valueFrom" in variable
    ]
    assert references == [{"name": "study-secrets", "key": "PGPASSWORD"}] * 2


def test_no_pod_is_root_or_has_rights_on_the_cluster(recipe: Callable[..., Path]) -> None:
    folder = recipe("kuberay", *POD, "table9")
    deployed = [each["spec"]["template"] for each in objects(folder) if each["kind"] == "Deployment"]
    assert len(deployed) == 2
    for pod in (*pods(rayjob(folder)), *deployed):
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
        assert pod["spec"]["automountServiceAccountToken"] is False
        for container in pod["spec"]["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False


@pytest.mark.parametrize(
    ("choices", "files", "volume"),
    [
        ((), {"claim.yaml", "services.yaml"}, {"persistentVolumeClaim": {"claimName": "study"}}),
        (("--name", "second"), {"claim.yaml", "services.yaml"}, {"persistentVolumeClaim": {"claimName": "study"}}),
        (("--claim", "share", *OWN), set(), {"persistentVolumeClaim": {"claimName": "share"}}),
        (("--store", "s3://bucket/x"), {"services.yaml"}, {"emptyDir": {}}),
        (
            ("--store", "s3://bucket/x", "--claim", "data"),
            {"services.yaml"},
            {"persistentVolumeClaim": {"claimName": "data"}},
        ),
    ],
)
def test_what_the_user_has_is_not_written(
    recipe: Callable[..., Path], choices: tuple[str, ...], files: set[str], volume: dict[str, Any]
) -> None:
    folder = recipe("kuberay", *POD, *choices, "table9")
    assert {path.name for path in folder.iterdir()} == files | {"rayjob.yaml", "secrets.env"}
    for group in groups(rayjob(folder)):
        (home,) = [each for each in group["template"]["spec"]["volumes"] if each["name"] == "home"]
        assert home == {"name": "home", **volume}


@pytest.mark.parametrize("store", ["s3://bucket/x", None])
def test_commands_in_a_pod_see_the_run(recipe: Callable[..., Path], store: str | None) -> None:
    job = rayjob(recipe("kuberay", *POD, *(["--store", store] if store else []), "table9"))
    for group in groups(job):
        (container,) = group["template"]["spec"]["containers"]
        variables = {each["name"]: each["value"] for each in container["env"]}
        assert variables == {"STUDY_HOME": "/study"} | ({"STUDY_STORE": store} if store else {})


def test_records_go_to_the_services_that_are_written(recipe: Callable[..., Path]) -> None:
    folder = recipe("kuberay", *POD, "table9")
    services = {
        each["metadata"]["name"]: each["spec"]["ports"] for each in objects(folder) if each["kind"] == "Service"
    }
    assert services == {"study-postgres": [{"port": 5432}], "study-mlflow": [{"port": 5000}]}
    script = objects(folder)[1]["data"]["run.sh"]
    assert "--tracking-uri http://study-mlflow:5000" in script
    assert "@study-postgres/optuna" in script


def test_postgres_is_ready_only_when_others_reach_it(recipe: Callable[..., Path]) -> None:
    """Its image makes the databases with a server that listens on no network."""
    deployed = [each for each in objects(recipe("kuberay", *POD, "table9")) if each["kind"] == "Deployment"]
    (postgres,) = [each for each in deployed if each["metadata"]["name"] == "study-postgres"]
    probe = postgres["spec"]["template"]["spec"]["containers"][0]["readinessProbe"]
    assert probe["exec"]["command"][:2] == ["pg_isready", "--host=127.0.0.1"]


@pytest.mark.parametrize("time", [(), ("--time", "12:00:00")])
def test_the_command_plans_the_run(
    recipe: Callable[..., Path],
    study_run: Callable[[str], list[str]],
    dry_run: Callable[..., Result],
    checked_by_shellcheck: Callable[[Path], None],
    tmp_path: Path,
    time: tuple[str, ...],
) -> None:
    manifests = objects(recipe("kuberay", *POD, *time, *OWN, "table9", "--seeds", "1", "--loss", "focal(gamma=2.0)"))
    (files,) = [each["data"] for each in manifests if each["kind"] == "ConfigMap"]
    script = tmp_path / "run.sh"
    script.write_text(files["run.sh"])
    checked_by_shellcheck(script)
    words = study_run(files["run.sh"])
    assert words[-2:] == list(OWN[2:])
    assert ("--signal=TERM --kill-after=600 42600 " in files["run.sh"]) == bool(time)
    assert '"table9"' in dry_run(words).stdout


def test_own_files_are_in_the_config_map(recipe: Callable[..., Path], small_space: Callable[..., str]) -> None:
    space = Path(small_space())
    folder = recipe("kuberay", *POD, f"./{space.name}:space")
    (files,) = [each["data"] for each in objects(folder) if each["metadata"]["name"] == "study-files"]
    assert files[space.name] == space.read_text()
    assert f"study run /files/{space.name}:space \\\n" in files["run.sh"]
