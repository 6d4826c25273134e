"""The searcher alone: which stage it hands out when, for any behaviour of the workers."""

import time

import pytest
from helpers import Machines, Recorder, stage
from hypothesis import given, settings
from hypothesis import strategies as st

from study.execution import searcher as searchers
from study.execution.attempts import LOST_ATTEMPTS
from study.execution.events import ALONE
from study.execution.interrupts import Drain
from study.execution.losses import KILLED, Loss
from study.planning.tree import Failure, Stage, cut, descendants

few = settings(max_examples=100, deadline=None)


class StageSearcher(searchers.StageSearcher):
    """Raises at once what is raised about a report or an end."""

    def on_trial_result(self, *arguments, **named):
        super().on_trial_result(*arguments, **named)
        self.check()

    def on_trial_complete(self, *arguments, **named):
        super().on_trial_complete(*arguments, **named)
        self.check()


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
    searcher = StageSearcher([first, second], Machines(1), Drain(), events)
    for attempt in range(LOST_ATTEMPTS):
        assert searcher.suggest(f"t{attempt}")["stage"] is first
        searcher.on_trial_complete(f"t{attempt}", {"position": 2, "saved": "first", "done": True, "hostname": "node2"})
    assert searcher.suggest("after") == StageSearcher.FINISHED
    reason = "the training process ended unexpectedly 3 times. it has saved a state that the driver does not see in the"
    assert events.failures == [("first", Failure(f"{reason} store (on node2)", host="node2"))]
    assert events.recounted == -2 * LOST_ATTEMPTS
    assert events.states == []


def test_epochs_are_told_before_the_state_that_they_end_in():
    told = []

    class Ordered(Recorder):
        def trained(self, stage, epochs):
            told.append(f"{epochs} epochs")

        def durable(self, key):
            told.append(key)
            return True

    searcher = StageSearcher([stage("only")], Machines(1), Drain(), Ordered())
    searcher.suggest("t")
    searcher.on_trial_complete("t", {"position": 2, "saved": "only", "done": True})
    assert told == ["2 epochs", "only"]


def test_the_reason_why_the_last_process_was_lost_is_told():
    only = stage("only")
    events = Recorder()
    searcher = StageSearcher([only], Machines(1), Drain(), events)
    for attempt, reason in enumerate(("no torch", "no torch", "no memory")):
        searcher.suggest(f"t{attempt}")
        searcher.lost(f"t{attempt}", Loss(reason, "node2", f"Traceback of {reason} at http://me:hunter2@host"))
        searcher.on_trial_complete(f"t{attempt}", error=True)
    words = "the training process ended unexpectedly 3 times. no memory (on node2)"
    text = "Traceback of no memory at http://me:***@host"
    assert events.failures == [("only", Failure(words, text, host="node2"))]


class Neighbour(type(ALONE)):
    """Another driver trains the stages in `trains`; those in `stored` have been trained."""

    def __init__(self):
        self.trains, self.stored, self.parts, self.ended, self.kept = set(), set(), {}, [], {}

    def cut(self, stage):
        return self.parts.pop(stage.key, [stage])

    def begin(self, stage):
        return stage.key not in self.trains

    def arrived(self, stage):
        return stage.key in self.stored

    def is_shared(self, stage):
        return True

    def keep(self, stage, position):
        return None if stage.key in self.trains else self.kept.get(stage.key, ())

    def end(self, stage):
        self.ended.append(stage.key)


def test_a_stage_that_another_driver_trains_is_waited_for(monkeypatch):
    monkeypatch.setattr(searchers, "ELSEWHERE_SECONDS", 0.0)
    events, others = Recorder(), Neighbour()
    others.trains = {"trunk", "lost"}
    stages = [stage("trunk", remaining=3), stage("lost", remaining=2), stage("below", "trunk", 2)]
    searcher = StageSearcher(stages, Machines(2), Drain(), events, others)
    assert searcher.suggest("t0") is None
    assert events.waited == ["another run trains what this run needs, too"]
    others.stored.add("trunk")
    time.sleep(0.01)
    given = searcher.suggest("t1")
    assert (given["stage"].key, given["again"]) == ("below", False)
    assert searcher.suggest("t2") is None
    others.trains.clear()  # its driver was killed
    time.sleep(0.01)
    given = searcher.suggest("t2")
    assert (given["stage"].key, given["again"], given["saved"]) == ("lost", True, "")  # with what was saved on the way
    assert (events.waited[1:], events.recounted) == ([""], 2)
    searcher.on_trial_result("t2", {"position": 1, "begun": 1, "saved": "", "done": False})
    assert (events.epochs, events.recounted) == ({}, 3)
    for trial, key in (("t1", "below"), ("t2", "lost")):
        searcher.on_trial_complete(trial, {"position": 2, "saved": key, "done": True})
    assert searcher.suggest("t3") == StageSearcher.FINISHED
    assert others.ended == ["below", "lost"]
    assert events.states == ["trunk", "below", "lost"]


