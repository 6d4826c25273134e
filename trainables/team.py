"""The processes that train a stage: rank 0 is this one, and Ray places the others in the trial's other bundles."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import ray
import torch
from ray.util.placement_group import get_current_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from study.errors import one_line
from study.execution.job import Job
from trainables import loop, ranks
from trainables.learner import Learner
from trainables.origins import verify
from trainables.ranks import RankLost, Ranks
from trainables.recipe import Epoch, Origin

Answer = TypeVar("Answer")

ANSWER_SECONDS = 10.0  # the longest wait for the other ranks' errors
AUTO_STEPS = "recorded"  # the meaning of `--gpu-steps auto`: eager or recorded


class Member:
    """One process of a team, with a learner and its rank's share of the data."""

    def __init__(self, job: Job, member_ranks: Ranks) -> None:
        self._job, self._ranks = job, member_ranks
        self._learner: Learner | None = None

    @property
    def learner(self) -> Learner:
        """The learner of the current stage."""
        assert self._learner is not None
        return self._learner

    def join(self, device: str, host: str, port: int) -> None:
        """Join rank 0, which waits at this address; see `ranks.join`."""
        here = ray.util.get_node_ip_address()
        ranks.join(self._ranks, device, here, partial(ranks.meet, host, self._ranks.size, port))

    def begin(self, plain: Mapping[str, Any], payload: bytes | None, key: str, epochs: int) -> None:
        """Load a state with its name and number, or state 0 of an origin.

        Raises:
            Refusal: if the code or the arithmetic of this process differs from the origin's.
        """
        from safetensors.torch import load as load_tensors

        origin = Origin.from_json(plain)
        verify(origin)

        if self._learner is not None and self._learner.fits(origin):
            self._learner.begin(origin)  # its recordings for the last stage stay valid
        else:
            if self._learner is not None:
                self._learner.forget_steps()
            self._learner = None
            if origin.device == "cuda":  # frees the memory of earlier learners, for other processes too
                gc.collect()
                torch.cuda.empty_cache()
            self._learner = Learner(origin, self._ranks, recorded=_recorded(self._job))
        if payload is not None:
            self.learner.load(load_tensors(payload), key, epochs)

    def train(self, plain: Mapping[str, Any]) -> dict[str, Any]:
        """Train the next epoch, evaluate, and return the measures.

        Raises:
            Diverged: if a loss is not finite, in every rank.
            RankLost: if another rank is gone.
        """
        return loop.advance(self.learner, Epoch.from_json(plain), Path(self._job.resources.data_dir), self._decoders)

    @cached_property
    def _decoders(self) -> int:
        """The number of processes that decode images: this process's CPUs, or its GPU's share of the machine's.

        With a GPU it is the larger of the two. The images do not depend on it.
        """
        cpus = max(1, int(self._job.resources.cpus / self._ranks.size))
        if not self._job.resources.gpus or not ray.is_initialized():
            return cpus
        node_id = ray.get_runtime_context().get_node_id()
        machine: dict[str, float] = next((node["Resources"] for node in ray.nodes() if node["NodeID"] == node_id), {})
        share = self._job.resources.gpus / self._ranks.size / max(1.0, machine.get("GPU", 0.0))
        return max(cpus, int(share * machine.get("CPU", 0.0) + 1e-6))


class Team:
    """All processes of a stage; this one is rank 0, and often the only one."""

    def __init__(self, job: Job, device: str, size: int) -> None:
        self._others: list[Any] = []
        self._first = Member(job, Ranks(0, size))
        if size > 1:
            group = get_current_placement_group()
            for rank in range(1, size):
                other = ray.remote(Member).options(
                    num_cpus=job.resources.cpus / size,
                    num_gpus=job.resources.gpus / size,
                    scheduling_strategy=PlacementGroupSchedulingStrategy(group, rank) if group else "DEFAULT",
                )
                self._others.append(other.remote(job, Ranks(rank, size)))
            self._await_others()
            host = ray.util.get_node_ip_address()
            store = ranks.meet(host, size)
            join = partial(ranks.join, Ranks(0, size), device, host, lambda: store)
            self._together(join, "join", device, host, store.port)

    def _await_others(self) -> None:
        """Check that all processes have started: rank 0 would wait for one that is lost before it joins."""
        try:
            ray.get([other.__ray_ready__.remote() for other in self._others])
        except ray.exceptions.RayError as error:
            self.close()
            raise RankLost(f"another training process did not start: {one_line(error)}") from error

    @property
    def learner(self) -> Learner:
        """The learner of rank 0, whose state is stored."""
        return self._first.learner

    def begin(self, origin: Origin, payload: bytes | None, key: str, epochs: int) -> None:
        """Load a state with its name and number, or state 0 of an origin."""
        plain = origin.to_json()  # other processes import the parts themselves
        self._together(partial(self._first.begin, plain, payload, key, epochs), "begin", plain, payload, key, epochs)

    def train(self, epoch: Epoch) -> dict[str, Any]:
        """Train the next epoch, evaluate, and return the measures."""
        plain = epoch.to_json()
        return self._together(partial(self._first.train, plain), "train", plain)

    def _together(self, first: Callable[[], Answer], method: str, *arguments: Any) -> Answer:
        """Call a method of the other ranks while rank 0 runs `first`, and return the answer of rank 0.

        Raises:
            Exception: the error of rank 0, or of another rank if that one is the cause.
        """
        if not self._others:
            return first()
        shared = [ray.put(argument) for argument in arguments]  # a state is sent once
        answers = [getattr(other, method).remote(*shared) for other in self._others]
        threading.Thread(target=self._watch, args=(answers,), name="watch ranks", daemon=True).start()
        try:
            answer = first()
            ray.get(answers)
        except Exception as error:
            reason = _cause(error, answers)
            self.close()
            if reason is error:
                raise
            raise reason from error
        return answer

    def _watch(self, answers: list[Any]) -> None:
        """End all other ranks once one has failed, so that rank 0 stops waiting for it."""
        while answers:
            (ready,), answers = ray.wait(answers)
            try:
                ray.get(ready)
            except ray.exceptions.RayError:
                self._kill()

    def _kill(self) -> None:
        for other in self._others:
            with suppress(ray.exceptions.RayError):
                ray.kill(other)

    def close(self) -> None:
        """End the other ranks."""
        with suppress(RuntimeError):  # the process group or the GPU is lost already
            ranks.leave()
        self._kill()
        self._others = []


def _recorded(job: Job) -> bool:
    return (AUTO_STEPS if job.resources.gpu_steps == "auto" else job.resources.gpu_steps) == "recorded"


def _cause(error: Exception, answers: list[Any]) -> Exception:
    """Return the first error: of a rank that has failed, the other ranks only notice that it is gone."""
    for answer in answers if isinstance(error, (RankLost, ray.exceptions.RayError)) else ():
        try:
            ray.get(answer, timeout=ANSWER_SECONDS)
        except ray.exceptions.RayTaskError as raised:
            if not isinstance(raised.cause, RankLost):
                return raised.cause  # type: ignore[no-any-return]
        except ray.exceptions.RayError as lost:
            error = RankLost(f"another training process was lost: {one_line(lost)}")
    return error
