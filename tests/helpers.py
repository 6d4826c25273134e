"""What tests share, but for fixtures, which are in `conftest`."""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import count, product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from click.testing import CliRunner, Result
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from search_spaces.shared.protocol import PAPER, base
from search_spaces.shared.shots import SHOTS
from study import catalog
from study.errors import Refusal
from study.machine import Machine
from study.planning import drafting
from study.planning.draft import Draft
from study.planning.stored import Plan, PlannedSpace, PlannedTrial, Resources
from study.planning.tree import Stage
from study.report.exhibits import Cell, Figure, Table
from study.report.report import Report
from study.report.results import Results
from study.space import Contrast, Printed, Request, Resolved, Space, Trial, Work
from study.store.states import Store
from trainables import ranks, steps
from trainables.data.loading import load
from trainables.draws import draws
from trainables.loop import Learner, evaluate, train_epoch
from trainables.losses.focal import Focal
from trainables.methods.mixup import Mixup
from trainables.origins import origin
from trainables.ranks import Ranks
from trainables.recipe import Epoch
from trainables.steps import Steps
from trainables.work import WORK

CPU = Machine("cpu", 1)


class Denying(NamedTuple):
    """A server on loopback that wants other credentials: its address, and the credentials that it was given."""

    address: str
    given: set[str | None]


