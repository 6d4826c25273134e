"""What every worker is told of the stages that it trains, and what it answers.

A Ray Trainable that executes stages (`study.space.Work.trainable`) takes a `Job` in ``setup(config, job)``. Its
configuration, also that of ``reset_config``, is ``stage``, a `study.planning.tree.Stage`, and ``saved``: the last state
of it that a lost attempt saved, or "". Each ``step`` trains some epochs and reports a dictionary:

- ``position``: epochs done of the stage; ``saved``: the newest state of it in the store, or ""; ``done``.
- ``failure``, if the stage is to be given up: the fields of a `study.planning.tree.Failure`. An exception that is
  raised counts as a lost process: the stage is tried in another one.

States are written by `study.store.states.Store.save`: of epoch e under ``stage.keys[e]``, the stage's last one always.
A header holds ``key``; ``epochs``, counted from state 0; for each of these epochs ``measures``, a dictionary, and
``wall_seconds``; and ``provenance``: parts of ``from_epoch``, ``run``, ``host`` and ``device_model``, of which the
first begins with epoch 0. A state that is not there yet (``stage.start`` 0) is drawn from ``stage.origin``.
"""

from __future__ import annotations

from dataclasses import dataclass

from study.planning.stored import Resources


@dataclass(frozen=True)
class Job:
    """What every worker is told, once.

    Attributes:
        run: whose stages it trains.
        store: the URL of the states.
        resources: of each stage.
        ranks: processes that train a stage together, which share them.
    """

    run: str
    store: str
    resources: Resources
    ranks: int = 1
