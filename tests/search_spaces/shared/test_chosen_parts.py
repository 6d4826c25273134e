"""Parts and methods of the user's choice in tables: ``--backbone``, ``--loss``, ``--method``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers import as_trained, asked, by_place, draft, exhibits, printed_of, space, tables

from search_spaces.shared.options import METHOD
from study import catalog
from study.errors import Refusal
from study.machine import Machine
from study.planning import drafting
from study.report.exhibits import Table
from trainables.config import Config
from trainables.losses.cross_entropy import CrossEntropy
from trainables.losses.ldam import LDAM
from trainables.networks.cosine import Cosine
from trainables.networks.resnet32 import ResNet32
from trainables.recipe import Epoch
from trainables.work import WORK

LISTED = [name for name in catalog.names() if name != "sampler_search"]
OF_SAMPLERS = ["table6", "table7", "table9", "table10", "table11"]
OF_METHODS = ["table1", "table2", "table3"]


def refusal(*names: str, **request: Any) -> str:
    """What is said of a request, in one line."""
    with pytest.raises(Refusal) as refused:
        drafting.call(names, asked(**request))
    assert "\n" not in str(refused.value)
    return str(refused.value)


def configs(name: str, **request: Any) -> list[Config]:
    return [Config.from_json(trial.config) for trial in space(name, **request).trials]


# The network


@pytest.mark.parametrize("name", [name for name in LISTED if name not in ("table3", "table5")])
def test_a_backbone_is_trained_and_every_column_says_so_once(name: str) -> None:
    plain, chosen = space(name), space(name, backbone="resnet32")
    assert {config.backbone for config in configs(name, backbone="resnet32")} == {ResNet32()}
    assert [trial.row for trial in chosen.trials] == [trial.row for trial in plain.trials]
    for trial, other in zip(chosen.trials, plain.trials, strict=True):
        assert trial.column.count("resnet32") == trial.column.lower().count("resnet") == 1
        assert "resnet32" not in other.column
        assert trial.printed == other.printed
    assert chosen.domain == plain.domain, "one Optuna study has one domain"


def test_under_another_backbone_the_printed_figure_is_of_another_column() -> None:
    trials = by_place("table9", paper=True, backbone="resnet8")
    trial = trials["IB⇒CR", "cifar10-LT IF 50, resnet8"]
    assert printed_of(trial) == (82.9, "cifar10-LT IF 50")
    made = space("table9", paper=True, backbone="resnet8")
    assert not {each.column for each in made.trials} & set(made.source.columns)


@pytest.mark.parametrize("name", ["table3", "table5"])
def test_tables_of_two_backbones_take_no_other(name: str) -> None:
    assert refusal(name, backbone="resnet32").startswith("--backbone must be left out (got 'resnet32'). ")


def test_a_part_s_parameters_stand_in_parentheses_and_in_the_column() -> None:
    own = space("table7", backbone="resnet32(blocks=1)", short=True)
    assert {trial.column for trial in own.trials} == {"cifar10-LT IF 50, 30 of 200 epochs, resnet32(blocks=1)"}
    assert configs("table7", backbone="resnet32(blocks=1)")[0].backbone == ResNet32(blocks=1)


# The loss


@pytest.mark.parametrize("name", OF_SAMPLERS)
def test_a_loss_is_trained_with_its_head_and_every_column_and_figure_says_whose_it_is(name: str) -> None:
    plain, chosen = space(name), space(name, loss="ldam(max_margin=0.3)")
    column = "digits-LT IF 50, ldam(max_margin=0.3)"
    assert {trial.column for trial in chosen.trials} == {column}
    assert [trial.printed for trial in chosen.trials] == [trial.printed for trial in plain.trials]
    assert {printed_of(trial)[1] for trial in chosen.trials} <= {"", "cifar10-LT IF 50"}
    recipe = WORK.resolve(chosen.trials[0].config, 0, Machine("cpu", 1))
    assert {Epoch.from_json(epoch).loss for epoch in recipe.epochs} == {LDAM(max_margin=0.3)}
    assert configs(name, loss="ldam")[0].head == Cosine()


def test_a_parameter_at_its_default_is_not_said() -> None:
    for loss in ("ldam", "ldam()", "ldam(max_margin=0.5)"):
        assert {trial.column for trial in space("table9", loss=loss).trials} == {"digits-LT IF 50, ldam"}
    assert len({trial.config["loss"]["max_margin"] for trial in space("table9", loss="ldam").trials}) == 1


def test_the_points_of_a_search_have_the_chosen_parts_and_say_so() -> None:
    search = space("sampler_search", loss="ldam", backbone="resnet32").search
    assert search is not None
    point = search.point({"first_q": 1.0, "switch_q": -1.0, "S": 1})
    for config in (search.base, point.config):
        assert (Config.from_json(config).loss, Config.from_json(config).backbone) == (LDAM(), ResNet32())
    assert point.column == "digits-LT IF 50, resnet32, ldam"


@pytest.mark.parametrize("name", [name for name in LISTED if name not in OF_SAMPLERS])
def test_other_tables_have_their_own_losses_and_take_none(name: str) -> None:
    assert refusal(name, loss="ldam") == f"--loss must be left out (got 'ldam'). Space {name} does not take this option"


def test_of_all_spaces_those_take_a_part_that_know_it() -> None:
    called = drafting.call(["all"], asked(loss="ldam"))
    assert [found.name for _, _, found in called.spaces] == OF_SAMPLERS
    assert "--loss must be left out (got 'ldam')" in called.left_out["table1"]


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("loss", "ldan", "loss must be cross_entropy, focal, label_aware_smoothing, ldam, "),
        ("loss", "ldan", "(got 'ldan'). Did you mean 'ldam'?"),
        ("loss", "ldam(max_margin=-1)", "loss.max_margin must be a finite number ≥ 0 (got -1)"),
        ("loss", "ldam(max_margin='wide')", "loss.max_margin must be a finite number ≥ 0 (got 'wide')"),
        ("loss", "ldam(margin=1)", "parameter of loss ldam must be max_margin (got 'margin')"),
        ("loss", "cross_entropy(tau=1)", "parameter of loss cross_entropy must be left out (got 'tau')"),
        ("loss", "ldam(0.3)", "loss must have the form NAME(parameter=value, …) (got 'ldam(0.3)')"),
        ("loss", "ldam(max_margin=0.3", "loss must have the form NAME(parameter=value, …) (got "),
        ("loss", "resnet32", "loss must be cross_entropy, "),
        ("backbone", "resnet32(blocks=0)", "backbone.blocks must be a whole number ≥ 1 (got 0)"),
        ("backbone", "linear", "backbone must be resnet32, resnet50, resnet8, "),
    ],
)
def test_what_is_no_part_or_has_a_wrong_parameter_is_refused_by_name(option: str, value: str, said: str) -> None:
    assert said in refusal("table9", **{option: value})


OWN = """
from dataclasses import dataclass, replace

