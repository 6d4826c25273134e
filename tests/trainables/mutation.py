"""Change a constant or an operator in each file of `trainables`, and check that the names of states change.

    python tests/trainables/mutation.py SEED EACH [--blind] [FILE ...]

For each file that has any, or for those that are given, EACH places are chosen at random; 0 takes all of them. A mutant
names the states of small recipes that together use every part. Those that have a name of the true code are trained, an
epoch a state, taken up once in the middle. The result is a line of JSON: ``wrong`` lists the mutants under which a
state of the same name has other bits; ``same`` those that renamed nothing. With ``--blind``, names hold no code: then
mutants are wrong.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import pickle
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import ray.tune
import safetensors.torch
import torch
import torchvision  # before the first fork: each mutant would import them again
from PIL import Image

ROOT = Path(__file__).parents[2]
FOLDER = Path()  # of the tiny data and of the mutants' code

Outcome = tuple[dict[str, list[str]], dict[str, str], str]

SECONDS = 60  # that a mutant has

TINY = """
import numpy as np

from trainables.data.facts import Images
from trainables.data.kinds import Small


class Tiny(Small):
    classes, largest, channels, side, scale = 3, 12, 1, 8, 16
    mean, std, crop, many, few = (0.3,), (0.4,), 1, 8, 5
    fingerprint = "tiny"

    def read(self, root, split_seed):
        labels = np.repeat(np.arange(3), 12)
        rng = np.random.default_rng(0)
        images = (rng.integers(0, 8, (36, 1, 8, 8)) + 4 * labels[:, None, None, None]).astype(np.uint8)
        return Images(images, labels, images[::2].copy(), labels[::2].copy())
"""

_SWAPPED: dict[type, type] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Lt: ast.GtE,
    ast.GtE: ast.Lt,
    ast.Gt: ast.LtE,
    ast.LtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}


def places(tree: ast.AST) -> list[ast.AST]:
    """Return the numbers, truth values and operators of a file, except those of annotations."""
    skipped = {
        id(node)
        for each in ast.walk(tree)
        for field in ("annotation", "returns")
        for node in (ast.walk(getattr(each, field)) if getattr(each, field, None) else ())
    }
    found = []
    for node in ast.walk(tree):
        constant = isinstance(node, ast.Constant) and isinstance(node.value, (int, float))
        operators = [*getattr(node, "ops", ()), getattr(node, "op", None)]
        if id(node) not in skipped and (constant or any(type(each) in _SWAPPED for each in operators)):
            found.append(node)
    return found


def mutate(node: Any) -> None:
    """Replace a value or an operator in place."""
    if isinstance(node, ast.Constant):
        node.value = (not node.value) if isinstance(node.value, bool) else node.value + 1
    elif isinstance(node, ast.Compare):
        node.ops = [_SWAPPED.get(type(each), type(each))() for each in node.ops]
    else:
        node.op = _SWAPPED[type(node.op)]()


def mutants(seed: int, each: int, only: Sequence[str]) -> Iterator[tuple[str, int, str]]:
    """Yield file, line and text of each mutant."""
    rng = random.Random(seed)
    for path in sorted((ROOT / "trainables").rglob("*.py")):
        if only and path.relative_to(ROOT / "trainables").as_posix() not in only:
            continue
        text = path.read_text(encoding="utf-8")
        count = len(places(ast.parse(text)))
        chosen = range(count) if not each else sorted(rng.sample(range(count), min(each, count)))
        for number in chosen:
            tree = ast.parse(text)
            node: Any = places(tree)[number]
            mutate(node)
            yield path.relative_to(ROOT).as_posix(), node.lineno, ast.unparse(tree)


def in_a_fork(root: Path, blind: bool, known: Collection[str]) -> Outcome:
    """Return the result of `names_and_bits` in another process."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        signal.alarm(SECONDS)
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        with open(writing, "wb") as pipe:
            pickle.dump(names_and_bits(root, blind, known), pipe)
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    outcome: Outcome = pickle.loads(answer) if answer else ({}, {}, "no answer")
    return outcome


def names_and_bits(root: Path, blind: bool, known: Collection[str]) -> Outcome:
    """Return the names of each recipe's states, the bits of those that could be trained, and the error.

    Trained is what small recipes have of the known names; all that they have, if none are given.
    """
    sys.path.insert(0, str(root))
    names: dict[str, list[str]] = {}
    bits: dict[str, str] = {}
    said = ""
    try:
        if blind:
            from trainables import digests

            digests.code_digest = lambda module, name: f"{module}:{name}"
        from study.machine import Machine
        from trainables import trainable, work

        trainable.SLICE_SECONDS = trainable.SAVE_SECONDS = 0.0
        for number, (config, trains) in enumerate(configs()):
            try:
                resolved = work.resolve(config, 0, Machine("cpu", 1))
                names[str(number)] = list(resolved.keys)
                wanted = not known or set(resolved.keys[1:]) & set(known)
                if trains and wanted and resolved.keys[-1] not in bits:
                    with tempfile.TemporaryDirectory() as folder:
                        bits |= trained(resolved, folder)
            except Exception as error:  # noqa: BLE001  a mutant may do anything
                said = repr(error)[:200]
    except Exception as error:  # noqa: BLE001
        said = repr(error)[:200]
    return names, bits, said


