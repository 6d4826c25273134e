"""Files for Docker: the image of the project, and a small cluster of it on one machine."""

from __future__ import annotations

from collections.abc import Mapping

from study.errors import Refusal
from study.recipes.image import Image, mlflow
from study.recipes.sweep import Sweep
from study.recipes.texts import S3, filled, for_compose, for_shell, secrets

HOME = "/study"
TRACKING_URI = "http://mlflow:5000"
STORAGE = "postgresql+psycopg://study@postgres/optuna"


def written(
    sweep: Sweep, image: Image, folder: str, port: int, files: Mapping[str, str], generated: Mapping[str, str]
) -> dict[str, str]:
    """Return the files' texts by name.

    Args:
        sweep: the run.
        image: the image of all containers but PostgreSQL's.
        folder: where the files will be.
        port: MLflow's port on loopback.
        files: the user's own files, which containers see in ``/files``.
        generated: passwords, by variable.
    """
    if not 1 <= port <= 65535:
        raise Refusal("--port", port, "must be between 1 and 65535")
    if sweep.nodes.count > 1 and sweep.nodes.cpus is None:
        raise Refusal("--cpus", None, f"--cpus must be given: {sweep.nodes.count} containers share this machine's CPUs")
    sweep.places.check_contained()
    store = "" if sweep.places.store is None else f"STUDY_STORE: {for_compose(sweep.places.store)}"
    workers = "".join(_worker(sweep, image, store, number) for number in range(1, sweep.nodes.count + 1))
    return {
        **image.written(),
        "compose.yaml": filled(
            "compose.yaml",
            image=for_compose(image.name),
            context=for_compose(image.context),
            dockerfile=for_compose(f"{folder}/Dockerfile"),
            store=store,
            workers=workers.rstrip("\n"),
            mlflow=for_compose(mlflow("postgres")),
            port=port,
        ),
        "run.sh": filled("compose_run.sh", command=for_shell(sweep.command())),
        ".env": secrets(
            "The cluster's name in Docker Compose, and passwords. Its volumes have both: keep this file.",
            S3,
            generated,
        ),
        "files/README": "Files of your own; the containers see this folder as /files.\n",
        **{f"files/{name}": text for name, text in files.items()},
    }


def _worker(sweep: Sweep, image: Image, store: str, number: int) -> str:
    """Return a machine of the cluster: a container with its own GPUs."""
    nodes = sweep.nodes
    command = ["ray", "start", "--address=head:6379", "--block", "--object-store-memory=1000000000"]
    limits: dict[str, object] = {}
    if nodes.cpus is not None:
        command.append(f"--num-cpus={nodes.cpus}")
        limits["limits"] = {"cpus": str(nodes.cpus)}
    if nodes.memory is not None:
        limits["limits"] = {**dict(limits.get("limits", {})), "memory": f"{nodes.memory}"}  # type: ignore[call-overload]
    if nodes.gpus:
        command.append(f"--num-gpus={nodes.gpus}")
        first = (number - 1) * nodes.gpus
        gpus = [str(each) for each in range(first, first + nodes.gpus)]
        limits["reservations"] = {"devices": [{"driver": "nvidia", "device_ids": gpus, "capabilities": ["gpu"]}]}
    return filled(
        "worker.yaml",
        number=number,
        image=for_compose(image.name),
        command=for_compose(command),
        store=store,
        limits=f"deploy: {for_compose({'resources': limits})}" if limits else "",
    )
