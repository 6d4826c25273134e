"""Table 7: once or progressively."""

from helpers import as_trained, by_place, nothing, printed_of, space, tables

from trainables.config import Config

FIGURES = {"CR": 82.9, "CB for 5 epochs, then CR": 82.7, "CR for 5 epochs, then CB": 79.2}


def test_the_paper_s_figures_and_the_epochs_under_each_sampler():
    for (row, _), trial in by_place("table7", paper=True).items():
        config = Config.from_json(trial.config)
        assert printed_of(trial)[0] == FIGURES[row]
        assert config.last_first == 101
        assert [length for length, _ in config.then] == ([] if row == "CR" else [5])


def test_the_first_sampler_has_a_column_of_its_own():
    (table,) = tables(as_trained("table7"))
    assert list(table.head) == ["First sampler", "Switching sampler", "digits-LT IF 50"]
    assert [row[:2] for row in table.rows] == [["IB", row] for row in FIGURES]
    (table,) = tables(as_trained("table7", nothing))
    assert [str(row[2]) for row in table.rows] == ["–"] * 3


def test_cb_first_is_to_change_nothing_and_cb_last_is_to_hurt():
    drop, same = space("table7").contrasts
    assert (drop.better, drop.worse, drop.margin) == ("CR", "CR for 5 epochs, then CB", None)
    assert (same.better, same.worse, same.margin) == ("CB for 5 epochs, then CR", "CR", 1.0)
