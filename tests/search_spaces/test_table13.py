"""Table 13: bias² and variance over runs."""

import numpy as np
import pytest
from helpers import as_trained, by_place, entry, nothing, space, tables

from study.errors import Refusal
from study.report import render
from trainables.config import Config

PAPER = {
    "Cross Entropy (IB only)": [0.779, 0.049, 0.168, 0.217],
    "Cross Entropy (CR only)": [0.763, 0.056, 0.183, 0.239],
    "Decouple-cRT": [0.807, 0.037, 0.148, 0.185],
    "BBN": [0.822, 0.032, 0.146, 0.178],
    "Ours (S = 1)": [0.829, 0.029, 0.142, 0.171],
}


def test_the_paper_s_figures():
    (table,) = tables(as_trained("table13", nothing, paper=True))
    assert {row[0]: [cell.printed.value for cell in row[1:]] for row in table.rows} == PAPER
    assert {str(cell) for row in table.rows for cell in row[1:]} == {"–"}
    assert [cell.printed.comparable for cell in table.rows[0][1:]] == [True, False, False, False]


def test_in_the_paper_bias_is_the_square_of_the_error_as_its_note_says():
    for accuracy, bias2, _, _ in PAPER.values():
        assert bias2 == pytest.approx((1 - accuracy) ** 2, abs=5e-4)


def test_ten_runs_on_one_split_whatever_is_asked_for():
    made = space("table13")
    assert {trial.least for trial in made.trials} == {10}
    for trial in made.trials:
        seventh = Config.from_json(trial.config).replicate(7)
        assert (seventh.split_seed, seventh.subset_seed, seventh.seed) == (0, 7, 7)
    assert {len(each.planned.ends) for each in as_trained("table13", nothing, replicates=2)} == {10}


@pytest.mark.parametrize(
    ("vary", "varies"),
    [((), ["subset_seed", "seed"]), (("all",), ["subset_seed", "seed"]), (("seed",), ["seed"])],
)
def test_its_runs_vary_the_subset_unless_told_not_to(vary, varies):
    made = space("table13", data=("cifar10",), paper=True, vary=vary)
    assert [trial.config["varies"] for trial in made.trials] == [varies] * 5


def test_its_runs_are_independent():
    with pytest.raises(Refusal, match="Bias and variance are computed over independent runs"):
        space("table13", vary=("crossed",))


def test_its_runs_are_on_one_split():
    with pytest.raises(Refusal, match="This space compares replicates of one split"):
        space("table13", vary=("split",))


@pytest.mark.parametrize("seed", range(3))
def test_bias_and_variance_sum_to_the_mean_error_of_the_runs(seed):
    rng = np.random.default_rng(seed)
    truth = np.arange(200) % 10
    runs = {
        number: {"predictions": np.where(rng.random(200) < 0.7, truth, rng.integers(0, 10, 200)), "test_labels": truth}
        for number in range(10)
    }

    def last(trial, replicate):
        return {"test/top1": 100 * float((runs[replicate]["predictions"] == truth).mean())}

    (table,) = tables(as_trained("table13", last, observed=runs))
    accuracy = entry(table, 0, 1).mean
    over = [entry(table, 0, column).statistic for column in range(2, 5)]
    bias2, variance, error = (each.value for each in over)
    assert {each.n for each in over} == {10}
    assert render.notes(table, space("table13").source)[-2] == "Mean ± std over n = 10 replicates."
    assert bias2 + variance == pytest.approx(error)
    assert error == pytest.approx(1 - accuracy)
    disagreement = np.mean(
        [(runs[a]["predictions"] != runs[b]["predictions"]).mean() for a in runs for b in runs if a != b]
    )
    assert variance == pytest.approx(disagreement / 2), "two runs disagree twice as often as the variance"


def test_one_run_has_an_error_but_no_variance():
    truth = {"predictions": np.arange(10), "test_labels": np.arange(10)}
    first = as_trained("table13", lambda _, replicate: None if replicate else {"test/top1": 90.0}, observed={0: truth})
    (table,) = tables(first)
    assert [str(cell) for cell in table.rows[0][1:]] == ["0.900", "–", "–", "0.100"]


def test_cr_only_is_table_9_s_corner():
    from study.machine import Machine
    from trainables.work import WORK

    nine, own = by_place("table9"), by_place("table13")
    column = "digits-LT IF 50"
    for row, cell in (("Cross Entropy (IB only)", "IB⇒IB"), ("Cross Entropy (CR only)", "CR⇒CR")):
        keys = [
            WORK.resolve(trial.config, 0, Machine("cpu", 1)).keys for trial in (own[row, column], nine[cell, column])
        ]
        assert keys[0] == keys[1]
