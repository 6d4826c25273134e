"""Figures 2, 5, 6 and 7: training-set accuracy of four classes by epoch."""

from __future__ import annotations

import pytest
from helpers import as_trained, epochs_of, exhibits, nothing, space

from search_spaces import figure2
from study.machine import Machine
from trainables.work import WORK

FIGURES = ["figure2", "figure5", "figure6", "figure7"]


def last_states(name, *, only=lambda trial: True):
    return {WORK.resolve(each.config, 1, Machine("cpu", 1)).keys[-1] for each in space(name).trials if only(each)}


def by_class(trial, replicate):
    """After epoch e the class of rank j is at 10 j + e / 100 percent."""
    return [
        {"fit/class_accuracy": [10.0 * rank + epoch / 100 for rank in range(10)]} for epoch in range(epochs_of(trial))
    ]


def test_the_classes_are_the_paper_s_four_and_likewise_of_a_hundred():
    assert list(figure2.ranks(10)) == [0, 1, 7, 9]
    assert list(figure2.ranks(100)) == [0, 1, 77, 99]
    assert list(figure2.ranks(2)) == [0, 1]


def test_the_runs_of_figure_5_and_of_the_theorem_are_those_of_figure_2():
    assert last_states("figure2") == last_states("figure5") == last_states("theorem1")
    assert len(last_states("figure2")) == 2


def test_figures_6_and_7_are_the_constant_rates_of_table_14():
    constant = last_states("table14", only=lambda trial: trial.axes["rate"] != "stage-wise")
    six, seven = last_states("figure6"), last_states("figure7")
    assert (len(six), len(seven)) == (4, 4)
    assert six | seven == constant
    for name, samplers in (("figure6", {1.0}), ("figure7", {1.0, -1.0})):
        for trial, rate in zip(space(name).trials, (0.1, 0.02, 0.01, 0.001), strict=True):
            epochs = WORK.resolve(trial.config, 0, Machine("cpu", 1)).epochs
            assert trial.row == f"lr = {rate}"
            assert {each["lr"] for each in epochs} == {rate}
            assert {each["sampler"] for each in epochs} == samplers


@pytest.mark.parametrize("name", FIGURES)
def test_the_training_images_are_measured_after_every_epoch(name):
    for trial in space(name).trials:
        assert all("fit" in each["measures"] for each in WORK.resolve(trial.config, 0, Machine("cpu", 1)).epochs)


@pytest.mark.parametrize("name", FIGURES)
def test_a_panel_has_the_curves_of_its_row(name):
    found = as_trained(name, by_class)
    (figure,) = exhibits(found)
    rows = {tuple(row[:3]): row[4] for row in figure.rows}
    assert {panel for panel, *_ in rows} == set(found.rows)
    assert {series for _, series, _ in rows} == {
        "class 0 (124 images)",
        "class 1 (80 images)",
        "class 7 (5 images)",
        "class 9 (2 images)",
    }
    assert rows[found.rows[1], "class 7 (5 images)", 100] == pytest.approx(70.99)
    assert figure.png().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", FIGURES)
def test_before_anything_has_ended_there_is_nothing_to_draw(name):
    assert exhibits(as_trained(name, nothing)) == [None]


def test_figures_and_spaces_have_names_of_their_own():
    figures = [exhibits(as_trained(name, by_class))[0] for name in FIGURES]
    assert [figure.name for figure in figures] == [f"{name}-digits-LT-IF-50" for name in FIGURES]
    assert [figure.title.partition(":")[0] for figure in figures] == ["Figure 2", "Figure 5", "Figure 6", "Figure 7"]