def test_what_another_driver_has_trained_since_the_start_is_not_trained():
    events, others = Recorder(), Neighbour()
    others.stored = {"a", "b"}
    stages = [stage("a", remaining=2), stage("b", "a"), stage("c", "b")]
    searcher = StageSearcher(stages, Machines(2), Drain(), events, others)
    assert searcher.suggest("t0")["stage"].key == "c"
    assert (others.ended, events.states, events.recounted) == (["a", "b"], ["a", "b"], 4)


def test_a_stage_is_trained_in_the_parts_that_others_need():
    whole = Stage("origin", 0, ("a", "b", "c", "d"), ({},) * 4, {}, 6)
    child = stage("child", "d", 2)
    events, others = Recorder(), Neighbour()
    parts = cut(whole, {"b", "c"})
    others.parts = {"d": parts}
    searcher = StageSearcher([whole, child], Machines(2), Drain(), events, others)
    for number, keys in enumerate([("a", "b"), ("c",), ("d",)]):
        assert searcher.suggest(f"t{number}")["stage"].keys == keys
        assert searcher.suggest("none yet") is None
        searcher.on_trial_complete(f"t{number}", {"position": len(keys), "saved": keys[-1], "done": True})
    assert searcher.suggest("t3")["stage"] is child
    assert events.parts == {"d": parts}


def test_a_stage_without_room_is_left_to_another_driver_for_a_while(monkeypatch):
    monkeypatch.setattr(searchers, "LEFT_SECONDS", 0.3)
    events = Recorder()
    searcher = StageSearcher([stage("only")], Machines(1), Drain(), events)
    searcher.suggest("t0")
    assert not searcher.is_shared("t0")
    searcher = StageSearcher([stage("only")], Machines(1), Drain(), events, Neighbour())
    searcher.suggest("t0")
    assert searcher.is_shared("t0")
    searcher.leave("t0")
    searcher.on_trial_complete("t0")
    assert searcher.suggest("t1") is None
    time.sleep(0.4)
    assert searcher.suggest("t1")["stage"].key == "only"
    assert events.failures == []


def test_a_stage_that_another_driver_has_claimed_meanwhile_is_left_to_it(monkeypatch):
    monkeypatch.setattr(searchers, "LEFT_SECONDS", 0.0)
    events, others = Recorder(), Neighbour()
    searcher = StageSearcher([stage("pending"), stage("running")], Machines(2), Drain(), events, others)
    searcher.suggest("t0")
    searcher.suggest("t1")
    searcher.on_trial_result("t1", {"position": 1, "saved": "", "done": False})
    assert searcher.to_keep(["t1"]) == {}
    assert not searcher.is_left("t0")
    others.trains = {"pending", "running"}
    assert searcher.to_keep(["t1"]) == {}
    assert searcher.is_left("t0")
    assert searcher.is_left("t1")
    searcher.on_trial_complete("t0")
    searcher.on_trial_complete("t1", {"position": 1, "saved": "", "done": False})
    others.stored = {"pending", "running"}
    time.sleep(0.01)
    assert searcher.suggest("t2") == StageSearcher.FINISHED
    assert (events.epochs, events.recounted, events.failures) == ({"running": 1}, 3, [])


def test_epochs_that_were_trained_before_a_stage_was_left_are_counted_once(monkeypatch):
    monkeypatch.setattr(searchers, "LEFT_SECONDS", 0.0)
    events, others = Recorder(), Neighbour()
    searcher = StageSearcher([stage("a")], Machines(1), Drain(), events, others)
    searcher.suggest("t0")
    searcher.on_trial_result("t0", {"position": 1, "saved": "", "done": False})
    searcher.leave("t0")
    searcher.on_trial_complete("t0", {"position": 1, "saved": "", "done": False})  # it saves after its last report
    time.sleep(0.01)
    assert searcher.suggest("t1")["again"]  # the other driver did not want it
    searcher.on_trial_complete("t1", {"position": 2, "begun": 1, "saved": "a", "done": True})
    assert (events.epochs, events.recounted) == ({"a": 2}, 0)


