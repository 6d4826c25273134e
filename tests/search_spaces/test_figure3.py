"""Figures 3 and 4: events of single images, long-tailed and balanced."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import as_trained, exhibits, nothing, space, tables

from study.errors import Refusal
from study.machine import Machine
from study.report.exhibits import RC, Figure
from trainables.config import Config
from trainables.data.datasets import facts
from trainables.recipe import Epoch, Origin
from trainables.work import WORK

COUNTS = facts("digits").counts(50.0)


def events(n, runs=2):
    """Image i has learned 2 i or 2 i + 2 events, which is 2 i + 1 on average, and as many forgotten as its parity."""
    image = np.arange(n)
    return {run: {"learned": 2 * image + 2 * run, "forgotten": image % 2} for run in range(runs)}


def both(trial):
    return events(sum(facts("digits").counts(trial.config["imbalance"])))


def figures(name, found):
    return [each for each in exhibits(found) if isinstance(each, Figure)]


def axes(figure):
    """The axes that a figure draws."""
    import matplotlib as mpl
    from matplotlib.figure import Figure as Canvas

    with mpl.rc_context(RC):
        canvas = Canvas(figsize=figure.size)
        figure.draw(canvas)
    return [axis for axis in canvas.axes if axis.get_visible()]


def test_the_runs_are_table_8_s():
    (eight,), (three,) = space("table8").trials, space("figure3").trials
    assert three == eight
    assert space("figure4").trials[0] == eight


def test_a_dot_is_an_image_in_the_panel_of_its_class():
    (figure,) = figures("figure3", as_trained("figure3", observed=events(sum(COUNTS))))
    assert [row[0] for row in figure.rows] == [rank for rank, n in enumerate(COUNTS) for _ in range(n)]
    assert [row[1:] for row in figure.rows] == [[2.0 * i + 1, float(i % 2)] for i in range(sum(COUNTS))]
    drawn = axes(figure)
    assert [axis.get_title() for axis in drawn] == [f"class {rank} ({n} images)" for rank, n in enumerate(COUNTS)]
    assert [len(axis.collections[0].get_offsets()) for axis in drawn] == list(COUNTS)
    assert drawn[9].collections[0].get_offsets().tolist() == [figure.rows[-2][1:], figure.rows[-1][1:]]


def test_of_a_hundred_classes_ten_have_a_panel():
    counts = facts("cifar100").counts(50.0)
    found = as_trained("figure3", observed=events(sum(counts)), data=("cifar100",))
    (figure,) = [each for each in exhibits(found) if isinstance(each, Figure)]
    assert len(figure.rows) == sum(counts)
    assert [axis.get_title() for axis in axes(figure)] == [f"class {j} ({counts[j]} images)" for j in range(0, 100, 11)]


def test_figure_4_trains_on_the_whole_set_under_the_same_seeds():
    long_tailed, balanced = space("figure4").trials
    one, other = (Config.from_json(trial.config) for trial in (long_tailed, balanced))
    assert other.to_json() == {**one.to_json(), "imbalance": 1.0}
    assert balanced.least == 10


def test_the_first_images_of_each_class_of_the_balanced_set_are_the_long_tailed_set_s():
    """As the loop gets them, un-augmented."""
    from trainables.data import loading

    loaded = []
    for trial in space("figure4").trials:
        recipe = WORK.resolve(trial.config, 0, Machine("cpu", 1))
        images = loading.load(Origin.from_json(recipe.origin), Epoch.from_json(recipe.epochs[0]), None)
        batches = list(images.fit_batches())
        loaded.append([np.concatenate([part.numpy() for part in parts]) for parts in zip(*batches, strict=True)])
    (few, labels), (all_images, all_labels) = loaded
    for rank in range(10):
        own = few[labels == rank]
        assert np.array_equal(own, all_images[all_labels == rank][: len(own)])


def test_figure_4_shows_just_the_long_tailed_set_s_images():
    found = as_trained("figure4", observed=both)
    (figure,) = figures("figure4", found)
    kept = [124 * rank + place for rank, n in enumerate(COUNTS) for place in range(n)]
    assert [row[1] for row in figure.rows] == [2.0 * image + 1 for image in kept]


def test_the_table_compares_both_trainings_of_the_same_images():
    """The smallest class has two images: learned events are two apart, forgotten one."""
    (table,) = tables(as_trained("figure4", observed=both))
    irregularity = np.linalg.norm(np.cov([[0.0, 2.0], [0.0, 1.0]], bias=True)) / 2
    first = {"long-tailed": sum(COUNTS) - 2, "balanced": 9 * 124}
    learned = [f"{2 * image + 2:.4f}" for image in first.values()]
    assert table.rows[-1] == ["9", "2", *learned, *["0.5000"] * 2, *[f"{irregularity:.4f}"] * 2]
    assert list(table.head)[2:4] == ["learned, long-tailed", "learned, balanced"]


def test_what_has_not_ended_is_a_dash_in_the_table():
    balanced_only = as_trained("figure4", lambda trial, _: {} if "balanced" in trial.row else None, observed=both)
    (table,) = tables(balanced_only)
    assert table.rows[-1][2] == "–"
    assert table.rows[-1][3] != "–"
    assert figures("figure3", as_trained("figure3", nothing)) == []


def test_data_without_a_balanced_whole_are_refused(tmp_path):
    from PIL import Image

    for part in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / part / name).mkdir(parents=True)
            for number in "01":
                Image.new("RGB", (8, 8)).save(tmp_path / part / name / f"{number}.png")
    with pytest.raises(Refusal, match="--data must be a balanced data set, which is then made long-tailed"):
        space("figure4", data=(f"folder:{tmp_path}",))
