"""What a start does before anything is trained."""

from dataclasses import replace

import pytest
from helpers import draft

from study.errors import Away, Refusal
from study.execution import cluster, driver
from study.store import records
from study.store.states import Store


def test_a_plan_that_another_start_has_changed_is_not_written_over(small_space, tmp_path):
    store, before = Store(str(tmp_path / "store")), draft(small_space(), replicates=1)
    before.plan = before.plan.named("mine")
    driver.store_plan(before, None, store)
    grown = draft(small_space(), replicates=3)
    grown.plan = replace(before.plan, replicates=3)
    driver.store_plan(grown, before.plan, store)
    for kept in (None, before.plan):
        with pytest.raises(Refusal, match="another process has just changed the plan of run 'mine'"):
            driver.store_plan(before, kept, store)
    assert records.load_plan(store, "mine") == grown.plan


def test_a_ray_that_does_not_start_is_said_unless_another_driver_has_the_run(study, small_space, tmp_path, monkeypatch):
    def connected(*_):
        raise Away("Ray did not start: too late")

    monkeypatch.setattr(cluster, "connected", connected)
    with pytest.raises(Away, match="Ray did not start"):
        study("run", small_space(), "--name", "mine")
    monkeypatch.setattr(driver.Start, "superseded", True)
    study("resume", "mine", code=130)