def free_port() -> int:
    """Return a port of loopback that nobody uses now."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


def wait_until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait for what another thread or process does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextmanager
def quick(seconds: float = 3.0) -> Iterator[None]:
    """What is done within it takes no longer."""
    begin = time.monotonic()
    yield
    assert time.monotonic() - begin < seconds


def refused_option(check: Callable[..., object], option: str, *arguments: object) -> str:
    """What a check says, soon and in one line that has the option and no secret."""
    with quick(), pytest.raises(Refusal) as refused:
        check(option, *arguments)
    message = str(refused.value)
    assert refused.value.field == option
    assert "secret" not in message
    assert "\n" not in message
    return message


# The command line in this process, and spaces in files for it

Study = Callable[..., Result]


def call_study(*arguments: str, home: Path, code: int = 0) -> Result:
    """The command `study` in this process on a home, with the exit code that is expected.

    Unless said otherwise a run has one worker: each is a process that imports torch, which takes longer than what most
    tests train.
    """
    from study.cli import cli

    if arguments[:1] == ("run",) and not {"--workers", "--dry-run"} & set(arguments):
        arguments += ("--workers", "1")
    if arguments[:1] == ("run",) and "--dry-run" in arguments:
        arguments += ("--download",)  # with it, missing data are no obstacle, and a dry run downloads nothing
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDY_HOME", str(home))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)  # MLflow sets it in the process that sets a URI
        result = CliRunner().invoke(cli, list(arguments))
    if isinstance(result.exception, Refusal):
        result.exit_code = 2
    elif result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def parsed(result: Result) -> Any:
    """What a verb printed with --json."""
    return json.loads(result.stdout)


SMALL = '''
"""A small space: three epochs of digits-LT, the switch after two."""

from dataclasses import replace

from search_spaces import table9
from search_spaces.shared import protocol
from study.space import Printed


def small(config, first="IB", switch="CR", **changes):
    settings = {{"epochs": 3, "milestones": (1,), "warmup": 1, "S": 1, "first": first, "switch": switch, **changes}}
    return replace(config, **settings)


def space(request):
    table = table9.space(request)
    trials = []
    for config in protocol.bases(request, protocol.CIFAR):
        for first, switch in {cells!r}:
            cell = small(config, first, switch)
            axes = {{"first": first, "switch": switch, "S": 1}}
            trials.append(protocol.trial(cell, cell.combination, axes, {{}}))
    return replace(table, name={name!r}, trials=tuple(trials))
'''
CELLS = (("IB", "IB"), ("IB", "CR"))
MORE = (("IB", "CR"), ("IB", "CB"), ("CR", "CB"))


def write_space(folder: Path, name: str = "small", cells: tuple[tuple[str, str], ...] = CELLS) -> str:
    """Writes a space file with a few cells and returns its path."""
    path = folder / f"{name}.py"
    path.write_text(SMALL.format(name=name, cells=cells))
    return str(path)


MINI_SEARCH = '''
"""A tiny open space: six epochs a point."""

from dataclasses import replace

from search_spaces import sampler_search
from study.space import Integer


def space(request):
    whole = sampler_search.space(request)

    def point(values):
        made = whole.search.point({**values, "S": 0})
        config = {**made.config, "epochs": 6, "milestones": [2], "warmup": 1, "S": values["S"]}
        return replace(made, config=config, axes={**made.axes, **values})

    base = {**whole.search.base, "epochs": 6, "milestones": [2], "warmup": 1}
    search = replace(whole.search, point=point, base=base, fresh=2)
    return replace(whole, name="mini", domain={**whole.domain, "S": Integer(0, 2)}, search=search)
'''


def s3_url(address: str, folder: str, bucket: str = "bucket", user: str = "") -> str:
    """A store in a bucket of the server `s3`."""
    return f"s3://{user}{bucket}/{folder}?endpoint_override={address}&scheme=http&region=us-east-1"


def exporter(_config: object) -> Callable[[bytes, Path, Any], None]:
    """What a `Work` has: writes a model directory of two files, what MLflow reads and the payload."""

    def save(payload: bytes, folder: Path, model: Any) -> None:
        Path(folder, "payload").write_bytes(payload)
        model.save(str(Path(folder, "MLmodel")))

    return save


# Plans of small spaces


def asked(trials=0, objectives=(), early_stop=0, options=None, **chosen):
    """A request; what is not said of an open search is an option by name."""
    given = {name: value for name, value in chosen.items() if value}
    return Request({**given, **(options or {})}, trials, objectives, early_stop)


def draft(*references, replicates=2, request=None, machine=CPU):
    return drafting.draft(drafting.call(references, request or Request()), replicates, machine, Resources())


def stored(drawn):
    """A plan as it comes back from the store."""
    return Plan.from_json(json.loads(json.dumps(drawn.plan.to_json())))


def searched(trials=4, replicates=1, early_stop=0, objectives=(), imbalance=()):
    request = asked(trials, objectives, early_stop, imbalance=imbalance)
    return draft("sampler_search", replicates=replicates, request=request)


def downgraded(plan):
    """A plan's JSON as version 0.2 stored it: format 3, of one science."""
    options = dict(plan["request"]["options"])
    words = {name: options.pop(name, otherwise) for name, otherwise in UNSAID.items()}
    request = {**words, **{name: plan["request"][name] for name in ("trials", "objectives", "early_stop")}}
    spaces, trials = [], []
    for space in plan["spaces"]:
        kept = {name: value for name, value in space.items() if name not in ("source", "splits", "crossed")}
        spaces.append({**kept, "paper_columns": space["source"]["columns"]})
    for each in plan["trials"]:
        own = each["trial"]
        kept = {name: own[name] for name in ("row", "column", "config", "axes", "measure")}
        printed = own["printed"] or {"value": None, "of": "", "provenance": ""}
        kept |= {"paper": printed["value"], "paper_of": printed["of"], "provenance": printed["provenance"]}
        kept |= {"label": own["called"] or f"{own['row']} ({own['column']})"}
        trials.append({**{name: value for name, value in each.items() if name != "trial"}, **kept})
    return {**plan, "format": 3, "request": {**request, "options": options}, "spaces": spaces, "trials": trials}


UNSAID = {"data": [], "imbalance": [], "paper": False, "short": False, "vary": []}


def beginnings(drawn):
    """By brute force: what is distinct among the first 1, 2, … epochs of all replicates."""
    return {
        json.dumps([recipe.origin, recipe.epochs[: n + 1]], sort_keys=True)
        for recipe in drawn.recipes.values()
        for n in range(len(recipe.epochs))
    }


# What makes the switch to CR of a small space measure something of its own, in four replicates at least.
OWN = """
    own = {"measure": "tau_normalised/top1", "least": 4, "printed": Printed(80.0, "*", "cifar10")}
    trials = tuple(replace(t, **own) if t.row == "IB⇒CR" else t for t in trials)
    return replace(table, """
