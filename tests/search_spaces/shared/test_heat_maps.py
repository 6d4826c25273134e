"""Heat maps of combinations: first by switch sampler."""

from dataclasses import replace

import pytest
from helpers import SAMPLERS, all_of, cell, drawn_on, nine, results

from search_spaces.shared.heat_maps import heat_maps


def test_a_heat_map_a_column_shows_every_mean():
    trials = [*nine(), *nine(dataset="cifar10")]
    figures = heat_maps(results(trials, all_of(trials)))
    assert [figure.name for figure in figures] == ["combinations-digits", "combinations-cifar10"]
    assert [list(row) for row in figures[0].rows] == [[a, b, 3, 51.0, 1.0] for a in SAMPLERS for b in SAMPLERS]
    (axis,) = drawn_on(figures[0]).axes
    assert [text.get_text() for text in axis.texts] == ["51.0 ± 1.0"] * 9
    assert [label.get_text() for label in axis.get_xticklabels()] == list(SAMPLERS)
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("switch sampler", "first sampler")
    assert "n = 3 replicates" in figures[0].caption
    assert [figure.name for figure in heat_maps(results(nine(), all_of(nine())))] == ["combinations"]


@pytest.mark.parametrize(
    "trials",
    [
        [cell("IB", switch) for switch in SAMPLERS],
        [cell(first, "CR") for first in SAMPLERS],
        nine()[:8],
        [],
    ],
    ids=["one first sampler", "one switch sampler", "a cell is missing", "nothing"],
)
def test_what_is_no_square_has_no_heat_map(trials):
    assert heat_maps(results(trials, all_of(trials))) == []


def test_a_square_that_is_not_all_there_or_hides_a_dimension_has_no_heat_map():
    trials = nine()
    assert heat_maps(results(trials, all_of(trials[:8]))) == []
    other = cell("IB", "CR", then="5 CB")
    more = [*trials, replace(other, trial=replace(other.trial, row="IB⇒CB⇒CR"))]
    assert heat_maps(results(more, all_of(more))) == []
