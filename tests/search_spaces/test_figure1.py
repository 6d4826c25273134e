"""Figure 1: what the samplers draw, and accuracy by epoch."""

from __future__ import annotations

import pytest
from helpers import as_trained, epochs_of, exhibits, nothing, space

from study.errors import Refusal
from study.machine import Machine
from trainables.work import WORK


def rising(trial, replicate):
    """1, 2, … percent after each epoch, and the replicate's number."""
    return [{"test/top1": epoch + 1.0 + replicate} for epoch in range(epochs_of(trial))]


def shown(found, **request):
    return [each for each in exhibits(found) if each is not None]


def test_the_methods_are_table_1_s_trials():
    machine = Machine("cpu", 1)
    ours = {trial.row: WORK.resolve(trial.config, 0, machine).keys[-1] for trial in space("figure1").trials}
    theirs = {
        trial.row: WORK.resolve(trial.config, 0, machine).keys[-1]
        for trial in space("table1", imbalance=(50.0,)).trials
    }
    assert list(ours) == ["Cross Entropy", "BBN", "Ours (S = 1)"]
    assert ours == {row: theirs[row] for row in ours}


def test_weights_are_the_probabilities_of_a_draw_by_class():
    (weights,) = shown(as_trained("figure1", nothing, paper=True), paper=True)
    assert list(weights.head) == ["class", "images", "IB", "CB", "CR"]
    n = [row[1] for row in weights.rows]
    for sampler, q in ((2, 1), (3, 0), (4, -1)):
        expected = [count**q / sum(each**q for each in n) for count in n]
        assert [row[sampler] for row in weights.rows] == pytest.approx(expected)
    assert "Normalised to sum 1, so that the highest is 0.357" in weights.caption
    assert weights.png().startswith(b"\x89PNG")


def test_curves_are_means_over_replicates_after_each_epoch():
    _, curves = shown(as_trained("figure1", rising))
    assert [row[:2] for row in curves.rows[:100]] == [["Cross Entropy", epoch] for epoch in range(1, 101)]
    assert curves.rows[250] == ["Ours (S = 1)", 51, 2, 51.5, pytest.approx(0.5**0.5)]
    assert curves.png().startswith(b"\x89PNG")


def test_each_data_set_has_figures_of_its_own():
    request = {"imbalance": (50.0, 10.0)}
    names = [each.name for each in shown(as_trained("figure1", rising, **request), **request)]
    assert len(set(names)) == len(names) == 4


def test_data_whose_counts_only_their_lists_know_are_refused():
    with pytest.raises(Refusal, match=r"^--data must be .* \(got 'inaturalist2018'\)$"):
        space("figure1", data=("inaturalist2018",))
