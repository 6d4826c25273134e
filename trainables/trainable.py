"""The Ray Trainable around the loop: one stage, from a stored state to the next."""

from __future__ import annotations

import platform
import re
import time
import traceback
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray.tune import Trainable

from study import modules
from study.errors import Away, Damaged, Refusal, StudyError, one_line
from study.execution.job import Job
from study.store.states import Store
from trainables.recipe import Epoch, Origin

if TYPE_CHECKING:  # the driver imports this module, and importing torch takes seconds
    from trainables.team import Team

SLICE_SECONDS = 1.0  # between two reports to the driver, or one epoch, whichever is longer
AWAY_SECONDS = 2.0  # between two tries to use a store that is away
SAVE_SECONDS = 60.0  # of training that a crash may cost, or one epoch, whichever is longer


class _StoreAway(StudyError):
    """The store cannot be used; what was trained is kept, and the next step tries again."""


@contextmanager
def _store() -> Iterator[None]:
    """Tell a store that is away from other services that are."""
    try:
        yield
    except Away as error:
        raise _StoreAway(one_line(error)) from error


class StageTrainable(Trainable):
    """A Trainable that trains one stage; an actor executes many stages, one after the other.

    `study.execution.job` describes its configuration and its reports. A trial that Tune itself counts as failed has
    lost a process: another rank, or this process, alone or with its GPU. For another rank or a lost GPU, ``lost`` has
    the reason.

    It is a class and not a function because Tune stops an actor between two calls of `step`, and `cleanup` then saves
    the finished epochs. A function's thread would be abandoned, and is no faster
    (tests/benchmarks/results/trainable_forms.json).
    """

    def setup(self, config: dict[str, Any], job: Job) -> None:
        """Prepare the first stage."""
        self.job = job
        self.team: Team | None = None
        self.lost: Exception | None = None
        self.training = False  # the stage's state is in the team
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Prepare another stage in the same process, after the finished epochs of the last one are saved."""
        self._save_finished_epochs()
        self.stage = new_config["stage"]
        self.training = False
        self.kept = frozenset[str]()
        self.saved, self.again = new_config["saved"], new_config.get("again", False)
        self.position = self.begun_at = self.stage.keys.index(self.saved) + 1 if self.saved else 0
        return True

    def keep(self, keys: Collection[str]) -> None:
        """Save these states of the stage, too, as soon as they are trained, because another run needs them."""
        self.kept = frozenset(keys)

    def step(self) -> dict[str, Any]:
        """Train for about a second and report; save when the stage ends, and after a minute of training.

        While the store cannot be used, keep what was trained and train no further.
        """
        if self.lost is not None:
            raise self.lost  # Tune then starts again with other processes
        failure: dict[str, Any] = {}
        try:
            if not self.training:
                self._begin()
            self._train_slice()
        except _StoreAway as error:
            time.sleep(AWAY_SECONDS)
            return {**self._report(), "done": False, "waiting": one_line(error)}
        except Exception as error:  # noqa: BLE001  reported, since a trial that Tune sees as failed has lost a process
            self.training = False
            self._disband()
            if _is_lost(error):
                self.lost = error
                return {**self._report(), "done": False, "lost": one_line(error, named=True)}
            failure = {"failure": _failure(error)}
        return {**self._report(), "done": bool(failure) or self._has_ended(), **failure}

    def _report(self) -> dict[str, Any]:
        begun = {"begun": self.begun_at} if self.begun_at else {}
        return {"position": self.position, "saved": self.saved, **begun}

    def _has_ended(self) -> bool:
        return self.position == len(self.stage.keys)

    def cleanup(self) -> None:
        """Save the finished epochs of a stage that is stopped before its end, and end the other ranks."""
        self._save_finished_epochs()
        self._disband()

    def _save_finished_epochs(self) -> None:
        if self.training and self.position:
            with suppress(StudyError, RuntimeError):  # epochs that cannot be saved are trained again
                self._save()

    def _disband(self) -> None:
        if self.team is not None:
            self.team.close()
            self.team = None

    def _begin(self) -> None:
        from trainables.team import Team

        origin = Origin.from_json(self.stage.origin)
        self._open_store()
        self.begun_at = self.saved_at = self.position
        if self._has_ended():
            return
        key, begun, payload = "", 0, None
        self.measures: list[dict[str, Any]] = []
        self.wall_seconds: list[float] = []
        self.provenance: list[dict[str, Any]] = []
        if self.stage.start + self.position:
            key = self.saved or self.stage.parent
            with _store():
                header, payload = self.store.load(key)
            begun = header["epochs"]
            self.measures, self.wall_seconds = header["measures"], header["wall_seconds"]
            self.provenance = header["provenance"]
        if self.team is None:
            self.team = Team(self.job, origin.device, origin.ranks)
        self.team.begin(origin, payload, key, begun)
        self.provenance = [*self.provenance, {"from_epoch": begun, "run": self.job.run, **_machine(origin)}]
        self.training, self.saved_time = True, time.monotonic()

    def _open_store(self) -> None:
        """Open the store, and after an earlier attempt go on from the last state that it saved.

        Raises:
            _StoreAway: if the store cannot be reached, or cannot be read.
        """
        try:
            self.store = Store(self.job.store, create=False, wait=True)
        except Refusal as refusal:  # it was there when the run began
            raise _StoreAway(one_line(refusal)) from refusal
        if self.again:
            unseen = range(len(self.stage.keys), self.position, -1)
            with _store():
                self.position = next((n for n in unseen if self.store.has(self.stage.keys[n - 1])), self.position)
            self.saved = self.stage.keys[self.position - 1] if self.position else ""
            self.again = False

    def _train_slice(self) -> None:
        began, first = time.monotonic(), self.position
        while self.training:
            last = self.wall_seconds[-1] if self.position > self.begun_at else 0.0
            now = time.monotonic()
            is_kept = self.position > 0 and self.stage.keys[self.position - 1] in self.kept
            if self._has_ended() or is_kept or now + last - self.saved_time > SAVE_SECONDS:
                self._save()  # if the store is away, the next step tries again
            is_over = self.position > first and now - began > SLICE_SECONDS
            if self._has_ended() or not self.training or is_over:
                return
            epoch = Epoch.from_json(self.stage.epochs[self.position])
            self.measures.append(self._train_epoch(epoch))
            self.position += 1
            self.wall_seconds.append(round(time.monotonic() - now, 4))

    def _train_epoch(self, epoch: Epoch) -> dict[str, Any]:
        """Train an epoch. A loss that is not finite is reported with the number of the epoch and its learning rate."""
        from trainables.loop import Diverged

        assert self.team is not None
        try:
            return self.team.train(epoch)
        except Diverged as error:
            index = self.stage.start + self.position
            # The loop, whose code the names of states contain, says "the test loss is nan", with the epoch or without.
            loss = str(error).partition(" in epoch ")[0].removeprefix("the ").replace(" is ", " ")
            raise Diverged(f"diverged in epoch {index} ({loss} at lr {epoch.lr:g})") from error

    def _save(self) -> None:
        from safetensors.torch import save as save_tensors

        assert self.team is not None
        if self.position == self.saved_at:
            return
        key = self.team.learner.key
        if key != self.stage.keys[self.position - 1]:
            raise RuntimeError(f"trained state {key}, but the plan has {self.stage.keys[self.position - 1]}")
        header = {
            "key": key,
            "epochs": self.team.learner.epochs,
            "measures": self.measures,
            "wall_seconds": self.wall_seconds,
            "provenance": self.provenance,
            "origin": self.stage.origin,
        }
        with _store():
            is_first = self.store.save(key, header, save_tensors(self.team.learner.state()))
        if not is_first:
            self.training = False  # a worker of another driver was first: its state is loaded before the next epoch
        self.saved, self.saved_at, self.saved_time = key, self.position, time.monotonic()


def _machine(origin: Origin) -> dict[str, Any]:
    import torch

    model = torch.cuda.get_device_name() if origin.device == "cuda" else _cpu_model()
    return {"host": platform.node(), "device_model": model, "python": platform.python_version()}


def _cpu_model() -> str:
    """Return the model of the processor, which `platform` does not know on Linux."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _is_lost(error: Exception) -> bool:
    """Return whether only another process can go on: a rank is gone, or the GPU's context is broken.

    CUDA reports an error of a kernel or of the driver at a later call, and most errors at every later call.
    """
    import torch

    from trainables.ranks import RankLost

    if isinstance(error, RankLost):
        return True
    return not _memory_message(error) and any(
        isinstance(each, torch.AcceleratorError) or _says(each, _BROKEN) for each in _chain(error)
    )