def test_a_worker_is_asked_once_to_save_what_others_need_and_not_before_it_runs():
    others = Neighbour()
    searcher = StageSearcher([stage("a")], Machines(1), Drain(), Recorder(), others)
    searcher.suggest("t0")
    others.kept = {"a": {"inside"}}
    assert searcher.to_keep([]) == {}
    assert searcher.to_keep(["t0"]) == {"t0": {"inside"}}
    assert searcher.to_keep(["t0"]) == {}


def test_what_another_driver_has_trained_is_waited_for_again_if_the_store_is_away_just_then(monkeypatch):
    monkeypatch.setattr(searchers, "ELSEWHERE_SECONDS", 0.0)
    events, others = Recorder(unseen=["a"]), Neighbour()
    others.trains, others.stored = {"a"}, {"a"}
    searcher = StageSearcher([stage("a")], Machines(1), Drain(), events, others)
    for _ in range(2):
        time.sleep(0.01)
        assert searcher.suggest("t0") is None
    events.unseen = []
    time.sleep(0.01)
    assert searcher.suggest("t0") == StageSearcher.FINISHED
    assert (events.states, events.recounted) == (["a"], 2)


def test_if_a_part_fails_so_does_what_is_below_the_whole_stage():
    whole = Stage("origin", 0, ("a", "b"), ({},) * 2, {}, 3)
    events, others = Recorder(), Neighbour()
    others.parts = {"b": cut(whole, {"a"})}
    searcher = StageSearcher([whole, stage("child", "b")], Machines(2), Drain(), events, others)
    given = searcher.suggest("t0")["stage"]
    complete(searcher, "t0", given, "raises")
    assert searcher.suggest("t1") == StageSearcher.FINISHED
    assert [key for key, _ in events.failures] == ["a"]


@settings(max_examples=500, deadline=None)
@given(data=st.data())
def test_every_epoch_is_counted_once_however_a_stage_is_cut_lost_or_left(data):
    whole, saved = Stage("origin", 0, tuple("abcd"), ({},) * 4, {}, 4), set()
    events, others, losses = Recorder(), Neighbour(), 0
    others.stored = saved

    def act(part, position):
        """What happens to a process that trains a part, and has come so far."""
        nonlocal losses
        what = data.draw(st.sampled_from(["train", "save", "leave", *["be lost"] * (losses < 2)]))
        if position and (what in ("save", "leave") or (what == "be lost" and data.draw(st.booleans()))):
            saved.add(part.keys[position - 1])
        if what in ("leave", "be lost") and len(part.keys) > 1 and data.draw(st.booleans()):
            others.parts = {part.key: cut(part, {data.draw(st.sampled_from(part.keys[:-1]))})}
        if what == "leave":  # to another driver, which may go on with it
            saved.update(data.draw(st.sampled_from([(), part.keys[position:]])))
        losses += what == "be lost"
        return what

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(searchers, "ELSEWHERE_SECONDS", 0.0)
        patch.setattr(searchers, "LEFT_SECONDS", 0.0)
        searcher = StageSearcher([whole], Machines(1), Drain(), events, others)
        for number in range(999):
            given, trial = searcher.suggest(f"t{number}"), f"t{number}"
            if given is None:  # looked for elsewhere too recently
                continue
            if given == StageSearcher.FINISHED:
                break
            part = given["stage"]
            known = saved if given["again"] else {given["saved"]}
            begun = max((n + 1 for n, key in enumerate(part.keys) if key in known), default=0)
            position, last, what = begun, part.keys[begun - 1] if begun else "", ""
            while what not in ("leave", "be lost") and position < len(part.keys):
                report(searcher, trial, "node1", position=position, saved=last, begun=begun)
                what = act(part, position)
                position += what == "train"
                last = part.keys[position - 1] if what in ("save", "leave") and position else last
            if what == "leave":
                searcher.leave(trial)
            if what == "be lost":
                searcher.on_trial_complete(trial, error=True)
                continue
            if position == len(part.keys):
                saved.add(part.key)
                last = part.key
            end = {"position": position, "saved": last, "begun": begun, "done": True}
            searcher.on_trial_complete(trial, end)
    assert given == StageSearcher.FINISHED
    assert events.failures == []
    assert sum(events.epochs.values()) + events.recounted == len(whole.keys)


@few
@given(stages=forests(), workers=st.integers(1, 4), random=st.randoms(use_true_random=False), faults=st.booleans())
def test_in_any_order_of_completions_each_stage_is_handed_out_when_it_is_ready(stages, workers, random, faults):
    events, begun, running, trial = Recorder(), [], {}, 0
    searcher = StageSearcher(stages, Machines(workers), Drain(), events)
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
    searcher = StageSearcher([stage("a"), stage("b")], Machines(2), drain, events)
    assert searcher.suggest("t0") == {"stage": stage("a"), "saved": "", "again": False, "avoided": ()}
    drain.requested = True
    assert searcher.suggest("t1") == StageSearcher.FINISHED
    searcher.on_trial_complete("t0", error=True)
    assert events.failures == []


