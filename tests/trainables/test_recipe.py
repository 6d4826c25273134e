import copy
import json
import subprocess
import sys
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.shared.protocol import base
from study.errors import Refusal
from study.machine import Machine
from trainables import recipe, references
from trainables.config import Config
from trainables.losses.focal import Focal
from trainables.losses.ldam import LDAM
from trainables.losses.logit_adjusted import LogitAdjusted
from trainables.methods.bbn import Bilateral
from trainables.methods.mixup import Mixup
from trainables.networks.cosine import Cosine
from trainables.networks.linear import Linear
from trainables.networks.resnet32 import ResNet32
from trainables.networks.resnet50 import ResNet50
from trainables.origins import origin, sources, verify
from trainables.recipe import Epoch, Origin, Recipe
from trainables.schedule import epochs
from trainables.work import resolve

EPOCH = Epoch(lr=0.1, sampler=-1.0)
ORIGIN = origin(base("digits"), Machine("cpu", 1))

names = st.text("abcde", min_size=1, max_size=4)
numbers = st.integers(0, 100)
reals = st.floats(-10, 10).map(lambda x: x + 0.0)  # 0.0 and -0.0 are equal, but not in JSON
positive = st.floats(0.125, 10)
shares = st.floats(0, 1)
vectors = st.lists(reals, min_size=10, max_size=10).map(tuple)

VALUES = {
    Epoch: {
        "lr": reals,
        "sampler": reals | vectors,
        "replacement": st.booleans(),
        "batch_size": numbers,
        "drop_last": st.booleans(),
        "crop": numbers,
        "flip": st.booleans(),
        "mixture": st.none() | positive.map(Mixup) | shares.map(Bilateral),
        "loss": positive.map(Focal) | positive.map(LDAM) | reals.map(LogitAdjusted),
        "effective_number": reals,
        "momentum": reals,
        "nesterov": st.booleans(),
        "weight_decay": reals,
        "decay_bias": st.booleans(),
        "trains": names,
        "reinitialise": names,
        "batch_norm": names,
        "fresh_optimizer": st.booleans(),
        "measures": st.sampled_from([(), ("fit",), ("fit", "events")]),
    },
    Origin: {
        "data": names,
        "fingerprint": names,
        "imbalance": reals,
        "split_seed": numbers,
        "subset_seed": numbers,
        "backbone": st.builds(ResNet32, numbers.map(lambda n: n + 1)) | st.just(ResNet50()),
        "head": st.just(Linear()) | positive.map(Cosine),
        "seed": numbers,
        "precision": names,
        "device": names,
        "threads": numbers,
        "ranks": numbers,
        "torch": names,
        "torchvision": names,
        "numpy": names,
        "core": names,
    },
}


def changed(part, field, value):
    """Return `part` with another value in one field, unchecked: values that may be allowed later must count, too."""
    other = copy.copy(part)
    object.__setattr__(other, field, value)
    return other


def held(part):
    """Return the fields in a name: all except the location of the data, whose content two other fields identify."""
    return [f.name for f in fields(part) if (type(part), f.name) != (Origin, "dataset")]


@st.composite
def changes(draw, part):
    """Return `part` with at most one field changed at random."""
    field = draw(st.none() | st.sampled_from(held(part)))
    return part if field is None else changed(part, field, draw(VALUES[type(part)][field]))


@st.composite
def pairs(draw):
    """Return two random recipes that often share a long prefix."""
    first = Recipe(draw(changes(ORIGIN)), tuple(draw(st.lists(changes(EPOCH), max_size=6))))
    second = Recipe(draw(st.just(first.origin) | changes(ORIGIN)), first.epochs)
    for place in draw(st.lists(st.integers(0, len(first.epochs)), max_size=2)):
        epochs = (*second.epochs[:place], draw(changes(EPOCH)), *second.epochs[place + 1 :])
        second = replace(second, epochs=epochs)
    return first, second


@given(pairs())
def test_two_recipes_share_a_state_exactly_if_they_agree_in_everything_up_to_it(pair):
    first, second = pair
    keys = list(zip(first.keys(), second.keys(), strict=False))
    assert len(keys) == 1 + min(len(first.epochs), len(second.epochs))
    for done, (one, other) in enumerate(keys):
        agree = first.origin == second.origin and first.epochs[:done] == second.epochs[:done]
        assert (one == other) == agree


@given(pairs())
def test_no_two_states_of_a_recipe_share_a_name(pair):
    keys = pair[0].keys()
    assert len(set(keys)) == len(keys) == 1 + len(pair[0].epochs)


@pytest.mark.parametrize(("part", "field"), [(part, name) for part in (EPOCH, ORIGIN) for name in held(part)])
@given(data=st.data())
def test_every_field_tells_two_states_apart(part, field, data):
    # A new field raises KeyError here until its values are listed above.
    value = data.draw(VALUES[type(part)][field].filter(lambda value: value != getattr(part, field)))
    other = changed(part, field, value)
    recipe_of = {Epoch: lambda epoch: Recipe(ORIGIN, (epoch,)), Origin: lambda start: Recipe(start, (EPOCH,))}
    assert recipe_of[type(part)](part).keys()[1] != recipe_of[type(part)](other).keys()[1]


