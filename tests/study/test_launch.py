"""What is checked before a stored run goes on."""

from helpers import Study, draft

from study.space import Request
from study.store import records
from study.store.states import Store


def test_a_run_whose_data_are_not_here_is_refused_and_nothing_trained(study: Study, tmp_path) -> None:
    plan = draft("table9", replicates=1, request=Request({"data": ("cifar10",)})).plan
    records.save_plan(Store(str(tmp_path / "home/store")), plan)
    refused = study("resume", plan.run, "--data-dir", str(tmp_path), code=2)
    assert "cifar10 is missing or damaged" in str(refused.exception)
    assert not list((tmp_path / "home/store").rglob("starts"))
