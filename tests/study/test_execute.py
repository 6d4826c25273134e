"""Stages on a real Ray, trained by a class that only does what a stage's instruction says."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ray import cloudpickle
from ray.tune import Trainable

from study import execute
from study.execute import LOST_ATTEMPTS, Drain, Job, StageSearcher, interruptible
from study.plan import Resources
from study.refusal import Refusal
from study.tree import Stage, descendants

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers do not have the tests on their path

few = settings(max_examples=100, deadline=None)


def stage(key, parent="origin", remaining=1, do="nothing"):
    return Stage(parent, int(parent != "origin"), (f"{key}/half", key), ({"do": do}, {"do": do}), {}, remaining)


class Scripted(Trainable):
    """Does what its stage says, and writes down what it did: a line "begin|end|cleanup, stage, process"."""

    def setup(self, config, job):
        self.job = job
        self.reset_config(config)

    def reset_config(self, new_config):
        self.stage, self.position = self.job.stages[new_config["stage"]], 0
        return True

    def note(self, what):
        with Path(self.job.store).open("a") as log:
            log.write(f"{what} {self.stage.key} {os.getpid()}\n")

    def step(self):
        do = self.stage.epochs[0]["do"]
        if self.position == 0:
            self.note("begin")
            if do == "die" or (do == "die once" and self.begun_before() == 1):
                os._exit(1)
            if do == "raise":
                return {"position": 0, "saved": "", "done": True, "error": "Diverged: NaN", "traceback": "at line 1"}
        if do in ("wait", "wait long"):
            time.sleep(0.1 if do == "wait" else 18)
            self.position = 1
            return {"position": 1, "saved": "", "done": False}
        self.position = 2
        self.note("end")
        return {"position": 2, "saved": self.stage.key, "done": True}

    def begun_before(self):
        return Path(self.job.store).read_text().count(f"begin {self.stage.key} ")

    def cleanup(self):
        if self.position == 1:  # inside a stage
            self.note("cleanup")


class Recorder:
    """Keeps what it is told; may ask for a drain once something of a stage has been trained."""

    def __init__(self, drain=None):
        self.drain, self.epochs, self.states, self.failures = drain, {}, [], []

    def trained(self, stage, epochs):
        self.epochs[stage.key] = self.epochs.get(stage.key, 0) + epochs
        if self.drain is not None:
            self.drain.requested = True

    def durable(self, key):
        self.states.append(key)

    def failed(self, stage, reason, traceback, lost):
        self.failures.append((stage.key, reason, traceback, lost))


@pytest.fixture
def train(one_ray, tmp_path):
    """Executes stages; returns the recorder and, in order, what the workers wrote down."""

    def call(*stages, workers=2, cpus=0.5, events=None):
        events = events or Recorder()
        log = tmp_path / "log"
        job = Job("r", str(log), "", {each.key: each for each in stages})
        resources = Resources(workers=workers, cpus=cpus)
        execute.execute(stages, job, resources, Scripted, events.drain or Drain(), events)
        return events, [tuple(line.split()) for line in log.read_text().splitlines()]

    return call


def times(log, what):
    """When each stage began or ended, as positions in the log."""
    return {key: number for number, (done, key, _) in enumerate(log) if done == what}


def test_every_stage_is_trained_once_and_after_its_parent_in_a_few_processes(train):
    stages = [stage("a", remaining=3), stage("b", remaining=3)]
    stages += [stage(f"{root}{n}", root, 2) for root in "ab" for n in range(3)]
    stages += [stage(f"{each.key}x", each.key) for each in stages[2:]]
    events, log = train(*stages)
    assert sorted(log) == sorted(set(log))
    assert len(log) == 2 * len(stages)
    began, ended = times(log, "begin"), times(log, "end")
    assert began.keys() == ended.keys() == {each.key for each in stages}
    assert all(ended[each.parent] < began[each.key] for each in stages if each.parent in ended)
    assert sorted(events.states) == sorted(ended)
    assert events.epochs == dict.fromkeys(ended, 2)
    assert events.failures == []
    assert len({process for *_, process in log}) <= 4


def test_the_longest_remaining_path_comes_first(train):
    stages = [
        stage("trunk", remaining=5), stage("other", remaining=3), stage("alone"),
        stage("long", "trunk", 4), stage("short", "trunk", 2),
    ]  # fmt: skip
    _, log = train(*stages, workers=1)
    assert [key for what, key, _ in log if what == "begin"] == ["trunk", "long", "other", "short", "alone"]


@pytest.mark.slow  # each lost process costs two seconds for another
def test_what_fails_takes_its_descendants_with_it_and_nothing_else(train):
    stages = [
        stage("raises", remaining=3, do="raise"), stage("below", "raises", 2), stage("further", "below"),
        stage("dies", remaining=3, do="die"), stage("orphan", "dies", 2),
        stage("recovers", remaining=3, do="die once"), stage("child", "recovers", 2),
        stage("sound", remaining=3), stage("another", "sound", 2),
    ]  # fmt: skip
    events, log = train(*stages)
    begun = [key for what, key, _ in log if what == "begin"]
    assert {key: begun.count(key) for key in begun} == {
        "raises": 1, "dies": LOST_ATTEMPTS, "recovers": 2, "child": 1, "sound": 1, "another": 1,
    }  # fmt: skip
    assert sorted(events.states) == ["another", "child", "recovers", "sound"]
    assert sorted(events.failures) == [
        ("dies", "its process was lost 3 times", "", True),
        ("raises", "Diverged: NaN", "at line 1", False),
    ]


def test_a_drain_lets_the_running_stage_save_and_begins_nothing(train):
    stages = [stage("slow", remaining=2, do="wait"), stage("next"), stage("below", "slow")]
    events, log = train(*stages, workers=1, events=Recorder(Drain()))
    assert [entry[:2] for entry in log] == [("begin", "slow"), ("cleanup", "slow")]
    assert (events.states, events.failures) == ([], [])


@pytest.mark.slow
def test_a_drain_waits_for_an_epoch_longer_than_tune_waits_for_an_actor(train):
    events = Recorder(Drain())
    asked = threading.Timer(4, lambda: setattr(events.drain, "requested", True))
    asked.start()
    _, log = train(stage("slow", do="wait long"), stage("next"), workers=1, events=events)
    asked.join()
    assert [entry[:2] for entry in log] == [("begin", "slow"), ("cleanup", "slow")]


def test_more_than_the_machines_have_is_refused(train, tmp_path):
    with pytest.raises(Refusal, match=r"--cpus-per-trial = 1000: at most \d+, what the machines have, would do"):
        train(stage("a"), cpus=1000)
    assert not (tmp_path / "log").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_drains_and_the_second_stops_at_once(number):
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    drain, said = Drain(), []
    with interruptible(drain, said.append):
        signal.raise_signal(number)
        assert drain.requested
        assert len(said) == 1
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before


# The searcher alone


@st.composite
def forests(draw):
    """Stages by priority, as `tree.stages` has them: each below the root or below an earlier one."""
    parents = draw(st.lists(st.integers(-1, 10), min_size=1, max_size=10))
    above = [min(parent, number - 1) for number, parent in enumerate(parents)]
    remaining = [1] * len(above)
    for number in reversed(range(len(above))):
        if above[number] >= 0:
            remaining[above[number]] = max(remaining[above[number]], remaining[number] + draw(st.integers(1, 3)))
    keys = [f"s{number}" for number in range(len(above))]
    found = [
        stage(key, f"s{up}" if up >= 0 else "origin", rest)
        for key, up, rest in zip(keys, above, remaining, strict=True)
    ]
    return sorted(found, key=lambda each: -each.remaining)


def complete(searcher, trial, stage, outcome):
    """Tell the searcher what Tune would of a trial that saves, raises, or loses its process."""
    if outcome == "saves":
        searcher.on_trial_complete(trial, {"position": 2, "saved": stage.key, "done": True})
    elif outcome == "raises":
        searcher.on_trial_complete(trial, {"position": 0, "saved": "", "error": "E", "traceback": "T", "done": True})
    else:
        searcher.on_trial_complete(trial, error=True)


@few
@given(stages=forests(), workers=st.integers(0, 3), random=st.randoms(use_true_random=False), faults=st.booleans())
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
            each = waiting.pop(suggested["stage"])
            assert each in ready
            assert each.remaining == max(other.remaining for other in ready)
            begun.append(each.key)
            running[f"t{trial}"] = each
            trial += 1
            continue
        assert not ready or len(running) == workers
        ended = random.choice(list(running))
        each = running.pop(ended)
        outcome = random.choice(["saves", "saves", "raises", "is lost"]) if faults else "saves"
        complete(searcher, ended, each, outcome)
        if outcome == "saves":
            saved.add(each.key)
        elif outcome == "is lost" and begun.count(each.key) < LOST_ATTEMPTS:
            waiting[each.key] = each
        else:
            given_up[each.key] = outcome == "is lost"
    assert not running
    assert waiting.keys() == {below.key for key in given_up for below in descendants(key, stages)}
    assert events.states == [key for key in events.states if key in saved]
    assert set(events.states) == saved
    assert {key: lost for key, *_, lost in events.failures} == given_up
    assert len(events.failures) == len(given_up)
    if not faults:
        assert sorted(begun) == sorted(each.key for each in stages)


def test_a_drain_hands_out_nothing_more_and_gives_nothing_up():
    drain, events = Drain(), Recorder()
    searcher = StageSearcher([stage("a"), stage("b")], 0, drain, events)
    assert searcher.suggest("t0") == {"stage": "a", "saved": ""}
    drain.requested = True
    assert searcher.suggest("t1") == StageSearcher.FINISHED
    searcher.on_trial_complete("t0", error=True)
    assert events.failures == []


def test_a_state_saved_on_the_way_is_told_once():
    events = Recorder()
    searcher = StageSearcher([stage("a")], 0, Drain(), events)
    searcher.suggest("t0")
    for saved in ("", "a/half", "a/half"):
        searcher.on_trial_result("t0", {"position": 1, "saved": saved})
    complete(searcher, "t0", stage("a"), "saves")
    assert events.states == ["a/half", "a"]
    assert events.epochs == {"a": 2}
