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

from study.errors import Refusal
from study.execution import tune
from study.execution.job import Job
from study.execution.tune import LOST_ATTEMPTS, Drain, StageSearcher, interruptible
from study.plan.stored import Resources
from study.plan.tree import Failure, Stage, descendants

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
        self.stage, self.position = new_config["stage"], 0
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
            if do == "lose another":
                self.position = -1
                return {"position": 0, "saved": "", "done": False, "lost": "RankLost: no route to host"}
            if do == "raise":
                failure = {"reason": "Diverged: NaN", "traceback": "at line 1", "for_good": True, "damaged": ""}
                return {"position": 0, "saved": "", "done": True, "failure": failure}
            if do == "find the disk full":
                failure = {"reason": "OSError: full", "traceback": "at line 2", "for_good": False, "damaged": "a"}
                return {"position": 0, "saved": "", "done": True, "failure": failure}
        if self.position == -1:
            raise OSError("no route to host")
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
    """Keeps what it is told; may ask for a drain once something of a stage has been trained.

    Asked for more, it gives what it was given, one list at a time, and then None.
    """

    def __init__(self, drain=None, later=()):
        self.drain, self.epochs, self.states, self.failures = drain, {}, [], []
        self.later, self.asked = list(later), []

    def more(self, workers, idle):
        self.asked.append((workers, idle))
        return self.later.pop(0) if self.later else None

    def trained(self, stage, epochs):
        self.epochs[stage.key] = self.epochs.get(stage.key, 0) + epochs
        if self.drain is not None:
            self.drain.requested = True

    def durable(self, key):
        self.states.append(key)

    def failed(self, stage, failure):
        self.failures.append((stage.key, failure))


@pytest.fixture
def train(one_ray, tmp_path):
    """Executes stages; returns the recorder and, in order, what the workers wrote down."""

    def call(*stages, workers=2, cpus=0.5, events=None):
        events = events or Recorder()
        log = tmp_path / "log"
        job = Job("r", str(log), Resources(workers=workers, cpus=cpus))
        tune.execute(stages, job, Scripted, events.drain or Drain(), events)
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
        stage("trunk", remaining=5),
        stage("other", remaining=3),
        stage("alone"),
        stage("long", "trunk", 4),
        stage("short", "trunk", 2),
    ]
    _, log = train(*stages, workers=1)
    assert [key for what, key, _ in log if what == "begin"] == ["trunk", "long", "other", "short", "alone"]


@pytest.mark.slow  # each lost process costs two seconds for another
def test_what_fails_takes_its_descendants_with_it_and_nothing_else(train):
    stages = [
        stage("raises", remaining=3, do="raise"),
        stage("below", "raises", 2),
        stage("further", "below"),
        stage("dies", remaining=3, do="die"),
        stage("orphan", "dies", 2),
        stage("full", remaining=3, do="find the disk full"),
        stage("unread", "full", 2),
        stage("parts", remaining=3, do="lose another"),
        stage("recovers", remaining=3, do="die once"),
        stage("child", "recovers", 2),
        stage("sound", remaining=3),
        stage("another", "sound", 2),
    ]
    events, log = train(*stages)
    begun = [key for what, key, _ in log if what == "begin"]
    assert {key: begun.count(key) for key in begun} == {
        "raises": 1,
        "full": 1,
        "dies": LOST_ATTEMPTS,
        "parts": LOST_ATTEMPTS,
        "recovers": 2,
        "child": 1,
        "sound": 1,
        "another": 1,
    }
    assert sorted(events.states) == ["another", "child", "recovers", "sound"]
    assert sorted(events.failures) == [
        ("dies", Failure("its process was lost 3 times")),
        ("full", Failure("OSError: full", "at line 2", for_good=False, damaged="a")),
        ("parts", Failure("its process was lost 3 times, lastly with RankLost: no route to host")),
        ("raises", Failure("Diverged: NaN", "at line 1", for_good=True)),
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
    """Tell the searcher what Tune would of a trial that saves, raises, finds no disk, or loses its process."""
    if outcome == "saves":
        searcher.on_trial_complete(trial, {"position": 2, "saved": stage.key, "done": True})
    elif outcome in ("raises", "finds no disk"):
        failure = {"reason": "E", "traceback": "T", "for_good": outcome == "raises", "damaged": ""}
        flat = {f"failure/{name}": value for name, value in failure.items()}  # Tune flattens what a trial reports
        searcher.on_trial_complete(trial, {"position": 0, "saved": "", **flat, "done": True})
    else:
        searcher.on_trial_complete(trial, error=True)


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
    """Some stages come later, some of them twice, each list in any order; parents may come after their children."""
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
    """What a driver would give: nothing that is in the store already."""
    return [each for each in unique(later.pop(0)) if each.key not in trained] if later else None


def test_stages_that_come_later_are_trained_on_a_real_ray_as_well(train):
    events = Recorder(later=[[], [stage("b"), stage("below", "a")], [], [stage("c")]])
    events, log = train(stage("a"), workers=2, events=events)
    assert sorted(times(log, "end")) == ["a", "b", "below", "c"]
    assert len(log) == 8
    assert events.failures == []
    assert {workers for workers, _ in events.asked} == {2}


def test_the_workers_are_never_more_than_fit(train):
    events, _ = train(stage("a"), workers=1000, cpus=os.cpu_count() or 1)
    assert {workers for workers, _ in events.asked} == {1}
