"""Table 11: twelve cells at the switch."""

from helpers import as_trained, by_place, nothing, space, tables

from study.machine import Machine
from trainables.work import WORK

PAPER = [
    ["IB", "", "", 76.3],
    ["IB", "X", "", 77.9],
    ["IB", "", "X", 77.7],
    ["IB", "X", "X", 78.9],
    ["CB", "", "", 81.9],
    ["CB", "X", "", 81.9],
    ["CB", "", "X", 81.8],
    ["CB", "X", "X", 81.9],
    ["CR", "", "", 81.4],
    ["CR", "X", "", 82.9],
    ["CR", "", "X", 81.6],
    ["CR", "X", "X", 82.4],
]


def test_it_is_the_paper_s_table_with_its_crosses_and_figures():
    (table,) = tables(as_trained("table11", nothing, paper=True))
    assert list(table.head)[2:5] == ["Switching sampler", "Joint training", "Re-training classifier"]
    assert [[*row[2:5], row[5].printed.value] for row in table.rows] == PAPER
    assert {(row[0], row[1], str(row[5])) for row in table.rows} == {("IB", "1", "–")}


def test_a_cross_is_what_is_trained_after_the_switch():
    for (row, _), trial in by_place("table11", paper=True).items():
        epoch = WORK.resolve(trial.config, 0, Machine("cpu", 1)).epochs[101]
        joint, anew = "joint" in row, "re-trained" in row
        assert epoch["trains"] == ("all" if joint else "classifier")
        assert epoch["reinitialise"] == ("classifier" if anew else "nothing")
        assert (epoch["lr"], epoch["fresh_optimizer"]) == (0.1 * 0.1, anew or not joint)


def test_jointly_trained_and_kept_it_is_table_9_s_row_of_ib():
    nine, machine = by_place("table9"), Machine("cpu", 1)
    for (row, column), trial in by_place("table11").items():
        if row.endswith("joint"):
            same = nine[f"IB⇒{trial.axes['switch']}", column]
            assert WORK.resolve(trial.config, 1, machine).keys == WORK.resolve(same.config, 1, machine).keys


def test_the_hypotheses_speak_of_rows_that_there_are():
    made = space("table11")
    rows = {trial.row for trial in made.trials}
    assert all({each.better, each.worse} <= rows for each in made.contrasts)
    assert [each.margin for each in made.contrasts] == [None] * 4 + [1.0] * 2


def test_every_row_shows_its_own_accuracy():
    (table,) = tables(as_trained("table11", lambda trial, replicate: {"test/top1": float(len(trial.row))}))
    rows = [trial.row for trial in space("table11").trials]
    assert [row[5].mean for row in table.rows] == [len(row) for row in rows]