def _memory_message(error: Exception) -> str:
    """Return the message of a failed allocation on a GPU or, by torch, on a CPU; "" for any other error."""
    import torch

    for each in _chain(error):
        if isinstance(each, torch.OutOfMemoryError) or _says(each, _NO_MEMORY):
            return _allocation_message(str(each))
    return ""


# Messages of the CUDA libraries for errors that have no class in torch.
_BROKEN = ("_STATUS_EXECUTION_FAILED", "_STATUS_MAPPING_ERROR", "_STATUS_INTERNAL_ERROR")
_NO_MEMORY = (
    "_ALLOCATION_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",  # cuBLAS: a full GPU has no room for its handle
    "cudaErrorMemoryAllocation",
    "CUDA error: out of memory",
    "CUDA out of memory",
    "DefaultCPUAllocator: can't allocate memory",
)


def _says(error: BaseException, words: Sequence[str]) -> bool:
    return isinstance(error, RuntimeError) and any(each in str(error) for each in words)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its causes, such as the error of the thread that pins a DataLoader's images."""
    while error is not None:
        yield error
        error = error.__cause__


def _allocation_message(text: str) -> str:
    """Return one line about a failed allocation: the requested and the free memory, and a remedy."""
    import torch

    request = re.search(r"ried to allocate ([\d.]+ \w+)", text)
    reason = f"{request[1]} were requested" if request else (text.splitlines() or [""])[0]
    if "DefaultCPUAllocator" in text:
        return f"the machine has too little memory: {reason}. Use fewer --workers or a smaller batch"
    capacity = re.search(r"total capacity of ([\d.]+ \w+) of which ([\d.]+ \w+) is free", text)
    free_memory = f", {capacity[2]} of {capacity[1]} were free" if capacity else ""
    if not capacity and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        with suppress(RuntimeError):  # the GPU may be lost by now
            free, total = torch.cuda.mem_get_info()
            free_memory = f", {free / 2**30:.2f} GiB of {total / 2**30:.2f} GiB are free"
    remedy = "Use fewer trials per GPU (a larger --gpus-per-trial) or a smaller batch"
    return f"the GPU has too little memory: {reason}{free_memory}. {remedy}"


def _says_diverged(error: Exception) -> bool:
    from trainables.loop import Diverged

    return isinstance(error, Diverged)


def _failure(error: Exception) -> dict[str, Any]:
    """Return the fields of a `Failure`; training is not at fault for a full disk, lost files or lack of memory."""
    memory = _memory_message(error)
    external = isinstance(error, (OSError, ImportError, MemoryError, StudyError)) or bool(memory)
    return {
        "reason": memory or one_line(error, named=not _says_diverged(error)) + modules.line_of(error),
        "traceback": traceback.format_exc(),
        "for_good": not external,
        "damaged": error.key if isinstance(error, Damaged) else "",
        "host": platform.node(),
    }