from study.errors import Refusal
from trainables.losses.ldam import LDAM
from trainables.method import sourced
from trainables.methods.switching import switching
from trainables.parameters import number
from trainables.parts import Loss


@dataclass(frozen=True)
class Shrunk(Loss):
    by: float = number(1.0, "a factor", above=0.0)

    def build(self, counts):
        return lambda logits, labels, weights: self.by * logits.square().mean()


def wide(base):
    return replace(switching(base), method="Wide margins", loss=LDAM(max_margin=0.9))


@sourced(cifar={"epochs": 300, "milestones": (200,)})
def unnamed(base):
    return replace(base, first="CB", switch="CR")


def none(base):
    return {"first": "CB"}


def raises(base):
    raise ValueError("no\\nway")


def refuses(base):
    raise Refusal("mine", 1, "must be 2")


def wrong(base):
    return replace(base, S=-1)


def same(base):
    return switching(base)


nothing = 3
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file of the user's, as one types it."""
    (tmp_path / "own.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    return "./own.py"


def test_a_part_of_the_user_s_own_is_called_by_its_class_and_found_from_anywhere(
    own: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (loss, *_) = {config.loss for config in configs("table9", loss=f"{own}:Shrunk(by=0.5)")}
    assert (type(loss).__name__, loss.by) == ("Shrunk", 0.5)  # type: ignore[attr-defined]
    trial = space("table9", loss=f"{own}:Shrunk(by=0.5)").trials[0]
    assert trial.column == "digits-LT IF 50, Shrunk(by=0.5)"
    monkeypatch.chdir("/")
    assert Config.from_json(trial.config).loss == loss
    assert not isinstance(loss, CrossEntropy)


# Methods


@pytest.mark.parametrize("name", OF_METHODS)
def test_a_method_is_one_more_row_in_every_column_of_which_nothing_is_printed(name: str, own: str) -> None:
    plain, more = by_place(name), by_place(name, method=(f"{own}:wide", f"{own}:unnamed"))
    assert list(plain) == [place for place in more if place[0] not in ("Wide margins", "unnamed")]
    for row, loss in (("Wide margins", LDAM(max_margin=0.9)), ("unnamed", CrossEntropy())):
        for column in {column for _, column in plain}:
            trial = more[row, column]
            assert (trial.printed, trial.axes["method"]) == (None, row)
            assert Config.from_json(trial.config).loss == loss
    shown = tables(as_trained(name, method=(f"{own}:wide",)))[0] if name != "table2" else None
    assert shown is None or shown.rows[-1][0] == "Wide margins"


def test_a_method_s_row_stands_in_every_table_of_methods_at_once(own: str) -> None:
    plan = draft(*OF_METHODS, replicates=1, request=asked(method=(f"{own}:wide",))).plan
    spaces = {trial.space for trial in plan.trials if trial.trial.row == "Wide margins"}
    assert (spaces, list(plan.request.options)) == (set(OF_METHODS), ["method"])


def test_a_method_has_the_constants_of_its_source_if_it_says_them(own: str) -> None:
    methods = (f"{own}:wide", f"{own}:unnamed")
    rows = by_place("table1", data=("cifar10",), method=methods, options={"recipe": "source"})
    assert {row for row, _ in list(rows)[-2:]} == {
        "Wide margins (common: no source recipe)",
        "unnamed (source, 300 epochs)",
    }
    (trial,) = [trial for (row, _), trial in rows.items() if row.startswith("unnamed")]
    assert (trial.config["epochs"], trial.config["milestones"]) == (300, [200])


@pytest.mark.parametrize("name", [name for name in LISTED if name not in OF_METHODS])
def test_tables_that_are_not_of_all_methods_take_none(name: str, own: str) -> None:
    assert METHOD not in space(name).options
    assert refusal(name, method=(f"{own}:wide",)).endswith(f"own.py:wide'). Space {name} does not take this option")


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("none", "method must return a Config (got './own.py:none'). It returned dict"),
        ("raises", "own.py:raises' raised ValueError: no way (own.py, line 34)"),
        ("refuses", "mine must be 2 (got 1)"),
        ("wrong", "S must be a whole number ≥ 0 (got -1)"),
        ("absent", "own.py:FUNCTION (got './own.py:{}'). The function takes a Config"),
        ("nothing", "own.py:FUNCTION (got './own.py:{}'). The function takes a Config"),
        ("", "own.py:FUNCTION (got './own.py:{}'). The function takes a Config"),
    ],
)
def test_what_is_no_method_is_refused_in_one_line(own: str, function: str, said: str) -> None:
    assert said.format(function) in refusal("table1", method=(f"{own}:{function}",))


