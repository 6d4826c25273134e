"""The next points of an open search, with a work and a projection of the test."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
from helpers import planned_run, planned_space, work_of

from study.errors import Away, Damaged, Refusal
from study.execution import points
from study.execution.ledger import Ledger
from study.execution.outlook import Outlook
from study.execution.points import Points
from study.planning.draft import Draft
from study.planning.stored import Plan, PlannedSearch
from study.planning.tree import Failure
from study.space import Integer, OpenSearch, Request, Resolved, Space, Trial

EPOCHS, SWITCH = 6, 2


def resolve(config, number, _machine):
    """Resolve a point to two epochs that all points share, and four that it has alone."""
    keys = [f"r{number}/{epoch}" for epoch in range(SWITCH + 1)]
    keys += [f"r{number}/{epoch} {config['x']}" for epoch in range(SWITCH + 1, EPOCHS + 1)]
    return Resolved({}, ({},) * EPOCHS, tuple(keys), (SWITCH,))


def point(values):
    if values["x"] >= 100:
        raise Refusal("x", values["x"], "must be below 100")
    if values["x"] == 99:
        raise ZeroDivisionError("ours")
    return Trial("row", "digits", dict(values), dict(values))


class Store:
    """A store in which a state's objective is `worth` of its point, and less before the last epoch."""

    def __init__(self, worth):
        self.worth, self.records, self.keys = worth, [], set()

    def header(self, key):
        assert key in self.keys
        number, x = key.partition("/")[2].split()
        last = self.worth(int(x)) - (EPOCHS - int(number))
        return {"measures": [{"val/top1": last, "val/few": float(int(x) % 4)}]}

    def write_record(self, path, content):
        self.records.append((path, content))

    def delete_record(self, _path):
        pass


class Projection:
    """Suggests 0, 1, 2 …, or the test's values, at once or when the test calls `answer`."""

    def __init__(self, suggestions, late=False):
        self.suggestions, self.late, self.open, self.asked, self.shown = iter(suggestions), late, [], [], []

    def check_suggestions(self):
        pass

    def failed(self, replicate, failure):
        self.shown.append((*replicate, failure.reason))

    def ask(self, _space, label, answer):
        self.asked.append(label)
        self.open.append(lambda: answer({"x": next(self.suggestions)}))
        if not self.late:
            self.answer()

    def answer(self):
        self.open.pop(0)()

    def show(self, replicate, key):
        self.shown.append((*replicate, key))


class Searching:
    """A driver of an open search, in which the test plays the workers."""

    def __init__(self, suggestions=range(100), trials=4, objectives=("val/top1",), early_stop=0, late=False, **changes):
        search = OpenSearch(point, {"x": 0}, trials, fresh=2, reported=("test/top1",))
        domain, work = {"x": Integer(0, 99)}, work_of(resolve)
        space = Space("mini", "a title", (), domain, work, objectives, search=search)
        search_plan = PlannedSearch(trials, 0, 2, ("test/top1",), ("base",), early_stop)
        self.space = planned_space("mini", objectives=objectives, domain=domain, search=search_plan)
        plan = planned_run([self.space], request=Request(early_stop=early_stop))
        self.draft = Draft(replace(plan, **changes), [space], ())
        self.store = Store(lambda x: 80.0 - abs(x - 2))
        self.projection, self.trained = Projection(suggestions, late), []
        self.ledger = Ledger(self.draft, self.store, (), {})
        self.points = Points(self.draft, self.store, self.projection, self.ledger, print, "study resume mine --home h")

    def hold(self, keys):
        """Put states into the store."""
        self.store.keys.update(keys)
        for key in keys:
            self.ledger.save(key)

    def train(self, stages):
        for stage in stages:
            self.trained += stage.keys
            self.hold(stage.keys)  # of which a store keeps the last one, and joints

    def drive(self, workers=1):
        """Train each stage when it is handed out, until none is left."""
        while (stages := self.points.more(workers, idle=True)) is not None:
            self.train(stages)

    @property
    def trials(self):
        return {trial.label: trial for trial in self.draft.plan.trials}


@pytest.fixture(autouse=True)
def _hasty(monkeypatch):
    monkeypatch.setattr(points, "IDLE_SECONDS", 0.01)


