"""The searcher alone: which stage it hands out when, for any behaviour of the workers."""

import pytest
from helpers import Recorder, stage
from hypothesis import given, settings
from hypothesis import strategies as st

from study.execution.losses import Loss
from study.execution.tune import LOST_ATTEMPTS, Drain, StageSearcher
from study.planning.tree import Failure, descendants

few = settings(max_examples=100, deadline=None)


@st.composite
def forests(draw):
    """Draw stages sorted by priority, as from `tree.stages`: each below the root or below an earlier one."""
    parents = draw(st.lists(st.integers(-1, 10), min_size=1, max_size=10))
    above = [min(parent, number - 1) for number, parent in enumerate(parents)]
    remaining = [1] * len(above)
    for number in reversed(range(len(above))):
        if above[number] >= 0:
            remaining[above[number]] = max(remaining[above[number]], remaining[number] + draw(st.integers(1, 3)))
    keys = [f"s{number}" for number in range(len(above))]
    stages = [
        stage(key, f"s{up}" if up >= 0 else "origin", rest)
        for key, up, rest in zip(keys, above, remaining, strict=True)
    ]
    return sorted(stages, key=lambda each: -each.remaining)


def complete(searcher, trial, stage, outcome):
    """Call the searcher as Tune does for a trial that saves, raises, finds no disk, or loses its process."""
    if outcome == "saves":
        searcher.on_trial_complete(trial, {"position": 2, "saved": stage.key, "done": True})
    elif outcome in ("raises", "finds no disk"):
        failure = {"reason": "E", "traceback": "T", "for_good": outcome == "raises", "damaged": ""}
        flat = {f"failure/{name}": value for name, value in failure.items()}  # Tune flattens what a trial reports
        searcher.on_trial_complete(trial, {"position": 0, "saved": "", **flat, "done": True})
    else:
        searcher.on_trial_complete(trial, error=True)


def test_a_state_that_the_driver_does_not_see_is_not_saved_and_its_stage_is_given_up_in_the_end():
    first, second = stage("first", remaining=2), stage("second", "first")
    events = Recorder(unseen=("first",))
    searcher = StageSearcher([first, second], 1, Drain(), events)
    for attempt in range(LOST_ATTEMPTS):
        assert searcher.suggest(f"t{attempt}") == {"stage": first, "saved": ""}
        searcher.on_trial_complete(f"t{attempt}", {"position": 2, "saved": "first", "done": True, "hostname": "node2"})
    assert searcher.suggest("after") == StageSearcher.FINISHED
    reason = "the training process ended unexpectedly 3 times. node2 has saved a state that the driver does not see in"
    assert events.failures == [("first", Failure(f"{reason} the store"))]
    assert events.states == []


def test_epochs_are_told_before_the_state_that_they_end_in():
    told = []

    class Ordered(Recorder):
        def trained(self, stage, epochs):
            told.append(f"{epochs} epochs")

        def durable(self, key):
            told.append(key)
            return True

    searcher = StageSearcher([stage("only")], 1, Drain(), Ordered())
    searcher.suggest("t")
    searcher.on_trial_complete("t", {"position": 2, "saved": "only", "done": True})
    assert told == ["2 epochs", "only"]


def test_the_reason_why_the_last_process_was_lost_is_told():
    only = stage("only")
    events = Recorder()
    searcher = StageSearcher([only], 1, Drain(), events)
    for attempt, reason in enumerate(("no torch", "no torch", "no memory")):
        searcher.suggest(f"t{attempt}")
        searcher.lost(f"t{attempt}", Loss(reason, "node2", f"Traceback of {reason} at http://me:hunter2@host"))
        searcher.on_trial_complete(f"t{attempt}", error=True)
    words = "the training process ended unexpectedly 3 times. no memory"
    text = "Traceback of no memory at http://me:***@host"
    assert events.failures == [("only", Failure(words, text, host="node2"))]


