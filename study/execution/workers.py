"""A worker: the trainable with its job, which checks a node that joined late and leaves one that is about to end."""

from __future__ import annotations

import signal
import time
from collections.abc import Collection
from contextlib import suppress
from types import FrameType
from typing import Any

import study.execution.cluster  # noqa: F401  # isort: skip  # before Ray, whose environment it sets
import ray
from ray import tune
from ray.util.placement_group import get_current_placement_group, placement_group_table

from study.execution.job import Job
from study.execution.nodes import Checks
from study.execution.pool import LOOK_SECONDS, placement
from study.store.s3 import set_variables


def with_job(trainable: type, job: Job, checks: Checks | None = None) -> type:
    """Return a trainable whose class holds the job, and the request for the resources of a stage.

    `tune.with_parameters` would put the job into Ray's object store. When Ray's processes end, as when a machine goes
    down, Ray ends a driver that has objects there at once, before it can close its records.

    Args:
        trainable: a Ray Trainable class that takes a `Job`; see `study.execution.job`.
        job: the settings of the workers.
        checks: what a node must have that joined after the start; None to check none.
    """

    class WithJob(trainable):
        """A report also has ``nodes``, those of all ranks, and ``unfit``: why some of them cannot train.

        With ``moved``, the stage must go on in another process; the next step raises, so that Tune ends this one.
        """

        @classmethod
        def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
            return placement(job, config["avoided"])

        def setup(self, config: dict[str, Any]) -> None:
            set_variables(job.variables)
            self._nodes = _nodes_of_this_trial()
            self._unfit = {} if checks is None else checks.of_late(self._nodes)
            self._is_asked_to_end = self._has_left = False
            self._next_look = 0.0
            signal.signal(signal.SIGTERM, self._ask_to_end)
            if not self._unfit:
                super().setup(config, job)

        def _ask_to_end(self, _number: int, _frame: FrameType | None) -> None:
            """After the epoch, save and let another process go on: a machine that is preempted sends SIGTERM before."""
            self._is_asked_to_end = True

        def _must_leave(self) -> bool:
            """Return whether this process was asked to end, or Ray has announced the end of one of its nodes."""
            if not self._is_asked_to_end and time.monotonic() > self._next_look:
                self._next_look = time.monotonic() + LOOK_SECONDS
                with suppress(Exception):  # Ray does not answer, which ends this process if it stays so
                    leaving = ray._private.state.state.get_draining_nodes()
                    self._is_asked_to_end = not leaving.keys().isdisjoint(self._nodes)
            return self._is_asked_to_end

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            if not self._unfit and not super().reset_config(new_config):  # Tune would forget the trial
                raise NotImplementedError(f"{trainable.__name__}.reset_config must return True")
            return True

        def step(self) -> dict[str, Any]:
            if self._has_left:
                raise RuntimeError("the stage goes on in another process")
            if self._unfit:
                self._has_left = True
                unfit = {"position": 0, "saved": "", "done": False, "moved": True, "unfit": self._unfit}
                return {**unfit, "nodes": self._nodes}
            result = super().step()
            has_failed = "lost" in result or "failure" in result  # its other processes may have been ended first
            is_at_fault = result.get("failure", {}).get("for_good", False)
            if (has_failed or not result["done"]) and not is_at_fault and self._must_leave():
                result = {name: value for name, value in result.items() if name not in ("lost", "failure")}
                super().cleanup()  # saves
                self._has_left = result["moved"] = True
                result["done"] = False
            return {**result, "nodes": self._nodes}

        def cleanup(self) -> None:
            if not self._unfit and not self._has_left:
                super().cleanup()

    WithJob.__name__ = trainable.__name__  # Ray shows these as the name of the process
    WithJob.__qualname__ = trainable.__qualname__
    return WithJob


def _nodes_of_this_trial() -> Collection[str]:
    """Return Ray's identifiers of the nodes of all ranks, that of this process first."""
    here = ray.get_runtime_context().get_node_id()
    group = get_current_placement_group()
    nodes = placement_group_table(group)["bundles_to_node_id"].values() if group else ()
    return [here, *dict.fromkeys(node for node in nodes if node != here)]