def test_points_are_asked_for_one_by_one_and_the_best_is_trained_again_under_fresh_replicates():
    search = Searching()
    search.drive()
    assert search.projection.asked == ["#0", "#1", "#2", "#3"]
    assert list(search.trials) == ["#0", "#1", "#2", "#3", "champion #2"]
    champion = search.trials["champion #2"]
    assert champion.by_replicate == {1000: "r1000/6 2", 1001: "r1001/6 2"}
    assert search.points.champions() == {"mini": [champion]}
    assert search.points.settled()
    assert len(search.trained) == len(set(search.trained)) == 2 + 4 * 4 + 2 * 6


def test_a_plan_is_stored_with_a_point_before_the_point_is_trained():
    search = Searching()
    stages = search.points.more(1, idle=True)
    ((_, stored),) = search.store.records
    assert [trial["trial"]["called"] for trial in stored["trials"]] == ["#0"]
    assert [stage.key for stage in stages] == ["r0/2", "r0/6 0"]


def test_no_more_points_are_in_progress_than_there_are_workers():
    search = Searching(late=True)
    assert search.points.more(2, idle=False) == []
    assert search.points.more(2, idle=False) == []  # they have been asked for: not asked for again
    assert search.projection.asked == ["#0", "#1"]
    search.projection.answer()
    begun = [*search.points.more(2, idle=False)]
    assert search.points.more(2, idle=False) == []
    assert search.projection.asked == ["#0", "#1"]
    search.projection.answer()
    begun += search.points.more(2, idle=False)
    assert search.points.more(2, idle=False) == []
    assert search.projection.asked == ["#0", "#1"]
    assert [stage.key for stage in begun] == ["r0/2", "r0/6 0", "r0/6 1"]  # the trunk is planned once
    search.train(begun[:2])
    search.points.more(2, idle=False)
    assert search.projection.asked == ["#0", "#1", "#2"]


def test_points_for_many_workers_are_asked_for_at_once_and_the_plan_is_stored_once():
    search = Searching(late=True, trials=30)
    search.points.more(8, idle=False)
    assert search.projection.asked == [f"#{number}" for number in range(8)]
    for _ in range(5):
        search.projection.answer()
    begun = search.points.more(8, idle=False)
    assert len(search.store.records) == 1
    assert {stage.key for stage in begun} == {"r0/2", *(f"r0/6 {x}" for x in range(5))}
    search.train(begun)
    search.points.more(8, idle=False)
    assert search.projection.asked == [f"#{number}" for number in range(13)]  # three of the first are still to come


def test_points_that_the_store_could_not_take_are_begun_when_it_can(monkeypatch):
    search = Searching(late=True)
    search.points.more(2, idle=False)
    search.projection.answer()
    search.projection.answer()

    def fails():
        raise Away("the store is away")

    with monkeypatch.context() as patch:
        patch.setattr(search.ledger, "save_plan", fails)
        assert search.points.more(2, idle=False) == []
    assert [stage.key for stage in search.points.more(2, idle=False)] == ["r0/2", "r0/6 0", "r0/6 1"]
    assert search.points.more(2, idle=False) == []


def test_no_more_points_are_asked_for_than_may_be_refused():
    search = Searching(suggestions=(1, *range(100, 130)), trials=100)
    search.drive(workers=64)
    assert len(search.trials) == 11  # ten in a row are refused


def test_a_point_that_was_found_before_costs_nothing_and_is_shown():
    search = Searching(suggestions=(5, 5, 2, 2))
    search.drive()
    assert len(search.trained) == len(set(search.trained)) == 2 + 2 * 4 + 2 * 6
    assert search.projection.shown == [("mini/#1", 0, "r0/6 5"), ("mini/#3", 0, "r0/6 2")]
    assert list(search.trials)[-1] == "champion #2"  # of equal points, the first one


def test_a_search_that_is_taken_up_goes_on_where_it_was():
    whole = Searching()
    whole.drive()
    for points_before in range(6):
        first = Searching(trials=points_before) if points_before < 5 else whole
        while points_before and len(first.trials) < points_before:
            stages = first.points.more(1, idle=True)
            if len(first.trials) < points_before:
                first.train(stages)
        again = Searching(suggestions=range(min(points_before, 4), 100))
        again.hold(first.store.keys)
        for trial in first.draft.plan.trials:
            again.draft.append(trial)
        again.train(again.ledger.plan(again.draft.recipes))
        again.drive()
        assert again.trials == whole.trials


