"""Table 1: the paper's rows, its copied one, and the methods that it does not have."""

import pytest
from helpers import as_trained, by_place, entry, nothing, numbered, printed_of, space, tables

from search_spaces.shared.protocol import CIFAR, column_name
from study.errors import Refusal
from study.space import Contrast

COLUMNS = [column_name(*place) for place in CIFAR]


@pytest.mark.parametrize(
    ("row", "figures", "provenance"),
    [
        ("Cross Entropy", [73.1, 77.9, 86.4, 40.7, 44.9, 57.2], "*"),
        ("CB-Focal", [74.6, 79.3, 87.1, 39.6, 45.2, 58.0], "†"),
        ("Decouple-LWS", [73.5, 77.5, 86.1, 40.2, 45.7, 58.1], "*"),
        ("BBN", [79.8, 82.2, 88.3, 42.6, 47.0, 59.1], "†"),
        ("Ours (S = 1)", [79.7, 82.9, 88.4, 44.7, 49.5, 59.5], ""),
        ("Balanced softmax", [None] * 6, ""),
    ],
)
def test_the_paper_s_figures(row, figures, provenance):
    trials = by_place("table1", paper=True)
    assert [printed_of(trials[row, column])[0] for column in COLUMNS] == figures
    printed = [trials[row, column].printed for column in COLUMNS]
    assert {"" if each is None else each.provenance for each in printed} == {provenance}


def test_the_copied_row_stands_above_ours_with_the_figures_of_the_paper_s_column_alone():
    table, _ = tables(as_trained("table1", paper=True))
    copied, own = table.rows[:2]
    assert (copied[0], own[0]) == ("Cross Entropy (copied)", "Cross Entropy")
    assert [cell.printed.value for cell in copied[1:]] == [70.4, 74.8, 86.7, 38.3, 43.9, 55.7]
    assert {(cell.printed.provenance, cell.printed.of, str(cell)) for cell in copied[1:]} == {("†", "", "–")}


def test_on_digits_only_the_column_at_if_50_has_figures_and_says_whose():
    table, _ = tables(as_trained("table1"))
    assert list(table.head[1:]) == ["digits-LT IF 50", "digits-LT IF 20", "digits-LT IF 10"]
    for row in table.rows[:2]:
        assert [None if cell.printed is None else cell.printed.of for cell in row[1:]] == [
            "cifar10-LT IF 50",
            None,
            None,
        ]


def test_read_outs_stand_apart_beside_the_cross_entropy_networks_on_the_same_half():
    def last(trial, replicate):
        return {**numbered(trial, replicate), "holdout/top1": 5.0 + replicate}

    trained, read_outs = tables(as_trained("table1", last))
    shown = {row[0]: str(row[1]) for row in read_outs.rows}
    assert shown == {
        "Cross Entropy": "5.5 ± 0.7",
        "τ-normalised": "60.5 ± 0.7",
        "Post-hoc logit adjustment": "50.5 ± 0.7",
    }
    assert {row[0] for row in trained.rows} & shown.keys() == {"Cross Entropy"}
    assert dict(row[:2] for row in trained.rows)["Cross Entropy"].values == {0: 10.0, 1: 11.0}
    assert trained.notes[0] == "In % after the last epoch (test/top1)."
    assert read_outs.notes == ["In % after the last epoch (holdout/top1, tau_normalised/top1, adjusted/top1)."]


def test_under_the_source_recipe_rows_say_so_and_the_hypotheses_follow():
    made = space("table1", data=("cifar10",), options={"recipe": "source"})
    rows = {trial.row for trial in made.trials}
    assert {
        "BBN (source)",
        "Cross Entropy (source)",
        "Balanced softmax (common: no source recipe)",
        "Ours (S = 1)",
    } <= rows
    assert made.contrasts[0] == Contrast(better="Ours (S = 1)", worse="Cross Entropy (source)")
    assert {each.worse for each in made.contrasts} <= rows
    assert made.domain == space("table1", paper=True).domain, "one Optuna study has one domain"
    assert "BBN (source: CIFAR's, 200 epochs)" in {t.row for t in space("table1", options={"recipe": "source"}).trials}


def test_before_anything_has_ended_only_printed_figures_are_shown():
    table, _ = tables(as_trained("table1", nothing))
    assert {str(cell) for row in table.rows for cell in row[1:]} == {"–"}
    assert entry(table, 0, 1).printed.value == 74.8


def test_a_tau_at_an_end_of_its_range_is_said():
    """In the first replicate the best τ is the greatest there is; post-hoc's lies inside."""

    def last(trial, replicate):
        return {**numbered(trial, replicate), "tau_normalised/tau": [2.0, 1.3][replicate], "adjusted/tau": 1.0}

    _, read_outs = tables(as_trained("table1", last))
    (note,) = read_outs.notes[1:]
    assert note.startswith("tau_normalised/tau was chosen at an end of its range, 0 to 2.")
    assert "τ-normalised (digits-LT IF 50): 2 (in 1 of 2 replicates)" in note


@pytest.mark.parametrize(
    ("option", "shares", "words"), [({}, "others", "eq. 4"), ({"smoothing": "all"}, "all", "its code")]
)
def test_which_classes_label_aware_smoothing_gives_to_is_an_option_and_said(option, shares, words):
    own = [each.config for each in space("table1", options=option).trials if each.row == "Label-aware smoothing"]
    assert {config["loss"]["share"] for config in own} == {shares}
    table, _ = tables(as_trained("table1", options=option))
    assert words in table.notes[-1]


def test_another_share_of_smoothing_is_refused():
    with pytest.raises(Refusal, match=r"-o smoothing must be others or all \(got 'label'\)"):
        space("table1", options={"smoothing": "label"})
