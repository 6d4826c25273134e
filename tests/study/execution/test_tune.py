"""Stages on a real Ray, trained by a class that only follows a stage's instruction."""

import math
import os
import platform
import re
import signal
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
import ray
from helpers import Recorder, stage
from ray import cloudpickle
from ray.tune import Trainable
from ray.tune.execution import insufficient_resources_manager
from ray.tune.execution.tune_controller import TuneController

from study.errors import Away, Refusal
from study.execution import gate, silence, tune
from study.execution.attempts import LOST_ATTEMPTS
from study.execution.events import ALONE
from study.execution.interrupts import Drain
from study.execution.job import Job
from study.execution.losses import KILLED
from study.planning.stored import Resources
from study.planning.tree import Failure

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers do not have the tests on their path


class Scripted(Trainable):
    """Follows the instruction of its stage, and logs its actions as lines "begin|end|cleanup, stage, process"."""

    def setup(self, config, job):
        self.job = job
        self.reset_config(config)

    def reset_config(self, new_config):
        self.stage, self.position, self.kept = new_config["stage"], 0, ()
        hung = Path(f"{self.job.store}.hung")
        if self.stage.epochs[0]["do"] == "hang once before it begins" and not hung.exists():
            hung.touch()
            os.kill(os.getpid(), signal.SIGSTOP)
        return True

    def get_auto_filled_metrics(self, *arguments, **named):
        if self.stage.epochs[0]["do"] == "stop when asked for where it is" and not Path(self.job.store).exists():
            self.note("asked")
            os.kill(os.getpid(), signal.SIGSTOP)
        return super().get_auto_filled_metrics(*arguments, **named)

    def note(self, what):
        with Path(self.job.store).open("a") as log:
            log.write(f"{what} {self.stage.key} {os.getpid()}\n")

    def step(self):
        do = self.stage.epochs[0]["do"]
        if self.position == 0:
            self.note("begin")
            if do == "die" or (do == "die once" and self.begun_before() == 1):
                os._exit(1)
            if do in ("stop once", "stop for a while") and self.begun_before() == 1:
                os.kill(os.getpid(), signal.SIGSTOP)
            if do == "stop for a while":
                self.position = 1
                return {"position": 1, "saved": "", "done": False}
            if do == "be preempted often" and self.begun_before() <= LOST_ATTEMPTS:
                os.kill(os.getpid(), signal.SIGTERM)
                self.position = 1
                return {"position": 1, "saved": "", "done": False}
            if do == "wait for the store" and not Path(f"{self.job.store}.whole").exists():
                self.position = -2
            if do == "tell its name":
                self.note(psutil.Process().cmdline()[0].replace(" ", ""))
            if do == "train for long":
                time.sleep(3)
            if do == "wait to be asked":
                self.position = -3
            if do == "lose another":
                self.position = -1
                return {"position": 0, "saved": "", "done": False, "lost": "RankLost: no route to host"}
            if do == "raise":
                failure = {"reason": "Diverged: NaN", "traceback": "at line 1", "for_good": True, "damaged": ""}
                return {"position": 0, "saved": "", "done": True, "failure": failure}
            if do == "find the disk full":
                failure = {"reason": "OSError: full", "traceback": "at line 2", "for_good": False, "damaged": "a"}
                return {"position": 0, "saved": "", "done": True, "failure": failure}
        if self.position == -2:
            time.sleep(0.5)
            self.position = 0 if Path(f"{self.job.store}.whole").exists() else -2
            if self.position:
                return {"position": 0, "saved": "", "done": False, "waiting": "No space left on device"}
        if self.position == -3 and not self.kept:
            time.sleep(0.1)
            return {"position": 0, "saved": "", "done": False}
        if self.position == -3:
            self.position = 1
            return {"position": 1, "saved": next(iter(self.kept)), "done": False}
        if self.position == -1:
            raise OSError("no route to host")
        if do in ("wait", "wait long"):
            time.sleep(0.1 if do == "wait" else 18)
            self.position = 1
            return {"position": 1, "saved": "", "done": False}
        self.position = 2
        self.note("end")
        return {"position": 2, "saved": self.stage.key, "done": True}

    def keep(self, keys):
        self.kept = keys

    def begun_before(self):
        return Path(self.job.store).read_text().count(f"begin {self.stage.key} ")

    def cleanup(self):
        if self.position == 1:  # inside a stage
            self.note("cleanup")