def test_a_method_that_is_not_there_is_refused_with_those_that_are() -> None:
    assert refusal("table1", method=("swiching",)).endswith("(got 'swiching'). Did you mean 'switching'?")
    assert "There is no file" in refusal("table1", method=("./absent.py:f",))


@pytest.mark.parametrize("methods", [("./own.py:same",), ("switching",), ("./own.py:wide", "./own.py:wide")])
def test_two_rows_of_one_name_are_refused(own: str, methods: tuple[str, ...]) -> None:
    with pytest.raises(Refusal, match=r"^trial 'table1/.* \(digits-LT IF 50\)' is planned twice\. "):
        draft("table1", request=asked(method=methods))


@pytest.mark.parametrize(
    ("name", "chosen", "column"),
    [
        ("table9", {"loss": "focal(gamma=2)"}, "digits-LT IF 50, focal(gamma=2.0)"),
        ("table9", {"backbone": "resnet32"}, "digits-LT IF 50, resnet32"),
        ("table10", {"loss": "ldam"}, "digits-LT IF 50, ldam"),
        ("table13", {"backbone": "resnet32"}, "digits-LT IF 50, resnet32"),
        ("table4", {"backbone": "resnet32"}, "digits-LT IF 50, resnet32"),
    ],
)
def test_views_find_what_was_chosen_by_its_column(name: str, chosen: dict[str, Any], column: str) -> None:
    table, *rest = exhibits(as_trained(name, **chosen))
    assert isinstance(table, Table)
    assert column in table.head or table.title.endswith(f", {column}")
    assert [type(each) for each in (table, *rest)] == [type(each) for each in exhibits(as_trained(name))]