def configs() -> Iterator[tuple[dict[str, Any], bool]]:
    """Yield configurations that together use every part, and whether they train in a second."""
    from trainables import method
    from trainables.config import Config
    from trainables.data.datasets import facts

    base = Config(
        dataset=f"{FOLDER / 'tiny.py'}:Tiny",
        imbalance=3,
        backbone="resnet8",
        epochs=3,
        milestones=(1,),
        warmup=1,
        batch_size=8,
        retrain_epochs=1,
    )
    for name in method.names():
        yield method.find(name)(base).to_json(), True
    bbn = method.find("bbn")(base)
    for own in (
        replace(bbn, nesterov=True, replacement=True, warmup=2, warmup_from=0.3),
        replace(base, loss="sigmoid_focal(gamma=0.5)", beta=0.99, drop_last=True),
        replace(base, backbone="resnext11", first=0.5, then=((1, "CB"),), S=0, measures=("events",)),
        replace(base, backbone="resnet32(blocks=1, width=4)", joint=False, reinitialise=True, beta=0.9),
        replace(base, dataset="digits", imbalance=50, batch_size=64, epochs=2, milestones=(0,)),
    ):
        yield own.to_json(), True
    for dataset in ("cifar10", "cifar100", "imagenet-lt", "places-lt", "inaturalist2018", f"folder:{FOLDER}"):
        natural = facts(dataset).natural
        large = replace(base, dataset=dataset, imbalance=natural or 50, backbone="resnet50" if natural else "resnet32")
        yield large.to_json(), False
    yield replace(large, backbone="resnext50").to_json(), False


def trained(resolved: Any, folder: str) -> dict[str, str]:
    """Return the bits of a recipe's states by name, trained by two actors, one after the other."""
    from study.execution.job import Job
    from study.planning import tree
    from study.planning.stored import Resources
    from study.store.states import Store
    from trainables.trainable import StageTrainable

    (stage,) = tree.stages([resolved], set())
    store, job, saved = Store(folder), Job("mutants", folder, Resources()), ""
    for steps in (1, len(stage.keys)):
        actor = StageTrainable.__new__(StageTrainable)
        actor.setup({"stage": stage, "saved": saved}, job=job)
        for _ in range(steps):
            outcome = actor.step()
            saved = outcome["saved"]
            if outcome["done"]:
                break
    found = {}
    for key in stage.keys:
        try:
            header, payload = store.load(key)
        except Exception:  # noqa: BLE001  it was not trained
            continue
        seen = json.dumps([header["epochs"], header["measures"]], sort_keys=True)
        found[key] = hashlib.sha256(seen.encode() + payload).hexdigest()
    return found


def main(seed: int, each: int, blind: bool, only: Sequence[str]) -> dict[str, Any]:
    """See the top."""
    torch.set_num_threads(1)
    wrong, same, count = [], [], 0
    FOLDER.joinpath("tiny.py").write_text(TINY, encoding="utf-8")
    for part, images in (("train", 2), ("test", 2)):
        for name in ("a", "b"):
            folder = FOLDER / part / name
            folder.mkdir(parents=True)
            for number in range(images):
                Image.new("RGB", (8, 8), (9 * number, 0, 0)).save(folder / f"{number}.png")
    copy = FOLDER / "code"
    shutil.copytree(ROOT / "trainables", copy / "trainables", ignore=shutil.ignore_patterns("__pycache__"))
    sys.dont_write_bytecode = True
    names, bits, said = in_a_fork(copy, blind, ())
    assert not said, said
    for file, line, text in mutants(seed, each, only):
        original = (copy / file).read_text(encoding="utf-8")
        (copy / file).write_text(text, encoding="utf-8")
        other_names, other_bits, said = in_a_fork(copy, blind, bits)
        (copy / file).write_text(original, encoding="utf-8")
        count += 1
        renamed = any(other_names.get(number, own) != own for number, own in names.items())
        if not renamed and not said:
            same.append(f"{file}:{line}")
        differ = [key for key, own in other_bits.items() if bits.get(key, own) != own]
        if differ:
            wrong.append(f"{file}:{line}: {len(differ)} states")
        print(f"{file}:{line} {'renamed' if renamed else 'same'} {len(other_bits)} {said}", file=sys.stderr)
    return {"seed": seed, "mutants": count, "wrong": wrong, "same": same, "states": len(bits)}


if __name__ == "__main__":
    assert np
    assert ray.tune
    assert safetensors.torch
    assert torchvision
    words = [word for word in sys.argv[1:] if word != "--blind"]
    with tempfile.TemporaryDirectory() as scratch:
        FOLDER = Path(scratch)
        print(json.dumps(main(int(words[0]), int(words[1]), "--blind" in sys.argv, words[2:])))