# Points of an open search.
VALUES = [
    {"first_q": 0.0, "switch_q": 0.3, "S": 1},
    {"first_q": 0.0, "switch_q": -1.0, "S": 1},
    {"first_q": 1.0, "switch_q": -0.7, "S": 9},
    {"first_q": 0.0, "switch_q": 0.3, "S": 20},
]
schedules = st.fixed_dictionaries(
    {"first_q": st.sampled_from([0.0, 1.0]), "switch_q": st.sampled_from([-1.0, 0.5]), "S": st.sampled_from([0, 7, 40])}
)


# Plans and works made by hand


def planned(space, row, column="digits", config=None, axes=None, printed=None, measure="test/top1", called="", **more):
    """A trial in a plan."""
    return PlannedTrial(space, Trial(row, column, config or {}, axes or {}, printed, measure, called=called), **more)


def planned_space(name="table9", **more):
    fields = {"title": f"{name}: a title", "objectives": ("test/top1",), "domain": {}, "file": "", "file_digest": ""}
    return PlannedSpace(**{"name": name, **fields, **more})


def planned_run(spaces=(), trials=(), run="mine", **more):
    fields = {"request": Request(), "machine": CPU, "resources": Resources(), "replicates": 1, "epochs_needed": 0}
    return Plan(**{"run": run, "spaces": tuple(spaces), "trials": tuple(trials), "sources": {}, **fields, **more})


def work_of(resolve, parameters=lambda _config, _number, _machine: {}, exporter=None, **more):
    """Work of which nothing is trained; the first curve is `lr`, as of our own."""
    shown = {
        "curves": ("lr", "train/", "test/loss", "test/top1", "val/top1"),
        "lists": {"test/class_accuracy": "test/class"},
    }
    return Work(resolve, None, None, parameters, exporter, None, **{**shown, **more})


def run_of_two(run, spaces=("table9",), created="2020-01-01T00:00:00.000+00:00", replicates=2):
    """A run whose spaces have two trials, `a` and `b`."""
    trials = [
        planned(space, row, ends=tuple(f"{space}{row}{number}" for number in range(replicates)), epochs=3)
        for space in spaces
        for row in ("a", "b")
    ]
    made = [planned_space(space, title=space) for space in spaces]
    return planned_run(made, trials, run, replicates=replicates, epochs_needed=12, created=created)


# Plans and what was recorded of them, without training: for the tests of reports

