"""The signals that end a run: the first one drains it, the second one stops it at once."""

import io
import signal

import pytest

from study.execution.interrupts import Drain, interruptible

STOPPING = "stopping: workers finish their epoch and save. A second Ctrl-C or 'study stop --now' stops at once"


class Interrupted(io.BytesIO):
    """A file that a signal interrupts while it is first written."""

    def write(self, data: bytes) -> int:
        if not self.tell():
            signal.raise_signal(signal.SIGINT)
        return super().write(data)


def test_a_signal_in_the_middle_of_a_line_ends_nothing_and_is_printed_after_it():
    file = Interrupted()
    stream = io.TextIOWrapper(io.BufferedWriter(file), line_buffering=True)
    drain = Drain()
    with interruptible(drain, lambda line: print(line, file=stream)):
        print("10/20 epochs", file=stream)
    assert drain.requested
    assert file.getvalue().decode().splitlines() == ["10/20 epochs", STOPPING]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_drains_and_the_second_stops_at_once(number):
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    drain, said = Drain(), []
    with interruptible(drain, said.append):
        signal.raise_signal(number)
        assert drain.requested
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert said == [STOPPING]
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before
