"""Table 9: nine combinations, and beside each what adjusting the logits makes of the same network."""

import json
from pathlib import Path
from statistics import mean, stdev

from helpers import as_trained, by_place, exhibits, nothing, printed_of, space, tables

from search_spaces.shared.protocol import CIFAR, column_name
from study.report.exhibits import Figure


def test_the_paper_s_figures_row_by_row():
    trials = by_place("table9", paper=True)
    printed = {
        "IB⇒IB": [73.1, 77.9, 86.4, 40.7, 44.9, 57.2],
        "IB⇒CR": [79.7, 82.9, 88.4, 44.7, 49.5, 59.5],
        "CB⇒IB": [66.5, 73.8, 86.7, 33.3, 37.1, 55.0],
        "CR⇒CB": [64.2, 72.7, 86.3, 24.7, 29.2, 52.5],
    }
    for row, figures in printed.items():
        assert [printed_of(trials[row, column_name(*place)])[0] for place in CIFAR] == figures


def test_the_adjusted_read_out_stands_beside_every_cell():
    (table,) = tables(
        as_trained(
            "table9",
            lambda trial, replicate: {
                "test/top1": 50.0,
                "holdout/top1": 51.0 + replicate,
                "adjusted/top1": 60.0,
            },
        )
    )
    assert list(table.head) == ["", "digits-LT IF 50", "holdout half", "holdout half, logits adjusted"]
    assert [str(cell) for cell in table.rows[0][1:]] == ["50.0 ± 0.0", "51.5 ± 0.7", "60.0 ± 0.0"]
    assert any("chosen on the other half of the test images, val" in note for note in table.notes)


def test_all_six_data_sets_and_a_heat_map_of_each():
    shown = exhibits(as_trained("table9", paper=True))
    (table,) = [each for each in shown if not isinstance(each, Figure)]
    assert len(table.head) == 1 + 3 * 6
    assert len([each for each in shown if isinstance(each, Figure)]) == 6


def test_the_paper_s_own_figures_bear_its_hypotheses_out_and_the_exceptions_do_not():
    trials = by_place("table9", paper=True)
    columns = {column for _, column in trials}
    for each in space("table9").contrasts:
        assert set(each.except_in) & columns == {name for name in each.except_in if "of 200" not in name}
        for column in columns:
            better, worse = (printed_of(trials[row, column])[0] for row in (each.better, each.worse))
            assert (better > worse) == (column not in each.except_in)


def test_an_empty_run_has_a_table_of_dashes_and_no_heat_map():
    (table,) = exhibits(as_trained("table9", nothing))
    assert {str(cell) for row in table.rows for cell in row[1:]} == {"–"}


def test_an_adjustment_at_an_end_of_its_range_is_said():
    def last(trial, replicate):
        return {"test/top1": 50.0, "adjusted/tau": 0.0 if trial.row == "CR⇒CR" else 1.0}

    (table,) = tables(as_trained("table9", last))
    ending = (
        "adjusted/tau was chosen at an end of its range, 0 to 2. CR⇒CR (digits-LT IF 50): 0 (in 2 of 2 replicates)."
    )
    assert table.notes[-1] == ending


def test_the_paper_s_exceptions_are_exceptions_under_the_short_protocol_too():
    made = space("table9", short=True, data=("cifar100",), imbalance=(100.0, 50.0, 10.0))
    (excepted,) = [each for each in made.contrasts if each.except_in]
    columns = dict.fromkeys(trial.column for trial in made.trials)
    assert [column in excepted.except_in for column in columns] == [True, True, False]


def test_the_page_of_the_run_on_cifar_shows_what_its_report_and_mlflow_hold():
    folder = Path(__file__).parents[2] / "search_spaces" / "results"
    page, report, metrics = (
        (folder / f"table9-cifar10{ending}").read_text(encoding="utf-8") for ending in (".md", ".json", "-mlflow.json")
    )
    rows = [
        [cell.strip().replace("\u2212", "-") for cell in line.strip("|").split("|")]
        for line in page.splitlines()
        if "⇒" in line and line.startswith("|")
    ]
    expected = []
    for row in json.loads(report)["rows"]:
        accuracy = json.loads(metrics)["runs"][row["combination"]]["test/top1"]
        best = max(accuracy)
        assert (accuracy[-1], best) == (row["mean"], row["best_epoch_mean"])
        expected.append(
            [
                row["combination"],
                f"{row['mean']:.1f}",
                f"{mean(accuracy[-10:]):.1f} ± {stdev(accuracy[-10:]):.1f}",
                f"{best:.1f} (epoch {accuracy.index(best) + 1})",
                str(row["paper"]),
                f"{row['mean'] - row['paper']:+.1f}",
            ]
        )
    assert rows == expected
