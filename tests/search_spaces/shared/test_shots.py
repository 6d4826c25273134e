"""Accuracy by shot."""

from helpers import cell, results, top1

from search_spaces.shared.shots import by_shot
from study.space import Printed


def test_by_shot_has_a_dash_for_a_split_without_classes_and_the_paper_s_figures_where_it_has_some():
    trials = [cell("IB", "CR", replicates=1, paper=82.9, paper_of="cifar10"), cell("IB", "IB", replicates=1)]
    found = results(trials, {trials[0].ends[0]: top1(80.0, many=90.0, few=10.0)})
    table = by_shot(found, "digits", lambda trial: (1.0, 2.0, trial.printed.value))
    assert [list(table.head), *([str(entry) for entry in row] for row in table.rows)] == [
        ["Method", "Many-shot", "Medium-shot", "Few-shot", "All"],
        ["IB⇒CR", "90.0", "–", "10.0", "80.0"],
        ["IB⇒IB", "–", "–", "–", "–"],
    ]
    assert [entry.printed for entry in table.rows[0][1:]] == [
        Printed(figure, of="cifar10") for figure in (1.0, 2.0, 82.9, 82.9)
    ]
    assert {entry.printed for entry in table.rows[1][1:]} == {None}