def test_a_state_saved_on_the_way_is_told_once():
    events = Recorder()
    searcher = StageSearcher([stage("a")], Machines(1), Drain(), events)
    searcher.suggest("t0")
    for saved in ("", "a/half", "a/half"):
        searcher.on_trial_result("t0", {"position": 1, "saved": saved})
    complete(searcher, "t0", stage("a"), "saves")
    assert events.states == ["a/half", "a"]
    assert events.epochs == {"a": 2}


def test_a_lost_attempt_is_handed_out_again_from_where_it_saved_and_counts_each_epoch_once():
    events = Recorder()
    searcher = StageSearcher([stage("a")], Machines(1), Drain(), events)
    searcher.suggest("t0")
    searcher.on_trial_result("t0", {"position": 1, "saved": "a/half"})
    searcher.on_trial_complete("t0", error=True)
    assert searcher.suggest("t1") == {"stage": stage("a"), "saved": "a/half", "again": True, "avoided": ()}
    complete(searcher, "t1", stage("a"), "saves")
    assert (events.states, events.epochs, events.failures) == (["a/half", "a"], {"a": 2}, [])
    assert searcher.suggest("t2") == StageSearcher.FINISHED


# What is nobody's fault


def report(searcher, trial, node, **more):
    """Report as a worker on a node does that has trained nothing yet."""
    result = {"position": 0, "saved": "", "nodes": [node], "hostname": node}
    searcher.on_trial_result(trial, result | more)


def test_a_stage_that_moves_from_machines_about_to_end_is_not_given_up():
    events, pool = Recorder(), Machines(1, [f"node{number}" for number in range(20)])
    searcher = StageSearcher([stage("a")], pool, Drain(), events)
    for number in range(10):
        assert searcher.suggest(f"t{number}")["stage"] == stage("a")
        if number % 2:  # its process got SIGTERM, or Ray has announced the end; it raises at its next step
            report(searcher, f"t{number}", f"node{number}", moved=True)
            searcher.on_trial_complete(f"t{number}", error=True)
        else:  # it waited for room, and all machines that it may use have ended
            searcher.move(f"t{number}")
            searcher.on_trial_complete(f"t{number}")
    assert events.failures == []


def test_a_stage_whose_machine_ends_is_not_given_up_and_tries_another_after_a_loss_of_its_own():
    events, pool = Recorder(), Machines(1, ["node1", "node2", "node3"])
    searcher = StageSearcher([stage("a")], pool, Drain(), events)
    for number in range(5):
        searcher.suggest(f"t{number}")
        report(searcher, f"t{number}", "node1")
        pool.ended.add("node1")
        searcher.on_trial_complete(f"t{number}", error=True)
    suggested = searcher.suggest("own")
    assert suggested["avoided"] == ()
    report(searcher, "own", "node2")
    searcher.on_trial_complete("own", error=True)
    assert searcher.suggest("again")["avoided"] == ("node2",)
    assert events.failures == []
    assert events.remarks == [("trying again", "a", f"{KILLED} (on node2)")]  # the pool tells of machines that end


def test_a_stage_that_a_machine_fails_is_tried_on_others_before_it_is_given_up():
    events, pool = Recorder(), Machines(1, ["node1", "node2"])
    searcher = StageSearcher([stage("a")], pool, Drain(), events)
    for node, avoided in (("node1", ()), ("node2", ("node1",))):
        trial = f"on {node}"
        assert searcher.suggest(trial)["avoided"] == avoided
        report(searcher, trial, node)
        result = {"position": 0, "saved": "", "nodes": [node], "hostname": node, "done": True}
        failure = {"reason": f"OSError: no data on {node}", "traceback": "T", "for_good": False, "damaged": ""}
        searcher.on_trial_complete(trial, result | {f"failure/{name}": value for name, value in failure.items()})
    assert events.failures == [("a", Failure("OSError: no data on node2", "T"))]
    assert events.remarks == [("trying again", "a", "OSError: no data on node1 (on node1)")]


