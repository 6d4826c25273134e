"""Table 9: nine combinations, and beside each what adjusting the logits makes of the same network."""

from untrained import by_place, nothing, results, space, tables

from study.exhibits import Figure
from trainables.protocol import CIFAR, column_name


def test_the_paper_s_figures_row_by_row():
    trials = by_place("table9", paper=True)
    printed = {
        "IB⇒IB": [73.1, 77.9, 86.4, 40.7, 44.9, 57.2], "IB⇒CR": [79.7, 82.9, 88.4, 44.7, 49.5, 59.5],
        "CB⇒IB": [66.5, 73.8, 86.7, 33.3, 37.1, 55.0], "CR⇒CB": [64.2, 72.7, 86.3, 24.7, 29.2, 52.5],
    }  # fmt: skip
    for row, figures in printed.items():
        assert [trials[row, column_name(*place)].paper for place in CIFAR] == figures


def test_the_adjusted_read_out_stands_beside_every_cell():
    (table,) = tables(results("table9"))
    assert list(table.head) == ["", "digits-LT IF 50", "logits adjusted"]
    assert [str(cell) for cell in table.rows[0][1:]] == ["10.5 ± 0.7", "50.5 ± 0.7"]
    assert any("chosen on val" in note for note in table.notes)


def test_all_six_data_sets_and_a_heat_map_of_each():
    shown = space("table9").view(results("table9", paper=True))
    (table,) = [each for each in shown if not isinstance(each, Figure)]
    assert len(table.head) == 1 + 2 * 6
    assert len([each for each in shown if isinstance(each, Figure)]) == 6


def test_an_empty_run_has_a_table_of_dashes_and_no_heat_map():
    (table,) = space("table9").view(results("table9", nothing))
    assert {str(cell) for row in table.rows for cell in row[1:]} == {"–"}
