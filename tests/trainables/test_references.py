"""Parts by reference: ours by a short name, the user's own by file or module, parameters in parentheses."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from study.errors import Refusal
from trainables import references
from trainables.losses.cross_entropy import CrossEntropy
from trainables.losses.ldam import LDAM
from trainables.networks.cosine import Cosine
from trainables.references import BACKBONE, HEAD, LOSS, MIXTURE, construct

MINE = '''
from dataclasses import dataclass
from trainables.parameters import number
from trainables.parts import Loss

@dataclass(frozen=True)
class Mine(Loss):
    """One of the user's own."""

    strength: float = number(0.5, "how much", least=0.0)
    power: float = 2.0
    steps: int = 3
    loud: bool = False

    def build(self, counts):
        return lambda logits, labels, weights: logits.sum()

class Bare(Loss):
    def build(self, counts): ...

@dataclass
class Thawed(Loss):
    def build(self, counts): ...

@dataclass(frozen=True)
class Needs(Loss):
    x: float
    def build(self, counts): ...

@dataclass(frozen=True)
class Unfinished(Loss):
    pass

class Outer:
    @dataclass(frozen=True)
    class Inner(Loss):
        def build(self, counts): ...

def function(counts): ...
'''


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(MINE, encoding="utf-8")
    return path


def refused(kind, value):
    """Return the message about a wrong value, one line."""
    with pytest.raises(Refusal) as refusal:
        construct(kind, value)
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


@pytest.mark.parametrize(
    ("kind", "some"),
    [
        (LOSS, {"cross_entropy", "focal", "sigmoid_focal", "ldam", "logit_adjusted", "label_aware_smoothing"}),
        (BACKBONE, {"resnet8", "resnext11", "resnet32", "resnet50", "resnext50"}),
        (HEAD, {"linear", "cosine", "rare", "two_branches"}),
        (MIXTURE, {"mixup"}),
    ],
)
def test_each_of_ours_has_its_file_s_name(kind, some):
    assert set(references.names(kind)) == some
    for name in some:
        part = construct(kind, name)
        assert references.reference(part) == name
        assert is_dataclass(part)
        assert part.__doc__
        assert all(field.metadata["help"] for field in fields(part))


def test_a_part_is_named_with_its_parameters():
    assert construct(LOSS, "ldam(max_margin=0.3)") == LDAM(max_margin=0.3)
    assert construct(LOSS, "ldam") == construct(LOSS, "ldam()") == LDAM()
    assert construct(LOSS, {"part": "ldam", "max_margin": 1}) == LDAM(max_margin=1.0)
    assert construct(LOSS, LDAM(0)) == LDAM(0.0)


@pytest.mark.parametrize("text", ["Mine", "Mine(strength=1)", "Mine(strength=0.25, loud=True)"])
def test_one_of_the_user_s_own_is_named_by_its_file(mine, text, monkeypatch):
    monkeypatch.chdir(mine.parent)
    absolute, relative = construct(LOSS, f"{mine}:{text}"), construct(LOSS, f"./mine.py:{text}")
    assert absolute == relative
    assert references.reference(relative) == f"{mine}:Mine"
    again = construct(LOSS, json.loads(json.dumps(references.with_code(relative))))
    assert again == relative


def test_one_of_the_user_s_own_is_named_by_its_module(mine, monkeypatch):
    package = mine.parent / "lab"
    package.mkdir()
    mine.rename(package / "losses.py")
    monkeypatch.syspath_prepend(str(mine.parent))
    part = construct(LOSS, "lab.losses:Mine(power=3)")
    assert references.reference(part) == "lab.losses:Mine"
    assert references.title(part) == "Mine(power=3.0)"
    with pytest.raises(Refusal, match=r"^loss must be .*module.* \(got 'lab.nothing:Mine'\)"):
        construct(LOSS, "lab.nothing:Mine")


def test_parameters_without_bounds_are_kept_in_the_type_of_their_default(mine):
    part = construct(LOSS, f"{mine}:Mine(strength=1, power=3, loud=True)")
    assert [(name, type(value)) for name, value in references.values(part).items()] == [
        ("strength", float),
        ("power", float),
        ("steps", int),
        ("loud", bool),
    ]
    for text, field in (
        ("power='x'", "power"),
        ("steps=1.5", "steps"),
        ("loud=1", "loud"),
        ("strength=-1", "strength"),
    ):
        assert refused(LOSS, f"{mine}:Mine({text})").startswith(f"loss.{field} must be ")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "must name a loss of the file (got '{0}'). Choose {0}:Mine or {0}:Bare or {0}:Thawed or {0}:Needs"),
        (":Nothing", "must be a subclass of trainables.parts.Loss that defines all abstract methods"),
        (":function", "must be a subclass of trainables.parts.Loss that defines all abstract methods"),
        (":Unfinished", "must be a subclass of trainables.parts.Loss that defines all abstract methods"),
        (":Bare", "must be a class with @dataclass(frozen=True)"),
        (":Thawed", "must be a class with @dataclass(frozen=True)"),
        (":Needs", "must have a default for each parameter (got '{0}:Needs'). Parameter x has none"),
        (":Mine(0.5)", "must have the form NAME(parameter=value, …)"),
        (":Mine(strength=open)", "must have the form NAME(parameter=value, …)"),
        (":Mine(strength=1", "must have the form NAME(parameter=value, …)"),
        (":Mine(weakness=1)", "must be one of strength, power, steps, loud (got 'weakness')"),
    ],
)
def test_what_is_no_loss_is_refused_with_the_reason(mine, name, why):
    assert why.format(mine) in refused(LOSS, f"{mine}{name}")


def test_a_class_inside_another_is_refused(mine):
    outer = construct(LOSS, f"{mine}:Mine").__class__.__module__
    import sys

    assert "must be a class at the top level of a Python file" in refused(LOSS, sys.modules[outer].Outer.Inner())


def test_a_short_name_that_is_unknown_is_refused_with_those_that_are_known():
    known = "cross_entropy, focal, label_aware_smoothing, ldam, logit_adjusted, sigmoid_focal"
    line = f"loss must be {known}, package.module:Name or ./file.py:Name (got 'ladm'). Did you mean 'ldam'?"
    assert refused(LOSS, "ladm") == line
    assert "resnet32, resnet50" in refused(BACKBONE, "resnet9")
    for value in ("linear", "", "ldam:LDAM", "../losses/ldam", None, 3, {"max_margin": 1}):
        refused(LOSS, value)
    assert "(got 'linear'). trainables/networks/linear.py defines no backbone of that name" in refused(
        BACKBONE, "linear"
    )
    line = "parameter of loss cross_entropy must be left out (got 'x'). The loss has no parameters"
    assert refused(LOSS, "cross_entropy(x=1)") == line


def test_code_that_is_not_the_plan_s_is_refused():
    stored = references.with_code(CrossEntropy())
    assert construct(LOSS, stored) == CrossEntropy()
    assert "of the worker" in refused(LOSS, {**stored, "code": "0" * 40})


def test_a_title_has_the_parameters_that_are_not_the_default():
    assert references.title(LDAM()) == "ldam"
    assert references.title(LDAM(0.3)) == "ldam(max_margin=0.3)"
    assert construct(HEAD, references.title(Cosine(16.0))) == Cosine(16.0)


def test_a_head_is_named_from_the_folder_of_the_loss_that_asks_for_it(tmp_path, monkeypatch):
    (tmp_path / "heads.py").write_text(
        "from dataclasses import dataclass\nfrom trainables.parts import Head\n@dataclass(frozen=True)\n"
        "class Own(Head):\n    def build(self, features, classes): ...\n"
    )
    (tmp_path / "loss.py").write_text(MINE.replace('"""One of the user\'s own."""', 'head = "./heads.py:Own"'))
    monkeypatch.chdir("/")
    head = references.head(construct(LOSS, f"{tmp_path}/loss.py:Mine"))
    assert references.reference(head) == f"{tmp_path}/heads.py:Own"


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (
            "x: dict = field(default_factory=dict)",
            "must have a default for each parameter (got '{0}'). Parameter x has none",
        ),
        (
            "x: object = print",
            "must declare parameter x with a function of trainables.parameters (got '{0}'). Its default",
        ),
        ("x: tuple = (1, 2)", "must declare parameter x with a function of trainables.parameters"),
        (
            "x: float = field(default=1.0, compare=False)",
            "must not have the parameter x (got '{0}'). A parameter may not",
        ),
        ("x: float = field(default=1.0, init=False)", "must not have the parameter x"),
        ("part: float = 1.0", "must not have the parameter part"),
        (
            "def __post_init__(self): raise ValueError('too large')",
            "loss '{0}' cannot be constructed: ValueError: too large (mine.py, line",
        ),
    ],
)
def test_parameters_that_no_name_could_hold_are_refused(mine, line, why):
    text = MINE.replace("strength: float", f"{line}\n    strength: float").replace(
        "import dataclass\n", "import dataclass, field\n"
    )
    mine.write_text(text)
    assert why.format(f"{mine}:Mine") in refused(LOSS, f"{mine}:Mine")


def test_a_class_that_is_made_by_a_function_is_refused(mine):
    making = "def maker():\n    @dataclass(frozen=True)\n    class Made(Mine): pass\n    return Made\nMade = maker()\n"
    mine.write_text(MINE + making)
    assert "must be a class at the top level of a Python file" in refused(LOSS, f"{mine}:Made")


@pytest.mark.parametrize("base", ["trainables.methods.mixup:Mixup", "trainables.methods.bbn:Bilateral"])
def test_a_mixture_that_derives_from_ours_stays_what_it_is(tmp_path, base):
    module, _, name = base.partition(":")
    text = f"from dataclasses import dataclass\nfrom {module} import {name}\n"
    (tmp_path / "mine.py").write_text(f"{text}@dataclass(frozen=True)\nclass Own({name}): pass\n")
    own = construct(MIXTURE, f"{tmp_path}/mine.py:Own")
    assert [type(each).__name__ for each in (own.at(1, 10), own.step, own.at(1, 10).step)] == ["Own"] * 3
