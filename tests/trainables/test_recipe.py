import ast
import copy
import json
import subprocess
import sys
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.shared.protocol import base
from study.errors import Refusal
from study.machine import Machine
from trainables import recipe
from trainables.config import Config
from trainables.origins import origin
from trainables.recipe import LOSSES, Epoch, Origin, Recipe, source_files
from trainables.schedule import epochs
from trainables.work import resolve

EPOCH = Epoch(lr=0.1, sampler=-1.0)
ORIGIN = origin(base("digits"), Machine("cpu", 1))

names = st.text("abcde", min_size=1, max_size=4)
numbers = st.integers(0, 100)
reals = st.floats(-10, 10).map(lambda x: x + 0.0)  # 0.0 and -0.0 are equal, but not in JSON
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
        "mixup": reals,
        "bilateral": st.none() | reals,
        "loss": names,
        "loss_args": st.sampled_from([(), (1.0,), (0.5, 30.0)]),
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
        "dataset": names,
        "fingerprint": names,
        "imbalance": reals,
        "split_seed": numbers,
        "subset_seed": numbers,
        "backbone": names,
        "head": names,
        "seed": numbers,
        "precision": names,
        "device": names,
        "threads": numbers,
        "ranks": numbers,
        "torch": names,
        "torchvision": names,
        "numpy": names,
        "source": names,
    },
}


def changed(part, field, value):
    """`part` with another value in one field, past its own checks: what may be allowed one day must count, too."""
    other = copy.copy(part)
    object.__setattr__(other, field, value)
    return other


@st.composite
def changes(draw, part):
    """`part` with up to one field changed at random."""
    field = draw(st.none() | st.sampled_from([f.name for f in fields(part)]))
    return part if field is None else changed(part, field, draw(VALUES[type(part)][field]))


@st.composite
def pairs(draw):
    """Two recipes of any kind that often have a long prefix in common."""
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
        agree = asdict(first.origin) == asdict(second.origin) and first.epochs[:done] == second.epochs[:done]
        assert (one == other) == agree


@given(pairs())
def test_no_two_states_of_a_recipe_share_a_name(pair):
    keys = pair[0].keys()
    assert len(set(keys)) == len(keys) == 1 + len(pair[0].epochs)


@pytest.mark.parametrize(("part", "field"), [(part, f.name) for part in (EPOCH, ORIGIN) for f in fields(part)])
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
    free = {"loss", "trains", "reinitialise", "batch_norm"}  # words, of which few are allowed
    drawn = {name: data.draw(values) for name, values in VALUES[Epoch].items() if name not in free}
    epoch = Epoch(**drawn, loss="focal", trains="scale", reinitialise="classifier", batch_norm="frozen")
    again = Epoch.from_json(json.loads(json.dumps(epoch.to_json(), allow_nan=False)))
    assert again == epoch
    assert Recipe(ORIGIN, (again,)).keys() == Recipe(ORIGIN, (epoch,)).keys()


def test_an_origin_survives_json_text():
    assert Origin.from_json(json.loads(json.dumps(ORIGIN.to_json()))) == ORIGIN


@pytest.mark.parametrize(
    "wrong",
    [
        {"loss": "hinge"},
        {"trains": "backbone"},
        {"reinitialise": "all"},
        {"batch_norm": "eval"},
        {"measures": ("test",)},
        {"lr": float("inf")},
        {"bilateral": float("nan")},
        {"loss_args": (float("inf"),)},
    ],
)
def test_an_instruction_that_nobody_obeys_is_not_made(wrong):
    with pytest.raises(AssertionError, match=next(iter(wrong))):
        Epoch(**{"lr": 0.1, **wrong})


def test_what_a_configuration_may_say_an_instruction_may():
    assert recipe._CHOICES["loss"] == LOSSES


def test_equal_instructions_have_one_name():
    def name(**fields):
        return Recipe(ORIGIN, (Epoch(**{"lr": 1.0, **fields}),)).keys()[1]

    assert name() == name(lr=1)
    assert name(sampler=-0.0, loss_args=(1,), bilateral=1) == name(sampler=0, loss_args=(1.0,), bilateral=1.0)
    assert name(bilateral=0.0) != name(bilateral=None)
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
    with pytest.raises(Refusal, match=r"^precision = 'tf32': must be fp32 or bf16 on a CPU"):
        resolve(config, 0, Machine("cpu", 1))
    with pytest.raises(Refusal, match=r"^--precision = 'tf32': must be fp32 or bf16 on a CPU"):
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
        "made = Recipe(origin(base('digits'), Machine('cpu', 1)), epochs(base('digits')))\n"
        "print(made.keys()[-1], 'torch' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert told == [Recipe(ORIGIN, epochs(base("digits"))).keys()[-1], "False"]


@pytest.fixture
def code_of(tmp_path):
    """The code of a source text, as it enters a state's name."""

    def write(text):
        path = tmp_path / "module.py"
        path.write_text(text, encoding="utf-8")
        return recipe._code(path)

    return write


SOURCE = '''"""A module."""

class Sampler:
    """Draws."""

    size = "x"

def draw(n=1):
    """Draw."""
    return n + 1  # the next
'''


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""A module."""\n', ""),
        ('"""Draw."""', '"""Draw one.\n\n    A longer story.\n    """'),
        ('    """Draws."""\n', ""),
        ("  # the next", ""),
        ("n + 1", "(n\n    + 1)"),
        ('"x"', "'x'"),
    ],
)
def test_words_and_layout_do_not_change_the_source(code_of, old, new):
    assert old in SOURCE
    assert code_of(SOURCE.replace(old, new)) == code_of(SOURCE)


@pytest.mark.parametrize(("old", "new"), [("n + 1", "n + 2"), ("n=1", "n=2"), ('"x"', '"y"'), ("return ", "")])
def test_code_changes_the_source(code_of, old, new):
    assert old in SOURCE
    assert code_of(SOURCE.replace(old, new)) != code_of(SOURCE)


PACKAGE = Path(recipe.__file__).parent


def imported(path):
    """The files of the package that a file imports anywhere, early or late, for more than its types."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    checked = [
        node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    types = {id(node) for each in checked for node in ast.walk(each)}
    found = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and id(node) not in types]
    inside = [node for node in found if node.module == "trainables" or node.module.startswith("trainables.")]
    found = set()
    for node in inside:
        module = "/".join(node.module.split(".")[1:])
        if (PACKAGE / f"{module}.py").is_file():
            found.add(f"{module}.py")
        else:
            found |= {(Path(module) / f"{alias.name}.py").as_posix() for alias in node.names}
    return found


def test_the_source_is_every_file_that_a_stage_runs_through():
    reached, new = set(), {"trainable.py"}
    while new:
        reached |= new
        new = set().union(*(imported(PACKAGE / name) for name in new)) - reached
    data = {f"data/{name}.py" for name in ("dataset", "datasets", "loading", "images")}
    assert {"loop.py", "losses.py", "samplers.py", "networks.py", "readouts.py", *data} < reached
    assert reached <= source_files().keys() <= {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")}


def test_what_only_chooses_recipes_or_reads_states_is_no_source():
    files = source_files().keys()
    assert not files & {"config.py", "schedule.py", "methods.py", "export.py", "work.py"}
    assert not {name for name in files if "protocol" in name or "analysis" in name}