def test_an_epoch_that_was_lost_before_it_was_saved_is_counted_once_it_is_trained_again():
    events = Recorder()
    searcher = StageSearcher([stage("a")], Machines(1), Drain(), events)
    third = {"begun": 1, "saved": "a/half"}  # which the second one has saved
    for trial, more in (("first", {}), ("second", {}), ("third", third)):
        searcher.suggest(trial)
        report(searcher, trial, "node1", **more | {"position": 1})
        searcher.on_trial_complete(trial, error=trial != "third")
        assert events.epochs["a"] + events.recounted == (trial == "third")


def test_what_is_raised_about_a_trial_is_raised_before_another_stage_is_handed_out():
    class Faulty(Recorder):
        def trained(self, stage, epochs):
            raise KeyError(stage.key)

    searcher = searchers.StageSearcher([stage("a"), stage("b")], Machines(2), Drain(), Faulty())
    searcher.suggest("t0")
    report(searcher, "t0", "node1", position=1)
    with pytest.raises(KeyError, match="a"):
        searcher.suggest("t1")


def test_a_late_node_that_cannot_train_is_left_out_and_its_stage_goes_elsewhere():
    events, pool = Recorder(), Machines(1, ["node1", "late"])
    searcher = StageSearcher([stage("a")], pool, Drain(), events)
    searcher.suggest("t0")
    report(searcher, "t0", "late", moved=True, **{"unfit/late": "it has no torch"})
    searcher.on_trial_complete("t0", error=True)
    assert pool.left_out == {"late": "it has no torch"}
    assert searcher.suggest("t1")["avoided"] == ("late",)
    assert events.failures == []


def test_while_a_worker_waits_for_the_store_nothing_else_is_begun():
    searcher = StageSearcher([stage("a"), stage("b")], Machines(2), Drain(), Recorder())
    searcher.suggest("t0")
    report(searcher, "t0", "node1", waiting="No space left on device")
    assert searcher.outage.reason == "No space left on device"
    assert searcher.suggest("t1") is None
    report(searcher, "t0", "node1")
    assert searcher.outage.reason == ""
    assert searcher.suggest("t1")["stage"] == stage("b")


def test_when_the_worker_that_waited_is_lost_one_stage_is_begun_to_see_whether_the_store_is_back():
    searcher = StageSearcher([stage("a"), stage("b"), stage("c")], Machines(3), Drain(), Recorder())
    searcher.suggest("t0")
    report(searcher, "t0", "node1", waiting="No space left on device")
    searcher.on_trial_complete("t0", error=True)
    assert searcher.outage.reason == "No space left on device"
    assert searcher.suggest("t1") is not None
    assert searcher.suggest("t2") is None
    searcher.on_trial_result("t1", {"position": 1, "saved": "half", "nodes": ["node1"]})
    assert searcher.outage.reason == ""
    assert searcher.suggest("t2") is not None


def test_epochs_that_an_earlier_attempt_saved_without_a_report_are_counted_once():
    events = Recorder()
    searcher = StageSearcher([stage("a")], Machines(1), Drain(), events)
    searcher.suggest("t0")
    searcher.on_trial_result("t0", {"position": 1, "saved": "", "moved": True})  # saved after the report
    searcher.on_trial_complete("t0", error=True)
    assert searcher.suggest("t1")["again"]
    searcher.on_trial_complete("t1", {"position": 2, "saved": "a", "begun": 1, "done": True})
    assert events.epochs == {"a": 2}


def test_a_search_plans_a_point_for_each_worker_so_that_an_autoscaler_sees_what_the_user_asked_for():
    events, pool = Recorder(later=[[stage("a")]]), Machines(100)
    pool.room = lambda: 0
    StageSearcher([], pool, Drain(), events).suggest("t0")
    assert events.asked == [(100, True)]


# More stages while others are trained


def test_more_is_asked_for_when_a_worker_has_nothing_to_do_and_the_end_is_when_there_is_none():
    events = Recorder(later=[[], [stage("b"), stage("below b", "b")], [stage("below", "a")]])
    searcher = StageSearcher([stage("a", remaining=2)], Machines(2), Drain(), events)
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
    searcher = StageSearcher([], Machines(1), Drain(), events)
    assert [searcher.suggest("t0") for _ in range(2)] == [None, None]
    assert searcher.suggest("t0")["stage"].key == "a"
    assert events.asked == [(1, True)] * 3


def test_a_stage_that_is_under_way_is_not_begun_twice():
    again = [stage("a"), stage("b", "a"), stage("c", "a")]
    searcher = StageSearcher([stage("a"), stage("b", "a")], Machines(2), Drain(), Recorder(later=[again, again]))
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
    searcher = StageSearcher([stage("a"), stage("below", "a")], Machines(1), Drain(), events)
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
    searcher = StageSearcher(unique(later[0]), Machines(workers), Drain(), events)
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
