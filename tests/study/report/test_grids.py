import pytest
from helpers import all_of, cell, header, nine, results, top1

from search_spaces.shared.protocol import PAPER
from study.report import grids
from study.report.exhibits import Cell, Statistic, Table
from study.report.statistics import Difference, Estimate
from study.space import Contrast, Printed


def shown(table):
    return [list(table.head), *([None if entry is None else str(entry) for entry in row] for row in table.rows)]


def test_a_grid_is_rows_by_columns_and_may_have_further_measures_beside_each():
    trials = [cell("IB", "CR"), cell("IB", "IB"), cell("IB", "CR", dataset="cifar10")]
    states = {
        end: header({"test/top1": 80.0 + n, "adjusted/top1": 70.0 + n, "adjusted/tau": 0.5})
        for trial in trials
        for n, end in enumerate(trial.ends)
    }
    recorded = results(trials, states)
    assert shown(grids.grid(recorded, corner="Method")) == [
        ["Method", "digits", "cifar10"],
        ["IB⇒CR", "81.0 ± 1.0", "81.0 ± 1.0"],
        ["IB⇒IB", "81.0 ± 1.0", None],
    ]
    beside = grids.grid(recorded, beside={"adjusted": "adjusted/top1", "τ": "adjusted/tau"})
    assert shown(beside)[:2] == [
        ["", "digits", "adjusted", "τ", "cifar10", "adjusted", "τ"],
        ["IB⇒CR", *["81.0 ± 1.0", "71.0 ± 1.0", "0.5 ± 0.0"] * 2],
    ]


def test_a_grid_says_which_measure_it_shows_where_rows_differ():
    trials = [cell("IB", "CR"), cell("IB", "IB", measure="tau_normalised/top1"), cell("CB", "IB")]
    note = "In % after the last epoch (test/top1; IB⇒IB: tau_normalised/top1)."
    assert grids.grid(results(trials, {})).notes == [note]


def test_a_grid_of_some_rows_speaks_of_their_measures_alone():
    trials = [cell("IB", "CR"), cell("IB", "IB", measure="tau_normalised/top1"), cell("CB", "IB")]
    table = grids.grid(results(trials, {}), rows=["IB⇒CR", "CB⇒IB"], notes=["More."])
    assert [row[0] for row in table.rows] == ["IB⇒CR", "CB⇒IB"]
    assert table.notes == ["In % after the last epoch (test/top1).", "More."]


def taus(*values, switch="CR"):
    """Return a trial whose replicates chose these values, and its states."""
    trial = cell("IB", switch, replicates=len(values))
    return trial, {end: header({"adjusted/tau": tau}) for end, tau in zip(trial.ends, values, strict=True)}


def at_edges(*chosen, rows=("IB⇒CR", "IB⇒IB", "IB⇒CB")):
    trials, states = zip(*chosen, strict=True)
    recorded = results(list(trials), {end: head for trial_states in states for end, head in trial_states.items()})
    return grids.at_edges(recorded, "adjusted/tau", (0.0, 2.0), rows)


def test_values_chosen_at_an_end_of_what_could_be_are_counted():
    assert at_edges(taus(2.0, 1.9, 2.0)) == [
        "adjusted/tau was chosen at an end of its range, 0 to 2. IB⇒CR (digits): 2 (in 2 of 3 replicates).",
    ]
    (note,) = at_edges(taus(0.0, 2.0, 0.0, 0.0), taus(0.1, 1.0, switch="IB"), taus(2.0, switch="CB"))
    assert note == (
        "adjusted/tau was chosen at an end of its range, 0 to 2. IB⇒CR (digits): 0 (in 3 of 4 replicates); "
        "IB⇒CR (digits): 2 (in 1 of 4 replicates); IB⇒CB (digits): 2 (in 1 of 1 replicate)."
    )


def test_nothing_is_said_of_values_inside_nor_of_rows_that_are_not_shown():
    assert at_edges(taus(0.05, 1.95, 1.0)) == []
    assert at_edges(taus(0.0, 2.0), taus(1.0, switch="IB"), rows=["IB⇒IB"]) == []
    assert at_edges((cell("IB", "CR"), {})) == [], "nothing has been chosen yet"


def test_a_printed_row_stands_in_each_column_beside_the_paper_s_own():
    trials = [
        cell("IB", "CR", paper=82.9, paper_of=of, dataset=name)
        for name, of in (
            ("digits", "cifar10"),
            ("cifar10", "cifar10"),
            ("other", ""),
        )
    ]
    name, *row = grids.printed_row(results(trials, {}), "OLTR", {"cifar10": 37.7}, "†")
    assert name == "OLTR"
    assert [entry.printed for entry in row] == [Printed(37.7, "†", "cifar10"), Printed(37.7, "†"), None]


