"""Tables 4 and 5: accuracy by shot, and the claims about the head and the tail."""

import pytest
from untrained import nothing, results, space, tables

PAPER_4 = {
    "Cross Entropy": [68.2, 39.7, 9.9, 40.7], "Decouple-cRT": [58.1, 40.3, 18.0, 40.1],
    "Decouple-LWS": [59.5, 40.7, 17.4, 40.2], "BBN": [54.5, 51.0, 16.7, 42.6], "Ours (S = 1)": [57.1, 48.1, 26.5, 44.7],
}  # fmt: skip
PAPER_5 = {
    "Cross Entropy": ([64.0, 33.8, 5.8, 41.6], [65.9, 37.5, 7.7, 44.4]),
    "Decouple-cRT": ([58.8, 44.0, 26.1, 47.3], [61.8, 46.2, 27.4, 49.5]),
    "Decouple-LWS": ([57.1, 45.2, 29.3, 47.7], [60.2, 47.2, 30.3, 49.9]),
    "BBN": ([56.2, 46.6, 14.1, 45.9], [58.1, 47.2, 15.6, 47.1]),
    "Ours (S = 1)": ([53.5, 45.2, 41.8, 47.9], [55.2, 46.7, 39.0, 49.2]),
    "Ours (S = 10)": ([54.5, 45.0, 41.9, 48.2], [56.5, 46.1, 39.4, 49.3]),
}


def printed(table):
    return {row[0]: [cell.printed.value for cell in row[1:]] for row in table.rows}


def test_the_paper_s_figures_of_table_4():
    (table,) = tables(results("table4", nothing, paper=True))
    assert printed(table) == PAPER_4
    assert [cell.printed.provenance for cell in table.rows[3][1:]] == ["", "", "", "†"]


def test_its_splits_add_up_to_all():
    """35 classes are many-shot, 35 medium-shot and 30 few-shot: to the rounding of four figures."""
    for many, medium, few, whole in PAPER_4.values():
        assert 0.35 * many + 0.35 * medium + 0.30 * few == pytest.approx(whole, abs=0.1)


def test_the_paper_s_figures_of_table_5_by_backbone():
    both = tables(results("table5", nothing, paper=True))
    assert [table.title.rpartition(", ")[2] for table in both] == ["resnet50", "resnext50"]
    for place, table in enumerate(both):
        assert printed(table) == {row: figures[place] for row, figures in PAPER_5.items()}


@pytest.mark.parametrize("name", ["table4", "table5"])
def test_a_row_is_its_splits_and_all_of_the_same_images(name):
    for table in tables(results(name)):
        assert [str(cell) for cell in table.rows[0][1:]] == ["20.5 ± 0.7", "30.5 ± 0.7", "40.5 ± 0.7", "10.5 ± 0.7"]


def test_the_thresholds_and_the_sizes_of_the_splits_are_said():
    """digits-LT at IF 50 has 124 80 51 33 21 14 9 5 3 2 images a class."""
    (table,) = tables(results("table4"))
    assert table.notes[0].endswith("more than 40 training images, few-shot: fewer than 10; classes: 3 many, 3 medium, 4 few.")
    (table,) = tables(results("table4", nothing, paper=True))
    assert "classes: 35 many, 35 medium, 30 few" in table.notes[0]


def test_an_empty_split_is_a_dash():
    """At IF 10 no digit has fewer than ten images."""
    last = {"test/top1": 50.0, "test/many": 60.0, "test/medium": 40.0}
    (table,) = tables(results("table4", lambda trial, replicate: last, imbalance=(10.0,)))
    assert [str(cell) for cell in table.rows[0][1:]] == ["60.0 ± 0.0", "40.0 ± 0.0", "–", "50.0 ± 0.0"]
    assert "0 few" in table.notes[0]


def test_cross_entropy_leads_on_the_head_and_ours_on_the_tail():
    """The paper's claims compare the splits, and its own figures bear them out."""
    for contrast in space("table4").contrasts:
        place = {"test/many": 0, "test/few": 2}[contrast.measure]
        assert PAPER_4[contrast.better][place] > PAPER_4[contrast.worse][place]
    assert len(space("table4").contrasts) == 8


def test_table_5_is_table_3_seen_by_shot():
    three, five = space("table3"), space("table5")
    assert [trial.config for trial in five.trials] == [trial.config for trial in three.trials]
    assert {contrast.measure for contrast in five.contrasts} == {"test/many", "test/few"}