def test_a_point_that_failed_for_good_is_passed_over():
    search = Searching()
    stages = search.points.more(1, idle=True)
    search.train(stages[:1])
    assert search.ledger.fail(stages[1], Failure("the loss is NaN", for_good=True)) == [("mini/#0", 0)]
    search.drive()
    assert list(search.trials) == ["#0", "#1", "#2", "#3", "champion #2"]
    assert search.points.settled()


def test_a_point_that_needs_what_has_failed_for_good_is_given_up_at_once():
    search = Searching(suggestions=[0, 0, 1, 2])
    stages = search.points.more(1, idle=True)
    search.train(stages[:1])
    search.ledger.fail(stages[-1], Failure("the loss is NaN", for_good=True))
    search.drive()
    assert list(search.trials) == ["#0", "#1", "#2", "#3", "champion #3"]
    assert ("mini/#1", 0, "the loss is NaN") in search.projection.shown
    assert ("mini/#1", 0) in search.ledger.given_up


def test_after_a_stage_that_may_go_better_next_time_no_more_points_are_begun():
    search = Searching()
    search.train(search.points.more(1, idle=True))
    search.points.halt()
    assert search.points.more(1, idle=True) is None
    assert not search.points.settled()
    assert search.points.champions() == {}


def test_with_several_objectives_the_front_is_trained_again():
    search = Searching(objectives=("val/top1", "val/few"))
    search.drive()
    # top1: 78, 79, 80, 79; few: 0, 1, 2, 3
    assert [label for label in search.trials if label.startswith("champion")] == ["champion #2", "champion #3"]
    assert [trial.label for trial in search.points.champions()["mini"]] == ["champion #2", "champion #3"]


def test_a_search_that_grows_has_another_champion_only_if_another_is_best():
    search = Searching(trials=2)
    search.drive()
    assert list(search.trials) == ["#0", "#1", "champion #1"]
    grown = Searching(suggestions=range(2, 100), trials=4)
    grown.hold(search.store.keys)
    for trial in search.draft.plan.trials:
        grown.draft.append(trial)
    assert not grown.points.settled()
    grown.drive()
    assert list(grown.trials) == ["#0", "#1", "champion #1", "#2", "#3", "champion #2"]
    assert [trial.label for trial in grown.points.champions()["mini"]] == ["champion #2"]


def test_a_point_that_is_refused_fails_counts_and_the_search_goes_on(capsys):
    search = Searching(suggestions=(160, 0, 99, 2))
    search.drive()
    assert list(search.trials) == ["#0", "#1", "#2", "#3", "champion #3"]
    assert (search.trials["#0"].refused, search.trials["#0"].ends) == ("x must be below 100 (got 160)", ("",))
    assert search.trials["#2"].refused.startswith("the point raised ZeroDivisionError: ours (test_points.py, line ")
    assert ("mini/#0", 0, "x must be below 100 (got 160)") in search.projection.shown
    assert search.points.are_complete()
    assert not search.ledger.lacking()
    assert search.points.failures() == ["2 of 4 points of mini failed: #0, #2"]
    assert "failed: mini/#0 (x 160): x must be below 100 (got 160)" in capsys.readouterr().out

    again = Searching(suggestions=())  # a search that is resumed neither repeats nor is stopped by them
    again.hold(search.store.keys)
    for trial in Plan.from_json(json.loads(json.dumps(search.draft.plan.to_json()))).trials:
        again.draft.append(trial)
    assert again.trials == search.trials
    assert again.points.are_complete()


def test_points_whose_space_was_mended_are_tried_again_on_request_in_their_places():
    search = Searching(suggestions=(160, 1, 99, 170))
    search.drive()
    before, space = search.trials, search.draft.spaces["mini"]
    mended = replace(space.search, point=lambda values: point({"x": values["x"] % 70 if values["x"] < 170 else 170}))
    search.draft.spaces["mini"] = replace(space, search=mended)
    assert search.ledger.try_again() == [("mini/#0", 0), ("mini/#2", 0)]
    assert list(search.trials) == list(before)
    ends = [search.trials[label].ends for label in ("#0", "#1", "#2", "#3")]
    assert ends == [("r0/6 20",), ("r0/6 1",), ("r0/6 29",), ("",)]
    assert search.trials["#3"].refused == "x must be below 100 (got 170)"
    assert search.draft.plan.epochs_needed == SWITCH + 3 * (EPOCHS - SWITCH) + 2 * EPOCHS  # of points, of a champion
    assert search.store.records[-1][0] == "runs/mine/plan.json"


