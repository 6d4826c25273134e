"""The parameters of a replicate in MLflow."""

from __future__ import annotations

from pathlib import Path

from study.machine import Machine
from trainables import work
from trainables.config import Config
from trainables.losses.ldam import LDAM
from trainables.methods.bbn import Bilateral

MACHINE = Machine("cpu", 1)

MINE = """
from dataclasses import dataclass

from trainables.data.digits import Digits
from trainables.losses.cross_entropy import CrossEntropy


@dataclass(frozen=True)
class Mine(CrossEntropy):
    strength: float = 0.5


class Own(Digits):
    pass
"""


def shown(**fields: object) -> dict[str, object]:
    return dict(work.parameters(Config(**fields).to_json(), 1, MACHINE))  # type: ignore[arg-type]


def test_parts_are_shown_by_their_names_with_their_parameters() -> None:
    parameters = shown(loss=LDAM(max_margin=0.3), backbone="resnet32(width=8)")
    assert (parameters["loss"], parameters["loss.max_margin"]) == ("ldam", 0.3)
    assert (parameters["backbone"], parameters["backbone.blocks"], parameters["backbone.width"]) == ("resnet32", 5, 8)
    assert (parameters["head"], parameters["head.scale"], parameters["mixture"]) == ("cosine", 30.0, None)
    assert (parameters["first"], parameters["switch"], parameters["switch_q"], parameters["combination"]) == (
        "IB",
        "CR",
        -1.0,
        "IB⇒CR",
    )
    assert (parameters["seed"], parameters["subset_seed"]) == (1, 0)


def test_a_mixture_is_shown_with_its_samplers() -> None:
    parameters = shown(mixture=Bilateral(), switch="IB")
    assert (parameters["combination"], parameters["head"]) == ("IB+CR", "two_branches")
    assert (parameters["mixture"], parameters["mixture.alpha"]) == ("trainables.methods.bbn:Bilateral", None)


def test_what_lies_in_a_file_of_one_s_own_is_shown_without_its_folder(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    parameters = shown(dataset=f"{tmp_path}/mine.py:Own", loss=f"{tmp_path}/mine.py:Mine(strength=2)")
    assert (parameters["loss"], parameters["loss.strength"], parameters["dataset"]) == ("mine.py:Mine", 2.0, "Own")
    assert not any(str(tmp_path) in str(value) for value in parameters.values())