@few
@given(stages=forests(), workers=st.integers(1, 4), random=st.randoms(use_true_random=False), faults=st.booleans())
def test_in_any_order_of_completions_each_stage_is_handed_out_when_it_is_ready(stages, workers, random, faults):
    events, begun, running, trial = Recorder(), [], {}, 0
    searcher = StageSearcher(stages, workers, Drain(), events)
    waiting, saved, given_up = {each.key: each for each in stages}, set(), {}
    while True:
        ready = [each for each in waiting.values() if each.parent == "origin" or each.parent in saved]
        suggested = searcher.suggest(f"t{trial}")
        if suggested == StageSearcher.FINISHED:
            break
        if suggested is not None:
            each = suggested["stage"]
            assert each is waiting.pop(each.key)
            assert each in ready
            assert each.remaining == max(other.remaining for other in ready)
            begun.append(each.key)
            running[f"t{trial}"] = each
            trial += 1
            continue
        assert not ready or len(running) == workers
        ended = random.choice(list(running))
        each = running.pop(ended)
        outcome = random.choice(["saves", "saves", "raises", "finds no disk", "is lost"]) if faults else "saves"
        complete(searcher, ended, each, outcome)
        if outcome == "saves":
            saved.add(each.key)
        elif outcome == "is lost" and begun.count(each.key) < LOST_ATTEMPTS:
            waiting[each.key] = each
        else:
            given_up[each.key] = outcome == "raises"
    assert not running
    assert waiting.keys() == {below.key for key in given_up for below in descendants(key, stages)}
    assert events.states == [key for key in events.states if key in saved]
    assert set(events.states) == saved
    assert {key: failure.for_good for key, failure in events.failures} == given_up
    assert len(events.failures) == len(given_up)
    if not faults:
        assert sorted(begun) == sorted(each.key for each in stages)


def test_a_drain_hands_out_nothing_more_and_gives_nothing_up():
    drain, events = Drain(), Recorder()
    searcher = StageSearcher([stage("a"), stage("b")], 2, drain, events)
    assert searcher.suggest("t0") == {"stage": stage("a"), "saved": ""}
    drain.requested = True
    assert searcher.suggest("t1") == StageSearcher.FINISHED
    searcher.on_trial_complete("t0", error=True)
    assert events.failures == []


def test_a_state_saved_on_the_way_is_told_once():
    events = Recorder()
    searcher = StageSearcher([stage("a")], 1, Drain(), events)
    searcher.suggest("t0")
    for saved in ("", "a/half", "a/half"):
        searcher.on_trial_result("t0", {"position": 1, "saved": saved})
    complete(searcher, "t0", stage("a"), "saves")
    assert events.states == ["a/half", "a"]
    assert events.epochs == {"a": 2}


def test_a_lost_attempt_is_handed_out_again_from_where_it_saved_and_counts_each_epoch_once():
    events = Recorder()
    searcher = StageSearcher([stage("a")], 1, Drain(), events)
    searcher.suggest("t0")
    searcher.on_trial_result("t0", {"position": 1, "saved": "a/half"})
    searcher.on_trial_complete("t0", error=True)
    assert searcher.suggest("t1") == {"stage": stage("a"), "saved": "a/half"}
    complete(searcher, "t1", stage("a"), "saves")
    assert (events.states, events.epochs, events.failures) == (["a/half", "a"], {"a": 2}, [])
    assert searcher.suggest("t2") == StageSearcher.FINISHED


# More stages while others are trained


def test_more_is_asked_for_when_a_worker_has_nothing_to_do_and_the_end_is_when_there_is_none():
    events = Recorder(later=[[], [stage("b"), stage("below b", "b")], [stage("below", "a")]])
    searcher = StageSearcher([stage("a", remaining=2)], 2, Drain(), events)
    assert searcher.suggest("t0")["stage"].key == "a"
    assert events.asked == []
    assert searcher.suggest("t1") is None  # none yet
    assert searcher.suggest("t1")["stage"].key == "b"
    assert searcher.suggest("t2") is None  # no worker is free: nobody is asked
    assert events.asked == [(2, False)] * 2
    complete(searcher, "t1", stage("b"), "saves")
    assert searcher.suggest("t2")["stage"].key == "below b"
    complete(searcher, "t2", stage("below b", "b"), "saves")
    assert searcher.suggest("t3") is None  # what is further waits for a
    assert searcher.suggest("t3") is None  # there will be no more, but a is still being trained
    complete(searcher, "t0", stage("a"), "saves")
    assert searcher.suggest("t3")["stage"].key == "below"
    complete(searcher, "t3", stage("below", "a"), "saves")
    assert searcher.suggest("t4") == StageSearcher.FINISHED
    assert events.asked[-1] == (2, True)


