"""Table 14: one learning rate throughout, or stage by stage."""

from helpers import as_trained, by_place, nothing, space, tables

from study.machine import Machine
from trainables.work import WORK

PAPER = {
    "stage-wise": [77.9, 82.9],
    "0.1": [75.5, 77.7],
    "0.02": [76.1, 78.3],
    "0.01": [75.0, 77.7],
    "0.001": [65.9, 66.1],
}
CPU = Machine("cpu", 1)


def test_the_paper_s_two_halves_side_by_side():
    (table,) = tables(as_trained("table14", nothing, paper=True))
    assert list(table.head) == ["Learning rate (SGD)", "Standard", "Our"]
    assert {row[0]: [cell.printed.value for cell in row[1:]] for row in table.rows} == PAPER
    assert {str(cell) for row in table.rows for cell in row[1:]} == {"–"}


def test_a_constant_rate_has_no_warm_up_and_switches_where_the_stage_wise_one_does():
    for (row, _), trial in by_place("table14", paper=True).items():
        epochs = WORK.resolve(trial.config, 0, CPU).epochs
        procedure, rate = row.split(", ")
        rates = {epoch["lr"] for epoch in epochs}
        assert (len(rates) > 1) if rate == "stage-wise" else rates == {float(rate)}
        reversed_ = sum(epoch["sampler"] == -1 for epoch in epochs)
        assert reversed_ == (99 if procedure == "Our" else 0)


def test_stage_wise_is_table_9_s_and_constant_rates_look_at_the_training_images():
    nine, own = by_place("table9"), by_place("table14")
    column = "digits-LT IF 50"
    for row, cell in (("Standard, stage-wise", "IB⇒IB"), ("Our, stage-wise", "IB⇒CR")):
        keys = [WORK.resolve(trial.config, 2, CPU).keys for trial in (own[row, column], nine[cell, column])]
        assert keys[0] == keys[1]
    assert own["Our, 0.02", column].config["measures"] == ["fit"]


def test_the_hypotheses_speak_of_rows_that_there_are():
    made = space("table14")
    rows = {trial.row for trial in made.trials}
    assert all({each.better, each.worse} <= rows for each in made.contrasts)
    assert len(made.contrasts) == len(set(made.contrasts)) == 5 + 2 * 4


def test_each_half_shows_its_own_runs():
    def last(trial, replicate):
        return {"test/top1": 80.0 if trial.row.startswith("Our") else 70.0}

    (table,) = tables(as_trained("table14", last))
    assert {tuple(cell.mean for cell in row[1:]) for row in table.rows} == {(70.0, 80.0)}