def test_the_default_has_shots_and_the_best_epoch_apart_in_one_column():
    trials = nine(replicates=2)
    states = dict(zip(trials[0].ends, (top1(50.0, 60.0, many=90.0), top1(52.0, 70.0, many=80.0)), strict=True))
    states[trials[1].ends[0]] = top1(61.0, few=10.0)
    (table,) = grids.default(results(trials, states))
    head, first, second, *others = shown(table)
    assert head == ["", "digits", "many", "medium", "few", "best epoch (selected on test)"]
    assert first == ["IB⇒IB", "51.0 ± 1.4", "85.0 ± 7.1", "–", "–", "65.0 ± 7.1"]
    assert second == ["IB⇒CB", "61.0", "–", "–", "10.0", "61.0"]
    assert others == [[trial.trial.row, "–", "–", "–", "–", "–"] for trial in trials[2:]]


def test_shots_are_of_the_images_of_the_trial_s_own_measure():
    trial = cell("IB", "CR", replicates=1, measure="val/top1")
    recorded = results([trial], {trial.ends[0]: header({"val/top1": 50.0, "val/many": 90.0, "test/many": 1.0})})
    assert shown(grids.default(recorded)[0])[1] == ["IB⇒CR", "50.0", "90.0", "–", "–", "50.0"]


def test_the_default_of_several_columns_has_neither_splits_nor_the_best_epoch():
    trials = [*nine(), *nine(dataset="cifar10")]
    (table,) = grids.default(results(trials, all_of(trials)))
    assert table.head == ["", "digits", "cifar10"]


CONTRAST = Contrast("IB⇒CR", "IB⇒IB")


def test_hypotheses_say_what_was_measured_and_decided():
    differences = [
        Difference(CONTRAST, "digits", Estimate(6, 2.54, 0.61, 4.47, 0.0213)),
        Difference(CONTRAST, "cifar10", Estimate(1, -2.5)),
        Difference(Contrast("S = 10", "S = 1", margin=1.0, measure="test/few"), "digits", Estimate(6, 0.1, -0.5, 0.7)),
    ]
    table = grids.hypotheses(differences)
    assert shown(table) == [
        ["hypothesis", "column", "n", "points", "95 % interval", "p", "verdict"],
        ["IB⇒CR − IB⇒IB", "digits", "6", "+2.5", "+0.6 to +4.5", "0.021", "supported"],
        ["IB⇒CR − IB⇒IB", "cifar10", "1", "-2.5", "–", "–", "n < 5: not tested"],
        [
            "S = 10 − S = 1, test/few within ± 1",
            "digits",
            "6",
            "+0.1",
            "-0.5 to +0.7",
            "–",
            "supported: equivalent within ± 1",
        ],
    ]
    assert grids.hypotheses([]) is None


def test_claims_in_words_come_first():
    differences = [
        Difference(Contrast("a", "b", claim="IB is the best first sampler"), "digits", Estimate(1, 1.0)),
        Difference(CONTRAST, "digits", Estimate(1, 1.0)),
    ]
    table = grids.hypotheses(differences)
    assert [row[:2] for row in shown(table)] == [
        ["claim", "hypothesis"],
        ["IB is the best first sampler", "a − b"],
        ["", "IB⇒CR − IB⇒IB"],
    ]


def test_differences_from_the_paper_are_those_on_its_own_data():
    on_own_data, other = Printed(80.0, "†"), Printed(80.0, of="cifar10")
    table = Table(
        "Table 1",
        ["", "cifar10", "digits", "few"],
        [
            ["CE", Cell({0: 81.0, 1: 83.0}, on_own_data), Cell({0: 81.0}, other), Cell({0: 9.0})],
            ["Focal", Cell({}, on_own_data), Cell({0: 81.0}, other), None],
            ["BBN", Cell({4: 79.5}, on_own_data, decimals=2), "text", None],
        ],
    )
    differences = grids.from_source(table, PAPER)
    assert differences.title == "Table 1: difference from the paper"
    assert shown(differences) == [["", "cifar10"], ["CE", "+2.0 [-10.7, +14.7]"], ["BBN", "-0.50"]]
    assert "Paper: n = 1 or unstated." in differences.notes[0]


def test_differences_from_the_paper_keep_all_that_names_a_row():
    on_own_data = Printed(80.0)
    rows = [["IB", "1", way, Cell({0: 81.0 + n}, on_own_data)] for n, way in enumerate(("fixed", "joint"))]
    statistic = Cell(printed=on_own_data, statistic=Statistic(0.5, 3))
    table = Table("t", ["first", "S", "way", "cifar10"], [*rows, ["IB", "1", "none", statistic]], labels=3)
    differences = grids.from_source(table, PAPER)
    assert shown(differences) == [list(table.head), ["IB", "1", "fixed", "+1.0"], ["IB", "1", "joint", "+2.0"]]
    assert differences.labels == 3


@pytest.mark.parametrize("printed", [None, Printed(80.0, of="cifar10"), Printed(80.0, comparable=False)])
def test_without_the_paper_s_data_and_formula_there_are_none(printed):
    assert grids.from_source(Table("t", ["", "digits"], [["CE", Cell({0: 81.0}, printed)]]), PAPER) is None