@pytest.fixture
def train(one_ray, tmp_path, monkeypatch):
    """A function that executes stages and returns the recorder and the lines of the workers' log."""
    monkeypatch.setattr(gate, "WAIT_SECONDS", math.inf)  # a busy machine places a stage late, and would say so

    def call(*stages, workers=2, cpus=0.5, events=None, say=lambda _line: None, drain=None, others=ALONE):
        events = events or Recorder()
        log = tmp_path / "log"
        job = Job("r", str(log), Resources(workers=workers, cpus=cpus))
        tune.execute(stages, job, Scripted, drain or events.drain or Drain(), events, say, None, others)
        return events, [tuple(line.split()) for line in log.read_text().splitlines()]

    return call


def test_tune_writes_the_states_of_its_trials_once(train, monkeypatch):
    written, write = [], TuneController.save_to_dir
    monkeypatch.setattr(TuneController, "save_to_dir", lambda self: written.append(self) or write(self))
    monkeypatch.setenv("TUNE_GLOBAL_CHECKPOINT_S", "0")  # as often as it can
    events, _ = train(stage("a", remaining=2), stage("b", "a"))
    assert (len(written), events.states) == (1, ["a", "b"])


def test_ray_shows_a_worker_under_the_name_of_its_trainable(train):
    _, log = train(stage("a", do="tell its name"))
    assert log[1][0] == "ray::Scripted.train"


def times(log, what):
    """Return the positions in the log at which stages began or ended."""
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
    ended = "the training process ended unexpectedly 3 times"
    (_, dies), full, (_, parts), raises = sorted(events.failures)
    where = rf"\(on {platform.node()}, process \d+\)"
    assert re.fullmatch(rf"{ended}\. {KILLED} {where}", dies.reason)
    assert "The actor is dead because its worker process has died" in dies.traceback
    assert full == ("full", Failure("OSError: full", "at line 2", for_good=False, damaged="a"))
    assert re.fullmatch(rf"{ended}\. RankLost: no route to host {where}", parts.reason)
    assert raises == ("raises", Failure("Diverged: NaN", "at line 1", for_good=True))


class Needy(type(ALONE)):
    """Another driver that needs the first half of every stage."""

    def keep(self, stage, position):
        return {f"{stage.key}/half"}


def test_a_drain_lets_the_running_stage_save_and_begins_nothing(train):
    stages = [stage("slow", remaining=2, do="wait"), stage("next"), stage("below", "slow")]
    events, log = train(*stages, workers=1, events=Recorder(Drain()))
    assert [entry[:2] for entry in log] == [("begin", "slow"), ("cleanup", "slow")]
    assert (events.states, events.failures) == ([], [])


def test_a_worker_is_asked_to_save_what_another_driver_needs(train):
    events, _ = train(stage("only", do="wait to be asked"), others=Needy())
    assert events.states == ["only/half", "only"]


class Faulty(Recorder):
    """Cannot be told of a state or of a failure."""

    def durable(self, key):
        raise Away(f"state {key} cannot be read")

    def failed(self, stage, failure):
        raise Away(f"the failure of {stage.key} cannot be written")


@pytest.mark.parametrize(
    ("instruction", "words"),
    [
        ("wait to be asked", "state a/half cannot be read"),
        ("nothing", "state a cannot be read"),
        ("raise", "the failure of a cannot be written"),
    ],
)
def test_what_is_raised_about_a_report_or_the_end_of_a_stage_ends_the_run_as_it_is(train, instruction, words):
    with pytest.raises(Away, match=f"^{words}$"):
        train(stage("a", do=instruction), events=Faulty(), others=Needy())


