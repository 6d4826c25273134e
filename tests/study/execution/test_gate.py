"""What Tune tells the gate about trials, without Ray."""

from types import SimpleNamespace

from helpers import Machines, Recorder, stage

from study.execution import gate
from study.execution.gate import Gate
from study.execution.interrupts import Drain
from study.execution.losses import loss_of
from study.execution.searcher import StageSearcher
from study.execution.silence import Silent


def test_a_process_that_was_slow_to_start_is_forgotten_when_its_trial_is_stopped_before_it_trains():
    events, drain = Recorder(), Drain()
    searcher = StageSearcher([stage("a")], Machines(1), drain, events)
    searcher.suggest("t0")
    looking = Gate(searcher, Machines(1), drain, events, print)
    looking._tell(Silent("t0", 130.0, 770.0), "has been starting", None)
    assert [heading for heading, _, _ in events.remarks] == ["waiting"]
    looking.on_trial_remove(None, SimpleNamespace(trial_id="t0"))
    assert (events.waited[0].startswith("a process has been starting since "), events.waited[1:]) == (True, [""])


def test_an_error_that_cannot_be_made_again_here_is_told_by_its_text(tmp_path):
    files = {name: tmp_path / name for name in ("pickled_error_file", "error_file")}
    files["pickled_error_file"].write_bytes(b"of a class that this driver does not have")
    files["error_file"].write_text("Traceback\n  File x\nlab.Odd: no data")
    assert loss_of(gate._last_error(SimpleNamespace(**files))).reason == "lab.Odd: no data"
