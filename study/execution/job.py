"""The interface between the driver and the workers: the settings of a worker, its stages and its reports.

A Ray Trainable that executes stages (`study.space.Work.trainable`) takes a `Job` in ``setup(config, job)``. The
configuration there, and that of ``reset_config``, has these entries. ``stage`` is a `study.planning.tree.Stage`.
``saved`` is the name of the last state of the stage that an earlier attempt is known to have saved, or "". ``again`` is
whether there may be further ones, of that attempt or of another run. Each ``step`` trains some epochs and reports a
dictionary:

- ``position``: the number of trained epochs of the stage; ``saved``: its newest state in the store, or ""; ``done``.
- ``begun``, if an earlier attempt or another run has saved states of the stage: the position at which this one began.
- ``waiting``, if the store cannot be used: the reason. The epochs are kept, and the next ``step`` tries again.
- ``lost``, if only another process can go on: the reason. The next ``step`` raises.
- ``failure``, if the stage must be given up: the fields of a `study.planning.tree.Failure`. An exception that is raised
  counts as a lost process: the stage is tried again in another process.

A class may have a method ``keep(keys)``. It is called between two steps with the names of states inside the stage that
another run needs: each is saved as soon as it is trained.

States are written by `study.store.states.Store.save`. The state after epoch e has the name ``stage.keys[e]``, and the
stage's last state is always written. A header holds ``key``; ``epochs``, counted from state 0; for each of these epochs
``measures``, a dictionary, and ``wall_seconds``; and ``provenance``. This is a list of parts with ``from_epoch``,
``run``, ``host`` and ``device_model``, the first of which begins with epoch 0. If the stage begins with state 0
(``stage.start`` is 0), this state is not stored but drawn from ``stage.origin``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from study.planning.stored import Resources


@dataclass(frozen=True)
class Job:
    """The settings that every worker gets once.

    Attributes:
        run: the run whose stages are trained.
        store: the URL of the states' store.
        resources: the resources of each stage.
        ranks: the number of processes that train a stage together and share its resources.
        variables: the environment variables with which the driver reaches the store, set in the worker before `setup`.
            They hold secrets, so they travel inside the trainable: Ray writes a runtime environment to its logs.
    """

    run: str
    store: str = field(repr=False)  # it may hold a password
    resources: Resources
    ranks: int = 1
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def bundle(self) -> dict[str, float]:
        """What each rank of a stage wants, by kind."""
        needs = {"CPU": self.resources.cpus, "GPU": self.resources.gpus}
        return {kind: need / self.ranks for kind, need in needs.items() if need}
