"""Table 4: accuracy by shot, and the claims about the head and the tail."""

from helpers import as_trained, nothing, space, tables

PAPER = {
    "Cross Entropy": [68.2, 39.7, 9.9, 40.7],
    "Decouple-cRT": [58.1, 40.3, 18.0, 40.1],
    "Decouple-LWS": [59.5, 40.7, 17.4, 40.2],
    "BBN": [54.5, 51.0, 16.7, 42.6],
    "Ours (S = 1)": [57.1, 48.1, 26.5, 44.7],
}


def printed(table):
    return {row[0]: [cell.printed.value for cell in row[1:]] for row in table.rows}


def test_the_paper_s_figures():
    (table,) = tables(as_trained("table4", nothing, paper=True))
    assert printed(table) == PAPER
    assert [cell.printed.provenance for cell in table.rows[3][1:]] == ["", "", "", "†"]


def test_a_row_is_its_splits_and_all_of_the_same_images():
    (table,) = tables(as_trained("table4"))
    assert [str(cell) for cell in table.rows[0][1:]] == ["20.5 ± 0.7", "30.5 ± 0.7", "40.5 ± 0.7", "10.5 ± 0.7"]


def test_the_thresholds_and_the_sizes_of_the_splits_are_said():
    """digits-LT at IF 50 has 124 80 51 33 21 14 9 5 3 2 images a class."""
    (table,) = tables(as_trained("table4"))
    assert "more than 40 training images, few-shot: fewer than 10; classes: 3 many, 3 medium, 4 few." in table.notes[0]
    (table,) = tables(as_trained("table4", nothing, paper=True))
    assert "classes: 35 many, 35 medium, 30 few" in table.notes[0]


def test_an_empty_split_is_a_dash():
    """At IF 10 no digit has fewer than ten images."""
    last = {"test/top1": 50.0, "test/many": 60.0, "test/medium": 40.0}
    (table,) = tables(as_trained("table4", lambda trial, replicate: last, imbalance=(10.0,)))
    assert [str(cell) for cell in table.rows[0][1:]] == ["60.0 ± 0.0", "40.0 ± 0.0", "–", "50.0 ± 0.0"]
    assert "0 few" in table.notes[0]


def test_cross_entropy_leads_on_the_head_and_ours_on_the_tail():
    """The paper's claims compare the splits, and its own figures bear them out."""
    for contrast in space("table4").contrasts:
        place = {"test/many": 0, "test/few": 2}[contrast.measure]
        assert PAPER[contrast.better][place] > PAPER[contrast.worse][place]
    assert len(space("table4").contrasts) == 8