def test_a_run_may_wait_for_long_before_its_first_stage(train):
    """Ray's warning about this looks at the first trial, and fails without one."""

    class Late(type(ALONE)):
        def begin(self, stage):
            return time.monotonic() > begun + 3

        def is_shared(self, stage):
            return True

    begun, events = time.monotonic(), Recorder()
    train(stage("only"), events=events, others=Late())
    assert events.states == ["only"]
    assert events.waited == ["another run trains what this run needs, too", ""]
    assert insufficient_resources_manager._get_insufficient_resources_warning_threshold() == math.inf


def ask_after_begin(drain, log, key):
    """Request a drain as soon as an epoch of a stage has begun."""
    while not (log.exists() and f"begin {key} " in log.read_text()):
        time.sleep(0.1)
    drain.requested = True


def test_a_run_that_waits_for_another_one_holds_no_cpu(train):
    is_free = threading.Event()

    class Slow(type(ALONE)):
        def begin(self, stage):
            return stage.key == "first" or is_free.is_set()

    def look():
        while not (events.states and ray.available_resources().get("CPU") == ray.cluster_resources()["CPU"]):
            time.sleep(0.2)
        is_free.set()

    events = Recorder()
    threading.Thread(target=look, daemon=True).start()
    _, log = train(stage("first", remaining=2), stage("second"), workers=1, events=events, others=Slow())
    assert events.states == ["first", "second"]
    assert len({process for _, _, process in log}) == 2


@pytest.mark.slow
def test_a_drain_waits_for_an_epoch_longer_than_tune_waits_for_an_actor(train, tmp_path):
    drain = Drain()
    asked = threading.Thread(target=ask_after_begin, args=(drain, tmp_path / "log", "slow"))
    asked.start()
    _, log = train(stage("slow", do="wait long"), stage("next"), workers=1, drain=drain)
    asked.join()
    assert [entry[:2] for entry in log] == [("begin", "slow"), ("cleanup", "slow")]


@pytest.mark.slow
@pytest.mark.parametrize(("do", "first"), [("stop once", "begin"), ("stop when asked for where it is", "asked")])
def test_a_stopped_worker_is_told_of_and_replaced(train, monkeypatch, do, first):
    monkeypatch.setattr(silence, "FIRST_SAY_SECONDS", 8.0)
    monkeypatch.setattr(silence, "FIRST_REPLACE_SECONDS", 24.0)  # on a busy machine, looks are seconds apart
    events, log = train(stage("only", do=do), workers=1)
    assert [what for what, _, _ in log] == [first, "begin", "end"]
    assert (events.states, events.failures) == (["only"], [])
    told, lost = events.remarks
    assert (told[:2], lost[:2]) == (("waiting", "only"), ("trying again", "only"))
    where = rf"\(on {platform.node()}, process {log[0][2]}\)"
    after = r"If that goes on for another \d+ s, a new process takes over"
    assert re.fullmatch(rf"its process has not reported for \d+ s {where}\. {after}", told[2])
    assert re.fullmatch(rf"its process has not reported for \d+ s {where}", lost[2])
    assert re.fullmatch(rf"a process has not reported since \d\d:\d\d:\d\d {where}", events.waited[0])
    assert events.waited[1:] == [""]


@pytest.mark.slow
def test_a_worker_that_reports_again_is_told_of(train, monkeypatch):
    monkeypatch.setattr(silence, "FIRST_SAY_SECONDS", 3.0)
    events = Recorder()

    def wake():
        while not events.remarks:
            time.sleep(0.1)
        os.kill(int(re.search(r"process (\d+)", events.remarks[0][2])[1]), signal.SIGCONT)

    threading.Thread(target=wake, daemon=True).start()
    _, log = train(stage("a", do="stop for a while"), workers=1, events=events)
    assert [what for what, _, _ in log] == ["begin", "end"]
    (first, _, _), going_on = events.remarks
    assert first == "waiting"
    assert going_on == ("reported again", "a", f"on {platform.node()}, process {log[0][2]}")
    assert (events.waited[0] != "", events.waited[1:]) == (True, [""])


