"""What is said of a process that Ray lost, on a real Ray."""

import os
import platform
import re
import signal
import sys

import pytest
import ray

from study.execution.losses import KILLED, loss_of


class Lost:
    """An actor that ends in some way."""

    def __init__(self, how):
        if how == "import":
            raise ModuleNotFoundError("No module named 'torch'")

    def act(self, how):
        if how == "raise":
            raise ValueError("the first line\nthe second")
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("import", "ModuleNotFoundError: No module named 'torch'"),
        ("raise", "ValueError: the first line"),
        ("die", KILLED),
    ],
)
def test_a_lost_process_is_told_with_its_cause_its_machine_and_its_log(one_ray, how, words):
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    actor = ray.remote(num_cpus=0)(Lost).remote(how)
    with pytest.raises(ray.exceptions.RayError) as lost:
        ray.get(actor.act.remote(how))
    loss = loss_of(lost.value)
    assert re.fullmatch(rf"{words} \(on {platform.node()}, process (\d+)\)", str(loss)), str(loss)
    assert (loss.host, loss.node) == (platform.node(), ray.get_runtime_context().get_node_id())
    assert not loss.is_of_machine
    assert "\x1b" not in loss.text