def names_of(**config):
    return Recipe(ORIGIN, epochs(Config(**config))).keys()


def test_ib_then_ib_is_one_recipe_whenever_it_switches():
    assert len({names_of(first="IB", switch="IB", S=S) for S in range(100)}) == 1
    assert len({names_of(first="IB", switch="CR", S=S) for S in range(100)}) == 100


def test_five_epochs_of_cb_followed_by_cb_are_cb():
    assert names_of(switch="CB", then=((5, "CB"),)) == names_of(switch="CB")
    assert names_of(switch="CB", then=((5, "CR"),)) != names_of(switch="CB")


def test_a_sampler_s_name_and_its_exponent_are_one_recipe():
    assert names_of(first="IB", switch="CB") == names_of(first=1, switch=-0.0)


def test_replacement_is_irrelevant_exactly_where_each_image_is_visited_once():
    with_replacement, without = names_of(replacement=True, S=1), names_of(replacement=False, S=1)
    assert with_replacement[:102] == without[:102]
    assert not set(with_replacement[102:]) & set(without[102:])


@given(data=st.data())
def test_an_epoch_survives_json_text(data):
    free = {"trains", "reinitialise", "batch_norm"}  # words, of which few are allowed
    drawn = {name: data.draw(values) for name, values in VALUES[Epoch].items() if name not in free}
    epoch = Epoch(**drawn, trains="scale", reinitialise="classifier", batch_norm="frozen")
    again = Epoch.from_json(json.loads(json.dumps(epoch.to_json(), allow_nan=False)))
    assert again == epoch
    assert Recipe(ORIGIN, (again,)).keys() == Recipe(ORIGIN, (epoch,)).keys()


def test_an_origin_survives_json_text():
    assert Origin.from_json(json.loads(json.dumps(ORIGIN.to_json()))) == ORIGIN


@pytest.mark.parametrize(
    "wrong",
    [
        {"trains": "backbone"},
        {"reinitialise": "all"},
        {"batch_norm": "eval"},
        {"measures": ("test",)},
        {"lr": float("inf")},
        {"sampler": (1.0, float("nan"))},
    ],
)
def test_an_instruction_that_nobody_obeys_is_not_made(wrong):
    with pytest.raises(AssertionError, match=next(iter(wrong))):
        Epoch(**{"lr": 0.1, **wrong})


def test_a_part_that_is_not_there_is_refused():
    with pytest.raises(Refusal, match=r"^loss must be cross_entropy, .* \(got 'hinge'\)"):
        Epoch(lr=0.1, loss="hinge")


def test_equal_instructions_have_one_name():
    def name(**fields):
        return Recipe(ORIGIN, (Epoch(**{"lr": 1.0, **fields}),)).keys()[1]

    assert name() == name(lr=1)
    assert name(sampler=-0.0, loss=Focal(1), mixture=Bilateral(1)) == name(
        sampler=0, loss="focal", mixture=Bilateral(1.0)
    )
    assert name(mixture=Bilateral(0)) != name()
    assert name(replacement=True) == name()
    assert name(replacement=True, sampler=0.0) != name(sampler=0.0)


@pytest.mark.parametrize(
    ("dataset", "configured", "machine", "settled"),
    [
        ("cifar10", "auto", Machine("cpu", 1, bf16=True), "bf16"),
        ("cifar10", "auto", Machine("cpu", 1, bf16=False), "fp32"),
        ("digits", "auto", Machine("cpu", 1, bf16=True), "fp32"),
        ("digits", "auto", Machine("cpu", 1, "bf16"), "bf16"),
        ("cifar10", "auto", Machine("cpu", 1, "fp32", bf16=True), "fp32"),
        ("cifar10", "auto", Machine("cuda", 1), "fp32"),
        ("cifar10", "auto", Machine("cuda", 1, bf16=True), "bf16"),
        ("digits", "auto", Machine("cuda", 1, bf16=True), "fp32"),
        ("cifar10", "auto", Machine("cuda", 1, "tf32", bf16=True), "tf32"),
        ("cifar10", "tf32", Machine("cuda", 1, "bf16", bf16=True), "tf32"),
        ("cifar10", "fp32", Machine("cpu", 1, "bf16", bf16=True), "fp32"),
        ("digits", "bf16", Machine("cpu", 1, "fp32"), "bf16"),
    ],
)
def test_precision_is_the_configuration_s_or_the_user_s_or_what_is_faster(dataset, configured, machine, settled):
    config = replace(base(dataset), precision=configured)
    assert origin(config, machine).precision == settled


def test_tf32_is_for_gpus():
    config = replace(base("cifar10"), precision="tf32").to_json()
    assert resolve(config, 0, Machine("cuda", 1)).origin["precision"] == "tf32"
    with pytest.raises(Refusal, match=r"^precision must be fp32 or bf16 on a CPU \(got 'tf32'\)\. TF32 needs a GPU$"):
        resolve(config, 0, Machine("cpu", 1))
    with pytest.raises(Refusal, match=r"^--precision must be fp32 or bf16 on a CPU \(got 'tf32'\)\. TF32 needs a GPU$"):
        resolve(base("cifar10").to_json(), 0, Machine("cpu", 1, "tf32"))


