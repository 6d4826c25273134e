import numpy as np
import pytest
from helpers import cell, header, nine, plan, results, top1
from safetensors.numpy import save

from study.report.results import Results
from study.report.statistics import paired
from study.space import Printed


def two_replicates(**measures):
    """Return the result of a cell with three replicates, of which 0 and 2 have ended with these curves."""
    trial = cell("IB", "CR")
    ends = [
        header(
            *(
                dict(zip(measures, epoch, strict=True))
                for epoch in zip(*(m[which] for m in measures.values()), strict=True)
            )
        )
        for which in range(2)
    ]
    recorded = results([trial], {trial.ends[0]: ends[0], trial.ends[2]: ends[1]})
    return recorded["IB⇒CR", "digits"]


def test_a_result_gives_each_measure_by_replicate():
    result = two_replicates(**{"test/top1": ([70.0, 90.0, 80.0], [60.0, 65.0, 85.0]), "lr": ([0.1] * 3, [0.2] * 3)})
    assert result.last() == {0: 80.0, 2: 85.0}
    assert result.best() == {0: 90.0, 2: 85.0}
    assert result.curve("lr") == {0: [0.1] * 3, 2: [0.2] * 3}
    assert result.wall_seconds() == {0: [0.5] * 3, 2: [0.5] * 3}
    assert result.hardware == {"a CPU"}
    assert not result.complete


def test_what_was_not_measured_is_missing_and_no_error():
    trial = cell("IB", "CR", replicates=1)
    recorded = results([trial], {trial.ends[0]: header({"fit/top1": 50.0}, {}, {"test/class_accuracy": [1.0, 2.0]})})
    result = recorded["IB⇒CR", "digits"]
    assert result.curve("fit/top1") == {0: [50.0, None, None]}
    assert result.lists("test/class_accuracy") == {0: [None, None, [1.0, 2.0]]}
    assert result.last("fit/top1") == result.last() == result.best() == {}
    assert result.best("fit/top1") == {0: 50.0}
    assert str(result.cell("no such measure")) == "–"


def test_nothing_recorded_is_empty_everywhere():
    recorded = results(nine(), {})
    for result in recorded:
        assert (
            result.last() == result.curve() == result.lists("x") == result.wall_seconds() == result.observed("x") == {}
        )
        assert str(result.cell()) == "–"
        assert not result.complete
    assert recorded.hypotheses() == []


def test_results_stand_in_rows_and_columns_in_the_order_of_the_plan():
    trials = [
        *nine(dataset="cifar10"),
        cell("IB", "CR", dataset="digits"),
        cell("IB", "CR", replicates=1, dataset="other"),
    ]
    recorded = results(trials[:-1], {trials[9].ends[0]: top1(50.0)})
    assert (recorded.columns, recorded.rows) == (["cifar10", "digits"], [trial.trial.row for trial in trials[:9]])
    assert [result.planned for result in recorded] == trials[:-1]
    assert str(recorded.cell("IB⇒CR", "digits")) == "50.0"
    assert recorded.get("IB⇒IB", "digits") is None
    assert recorded.cell("IB⇒IB", "digits") is None
    with pytest.raises(KeyError):
        recorded["IB⇒IB", "digits"]


def test_a_view_sees_its_own_space_only():
    trials = nine()
    run_plan = plan(trials, ("table7", "table9"))
    assert [len(Results(run_plan, space, {}.get)) for space in run_plan.spaces] == [0, 9]


@pytest.mark.parametrize(
    ("paper", "paper_of", "provenance", "printed"),
    [
        (82.9, "digits", "*", Printed(82.9, "*")),
        (82.9, "cifar10", "†", Printed(82.9, "†", "cifar10")),
        (None, "", "", None),
    ],
)
def test_the_paper_s_figure_stands_beside_the_trial_s_own_measure_only(paper, paper_of, provenance, printed):
    trial = cell("IB", "CR", paper=paper, paper_of=paper_of, provenance=provenance)
    recorded = results([trial], {trial.ends[0]: top1(81.0, few=3.0)})
    assert [recorded.cell("IB⇒CR", "digits", measure).printed for measure in ("", "test/top1", "test/few")] == [
        printed,
        printed,
        None,
    ]
    assert recorded.cell("IB⇒CR", "digits", "test/few").values == {0: 3.0}


def test_differences_are_paired_by_replicate():
    trials = nine(replicates=4)
    by_row = {trial.trial.row: trial for trial in trials}
    some, others = {0: 50.0, 1: 52.0, 3: 57.0}, {0: 49.0, 2: 48.0, 3: 50.0}
    states = {by_row["IB⇒CR"].ends[number]: top1(value) for number, value in some.items()}
    states |= {by_row["IB⇒IB"].ends[number]: top1(value) for number, value in others.items()}
    recorded = results(trials, states)
    expected = paired(some, others)
    assert expected.mean == 4.0
    (hypothesis,) = recorded.hypotheses()
    assert (hypothesis.column, hypothesis.estimate) == ("digits", expected)


def test_observations_are_read_from_the_last_state_once():
    trial = cell("IB", "CR", replicates=3)
    payloads = {
        end: save({"observed.predictions": np.arange(4, dtype=np.int16) + n, "network.weight": np.zeros(2, np.float32)})
        for n, end in enumerate(trial.ends[:2])
    }
    read = []

    def payload(key):
        read.append(key)
        return payloads.get(key)

    run_plan = plan([trial])
    recorded = Results(run_plan, run_plan.spaces[0], dict.fromkeys(trial.ends, top1(50.0)).get, payload)
    for _ in range(2):
        predictions = recorded["IB⇒CR", "digits"].observed("predictions")
        assert {n: observed.tolist() for n, observed in predictions.items()} == {0: [0, 1, 2, 3], 1: [1, 2, 3, 4]}
    assert recorded["IB⇒CR", "digits"].observed("weight") == {}
    assert sorted(read) == sorted(trial.ends)  # the third has been cleaned up