def test_the_outlook_counts_no_epochs_of_refused_points():
    search = Searching(suggestions=(100, 1, 2, 3))
    outlook = Outlook(search.draft, search.store, search.ledger, search.points)
    assert search.points.more(1, idle=True) == []
    outlook.plan(())
    # Three points to come, and a champion's two replicates.
    assert str(outlook.counts) == "0/30 epochs, 1/4 points, 0/5 replicates, 1 failed"


def test_ten_points_that_are_refused_in_a_row_stop_the_search_with_the_reason(capsys):
    search = Searching(suggestions=(1, *range(100, 130)), trials=30)
    search.drive()
    assert list(search.trials) == [f"#{n}" for n in range(11)]
    assert not search.points.are_complete()
    shown = capsys.readouterr().out
    assert "search mini stops, because 10 points in a row were refused. Mend point in " in shown
    assert "'study resume mine --home h' goes on with new points; another domain needs another --name" in shown


def test_a_search_without_a_point_that_ended_is_not_complete():
    search = Searching(suggestions=(100, 101, 102, 103))
    search.drive()
    assert search.points.settled()
    assert not search.points.are_complete()
    (line,) = search.points.failures()
    assert ". Without a point that ends, there is no champion. 'study resume mine --home h --retry-failed' " in line


# Early stopping: at a rung, one epoch after the switch


RUNG = SWITCH + 1


def test_a_point_below_the_median_of_at_least_five_is_stopped_at_its_rung():
    values = (2, 3, 1, 4, 0, 60, 2, 50, 5)
    search = Searching(suggestions=values, trials=len(values), early_stop=1)
    search.drive()
    stopped = {label: trial.stopped for label, trial in search.trials.items() if not trial.champion_of}
    # The first five go on whatever they are worth; then 60 and 50 are below the median, and so is 5; 2 is not.
    assert [label for label, was in stopped.items() if was] == ["#5", "#7", "#8"]
    for label in ("#5", "#7", "#8"):
        trial = search.trials[label]
        assert (trial.epochs, trial.rung, trial.ends) == (RUNG, 0, (f"r0/{RUNG} {trial.trial.axes['x']}",))
        assert (trial.name, 0, trial.ends[0]) in search.projection.shown
    for label in ("#0", "#4", "#6"):
        assert search.trials[label].epochs == EPOCHS
    assert list(search.trials)[-1] == "champion #0"
    assert not any(key.startswith("r0/") and key.endswith((" 60", " 50")) for key in search.trained if "/4" in key)
    assert search.points.settled()


def test_fewer_than_five_judge_nobody():
    search = Searching(suggestions=(2, 2, 2, 2, 90), trials=5, early_stop=1)
    search.drive()
    assert not any(trial.stopped for trial in search.trials.values())


def test_a_point_is_trained_to_its_rung_first_and_goes_on_from_there():
    search = Searching(early_stop=1)
    stages = search.points.more(1, idle=True)
    assert stages[-1].key == f"r0/{RUNG} 0"
    assert search.trials["#0"].rung == RUNG
    search.train(stages)
    stages = search.points.more(1, idle=True)
    assert [(stage.parent, stage.key) for stage in stages] == [(f"r0/{RUNG} 0", "r0/6 0")]
    assert (search.trials["#0"].rung, search.trials["#0"].stopped) == (0, False)


def test_a_rung_that_is_no_sooner_than_the_end_judges_nobody():
    search = Searching(suggestions=(2, 2, 2, 2, 2, 90), trials=6, early_stop=EPOCHS - SWITCH)
    search.drive()
    assert not any(trial.stopped or trial.rung for trial in search.trials.values())


def test_a_stopped_point_counts_when_others_are_judged():
    values = (10, 10, 10, 10, 10, 20, 20, 20, 20, 20, 20, 15)
    search = Searching(suggestions=values, trials=len(values), early_stop=1)
    search.drive()
    # Eleven are known at the rung, six of them at 20: the median is theirs, and 15 is above it.
    stopped = [trial.stopped for trial in search.trials.values() if not trial.champion_of]
    assert stopped == [False] * 5 + [True] * 6 + [False]


