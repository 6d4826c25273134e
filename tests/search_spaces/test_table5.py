"""Table 5: Table 3's trials by shot, a table a backbone."""

from helpers import as_trained, nothing, space, tables

PAPER = {
    "Cross Entropy": ([64.0, 33.8, 5.8, 41.6], [65.9, 37.5, 7.7, 44.4]),
    "Decouple-cRT": ([58.8, 44.0, 26.1, 47.3], [61.8, 46.2, 27.4, 49.5]),
    "Decouple-LWS": ([57.1, 45.2, 29.3, 47.7], [60.2, 47.2, 30.3, 49.9]),
    "BBN": ([56.2, 46.6, 14.1, 45.9], [58.1, 47.2, 15.6, 47.1]),
    "Ours (S = 1)": ([53.5, 45.2, 41.8, 47.9], [55.2, 46.7, 39.0, 49.2]),
    "Ours (S = 10)": ([54.5, 45.0, 41.9, 48.2], [56.5, 46.1, 39.4, 49.3]),
}


def test_the_paper_s_figures_by_backbone():
    both = tables(as_trained("table5", nothing, paper=True))
    assert [table.title.rpartition(", ")[2] for table in both] == ["resnet50", "resnext50"]
    for place, table in enumerate(both):
        shown = {row[0]: [cell.printed.value for cell in row[1:]] for row in table.rows}
        assert shown == {row: figures[place] for row, figures in PAPER.items()}


def test_on_digits_each_stand_in_has_the_figures_of_what_it_stands_for():
    small, grouped = tables(as_trained("table5"))
    assert [table.title.rpartition(", ")[2] for table in (small, grouped)] == ["resnet8", "resnext11"]
    assert (small.rows[0][1].printed.value, grouped.rows[0][1].printed.value) == (64.0, 65.9)
    assert grouped.rows[0][1].printed.of == "imagenet-lt, resnext50"
    assert [str(cell) for cell in grouped.rows[0][1:]] == ["20.5 ± 0.7", "30.5 ± 0.7", "40.5 ± 0.7", "10.5 ± 0.7"]


def test_it_is_table_3_seen_by_shot():
    three, five = space("table3"), space("table5")
    assert [trial.config for trial in five.trials] == [trial.config for trial in three.trials]
    assert {contrast.measure for contrast in five.contrasts} == {"test/many", "test/few"}


def test_of_lists_that_are_not_read_yet_only_the_thresholds_are_said():
    table, _ = tables(as_trained("table5", nothing, paper=True))
    assert table.notes[0].endswith("more than 100 training images, few-shot: fewer than 20.")
