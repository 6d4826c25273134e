"""Files for Kubernetes with KubeRay: a RayJob, its volume, and the services that hold its records."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from study.errors import Refusal
from study.recipes.image import check_image, mlflow
from study.recipes.sweep import Limit, Sweep, seconds
from study.recipes.texts import RECORDS, S3, block, filled, for_shell, for_yaml, secrets

HOME = "/study"  # where a pod sees the volume
TRACKING_URI = "http://study-mlflow:5000"
STORAGE = "postgresql+psycopg://study@study-postgres/optuna"
ONCE = ("claim.yaml", "services.yaml")  # are applied once in a namespace; its runs share them

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_SIZE = re.compile(r"[1-9]\d*[MGT]i")
_SECURITY = for_yaml(
    {
        "runAsNonRoot": True,
        "runAsUser": 1000,
        "runAsGroup": 1000,
        "fsGroup": 1000,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
)
_TOLERATIONS = [
    {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
]  # nodes with GPUs often have it
_CONTAINER_SECURITY = for_yaml({"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}})


@dataclass(frozen=True)
class Kubernetes:
    """What is asked of Kubernetes, besides nodes.

    Attributes:
        namespace: the namespace of all objects.
        image: the image of all pods.
        ray: the version of Ray in the image.
        claim: the name of a claim of the user's own; None for a new one.
        claim_size: the size of a new claim, such as ``100Gi``.
        storage_class: the storage class of new claims; None for the cluster's default.
        limit: the time limit.
    """

    namespace: str
    image: str
    ray: str
    claim: str | None
    claim_size: str
    storage_class: str | None
    limit: Limit

    def __post_init__(self) -> None:
        names = (("--namespace", self.namespace), ("--claim", self.claim), ("--storage-class", self.storage_class))
        for option, name in names:
            if name is not None and not all(map(_LABEL.fullmatch, name.split("."))):
                words = "must be a name of Kubernetes: small letters, digits and dashes, 63 at most"
                raise Refusal(option, name, words)
        check_image(self.image)
        if not _SIZE.fullmatch(self.claim_size):
            raise Refusal("--claim-size", self.claim_size, "must be a whole number with Mi, Gi or Ti, such as 100Gi")


def written(sweep: Sweep, asked: Kubernetes, files: Mapping[str, str], generated: Mapping[str, str]) -> dict[str, str]:
    """Return the files' texts by name.

    Args:
        sweep: the run.
        asked: what is asked of Kubernetes.
        files: the user's own files, which pods see in ``/files``.
        generated: the passwords of PostgreSQL, by variable; without one, the user's own services hold the records.
    """
    nodes, new_claim = sweep.nodes, asked.claim is None and not (sweep.places.store or "").startswith("s3:")
    claim = asked.claim or ("study" if new_claim else None)
    sweep.places.check_contained()
    if claim is None and "--download" in sweep.words:
        hint = "With the store on S3, pods share no other volume for data sets"
        raise Refusal("--download", "--download", "must come with --claim, or be left out", hint)
    if nodes.cpus is None or nodes.memory is None:
        option = "--memory" if nodes.cpus else "--cpus"
        raise Refusal(option, None, f"{option} must be given: each pod asks Kubernetes for so much")
    limits = {"memory": f"{nodes.memory}i"} | ({"nvidia.com/gpu": nodes.gpus} if nodes.gpus else {})
    common = {
        "name": sweep.name,
        "namespace": asked.namespace,
        "image": for_yaml(asked.image),
        "security": _SECURITY,
        "container_security": _CONTAINER_SECURITY,
        "storage_class": "" if asked.storage_class is None else f"storageClassName: {for_yaml(asked.storage_class)}",
    }
    store, limit = sweep.places.store, ""
    if asked.limit.time is not None:
        drain = asked.limit.drain
        kill = f"--kill-after={drain} {seconds('--time', asked.limit.time) - drain}"
        limit = f"timeout --foreground --preserve-status --signal=TERM {kill} \\\n  "
    texts = {"run.sh": filled("run.sh", limit=limit, command=for_shell(sweep.command())), **files}
    result = {
        "rayjob.yaml": filled(
            "rayjob.yaml",
            **common,
            files="".join(f"  {name}: {block(text, 4)}" for name, text in texts.items()).removesuffix("\n"),
            ray=for_yaml(asked.ray),
            nodes=nodes.count,
            drain=asked.limit.drain,
            grace=asked.limit.drain + 30,  # for the command itself, and for Ray's end
            store="" if store is None else f"- {for_yaml({'name': 'STUDY_STORE', 'value': store})}",
            tolerations=f"tolerations: {for_yaml(_TOLERATIONS)}" if nodes.gpus else "",
            resources=for_yaml({"requests": {"cpu": nodes.cpus, **limits}, "limits": limits}),
            volume="emptyDir: {}" if claim is None else f"persistentVolumeClaim: {for_yaml({'claimName': claim})}",
        ),
        "secrets.env": secrets(
            "Passwords of the run, for the Secret 'study-secrets'.", S3 if generated else RECORDS | S3, generated
        ),
    }
    if new_claim:
        result["claim.yaml"] = filled("claim.yaml", **common, claim=claim, size=asked.claim_size)
    if generated:
        result["services.yaml"] = filled("services.yaml", **common, mlflow=for_yaml(mlflow("study-postgres")))
    return result