def test_what_was_judged_stays_judged_when_the_search_is_taken_up():
    values = (2, 3, 1, 4, 0, 60)
    search = Searching(suggestions=values, trials=len(values), early_stop=1)
    search.drive()
    again = Searching(suggestions=(), trials=len(values), early_stop=1)
    again.hold(search.store.keys)
    for trial in search.draft.plan.trials:
        again.draft.append(trial)
    assert again.trials == search.trials
    assert again.points.settled()
    assert again.points.more(1, idle=True) is None


def test_what_optuna_raised_is_raised_where_points_are_asked_for():
    def broken():
        raise ZeroDivisionError("ours")

    search = Searching()
    search.points._projection = SimpleNamespace(check_suggestions=broken)
    with pytest.raises(ZeroDivisionError, match="ours"):
        search.points.more(1, idle=True)


def test_while_the_store_is_away_points_wait_and_then_all_are_trained(monkeypatch, capsys):
    undisturbed = Searching()
    undisturbed.drive()
    search = Searching()
    away = {"save_plan": 0, "header": 0}  # calls, of which two in a row fail and then one does not

    def flaky(name, call):
        def called(*arguments):
            away[name] += 1
            if away[name] % 3:
                raise Away("No space left on device")
            return call(*arguments)

        return called

    for owner, name in ((search.ledger, "save_plan"), (search.store, "header")):
        monkeypatch.setattr(owner, name, flaky(name, getattr(owner, name)))
    search.drive()
    assert search.trials == undisturbed.trials
    assert capsys.readouterr().out.count("no points are started while the store cannot be used: No space left") > 1


@pytest.mark.parametrize("error", [Away("full"), Damaged("state r0/6 0: its header"), FileNotFoundError("r0/6 0")])
def test_a_store_that_cannot_be_read_ends_the_suggestions_and_not_the_run(monkeypatch, error, capsys):
    monkeypatch.setattr(points, "AWAY_SECONDS", 0.0)
    search = Searching()
    search.train(search.points.more(1, idle=True))

    def fails(key):
        raise error

    monkeypatch.setattr(search.store, "header", fails)
    monkeypatch.setattr(search.points, "_objectives", {})
    while search.points.more(1, idle=True):
        search.hold([end for trial in search.draft.plan.trials for end in trial.ends])
    assert "no more points are started, because the store cannot be used: " in capsys.readouterr().out
    assert search.points.more(1, idle=True) is None


def test_the_outlook_counts_what_is_still_to_be_asked_and_compares_points_only():
    search = Searching()
    outlook = Outlook(search.draft, search.store, search.ledger, search.points)
    outlook.refresh()
    assert str(outlook.counts) == "0/36 epochs, 0/4 points, 0/6 replicates"  # 4 points, and a champion's 2 replicates
    shown = []
    while (stages := search.points.more(1, idle=True)) is not None:
        outlook.plan(stages)
        for stage in stages:
            outlook.train(stage, len(stage.keys))
            search.train([stage])
            through = search.draft.through(stage.key)
            outlook.end([each for each in through if search.draft.recipes[each].keys[-1] == stage.key])
        shown.append(str(outlook.counts))
    assert shown == [
        "6/36 epochs, 1/4 points, 1/6 replicates, best so far 78.0 (#0)",
        "10/32 epochs, 2/4 points, 2/6 replicates, best so far 79.0 (#1)",
        "14/31 epochs, 3/4 points, 3/6 replicates, best so far 80.0 (#2)",
        "18/30 epochs, 4/4 points, 4/6 replicates, best so far 80.0 (#2)",
        "30/30 epochs, 4/4 points, 6/6 replicates, best so far 80.0 (#2)",
    ]
    again = Outlook(search.draft, search.store, search.ledger, search.points)  # as a resume does
    again.refresh()
    assert str(again.counts) == "0/0 epochs, 4/4 points, 6/6 replicates, best so far 80.0 (#2)"


def test_the_outlook_expects_nothing_of_a_search_that_was_halted_nor_of_stages_that_failed():
    search = Searching()
    outlook = Outlook(search.draft, search.store, search.ledger, search.points)
    stages = search.points.more(1, idle=True)
    outlook.plan(stages)
    outlook.train(stages[0], 1)
    search.ledger.fail(stages[0], Failure("Diverged: NaN"))
    search.points.halt()
    outlook.refresh()
    assert str(outlook.counts) == "1/1 epochs, 0/1 points, 0/1 replicates, 1 failed"
