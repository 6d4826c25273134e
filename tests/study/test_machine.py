"""What this machine has, as the driver's library and torch tell."""

import pytest
import torch

from study.machine import gpus as found_gpus
from study.machine import gpus_have_bf16, has_bf16, has_gpu


def test_whether_the_processor_has_bf16_is_what_torch_finds():
    assert has_bf16() == torch.cpu._is_avx512_bf16_supported()


@pytest.mark.parametrize(
    ("capabilities", "bf16"),
    [([(9, 0)], True), ([(8, 0), (12, 1)], True), ([(7, 5)], False), ([(9, 0), (7, 0)], False)],
)
def test_gpus_are_those_that_the_driver_s_library_tells_of(gpus, capabilities, bf16):
    gpus(*capabilities)
    assert found_gpus() == tuple(capabilities)
    assert (has_gpu(), gpus_have_bf16()) == (True, bf16)


def test_without_a_driver_a_device_or_a_good_beginning_there_is_no_gpu(gpus):
    for capabilities, error in (((None,), 0), ((), 0), (((9, 0),), 100), (((9, 0),), 999)):
        gpus(*capabilities, error=error)
        assert (has_gpu(), gpus_have_bf16()) == (False, False)


def test_whether_there_is_a_gpu_is_what_torch_finds():
    assert has_gpu() == torch.cuda.is_available()
