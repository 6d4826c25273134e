"""A stage in an actor: saved during training, on a stop and at the end, and resumed from each with the same bits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
import torch

from study.errors import Away
from study.execution.job import Job
from study.machine import Machine
from study.planning import tree
from study.planning.stored import Resources
from study.planning.tree import Failure, Stage
from study.space import Json
from study.store.states import Store
from trainables import trainable, work
from trainables.config import Config
from trainables.ranks import RankLost
from trainables.recipe import Epoch
from trainables.team import Team
from trainables.trainable import StageTrainable

CONFIG = Config(dataset="digits", backbone="resnet8", epochs=5, milestones=(2,), warmup=1, S=1).to_json()


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job("mine", str(tmp_path / "store"), Resources())


@pytest.fixture(scope="module")
def stage() -> Stage:
    """Return a stage of five epochs."""
    (made,) = tree.stages([work.resolve(CONFIG, 0, Machine("cpu", 1))], set())
    return made


def actor(job: Job, stage: Stage, saved: str = "") -> StageTrainable:
    """Return a Trainable as Tune makes one, in this process. The store is there, as in a run."""
    Store(job.store)
    made = StageTrainable.__new__(StageTrainable)
    made.setup({"stage": stage, "saved": saved}, job=job)
    return made


def finish(made: StageTrainable) -> dict:
    while not (result := made.step())["done"]:
        pass
    return result


def payload_and_measures(job: Job, stage: Stage) -> tuple[bytes, list]:
    header, payload = Store(job.store).load(stage.key)
    return payload, header["measures"]


def test_a_stage_ends_in_its_state(job: Job, stage: Stage) -> None:
    result = finish(actor(job, stage))
    assert (result["position"], result["saved"]) == (5, stage.key)
    header = Store(job.store).header(stage.key)
    assert (header["epochs"], len(header["measures"]), len(header["wall_seconds"])) == (5, 5, 5)
    assert [(part["from_epoch"], part["run"]) for part in header["provenance"]] == [(0, "mine")]


def test_a_lost_attempt_is_taken_up_where_it_saved(
    job: Job, stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainable, "SLICE_SECONDS", 0.0)  # a report an epoch
    monkeypatch.setattr(trainable, "SAVE_SECONDS", 0.0)  # and a state an epoch
    lost = actor(job, stage)
    for _ in range(3):
        saved = lost.step()["saved"]
    assert saved == stage.keys[2]

    again = actor(job, stage, saved)
    assert again.step()["position"] == 4
    finish(again)
    elsewhere = Job("other", str(tmp_path / "elsewhere"), Resources())
    finish(actor(elsewhere, stage))
    assert payload_and_measures(job, stage) == payload_and_measures(elsewhere, stage)


def test_a_stopped_stage_saves_what_it_has_trained(job: Job, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainable, "SLICE_SECONDS", 0.0)
    stopped = actor(job, stage)
    assert stopped.step() | {"saved": ""} == {"position": 1, "saved": "", "done": False}
    stopped.step()
    assert Store(job.store).keys() == set()
    stopped.cleanup()
    assert Store(job.store).keys() == {stage.keys[1]}


def test_a_state_that_another_run_needs_is_saved_on_the_way(
    job: Job, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainable, "SLICE_SECONDS", 0.0)
    asked = actor(job, stage)
    asked.step()
    asked.keep({stage.keys[0], stage.keys[2], "of another stage"})
    finish(asked)
    assert Store(job.store).keys() == {stage.keys[0], stage.keys[2], stage.keys[4]}
    (part, _) = tree.cut(stage, {stage.keys[2]})
    elsewhere = Job("other", job.store + "2", Resources())
    finish(actor(elsewhere, part))
    payloads = {Store(each).load(part.key)[1] for each in (job.store, elsewhere.store)}
    assert len(payloads) == 1


def test_what_training_raises_is_reported_in_one_line_with_its_traceback(job: Job, stage: Stage) -> None:
    wild = {**stage.epochs[0], "lr": 1e30}
    result = finish(actor(job, replace(stage, epochs=(wild, *stage.epochs[1:]))))
    failure = Failure(**result["failure"])
    assert failure.reason.startswith("diverged in epoch ")
    assert "Traceback" in failure.traceback
    assert (failure.for_good, failure.damaged) == (True, "")
    assert Store(job.store).keys() == set()


@pytest.mark.parametrize("field", ["core", "data", "torch", "torchvision", "numpy"])
def test_a_worker_refuses_a_plan_made_with_other_code(job: Job, stage: Stage, field: str) -> None:
    result = finish(actor(job, replace(stage, origin={**stage.origin, field: "another"})))
    assert f"{field} of the worker" in result["failure"]["reason"]
    assert "must be another, as in the plan" in result["failure"]["reason"]
    assert not result["failure"]["for_good"]


@pytest.mark.parametrize("part", ["backbone", "head", "loss"])
def test_a_worker_refuses_a_part_whose_code_is_another(job: Job, stage: Stage, part: str) -> None:
    def changed(plain: Json) -> Json:
        return {**plain, part: {**plain[part], "code": "another"}} if part in plain else plain

    other = replace(stage, origin=changed(stage.origin), epochs=tuple(map(changed, stage.epochs)))
    result = finish(actor(job, other))
    assert (
        f"code of {part} {(stage.origin | stage.epochs[0])[part]['part']} of the worker" in result["failure"]["reason"]
    )
    assert "must be another, as in the plan" in result["failure"]["reason"]
    assert not result["failure"]["for_good"]
    assert Store(job.store).keys() == set()


def test_a_part_that_the_worker_does_not_have_is_not_for_good(job: Job, stage: Stage) -> None:
    elsewhere = {**stage.epochs[0], "loss": {"part": "/nowhere/mine.py:Mine", "code": "some"}}
    failure = Failure(**finish(actor(job, replace(stage, epochs=(elsewhere, *stage.epochs[1:]))))["failure"])
    assert "/nowhere/mine.py:Mine" in failure.reason
    assert not failure.for_good


@pytest.mark.parametrize("wrong", ["origin", "instruction", "parent"])
def test_a_state_is_stored_under_no_other_name_than_its_own(job: Job, stage: Stage, wrong: str) -> None:
    head, rest = (replace(stage, keys=stage.keys[at], epochs=stage.epochs[at]) for at in (slice(2), slice(2, 5)))
    rest = replace(rest, parent=head.key, start=2)
    finish(actor(job, head))
    stored = Store(job.store).keys()
    if wrong == "origin":
        rest = replace(stage, origin={**stage.origin, "seed": 7})
    elif wrong == "instruction":
        rest = replace(rest, epochs=({**rest.epochs[0], "lr": 0.05}, *rest.epochs[1:]))
    else:  # by another way to a state of as many epochs
        other = work.resolve({**CONFIG, "lr": 0.05}, 0, Machine("cpu", 1))
        (before,) = tree.stages([replace(other, epochs=other.epochs[:2], keys=other.keys[:3])], set())
        finish(actor(job, before))
        stored |= {before.key}
        rest = replace(rest, parent=before.key)
    failure = Failure(**finish(actor(job, rest))["failure"])
    planned = rest.keys[-1]  # the stage is saved only at its end
    assert failure.reason.startswith("RuntimeError: trained state ")
    assert failure.reason.endswith(f", but the plan has {planned}")
    assert failure.for_good
    assert Store(job.store).keys() == stored


@pytest.mark.parametrize("error", [OSError("no space left"), MemoryError(), ImportError("no torch"), ValueError("odd")])
def test_a_machine_s_failure_is_not_the_training_s(
    job: Job, stage: Stage, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(Store, "save", fail)
    failure = Failure(**finish(actor(job, stage))["failure"])
    assert failure.reason.startswith(type(error).__name__)
    assert failure.for_good == isinstance(error, ValueError)


ILLEGAL = torch.AcceleratorError(
    "CUDA error: an illegal memory access was encountered\nSearch for `cudaErrorIllegalAddress' in https://docs.nvidia…"
)


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.fixture
def failing(job: Job, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception], StageTrainable]:
    """Return a function that makes an actor whose second epoch fails once, like a failing GPU."""

    def make(error: Exception) -> StageTrainable:
        train = Team.train

        def fail_once(team: Team, epoch: Epoch) -> dict[str, Any]:
            if team.learner.epochs != 1:
                return train(team, epoch)
            monkeypatch.setattr(Team, "train", train)
            raise error

        monkeypatch.setattr(Team, "train", fail_once)
        monkeypatch.setattr(trainable, "SLICE_SECONDS", 3600.0)  # an epoch may take a second beside others
        return actor(job, stage)

    return make


@pytest.mark.parametrize(
    "error",
    [
        ILLEGAL,
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm( handle, …)`"),
        caused(OSError("a process that decodes images has died: CUDA error"), ILLEGAL),
    ],
)
def test_a_lost_gpu_is_a_lost_process_and_another_one_goes_on(
    failing: Callable[[Exception], StageTrainable], job: Job, stage: Stage, error: Exception
) -> None:
    made = failing(error)
    report = made.step()
    assert report == {
        "position": 1,
        "saved": "",
        "done": False,
        "lost": f"{type(error).__name__}: {str(error).splitlines()[0]}",
    }
    with pytest.raises(type(error)):  # Tune is to see that it failed, and to begin again in another process
        made.step()
    made.cleanup()
    assert Store(job.store).keys() == set()  # nothing is read from a GPU that is lost
    assert finish(actor(job, stage))["saved"] == stage.key


OUT_OF_MEMORY = (
    "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79.11 GiB of which 1.19 GiB is free."
    " Process 17 has 77.90 GiB memory in use. Of the allocated memory 76.00 GiB is allocated by PyTorch, and 1.20 GiB "
    "is reserved by PyTorch but unallocated."
)
REQUESTED = "the GPU has too little memory: {} were requested"
REMEDY = ". Use fewer trials per GPU (a larger --gpus-per-trial) or a smaller batch"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            torch.OutOfMemoryError(OUT_OF_MEMORY),
            f"{REQUESTED.format('2.50 GiB')}, 1.19 GiB of 79.11 GiB were free{REMEDY}",
        ),
        (
            torch.AcceleratorError(
                "CUDA error: out of memory\nSearch for `cudaErrorMemoryAllocation' in https://docs…"
            ),
            f"the GPU has too little memory: CUDA error: out of memory{REMEDY}",
        ),
        (
            RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
            f"the GPU has too little memory: cuDNN error: CUDNN_STATUS_ALLOC_FAILED{REMEDY}",
        ),
        (
            RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
            f"the GPU has too little memory: cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED{REMEDY}",
        ),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
            "the GPU has too little memory: CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling "
            f"`cublasCreate(handle)`{REMEDY}",
        ),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
            "the GPU has too little memory: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling "
            f"`cublasCreate(handle)`{REMEDY}",
        ),
        (
            caused(OSError("a process that decodes images has died"), RuntimeError("CUDA error: out of memory")),
            f"the GPU has too little memory: CUDA error: out of memory{REMEDY}",
        ),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
            "the machine has too little memory: 9 bytes were requested. Use fewer --workers or a smaller batch",
        ),
    ],
)
def test_too_little_memory_is_one_line_with_what_would_help_and_not_for_good(
    failing: Callable[[Exception], StageTrainable], stage: Stage, error: Exception, reason: str
) -> None:
    made = failing(error)
    failure = Failure(**made.step()["failure"])
    assert failure.reason == reason
    assert (failure.for_good, failure.damaged) == (False, "")
    assert "Traceback" in failure.traceback
    made.reset_config({"stage": stage, "saved": ""})  # the process is as good as before
    assert finish(made)["saved"] == stage.key


def test_what_a_gpu_has_is_asked_for_if_its_libraries_do_not_say(
    failing: Callable[[Exception], StageTrainable], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (3 << 28, 80 << 30))
    failure = Failure(**failing(RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")).step()["failure"])
    assert ": cuDNN error: CUDNN_STATUS_ALLOC_FAILED, 0.75 GiB of 80.00 GiB are free. Use " in failure.reason


def test_what_torch_says_of_a_cpu_without_room_is_a_lack_of_memory() -> None:
    with pytest.raises(RuntimeError) as refused:
        torch.empty(1 << 60, dtype=torch.uint8)
    failure = trainable._failure(refused.value)
    assert failure["reason"].startswith(f"the machine has too little memory: {1 << 60} bytes were requested. ")
    assert not failure["for_good"]


def test_another_error_of_the_run_time_is_the_training_s(failing: Callable[[Exception], StageTrainable]) -> None:
    failure = Failure(**failing(RuntimeError("mat1 and mat2 shapes cannot be multiplied")).step()["failure"])
    assert failure.reason == "RuntimeError: mat1 and mat2 shapes cannot be multiplied"
    assert failure.for_good


def test_a_damaged_parent_is_named_and_not_for_good(job: Job, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainable, "SLICE_SECONDS", 0.0)
    stopped = actor(job, stage)
    stopped.step()
    stopped.cleanup()
    (state,) = [path for path in Path(job.store).rglob("*") if path.is_file() and stage.keys[0] in path.name]
    state.write_bytes(state.read_bytes()[:-1] + b"?")
    failure = Failure(**finish(actor(job, stage, stage.keys[0]))["failure"])
    assert (failure.for_good, failure.damaged) == (False, stage.keys[0])


def test_a_parent_that_is_gone_is_not_for_good(job: Job, stage: Stage) -> None:
    failure = Failure(**finish(actor(job, stage, stage.keys[1]))["failure"])
    assert failure.for_good is False


def test_a_stage_that_is_stopped_where_nothing_can_be_saved_ends_without_an_error(
    job: Job, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise Away("no space left")

    monkeypatch.setattr(trainable, "SLICE_SECONDS", 0.0)
    stopped = actor(job, stage)
    stopped.step()
    monkeypatch.setattr(Store, "save", full)
    stopped.cleanup()
    assert Store(job.store).keys() == set()


def test_two_processes_train_a_stage_and_take_it_up_with_the_same_bits(
    one_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainable, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(trainable, "SLICE_SECONDS", 0.0)
    (stage,) = tree.stages([work.resolve(CONFIG, 0, Machine("cpu", 1, ranks=2))], set())
    whole, parts = (Job("mine", str(tmp_path / name), Resources(), ranks=2) for name in ("whole", "parts"))
    for job, breaks in ((whole, ()), (parts, (2, 3))):
        made = actor(job, stage)
        while not (result := made.step())["done"]:
            if result["position"] in breaks:
                made.cleanup()
                made = actor(job, stage, result["saved"])
        assert result["saved"] == stage.key
        made.cleanup()
    assert payload_and_measures(whole, stage) == payload_and_measures(parts, stage)


def test_a_stage_that_loses_another_rank_counts_as_lost_and_is_taken_up_again(
    one_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainable, "SLICE_SECONDS", 0.0)
    (stage,) = tree.stages([work.resolve(CONFIG, 0, Machine("cpu", 1, ranks=2))], set())
    job = Job("mine", str(tmp_path), Resources(), ranks=2)
    made = actor(job, stage)
    made.step()
    assert made.team is not None
    ray.kill(made.team._others[0])
    report = made.step()
    assert (report["done"], report["lost"].startswith("RankLost: another training process")) == (False, True)
    with pytest.raises(RankLost):  # Tune is to see that it failed, and to begin again in another process
        made.step()
    made.cleanup()
    again = actor(job, stage)
    assert finish(again)["saved"] == stage.key
    again.cleanup()


def test_a_failure_names_the_line_of_the_user_s_file(job: Job, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from dataclasses import dataclass\nfrom trainables.parts import Loss\n@dataclass(frozen=True)\n"
        "class Mine(Loss):\n    def build(self, counts):\n        raise ValueError('too few')\n"
    )
    config = {**CONFIG, "loss": f"{tmp_path}/mine.py:Mine"}
    (own,) = tree.stages([work.resolve(config, 0, Machine("cpu", 1))], set())
    failure = finish(actor(job, own))["failure"]
    assert failure["reason"] == "ValueError: too few (mine.py, line 6)"