@pytest.mark.slow
@pytest.mark.parametrize("before", [[], [stage("before", remaining=2)]], ids=["a new process", "one that is reused"])
def test_a_process_that_does_not_start_is_told_of_and_replaced(train, monkeypatch, before):
    monkeypatch.setattr(silence, "START_SAY_SECONDS", 1.0)
    monkeypatch.setattr(silence, "START_REPLACE_SECONDS", 20.0)  # a process needs seconds to start on a busy machine
    events, log = train(*before, stage("a", do="hang once before it begins"), workers=1)
    told = [line for heading, _, line in events.remarks if heading == "waiting"]
    # Ray learns the number of a new process when it is ready.
    line = rf"its process has been starting for \d+ s \(on {re.escape(platform.node())}(, process \d+)?\)"
    assert told
    for each in told:
        assert re.fullmatch(rf"{line}\. If that goes on for another \d+ s, a new process takes over", each)
    lost = [(key, each) for heading, key, each in events.remarks if heading == "trying again"]
    assert lost
    for key, each in lost:
        assert key == "a"
        assert re.fullmatch(line, each)
    assert (events.states[-1], events.failures, events.waited[-1]) == ("a", [], "")
    assert list(times(log, "end")) == [*(each.key for each in before), "a"]


def test_a_drain_does_not_wait_for_a_worker_that_hangs(train, tmp_path, monkeypatch):
    monkeypatch.setattr(silence, "SAY_SECONDS", 3.0)
    drain = Drain()
    slow = [stage(key, remaining=9, do="train for long") for key in ("first", "second")]
    stages = [*slow, stage("hangs", do="stop once")]
    asked = threading.Thread(target=ask_after_begin, args=(drain, tmp_path / "log", "hangs"))
    asked.start()
    events, log = train(*stages, workers=1, drain=drain)
    asked.join()
    heading, key, line = events.remarks[-1]
    assert (heading, key) == ("ended", "hangs")
    assert re.fullmatch(r"its process has not reported for \d+ s \(on .*, process \d+\)", line)
    assert (events.states, events.failures, list(times(log, "end"))) == (["first", "second"], [], ["first", "second"])


def test_a_stage_that_another_driver_has_claimed_is_saved_and_left_to_it(train):
    class Faster(type(ALONE)):
        def keep(self, stage, position):
            return None if position else ()

        def arrived(self, stage):
            return bool(events.epochs)

    events = Recorder()
    _, log = train(stage("a", do="wait"), workers=1, events=events, others=Faster())
    assert (events.states, events.epochs, events.recounted) == (["a"], {"a": 1}, 1)
    assert list(times(log, "cleanup")) == ["a"]


def test_a_process_that_is_asked_to_end_saves_and_its_stage_goes_on_in_another(train):
    events, log = train(stage("only", do="be preempted often"), workers=1)
    done = [what for what, _, _ in log]
    assert done == ["begin", "cleanup"] * LOST_ATTEMPTS + ["begin", "end"]
    assert len({process for *_, process in log}) == LOST_ATTEMPTS + 1
    assert (events.states, events.failures) == (["only"], [])


def test_while_the_store_is_full_workers_wait_nothing_else_is_begun_and_then_all_goes_on(train, tmp_path):
    said = []

    class Emptied(Recorder):
        def waits(self, what_for, reason):
            super().waits(what_for, reason)
            if reason:
                threading.Timer(2, (tmp_path / "log.whole").touch).start()

    stages = [stage("full", remaining=2, do="wait for the store"), stage("next")]
    events, log = train(*stages, workers=1, events=Emptied(), say=said.append)
    assert [entry[:2] for entry in log] == [("begin", "full"), ("end", "full"), ("begin", "next"), ("end", "next")]
    assert events.failures == []
    since, over = events.waited
    assert re.fullmatch(r"the store cannot be used since [\d:]{8}: No space left on device", since)
    assert over == ""
    told, again = said
    assert told == (
        "training waits, since the store cannot be used: No space left on device. Trained epochs are kept in memory"
    )
    assert re.fullmatch(r"the store can be used again, after \d s", again)