def test_nothing_is_finished_before_more_says_so():
    events = Recorder(later=[[], [], [stage("a")]])
    searcher = StageSearcher([], 1, Drain(), events)
    assert [searcher.suggest("t0") for _ in range(2)] == [None, None]
    assert searcher.suggest("t0")["stage"].key == "a"
    assert events.asked == [(1, True)] * 3


def test_a_stage_that_is_under_way_is_not_begun_twice():
    again = [stage("a"), stage("b", "a"), stage("c", "a")]
    searcher = StageSearcher([stage("a"), stage("b", "a")], 2, Drain(), Recorder(later=[again, again]))
    assert searcher.suggest("t0")["stage"].key == "a"
    assert [searcher.suggest("t1") for _ in range(2)] == [None, None]
    complete(searcher, "t0", stage("a"), "saves")
    assert [searcher.suggest(f"t{n}")["stage"].key for n in (1, 2)] == ["b", "c"]
    searcher.add([stage("b", "a")])
    for n, key in ((1, "b"), (2, "c")):
        complete(searcher, f"t{n}", stage(key, "a"), "saves")
    assert searcher.suggest("t3") == StageSearcher.FINISHED


def test_a_stage_that_was_given_up_may_come_again():
    events = Recorder(later=[[stage("a"), stage("below", "a")]])
    searcher = StageSearcher([stage("a"), stage("below", "a")], 1, Drain(), events)
    searcher.suggest("t0")
    complete(searcher, "t0", stage("a"), "finds no disk")
    assert events.failures == [("a", Failure("E", "T", for_good=False))]
    assert searcher.suggest("t1")["stage"].key == "a"
    complete(searcher, "t1", stage("a"), "saves")
    assert searcher.suggest("t2")["stage"].key == "below"


@pytest.mark.parametrize("workers", [1, 2, 4])
@few
@given(stages=forests(), random=st.randoms(use_true_random=False), parts=st.integers(1, 4))
def test_however_many_workers_and_whatever_the_order_each_stage_is_trained_once(workers, stages, random, parts):
    """Some stages come later, some twice, in any order. Parents may come after their children."""
    lists = [[] for _ in range(parts)]
    for each in stages:
        for _ in range(random.choice([1, 1, 2])):
            random.choice(lists).append(each)
    known = {each.key for each in stages}
    orders = [random.sample(each, len(each)) for each in lists]
    # As in a run, nothing is planned below a state that is neither stored nor planned.
    planned, later = {"origin"}, []
    for order in orders:
        later.append([])
        for each in [*order]:
            chain = [each]
            while chain[0].parent in known and chain[0].parent not in planned:
                chain.insert(0, next(other for other in stages if other.key == chain[0].parent))
            later[-1] += random.sample(chain, len(chain))
            planned |= {other.key for other in chain}
    events, running, begun, trial = Recorder(later=later[1:]), {}, [], 0
    trained = set()
    events.more = lambda *_, **__: next_list(events.later, trained)
    searcher = StageSearcher(unique(later[0]), workers, Drain(), events)
    while (suggested := searcher.suggest(f"t{trial}")) != StageSearcher.FINISHED:
        if suggested is not None:
            each = suggested["stage"]
            assert each.parent == "origin" or each.parent in trained
            begun.append(each.key)
            running[f"t{trial}"] = each
            trial += 1
            assert len(running) <= workers
        if running and (suggested is None or random.random() < 0.5):
            ended = random.choice(list(running))
            each = running.pop(ended)
            trained.add(each.key)
            complete(searcher, ended, each, "saves")
    assert not running
    assert sorted(begun) == sorted(known)
    assert sorted(events.states) == sorted(known)


def unique(some):
    return list({each.key: each for each in some}.values())


def next_list(later, trained):
    """Return the next stages as a driver does, without those that are in the store already."""
    return [each for each in unique(later.pop(0)) if each.key not in trained] if later else None