SAMPLERS = ("IB", "CB", "CR")
PAIRS = ((0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (1, 2), (2, 0), (2, 1), (2, 2))  # of a subset and a seed, in order
CONTRASTS = (Contrast("IB⇒CR", "IB⇒IB"),)


def cell(
    first: str,
    switch: str,
    dataset: str = "digits",
    paper: float | None = None,
    paper_of: str = "",
    replicates: int = 3,
    measure: str = "test/top1",
    provenance: str = "",
    **axes: Any,
) -> PlannedTrial:
    """A cell of Table 9; its states are called after it and the replicate's number."""
    row = f"{first}⇒{switch}"
    axes = {"dataset": dataset, "imbalance": 50.0, "first": first, "switch": switch, "S": 1, **axes}
    ends = tuple(f"{row} {dataset} {number}" for number in range(replicates))
    return planned(
        "table9",
        row,
        dataset,
        {"dataset": dataset},
        axes,
        None if paper is None else Printed(paper, provenance, paper_of),
        measure,
        epochs=200,
        ends=ends,
        seeds=tuple(drawn(number, number, number) for number in range(replicates)),
    )


def drawn(split: int, subset: int, seed: int) -> dict[str, str]:
    """The seeds of a replicate in words, as a plan has them."""
    return {"split": str(split), "subset": str(subset), "training seed": str(seed)}


def crossed(trial: PlannedTrial) -> PlannedTrial:
    """The same with pairs of a subset and a training seed as its replicates, nine at most."""
    return replace(trial, seeds=tuple(drawn(0, *pair) for pair in PAIRS[: len(trial.ends)]))


def nine(**options: Any) -> list[PlannedTrial]:
    """All cells."""
    return [cell(first, switch, **options) for first, switch in product(SAMPLERS, repeat=2)]


def plan(
    trials: list[PlannedTrial],
    names: tuple[str, ...] = ("table9",),
    file: str = "",
    paper_columns: tuple[str, ...] = (),
    **changes: Any,
) -> Plan:
    """A run of spaces with these trials; without a file, they have no view of their own."""
    fields = {
        "contrasts": CONTRASTS,
        "evidence": "same question",
        "splits": SHOTS,
        "crossed": "--vary crossed",
        **changes,
    }
    source = replace(PAPER, columns=paper_columns)
    spaces = [planned_space(name, file=file, source=source, **fields) for name in names]
    return planned_run(spaces, trials, "r-0", replicates=3, commit="c0", versions={"a": "1"})


def header(*measures: dict[str, Any]) -> dict[str, Any]:
    """The header of a state with the measures of these epochs."""
    return {
        "provenance": [{"device_model": "a CPU"}],
        "measures": list(measures),
        "wall_seconds": [0.5] * len(measures),
    }


def top1(last: float, best: float | None = None, **shots: float) -> dict[str, Any]:
    """The header of a state after two epochs."""
    split = {f"test/{shot}": value for shot, value in shots.items()}
    return header({"test/top1": last if best is None else best}, {"test/top1": last, **split})


def all_of(trials: list[PlannedTrial], value: float = 50.0, step: float = 1.0) -> dict[str, dict[str, Any]]:
    """Every state: a trial's replicates are `value`, `value + step`, …"""
    return {end: top1(value + step * number) for trial in trials for number, end in enumerate(trial.ends)}


def results(trials: list[PlannedTrial], states: dict[str, dict[str, Any]], **changes: Any) -> Results:
    """What a view of their space is given."""
    made = plan(trials, **changes)
    return Results(made, made.spaces[0], states.get)


def size_of(png: bytes) -> tuple[int, int]:
    """A PNG's width and height in pixels."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert png[12:16] == b"IHDR"
    width, height = struct.unpack(">II", png[16:24])
    return width, height


def drawn_on(figure: Figure) -> Any:
    """The canvas that a figure has been drawn on."""
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=figure.size, layout="constrained")
    figure.draw(canvas)
    canvas.draw_without_rendering()
    return canvas


def report_of(trials, states=None, *, space=None, **changes):
    return Report(plan(trials, **changes), (all_of(trials) if states is None else states).get, space)


def table_of(markdown):
    """The first Markdown table's head and rows as the cells between its bars."""
    lines = []
    for line in markdown.splitlines():
        if line.startswith("|"):
            lines.append(line)
        elif lines:
            break
    head, rule, *body = ([part.strip() for part in line.strip("|").split("|")] for line in lines)
    assert set(rule) <= {"---", "---:"}
    assert {len(head), len(rule), *map(len, body)} == {len(head)}
    return head, body


# Shipped spaces as if they had been trained, and what their views show of them

Last = Callable[[Trial, int], Mapping[str, Any] | list[dict[str, Any]] | None]
Observed = Mapping[int, Mapping[str, Any]]
PERCENT = ("test/top1", "test/many", "test/medium", "test/few", "adjusted/top1", "tau_normalised/top1")


def space(name: str, **request: Any) -> Space:
    function, _ = catalog.find(name)
    return function(asked(**request))


def by_place(name: str, **request: Any) -> dict[tuple[str, str], Any]:
    """A space's trials by row and column."""
    return {(trial.row, trial.column): trial for trial in space(name, **request).trials}


def printed_of(trial: Trial) -> tuple[float | None, str]:
    """A trial's printed figure, and the source's column that it is of."""
    return (None, "") if trial.printed is None else (trial.printed.value, trial.printed.of)


def epochs_of(trial: Trial) -> int:
    return len(WORK.resolve(trial.config, 0, CPU).epochs)


def numbered(trial: Trial, replicate: int) -> dict[str, float]:
    """Measures of the last epoch that tell measure and replicate apart: 10, 20, … percent and the replicate."""
    return {measure: 10.0 * place + replicate for place, measure in enumerate(PERCENT, 1)}


def as_trained(
    name: str,
    last: Last = numbered,
    *,
    replicates: int = 2,
    observed: Observed | Callable[[Trial], Observed] | None = None,
    **request: Any,
) -> Results:
    """What a view is given of a run in which every trial ended with these measures.

    Args:
        last: of (trial, replicate): the measures of the last epoch, or those of every epoch, or None where it has not
            ended.
        observed: by replicate, what the last states have observed of images; or such a function of a trial.
    """
    plan = draft(name, replicates=replicates, request=asked(**request)).plan
    states: dict[str, dict[str, Any]] = {}
    payloads: dict[str, bytes] = {}
    for trial in plan.trials:
        seen = observed(trial.trial) if callable(observed) else observed or {}
        for number, end in trial.by_replicate.items():
            measures = last(trial.trial, number)
            if measures is not None:
                epochs = measures if isinstance(measures, list) else [measures]
                state = states.setdefault(end, header(*({} for _ in epochs)))
                for known, new in zip(state["measures"], epochs, strict=True):
                    known.update(new)
            tensors = {f"observed.{each}": np.asarray(array) for each, array in seen.get(number, {}).items()}
            payloads[end] = safetensors.numpy.save(tensors)
    return Results(plan, plan.spaces[0], states.get, payloads.get)


def nothing(trial: Trial, replicate: int) -> None:
    """No replicate has ended."""
    return None  # noqa: RET501


def exhibits(results: Results) -> list[Table | Figure | None]:
    """What the space's own view shows."""
    view, _ = catalog.view(results.space.name)
    assert view is not None
    return list(view(results))


def tables(results: Results) -> list[Table]:
    """The tables of the space's own view."""
    return [each for each in exhibits(results) if isinstance(each, Table)]


def entry(table: Table, row: int, column: int) -> Cell:
    """A measured entry."""
    found = table.rows[row][column]
    assert isinstance(found, Cell)
    return found


# Training: short recipes on digits, a learner, and its states

CUDA = pytest.param(
    "cuda",
    marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")],
)
# Warm-up, decay at 2, the switch at 3; a second stage, where a method has one, of two epochs.
SHORT = replace(base("digits"), epochs=5, milestones=(2,), S=1, warmup=2, retrain_epochs=2)
EPOCH = Epoch(lr=0.05, crop=1, flip=False)


def learner(seed=0, precision="fp32", device="cpu", config=SHORT):
    return Learner(origin(replace(config, seed=seed, precision=precision), Machine(device, 1)))


def digits(device="cpu"):
    return load(origin(SHORT, Machine(device, 1)), EPOCH, None)


def train(student, epochs, first=0, data=None):
    """Train from index `first` on; the state after each epoch as a file's bytes, and its measures."""
    data = digits(student.origin.device) if data is None else data
    states, measures = [], []
    for index, epoch in enumerate(epochs[first:], first):
        measures.append(train_epoch(student, data, epoch, index) | evaluate(student, data, epoch))
        states.append(safetensors.torch.save(student.state()))
    return states, measures


def steps_of(student, data, epoch, index=0):
    """What each step of an epoch would give the network, and its labels with how much they count; none is trained."""
    made, seen = Steps(student, data, epoch, student.obey(epoch, index)), []

    def note(batches):
        seen.append(made._mixed(batches))
        made._number += 1

    made._step = note
    made.run(draws(data.counts, epoch, student.origin, index), epoch)
    return seen


def snapshot(student):
    return {name: tensor.clone() for name, tensor in student.state().items()}


def moved(before, after):
    """The tensors that an epoch changed."""
    return {name for name in before if not torch.equal(before[name], after[name])}


def normalised(image, known):
    """One image, a channel at a time: (channels, side, side)."""
    return np.stack([(image[c] / known.scale - known.mean[c]) / known.std[c] for c in range(known.channels)])


# A rank of a small training in float64, for processes that tests start

RANKS = 2
RANKED = replace(SHORT, measures=("events",))
# 13 does not divide a batch of 50 or an epoch of 342; two shares of a batch differ by one image.
RANKED_EPOCHS = [
    Epoch(lr=0.05, crop=1, flip=True, batch_size=13),
    Epoch(lr=0.05, crop=1, flip=False, batch_size=50, sampler=-1.0, measures=("fit", "events")),
    Epoch(lr=0.02, crop=1, flip=False, batch_size=20, sampler=0.0, mixture=Mixup(1.0), effective_number=0.99),
    Epoch(lr=0.01, crop=1, batch_size=13, loss=Focal(1.0), measures=("fit", "events")),
]


class Exact(Learner):
    """A learner in float64."""

    def __init__(self, own: Ranks = ranks.ALONE) -> None:
        super().__init__(origin(RANKED, Machine("cpu", 1, ranks=own.size)), own)
        self.network.double()
        self.momentum = {name: buffer.double() for name, buffer in self.momentum.items()}

    def logits(self, *inputs: Any) -> torch.Tensor:
        return self.network(*(each.double() if isinstance(each, torch.Tensor) else each for each in inputs))


def ranked_data(own: Ranks, epoch: Epoch = RANKED_EPOCHS[0]) -> Any:
    return load(origin(RANKED, Machine("cpu", 1, ranks=own.size)), epoch, None, 1, own)


def train_as_rank(rank: int, port: Any, answers: Any) -> None:
    """Train all epochs as one of two, the first of which says at what port; answer with the measures and the state."""
    own = Ranks(rank, RANKS)
    if rank == 0:
        store = ranks.meet("127.0.0.1", RANKS)
        port.put(store.port)
    else:
        store = ranks.meet("127.0.0.1", RANKS, port.get(timeout=60))
    ranks.join(own, "cpu", "127.0.0.1", lambda: store)
    steps.loss_of = partial(steps.loss_of, dtype=torch.float64)
    student, measures = Exact(own), []
    for index, epoch in enumerate(RANKED_EPOCHS):
        seen = ranked_data(own, epoch)
        measures.append(train_epoch(student, seen, epoch, index) | evaluate(student, seen, epoch))
    answers.put((rank, measures, {name: tensor.numpy() for name, tensor in student.state().items()}))
    ranks.leave()


# A stand-in for a CUDA graph on a CPU
#
# As on a GPU, a replay knows nothing of the host: the tensors are those of the recording, and a number that the host
# read or passed along is what it was then.


class Tape(TorchDispatchMode):
    """Operators in the order of their calls, with the tensors that they took and gave."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, given))
        return given

    @torch.no_grad()
    def replay(self):
        for func, args, kwargs, given in self.calls:
            again = func(*args, **kwargs)
            for old, new in zip(tree_leaves(given), tree_leaves(again), strict=True):
                # A view, and what was changed in place, are in the old tensor's memory already.
                if isinstance(old, Tensor) and old.untyped_storage().data_ptr() != new.untyped_storage().data_ptr():
                    old.copy_(new)


def on_tape(act):
    """A `recording.Recorder`."""
    tape = Tape()
    with tape:
        act()
    return tape.replay


# Objects of a store

few = settings(max_examples=20, deadline=None)

KEY, OTHER = "ab12", "cd34"
HEADER = {"key": KEY, "epoch": 2, "measures": [{"test/top1": 10.5}, {"test/top1": 61.25}]}
PLAN = "runs/r/plan.json"

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
headers = st.dictionaries(st.text(max_size=5).filter(lambda name: name != "key"), json_values, max_size=4)


def path_of(key=KEY):
    return f"states/{key[:2]}/{key}"


def content(store, path="states/ab/ab12"):
    with store._fs.open_input_file(path) as file:
        return file.read()


def put(store, path, data):
    if not store.url.startswith("s3:"):
        store._fs.create_dir(path.rpartition("/")[0], recursive=True)
    with store._fs.open_output_stream(path) as file:
        file.write(data)


def files(store):
    return sorted(each.path for each in store.objects())


def refused_place(url, create=True):
    """What is said, in one line and soon."""
    with quick(10), pytest.raises(Refusal) as refused:
        Store(url, create=create)
    assert refused.value.field == "--store"
    assert "\n" not in str(refused.value)
    return str(refused.value)


# Optuna's studies, and drivers that die


def opened(plan, storage):
    """A search as a projection opens it."""
    from study.search.studies import Search

    search = Search(plan, storage)
    search.take_up()
    return search


def optuna_trials(storage, search, space=0):
    """A study's trials, read anew."""
    import optuna

    from study.search.studies import study_name

    name = study_name(search._plan, search._plan.spaces[space])
    return optuna.load_study(study_name=name, storage=storage).trials


class Killed(BaseException):
    pass


def killed(*args, **kwargs):
    raise Killed


# A run of the platform in MLflow, with a plan and a work made by hand

TRACKED_EPOCHS = 5
_numbers = count()


def _parameters(config, number, _machine):
    return {**config, "seed": number, "lr": 0.1, "milestones": [1, 2]}


def tracked_cell(first, switch, numbers=(0, 1), **changes):
    row = f"{first}⇒{switch}"
    ends = tuple(f"{row} {number}" for number in numbers)
    config = {"first": first, "switch": switch}
    return replace(planned("table9", row, config=config, epochs=TRACKED_EPOCHS, ends=ends), **changes)


def _resolve(config, number, _machine):
    row = f"{config['first']}⇒{config['switch']} {number}"
    return Resolved({}, ({},) * TRACKED_EPOCHS, (*(f"{row}/{epoch}" for epoch in range(TRACKED_EPOCHS)), row))


TRACKED = (tracked_cell("IB", "CR"), tracked_cell("CB", "IB"))


def tracked_header(epochs, key="IB⇒CR 0"):
    """A state's, after so many epochs; the first two were inherited from another run."""
    measures = [
        {
            "lr": 0.1 / (n + 1),
            "train/loss": 2.0 - n / 9,
            "test/top1": 50.0 + n,
            "calibration": n / 7,
            "test/class_accuracy": [n, 2 * n],
        }
        for n in range(epochs)
    ]
    provenance = [{"from_epoch": 0, "run": "other", "host": "one"}, {"from_epoch": 2, "run": "mine", "host": "two"}]
    return {
        "key": key if epochs == TRACKED_EPOCHS else f"{key}/{epochs}",
        "epochs": epochs,
        "measures": measures,
        "wall_seconds": [1.25] * epochs,
        "provenance": provenance if epochs > 2 else provenance[:1],
    }


class Tracked:
    """A run of the platform with its MLflow: drivers come and go, the records stay."""

    def __init__(self, place):
        from mlflow import MlflowClient

        self.place, self.uri = place, f"sqlite:///{place / 'mlflow.db'}"
        self.plan = planned_run(
            [planned_space(title="Table 9: a title")],
            TRACKED,
            f"run-{next(_numbers)}",
            replicates=2,
            epochs_needed=20,
            created="2020-02-02T02:02:02.020+00:00",
            commit="c0",
            versions={"torch": "2"},
        )
        self.client = MlflowClient(self.uri)

    def driver(self, claim=lambda: None):
        """A new driver's tracker, at work."""
        from study.tracking.runs import Tracker

        work = work_of(_resolve, _parameters, exporter)
        space = Space("table9", "Table 9: a title", (Trial("row", "column", {}, {}),), {}, work, ("test/top1",))
        draft = Draft(replace(self.plan, epochs_needed=0), [space], self.plan.trials)
        self.plan = draft.plan
        tracker = Tracker(draft, self.uri, self.place / "artifacts", claim)
        if not tracker.is_closed():
            tracker.begin()
        return tracker

    def project(self, *epochs, cell=TRACKED[0], number=0):
        """A driver that comes, shows states of one replicate, and goes."""
        tracker = self.driver()
        for each in epochs:
            tracker.project(cell, number, tracked_header(each, cell.by_replicate[number]), lambda: b"payload %d" % each)  # noqa: B023
        return tracker

    def all(self, kind):
        experiment = self.client.get_experiment_by_name(self.plan.run)
        return self.client.search_runs([experiment.experiment_id], f"tags.`study.kind` = '{kind}'")

    def only(self, kind="replicate"):
        (run,) = self.all(kind)
        return run

    def versions(self):
        """The versions of the model that is registered under the run's name, the first one first."""
        found = self.client.search_model_versions(f"name = '{self.plan.run}'")
        numbers = sorted(int(version.version) for version in found)
        return [self.client.get_model_version(self.plan.run, str(number)) for number in numbers]

    def models(self):
        """The payload of each model that the experiment has; all of them are whole, and the output of their run."""
        from mlflow.artifacts import download_artifacts
        from mlflow.entities import LoggedModelStatus
        from mlflow.models import Model

        experiment = self.client.get_experiment_by_name(self.plan.run).experiment_id
        models = self.client.search_logged_models([experiment])
        outputs = {each.info.run_id: each.outputs.model_outputs for each in self.all("replicate") if each.outputs}
        for model in models:
            assert model.status == LoggedModelStatus.READY
            assert [output.model_id for output in outputs[model.source_run_id]] == [model.model_id]
            assert Model.load(f"models:/{model.model_id}").run_id == model.source_run_id
            shown = self.client.get_run(model.source_run_id).data
            assert model.params == shown.params
            assert {metric.key: metric.value for metric in model.metrics} == shown.metrics
        folders = [download_artifacts(f"models:/{model.model_id}") for model in models]
        return sorted(Path(folder, "payload").read_bytes() for folder in folders)

    def histories(self):
        """Every value of every metric of the only replicate: (step, timestamp, value)."""
        run = self.only()
        return {
            name: [(m.step, m.timestamp, m.value) for m in self.client.get_metric_history(run.info.run_id, name)]
            for name in run.data.metrics
        }


# Stages, and who is told of them


def stage(key, parent="origin", remaining=1, do="nothing"):
    return Stage(parent, int(parent != "origin"), (f"{key}/half", key), ({"do": do}, {"do": do}), {}, remaining)


class Recorder:
    """Keeps what it is told; may ask for a drain once something of a stage has been trained.

    Asked for more, it gives what it was given, one list at a time, and then None. It does not see the `unseen` states.
    """

    def __init__(self, drain=None, later=(), unseen=()):
        self.drain, self.epochs, self.states, self.failures = drain, {}, [], []
        self.later, self.asked, self.unseen, self.waited = list(later), [], unseen, []
        self.recounted, self.parts, self.remarks = 0, {}, []

    def more(self, workers, idle):
        self.asked.append((workers, idle))
        return self.later.pop(0) if self.later else None

    def trained(self, stage, epochs):
        self.epochs[stage.key] = self.epochs.get(stage.key, 0) + epochs
        if self.drain is not None:
            self.drain.requested = True

    def durable(self, key):
        if key in self.unseen:
            return False
        self.states.append(key)
        return True

    def remark(self, stage, heading, line):
        self.remarks.append((heading, stage.key, line))

    def failed(self, stage, failure):
        self.failures.append((stage.key, failure))

    def cut(self, parts):
        self.parts[parts[-1].key] = parts

    def recount(self, stage, epochs):
        self.recounted += epochs

    def waits(self, what_for, reason):
        self.waited.append(reason)

    def reaches_store(self):
        return True

    def can_save(self):
        return False


class Machines:
    """A pool of machines, each called like its node; a test adds to `ended` and `leaving`."""

    def __init__(self, workers, nodes=("node1",)):
        self.workers, self.nodes = workers, list(nodes)
        self.ended, self.leaving, self.left_out = set(), set(), {}

    def look(self, at_once=False):
        pass

    def room(self):
        return self.workers

    @property
    def usable(self):
        return set(self.nodes) - self.ended - self.leaving - self.left_out.keys()

    def leave_out(self, node, reason):
        self.left_out[node] = reason

    def is_lost(self, node):
        return node in self.ended | self.leaving

    def host(self, node):
        return node

    def avoided(self, lost_on):
        return tuple(sorted(self.left_out.keys() | (set(lost_on) if self.usable - set(lost_on) else set())))