def test_a_store_that_stays_away_ends_the_run_with_the_reason(train, monkeypatch):
    monkeypatch.setattr(gate, "STORE_SECONDS", 1.0)
    events = Recorder()
    drain = Drain()
    train(stage("full", do="wait for the store"), stage("next"), workers=1, events=events, drain=drain)
    assert drain.reason == "the store could not be used for 0 minutes: No space left on device"
    assert (events.states, events.failures) == ([], [])


def test_a_store_that_hangs_is_told_of_although_nobody_reports_an_error(train, monkeypatch):
    monkeypatch.setattr(gate, "HANG_SECONDS", 0.5)
    said = []

    class Hanging(Recorder):
        def reaches_store(self):
            return bool(self.waited)

    events, _ = train(stage("slow", do="train for long"), workers=1, events=Hanging(), say=said.append)
    since, over = events.waited
    assert re.fullmatch(r"the store cannot be used since [\d:]{8}: it does not answer", since)
    assert over == ""
    assert said[0].startswith("training waits, since the store cannot be used: it does not answer")
    assert (events.states, events.failures) == (["slow"], [])


def test_more_than_the_machines_have_is_refused(train, tmp_path):
    words = r"--cpus-per-trial must be at most \d+ \(got 1000\)\. The machines have no more"
    with pytest.raises(Refusal, match=f"^{words}$"):
        train(stage("a"), cpus=1000)
    assert not (tmp_path / "log").exists()


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


@pytest.fixture
def taken(one_ray):
    """A function that takes all CPUs of the Ray, as another user of a cluster does, and one that frees them."""
    from ray.util import placement_group, remove_placement_group

    groups = []

    def take():
        groups.append(placement_group([{"CPU": ray.cluster_resources()["CPU"]}]))
        assert groups[0].wait(10)

    def free():
        while groups:
            remove_placement_group(groups.pop())

    yield take, free
    free()


def test_a_stage_that_waits_for_room_says_so_and_does_not_begin_after_a_drain(taken, tmp_path, monkeypatch):
    monkeypatch.setattr(gate, "WAIT_SECONDS", 0.5)
    monkeypatch.setattr(gate, "WAIT_AGAIN_SECONDS", 1.0)
    take, free = taken
    take()
    said, events, drain = [], Recorder(), Drain()

    def say(line):
        said.append(line)
        if len(said) == 2:
            drain.requested = True
            free()

    job = Job("r", str(tmp_path / "log"), Resources(workers=1, cpus=0.5))
    tune.execute([stage("a")], job, Scripted, drain, events, say)
    cpus = f"{ray.cluster_resources()['CPU']:g}"
    words = rf"waiting for Ray since [\d:]{{8}}: a trial wants 0.5 CPUs, and 0 of {cpus} CPUs are free"
    assert [re.fullmatch(words, line) is not None for line in said] == [True, True]
    assert events.waited == [*said, "it is being stopped: workers finish their epoch and save"]
    assert not (tmp_path / "log").exists()
    assert (events.states, events.failures) == ([], [])


def test_a_stage_whose_process_is_being_started_does_not_begin_after_a_drain(one_ray, tmp_path, capfd):
    drain, events = Drain(), Recorder(later=[[stage("a")]])
    hand_out = events.more

    def more(workers, idle):
        drain.requested = True  # between `suggest` and the first `step`
        return hand_out(workers, idle)

    events.more = more
    job = Job("r", str(tmp_path / "log"), Resources(workers=1, cpus=0.5))
    tune.execute([], job, Scripted, drain, events)
    assert "Last result" not in "".join(capfd.readouterr())  # a line of Tune
    assert not (tmp_path / "log").exists()
    assert (events.states, events.failures) == ([], [])