@pytest.mark.parametrize("other", [{"threads": 2}, {"precision": "bf16"}, {"ranks": 2}, {"device": "cuda"}])
def test_what_the_plan_settles_of_the_machine_is_in_every_key(other):
    here, there = Machine("cpu", 1), replace(Machine("cpu", 1), **other)
    keys = [set(Recipe(origin(base("digits"), each), (EPOCH,)).keys()) for each in (here, there)]
    assert not keys[0] & keys[1]


def test_names_are_made_without_torch_and_are_the_same_in_every_process():
    program = (
        "import sys\n"
        "from search_spaces.shared.protocol import base\n"
        "from study.machine import Machine\n"
        "from trainables.origins import origin\n"
        "from trainables.recipe import Recipe\n"
        "from trainables.schedule import epochs\n"
        "from trainables import method\n"
        "for name in method.names():\n"
        "    made = method.find(name)(base('digits'))\n"
        "    Recipe(origin(made, Machine('cpu', 1)), epochs(made)).keys()\n"
        "made = Recipe(origin(base('digits'), Machine('cpu', 1)), epochs(base('digits')))\n"
        "print(made.keys()[-1], 'torch' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert told == [Recipe(ORIGIN, epochs(base("digits"))).keys()[-1], "False"]


def test_where_data_and_parts_lie_is_no_part_of_a_name(tmp_path):
    text = (
        "from dataclasses import dataclass\n"
        "from trainables.data.digits import Digits\n"
        "from trainables.parts import Loss\n"
        "class Mine(Digits):\n    many = 41\n"
        "@dataclass(frozen=True)\n"
        "class Sum(Loss):\n    def build(self, counts): return lambda z, y, w: z.sum()\n"
    )
    keys = []
    for name in ("one.py", "two.py"):
        (tmp_path / name).write_text(text)
        config = replace(base(f"{tmp_path / name}:Mine"), loss=f"{tmp_path / name}:Sum")
        keys.append(resolve(config.to_json(), 0, Machine("cpu", 1)).keys)
    assert keys[0] == keys[1]
    assert keys[0][0] != resolve(base("digits").to_json(), 0, Machine("cpu", 1)).keys[0]


@pytest.mark.parametrize(
    ("changed", "same"),
    [
        ("trainables.losses.focal:Focal", 3),
        ("trainables.methods.mixup:Mixup", 2),
        ("trainables.losses.cross_entropy:CrossEntropy", 1),
        ("trainables.networks.resnet8:ResNet8", 0),
        ("trainables.networks.linear:Linear", 0),
        ("trainables.losses.ldam:LDAM", 6),
        ("trainables.networks.cosine:Cosine", 6),
    ],
)
def test_other_code_of_a_part_renames_what_is_trained_with_it_from_the_first_epoch_that_uses_it(
    changed, same, monkeypatch
):
    plain = Epoch(lr=0.1)
    made = Recipe(ORIGIN, (plain, replace(plain, mixture=Mixup()), replace(plain, loss=Focal()), plain, plain))
    before = made.keys()
    real = references.code_digest
    monkeypatch.setattr(references, "code_digest", lambda *place: "0" if ":".join(place) == changed else real(*place))
    recipe._canonical.cache_clear()
    after = made.keys()
    recipe._canonical.cache_clear()
    assert [one == other for one, other in zip(before, after, strict=True)] == [True] * same + [False] * (6 - same)


def test_other_code_of_the_core_or_of_the_data_renames_all_and_is_refused_by_a_worker():
    verify(ORIGIN)
    for field in ("core", "data", "torch", "numpy"):
        other = replace(ORIGIN, **{field: "0"})
        assert not set(Recipe(other, (EPOCH,)).keys()) & set(Recipe(ORIGIN, (EPOCH,)).keys())
        with pytest.raises(
            Refusal, match=rf"^{field} of the worker must be 0, as in the plan \(got '.*'\)\. Install the code"
        ):
            verify(other)


def test_the_sources_of_a_recipe_are_the_core_its_data_and_its_own_parts():
    plain = sources(Recipe(ORIGIN, (EPOCH,))).keys()
    files = {name.partition(":")[0] for name in plain}
    core = {"loop.py", "steps.py", "samplers.py", "draws.py", "learner.py", "metrics.py", "readouts.py", "ranks.py"}
    own = {"data/digits.py", "losses/cross_entropy.py", "networks/linear.py", "networks/resnet8.py"}
    assert core | own <= files
    assert not {name for name in files if name.startswith("methods/")}
    assert {name for name in files if name.startswith("losses/")} == {"losses/cross_entropy.py"}
    assert not files & {"config.py", "schedule.py", "method.py", "sources.py", "export.py", "work.py", "references.py"}
    with_focal = sources(Recipe(ORIGIN, (EPOCH, replace(EPOCH, loss=Focal())))).keys()
    assert with_focal - plain == {"losses/focal.py: Focal"}
