"""The README's table of what was measured, made from results/*.json; whose file is absent has no row.

    python tests/benchmarks/readme.py [--check]

Writes it between two comments of README.md; ``--check`` exits 1 if what stands there is another.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).parent
README = HERE.parents[1] / "README.md"
BEGIN, END = "<!-- made by tests/benchmarks/readme.py -->", "<!-- end of what was made -->"

Json = dict[str, Any]
Row = tuple[str, str, str]  # what was measured; the target and whether it was met, or ""; the result


def between(spread: Json, unit: str = "") -> str:
    """Median (least to most); just the one if they are the same."""
    least, middle, most = (number(spread[name]) for name in ("min", "median", "max"))
    return f"{middle}{unit}" if least == most else f"{middle}{unit} ({least} to {most})"


def number(value: float) -> str:
    """Three significant digits, thousands apart."""
    return f"{float(f'{value:.3g}'):,.10g}"


def at_least(target: float, *ratios: Json) -> str:
    """The target, and whether all values reach it, or the medians do."""
    if all(each["min"] >= target for each in ratios):
        return f"≥ {target:g} ×, met"
    return f"≥ {target:g} ×, {'met by the median' if all(e['median'] >= target for e in ratios) else '**missed**'}"


def at_most(target: str, met: bool) -> str:
    """The target, and whether it was met."""
    return f"≤ {target}, {'met' if met else '**missed**'}"


def table(found: Json, script: str = "a plain Ray Tune script", target: float = 5) -> Iterator[Row]:
    times = f"{between(found['plain'])} against {between(found['ours'])} s: {between(found['ratio'])} × faster"
    plain, ours = (found["where_the_time_goes"][side] for side in ("plain", "ours"))
    logged = plain["mlflow_seconds_in_driver"]
    where = f" ({number(logged)} s of its time are Ray's MLflow callback)" if logged else ""
    yield (
        f"Table 9 on digits, one seed, cold: {script} against `study run`",
        at_least(target, found["ratio"]) if target else "",
        f"{times}{where}; {number(plain['epochs_trained'])} against {number(ours['epochs_trained'])} epochs, "
        f"n = {found['n']}",
    )


def table_favoured(found: Json) -> Iterator[Row]:
    yield from table(found, "the script without MLflow, its processes reused,", 0)


def sampler(found: Json) -> Iterator[Row]:
    for peer in dict.fromkeys(case["peer"] for case in found["cases"]):
        own = [case for case in found["cases"] if case["peer"] == peer]
        for data in dict.fromkeys(case["data"] for case in own):
            here = [case for case in own if case["data"] == data]
            large = data == "iNaturalist 2018"
            said = "; ".join(
                f"{case['sampler']}: {number(case['peer_ms']['median'])} against "
                f"{number(case['ours_ms']['median'])} ms, {between(case['ratio'])} ×"
                for case in here
            )
            target = at_least(20, *(case["ratio"] for case in here)) if large else ""
            if large or "linear" not in peer:
                yield f"an epoch's order of {data}: {peer} against ours", target, f"{said}, n = {found['n']}"


def loader(found: Json) -> Iterator[Row]:
    speed = found["images_per_second"]
    for peer, faster in found["ratios"].items():
        said = (
            f"{between(speed[peer])} against {between(speed['ours'])} images/s: {between(faster)} ×, n = {found['n']}"
        )
        yield f"batches of CIFAR's size: {peer}, against ours", at_least(10, faster), said


def epoch(found: Json) -> Iterator[Row]:
    own = found["epoch"]
    seconds, default = own["seconds"], own["default_precision"]
    what = f"an epoch of ResNet-32, {own['images']:,} images of CIFAR's size, one thread: eager"
    for theirs, ours, target, name in (
        ("fp32", "fp32", 1, "fp32 / fp32"),
        ("bf16", "bf16", 1, "bf16 / bf16"),
        ("fp32", default, 2, "eager fp32 / ours default"),
    ):
        ratio = own["ratios"][name]
        times = f"{between(seconds[f'eager {theirs}'])} against {between(seconds[f'ours {ours}'])} s"
        by = f"ours by default ({ours})" if target == 2 else f"ours in {ours}"
        yield f"{what} {theirs} against {by}", at_least(target, ratio), f"{times}: {between(ratio)} ×, n = {found['n']}"


def step(found: Json) -> Iterator[Row]:
    for network, own in found["networks"].items():
        default = own.get("ours", f"ours {own['default_precision']}")
        yield from _steps(found, network, default, own["ratios"], "by default")
        best = own.get("best_ours", default)
        if best != default and found["device"] == "cuda":
            yield from _steps(found, network, best, own["best_ratios"], "at best")


def _steps(found: Json, network: str, ours: str, ratios: Json, which: str) -> Iterator[Row]:
    ms, floors = found["networks"][network]["ms"], found["floors_ms"]
    what = f"a training step, batch 64, {network}, {found['device'].upper()}"
    for peer, ratio in ratios.items():
        theirs, target, least = f"the best of eager {{{', '.join(floors)}}} × {{layouts}}", 1, ""
        if peer == "public trainer":
            theirs, target = "a public trainer's, data and all,", 10 if found["device"] == "cuda" else 0
            for floor in (floors[kind] for kind in floors if kind in ours):
                arithmetic, memory = number(floor["arithmetic"]), number(floor["memory"])
                least = f"; at least {arithmetic} ms by arithmetic, {memory} by memory"
        yield (
            f"{what}: {theirs} against ours {which} ({ours.removeprefix('ours ')})",
            at_least(target, ratio) if target else "",
            f"{peer}: {between(ms[peer])} against {between(ms[ours])} ms, {between(ratio)} ×{least}, n = {found['n']}",
        )


def step_gpu(found: Json) -> Iterator[Row]:
    yield from step(found)
    for kind, numbers in found.get("together_ms", {}).items():
        for way in ("threads", "in turn"):
            said = "; ".join(f"{k}: {between(own[way])} ms" for k, own in (numbers or {}).items())
            if said:
                what = f"a step of one of so many ResNet-32 on one GPU, {kind}, recorded, in one process, {way}"
                yield what, "", f"{said}, n = {found['n']}"
    for mode, numbers in found.get("processes_ms", {}).items():
        if isinstance(numbers, dict):
            said = "; ".join(f"{k}: {number(own['ms'])} ms" for k, own in numbers.items())
            served = "with" if found["processes_ms"]["mps"] else "without"
            yield f"the same, {found['processes_ms']['precision']}, {mode}, in processes {served} MPS", "", said


def scale(found: Json) -> Iterator[Row]:
    stages = found["stages"]
    costs = "; ".join(
        f"{int(count):,}: {between(own['beyond_ray_ms'])} ms, n = {own['n']}" for count, own in stages.items()
    )
    growth, most = found.get("ratio_10000_to_100"), list(stages)[-1]
    target = at_most("1.2 × at 10,000 of that at 100", growth <= 1.2) if growth else ""
    further = "; ".join(f"{span}: {number(ms)} ms" for span, ms in found["marginal_ms"].items())
    yield (
        "what a stage that does nothing costs beyond bare Ray Tune, by how many there are",
        target,
        costs + (f"; {number(growth)} ×" if growth else ""),
    )
    if further:
        yield "the same for each further stage", "", further
    peak = stages[most]["ours_peak_rss_mib"]
    memory = f"{between(peak, ' MiB')}; bare Ray Tune's {between(stages[most]['ray_peak_rss_mib'], ' MiB')}"
    limit = at_most("1 GiB", peak["max"] < 1024) if int(most) >= 10_000 else ""  # the target is for so many
    yield f"the driver's largest memory at {int(most):,} stages", limit, memory


def tracking(found: Json) -> Iterator[Row]:
    sides, ratios = found["sides"], found["ratios"]
    for ours in ("ours", "ours, all rows"):
        said = "; ".join(
            f"{between(sides['callback'][f'{kind}_seconds'])} against {between(sides[ours][f'{kind}_seconds'])} s "
            f"{kind.upper() if kind == 'cpu' else kind}, {between(ratios[f'{ours}, {kind}'])} ×"
            for kind in ("wall", "cpu")
        )
        rows = f"rows a trial: {number(sides['callback']['rows'])} and {number(sides[ours]['rows'])}"
        what = f"the driver's time for MLflow, {found['epochs']} epochs of {found['metrics']} metrics: Ray's callback"
        target = at_least(20, *(ratios[f"{ours}, {kind}"] for kind in ("wall", "cpu")))
        yield f"{what} against {ours}", target, f"{said}; {rows}, n = {found['n']}"


def cost_table9(found: Json) -> Iterator[Row]:
    for case in found["cases"]:
        added = case["added_percent"]
        yield (
            f"store, tracking and report added to digits Table 9, {case['workers']} of {found['cores']} cores training",
            at_most("5 %", added["median"] <= 5),
            f"{between(added)} % of {between(case['ray_alone'])} s, n = {found['n']}",
        )


def trainable_forms(found: Json) -> Iterator[Row]:
    said = f"{between(found['class'])} and {between(found['function'])} ms, n = {found['n']}"
    yield "a stage that does nothing, by a Trainable's class form and function form", "", said


def kills(found: Json) -> Iterator[Row]:
    rounds = found["runs"]
    lost, doubled, needed, trained = (
        sum(each[kind] for each in rounds) for kind in ("lost", "doubled", "epochs_needed", "epochs_trained")
    )
    ends = "; ".join(
        f"{victim} {number(median(seconds))} s"
        for victim in ("driver", "worker", "raylet")
        if (
            seconds := [
                k["seconds_to_go_on"]
                for k in found["kills"]
                if k["victim"] == victim and k["seconds_to_go_on"] is not None
            ]
        )
    )
    yield (
        "SIGKILLs at random moments over driver, worker and raylet of small runs: report, MLflow and Optuna as if none",
        f"0 lost, 0 doubled, {'met' if not lost and not doubled else '**missed**'}",
        f"{lost} lost, {doubled} doubled; {trained - needed:,} epochs of {needed:,} trained again; "
        f"training went on after (medians): {ends}; n = {len(found['kills'])}",
    )


def outage(found: Json) -> Iterator[Row]:
    lost, doubled = found["lost"], found["doubled"]
    yield (
        f"MLflow's server killed for {number(found['seconds_away'])} s in the middle: MLflow and Optuna as if not",
        f"0 lost, 0 doubled, {'met' if not lost and not doubled else '**missed**'}",
        f"{found['metrics_compared']:,} metrics: {lost} lost, {doubled} doubled; "
        f"{found['epochs_trained_meanwhile']:,} epochs trained meanwhile; n = 1",
    )


def everything(found: Json) -> Iterator[Row]:
    said = (
        f"{number(found['wall_seconds'] / 60)} min: {found['complete']} trainings, {found['epochs_trained']:,} epochs"
    )
    yield f"`{found['what']}` from a clean home", "", f"{said}, n = {found['n']}"


SECTIONS: tuple[Callable[[Json], Iterator[Row]], ...] = (
    table,
    table_favoured,
    sampler,
    loader,
    epoch,
    step,
    step_gpu,
    scale,
    tracking,
    cost_table9,
    trainable_forms,
    kills,
    outage,
    everything,
)


def lines() -> Iterator[str]:
    """The table, then on what and by which command each file was measured."""
    yield "| measured | target | result: median (least to most) | file |"
    yield "|---|---|---|---|"
    sources = []
    for section in SECTIONS:
        path = HERE / "results" / f"{section.__name__}.json"
        if path.is_file():
            found = json.loads(path.read_text(encoding="utf-8"))
            link = f"[{path.stem}](tests/benchmarks/results/{path.name})"
            yield from (f"| {what} | {target} | {result} | {link} |" for what, target, result in section(found))
            commit = found["commit"][:7] + "+" * found["commit"].endswith("+")
            card = found.get("gpu", {}).get("name", "")
            on = ", ".join(filter(None, (card, found["hardware"], found.get("date", ""), f"commit {commit}")))
            sources.append(f"| {link} | `{found['command']}` | {on} |")
    yield from ("", "| file | command | measured on |", "|---|---|---|", *sources)


def main() -> int:
    """Write the table, or check it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    before, begin, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    old, end, after = rest.partition(END)
    assert begin, f"{README} has no {BEGIN}"
    assert end, f"{README} has no {END}"
    new = "\n" + "\n".join(lines()) + "\n"
    if check:
        if new != old:
            print("README.md is not what the results say: python tests/benchmarks/readme.py", file=sys.stderr)
        return int(new != old)
    README.write_text(before + begin + new + end + after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
