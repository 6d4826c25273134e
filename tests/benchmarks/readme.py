"""The tables of README.md in this folder, made from results/*.json. A result without a file has no row.

    python tests/benchmarks/readme.py [--check]

Writes the tables between two comments of README.md. With ``--check`` it writes nothing and exits with 1 if the tables
there differ.
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
README = HERE / "README.md"
BEGIN, END = "<!-- made by tests/benchmarks/readme.py -->", "<!-- end of what was made -->"

Json = dict[str, Any]
Row = tuple[str, str, str]  # what was measured; the target and whether it was met, or "" without one; the result


def between(spread: Json, unit: str = "") -> str:
    """Return "median (least to most)", or the median alone if all values are the same."""
    least, middle, most = (number(spread[name]) for name in ("min", "median", "max"))
    return f"{middle}{unit}" if least == most else f"{middle}{unit} ({least} to {most})"


def number(value: float) -> str:
    """Format a number with three significant digits and separated thousands."""
    return f"{float(f'{value:.3g}'):,.10g}"


def at_least(target: float, *ratios: Json) -> str:
    """Return the target, and whether all values, only the medians, or neither reach it."""
    if all(each["min"] >= target for each in ratios):
        return f"≥ {target:g} ×, met"
    return f"≥ {target:g} ×, {'met by the median' if all(e['median'] >= target for e in ratios) else '**missed**'}"


def at_most(target: str, met: bool) -> str:
    """Return the target, and whether it was met."""
    return f"≤ {target}, {'met' if met else '**missed**'}"


def table(result: Json, script: str = "a plain Ray Tune script", target: float = 5) -> Iterator[Row]:
    times = f"{between(result['plain'])} against {between(result['ours'])} s: {between(result['ratio'])} × faster"
    plain, ours = (result["where_the_time_goes"][side] for side in ("plain", "ours"))
    logged = plain["mlflow_seconds_in_driver"]
    where = f" ({number(logged)} s of its time are Ray's MLflow callback)" if logged else ""
    yield (
        f"Table 9 on digits, one seed, cold: {script} against `study run`",
        at_least(target, result["ratio"]) if target else "",
        f"{times}{where}; {number(plain['epochs_trained'])} against {number(ours['epochs_trained'])} epochs, "
        f"n = {result['n']}",
    )


def table_favoured(result: Json) -> Iterator[Row]:
    yield from table(result, "the script without MLflow, its processes reused,", 0)


def sampler(result: Json) -> Iterator[Row]:
    for peer in dict.fromkeys(case["peer"] for case in result["cases"]):
        cases = [case for case in result["cases"] if case["peer"] == peer]
        for data in dict.fromkeys(case["data"] for case in cases):
            same_data = [case for case in cases if case["data"] == data]
            large = data == "iNaturalist 2018"
            text = "; ".join(
                f"{case['sampler']}: {number(case['peer_ms']['median'])} against "
                f"{number(case['ours_ms']['median'])} ms, {between(case['ratio'])} ×"
                for case in same_data
            )
            target = at_least(20, *(case["ratio"] for case in same_data)) if large else ""
            if large or "linear" not in peer:
                yield f"an epoch's order of {data}: {peer} against ours", target, f"{text}, n = {result['n']}"


def loader(result: Json) -> Iterator[Row]:
    speed = result["images_per_second"]
    for peer, faster in result["ratios"].items():
        text = (
            f"{between(speed[peer])} against {between(speed['ours'])} images/s: {between(faster)} ×, n = {result['n']}"
        )
        yield f"batches of CIFAR's size: {peer}, against ours", at_least(10, faster), text


def epoch(result: Json) -> Iterator[Row]:
    network = result["epoch"]
    seconds, default = network["seconds"], network["default_precision"]
    what = f"an epoch of ResNet-32, {network['images']:,} images of CIFAR's size, one thread: eager"
    for theirs, ours, target, name in (
        ("fp32", "fp32", 1, "fp32 / fp32"),
        ("bf16", "bf16", 1, "bf16 / bf16"),
        ("fp32", default, 2, "eager fp32 / ours default"),
    ):
        ratio = network["ratios"][name]
        times = f"{between(seconds[f'eager {theirs}'])} against {between(seconds[f'ours {ours}'])} s"
        by = f"ours by default ({ours})" if target == 2 else f"ours in {ours}"
        yield (
            f"{what} {theirs} against {by}",
            at_least(target, ratio),
            f"{times}: {between(ratio)} ×, n = {result['n']}",
        )


def step(result: Json) -> Iterator[Row]:
    for network, times in result["networks"].items():
        default = times.get("ours", f"ours {times['default_precision']}")
        yield from _steps(result, network, default, times["ratios"], "by default")
        best = times.get("best_ours", default)
        if best != default and result["device"] == "cuda":
            yield from _steps(result, network, best, times["best_ratios"], "at best")


def _steps(result: Json, network: str, ours: str, ratios: Json, which: str) -> Iterator[Row]:
    ms, floors = result["networks"][network]["ms"], result["floors_ms"]
    what = f"a training step, batch 64, {network}, {result['device'].upper()}"
    for peer, ratio in ratios.items():
        theirs, target, least = f"the best of eager {{{', '.join(floors)}}} × {{layouts}}", 1, ""
        if peer == "public trainer":
            theirs, target = "a public trainer's, data and all,", 10 if result["device"] == "cuda" else 0
            for floor in (floors[kind] for kind in floors if kind in ours):
                arithmetic, memory = number(floor["arithmetic"]), number(floor["memory"])
                least = f"; at least {arithmetic} ms by arithmetic, {memory} by memory"
        yield (
            f"{what}: {theirs} against ours {which} ({ours.removeprefix('ours ')})",
            at_least(target, ratio) if target else "",
            f"{peer}: {between(ms[peer])} against {between(ms[ours])} ms, {between(ratio)} ×{least}, n = {result['n']}",
        )


AT_ONCE = "wall time by the steps of all networks, 1 to 8 ResNet-32 on one GPU"


def step_gpu(result: Json) -> Iterator[Row]:
    yield from step(result)
    compiled = {k: times for k, times in result.get("compiled_ms", {}).items() if isinstance(times, dict)}
    shared = {**result.get("together_ms", {}), "bf16, compiled": compiled}
    for kind, numbers in shared.items():
        for way in ("threads", "in turn"):
            text = "; ".join(f"{k}: {between(times[way])} ms" for k, times in numbers.items())
            if text:
                what = f"{AT_ONCE}, {kind}, recorded, in one process, {way}"
                yield what, "", f"{text}, n = {result['n']}"
    yield from _processes(result)
    yield from _against_memory(result)


def step_mps(result: Json) -> Iterator[Row]:
    yield from _processes(result)


def _against_memory(result: Json) -> Iterator[Row]:
    """Yield how far a step is from the memory traffic of its activations, alone and with others."""
    if result["device"] != "cuda" or "ResNet-32, CIFAR" not in result["networks"]:
        return
    times, floor = result["networks"]["ResNet-32, CIFAR"], result["floors_ms"]["bf16"]["memory"]
    alone, what = times["ms"][times["ours"]]["median"], "against the memory traffic of its activations in bf16"
    for name, ms, most in (
        ("a training step, batch 64, ResNet-32, CIFAR, CUDA, ours by default,", alone, 4),
        ("the same, 8 networks in one process, in turn,", result["together_ms"]["bf16"]["8"]["in turn"]["median"], 2),
    ):
        yield (
            f"{name} {what}",
            at_most(f"{most} ×", ms <= most * floor),
            f"{number(ms)} against {number(floor)} ms, {number(ms / floor)} ×, n = {result['n']}",
        )


def _processes(result: Json) -> Iterator[Row]:
    for mode, numbers in result.get("processes_ms", {}).items():
        if isinstance(numbers, dict):
            text = "; ".join(f"{k}: {number(times['ms'])} ms" for k, times in numbers.items())
            how = f"{result['processes_ms']['precision']}, {mode}"
            served = "with" if result["processes_ms"]["mps"] else "without"
            yield (
                f"{AT_ONCE}, {how}, in processes {served} MPS",
                "",
                f"{text}, n = 1",
            )


def kernels(result: Json) -> Iterator[Row]:
    unit = "kernels" if result["device"] == "cuda" else "operators"
    for name in ("ours", "compiled"):
        if found := result.get(name):
            kinds = "; ".join(
                f"{kind}: {number(row['count'])}, {number(row['ms'])} ms"
                for kind, row in found["kinds"].items()
                if row["ms"] >= 0.01 * found["busy_ms"]
            )
            yield (
                f"{unit} of a training step, batch 64, ResNet-32, CIFAR, {result['device'].upper()}, bf16, {name}",
                "",
                f"{number(found['kernels'])} in {number(found['busy_ms'])} of {number(found['wall_ms'])} ms: {kinds}; "
                f"n = {result['n']}",
            )


def scale(result: Json) -> Iterator[Row]:
    stages = result["stages"]
    costs = "; ".join(
        f"{int(count):,}: {between(cost['beyond_ray_ms'])} ms, n = {cost['n']}" for count, cost in stages.items()
    )
    growth, most = result.get("ratio_10000_to_100"), list(stages)[-1]
    target = at_most("1.2 × at 10,000 of that at 100", growth <= 1.2) if growth else ""
    further = "; ".join(f"{span}: {number(ms)} ms" for span, ms in result["marginal_ms"].items())
    yield (
        "cost of an empty stage beyond bare Ray Tune, by the number of stages",
        target,
        costs + (f"; {number(growth)} ×" if growth else ""),
    )
    if further:
        yield "the same, for each further stage", "", further
    peak = stages[most]["ours_peak_rss_mib"]
    memory = f"{between(peak, ' MiB')}; bare Ray Tune's {between(stages[most]['ray_peak_rss_mib'], ' MiB')}"
    limit = at_most("1 GiB", peak["max"] < 1024) if int(most) >= 10_000 else ""  # the target is for so many
    yield f"the driver's largest memory at {int(most):,} stages", limit, memory


def tracking(result: Json) -> Iterator[Row]:
    sides, ratios = result["sides"], result["ratios"]
    for ours in ("ours", "ours, all rows"):
        text = "; ".join(
            f"{between(sides['callback'][f'{kind}_seconds'])} against {between(sides[ours][f'{kind}_seconds'])} s "
            f"{kind.upper() if kind == 'cpu' else kind}, {between(ratios[f'{ours}, {kind}'])} ×"
            for kind in ("wall", "cpu")
        )
        rows = f"rows a trial: {number(sides['callback']['rows'])} and {number(sides[ours]['rows'])}"
        what = f"the driver's time for MLflow, {result['epochs']} epochs of {result['metrics']} metrics: Ray's callback"
        target = at_least(20, *(ratios[f"{ours}, {kind}"] for kind in ("wall", "cpu")))
        yield f"{what} against {ours}", target, f"{text}; {rows}, n = {result['n']}"


def cost_table9(result: Json) -> Iterator[Row]:
    for case in result["cases"]:
        added = case["added_percent"]
        yield (
            f"store, tracking and report added to digits Table 9, {case['workers']} of {result['cores']} cores "
            "training",
            at_most("5 %", added["median"] <= 5),
            f"{between(added)} % of {between(case['ray_alone'])} s, n = {result['n']}",
        )


def trainable_forms(result: Json) -> Iterator[Row]:
    text = f"{between(result['class'])} and {between(result['function'])} ms, n = {result['n']}"
    yield "an empty stage, in a Trainable's class form and function form", "", text


def kills(result: Json) -> Iterator[Row]:
    rounds = result["runs"]
    lost, doubled, needed, trained = (
        sum(each[kind] for each in rounds) for kind in ("lost", "doubled", "epochs_needed", "epochs_trained")
    )
    ends = "; ".join(
        f"{victim} {number(median(seconds))} s"
        for victim in ("driver", "worker", "raylet")
        if (
            seconds := [
                k["seconds_to_go_on"]
                for k in result["kills"]
                if k["victim"] == victim and k["seconds_to_go_on"] is not None
            ]
        )
    )
    yield (
        "SIGKILLs at random moments to driver, worker and raylet of small runs: report, MLflow and Optuna against an "
        "undisturbed run",
        f"0 lost, 0 doubled, {'met' if not lost and not doubled else '**missed**'}",
        f"{lost} lost, {doubled} doubled; {trained - needed:,} epochs of {needed:,} trained again; "
        f"training went on after (medians): {ends}; n = {len(result['kills'])}",
    )


def stops(result: Json) -> Iterator[Row]:
    rounds = result["rounds"]
    equal = sum(each["equal"] for each in rounds)
    inside = sum(each["stopped_in_mlflow"] for each in rounds)
    yield (
        "drivers stopped by SIGSTOP, taken over by `study resume` and woken up later, tables and searches: report, "
        "MLflow and Optuna against an undisturbed run",
        f"all equal, {'met' if equal == len(rounds) else '**missed**'}",
        f"{equal} of {len(rounds)} equal; {inside} were stopped inside a call to MLflow; n = {len(rounds)}",
    )


def outage(result: Json) -> Iterator[Row]:
    lost, doubled = result["lost"], result["doubled"]
    yield (
        f"MLflow's server killed for {number(result['seconds_away'])} s in the middle of a run: MLflow and Optuna "
        "against an undisturbed run",
        f"0 lost, 0 doubled, {'met' if not lost and not doubled else '**missed**'}",
        f"{result['metrics_compared']:,} metrics: {lost} lost, {doubled} doubled; "
        f"{result['epochs_trained_meanwhile']:,} epochs trained meanwhile; n = 1",
    )


def drill(result: Json) -> Iterator[Row]:
    """Yield a row for each seed."""
    calm = result["undisturbed"]
    for each in result["rounds"]:
        met = each["equal"] and not each["lost"] and not each["doubled"]
        events = "; ".join(f"{one['event']}, {one['after_seconds']:.0f}" for one in each["happened"])
        yield (
            f"a night on a cluster of three machines, seed {each['seed']}: report, MLflow and Optuna against an "
            "undisturbed run",
            f"equal, {'met' if met else '**missed**'}",
            f"{each['epochs_more']} epochs more than {calm['epochs']:,}, {each['seconds_more']} s more than "
            f"{calm['seconds']}. After so many seconds of training: {events}",
        )


def crowd(result: Json) -> Iterator[Row]:
    names = {"listed": "trials that are listed", "searched": "points of a search", "ray": "bare Ray Tune"}
    size = f"stages of {number(result['sleep_seconds'])} s, {result['rounds']} for each worker, n = {result['n']}"
    for workers, sides in result["workers"].items():
        for side, name in names.items():
            each = sides[side]
            free = " / ".join(number(each[f"free_{which}"]["median"]) for which in ("median", "p95", "max"))
            cost = f"{between(each['driver_cpu_ms_a_stage'])} ms a stage"
            distinct = f"; {between(each['distinct_percent'])} % distinct" if side == "searched" else ""
            yield (
                f"{workers} workers, {name}: time until a free worker has its next stage (median / 95 % / most), the "
                "driver's CPU and memory",
                "",
                f"{free} s; {cost}; {between(each['driver_peak_rss_mib'])} MiB{distinct}; {size}",
            )


def thousand(result: Json) -> Iterator[Row]:
    ours, plain = result["ours"], result["plain"]
    what = f"{result['trials']:,} trials of three epochs on four workers: a plain Ray Tune script against `study run`"
    rates = result["trials_a_minute"]
    cpu = f"{between(plain['driver_cpu_seconds'])} against {between(ours['driver_cpu_seconds'])} s"
    memory = f"{between(plain['driver_peak_rss_mib'])} against {between(ours['driver_peak_rss_mib'])} MiB"
    yield (
        what,
        "",
        f"{between(rates['plain'])} against {between(rates['ours'])} trials a minute; the driver's CPU: {cpu}, its "
        f"memory: {memory}; n = {result['n']}",
    )
    status = ours["status_seconds"]
    yield "`study status` in the middle of it", at_most("1 s", status["max"] <= 1), f"{between(status)} s"


def everything(result: Json) -> Iterator[Row]:
    minutes, epochs = number(result["wall_seconds"] / 60), f"{result['epochs_trained']:,}"
    text = f"{minutes} min: {result['complete']} trainings, {epochs} epochs"
    yield f"`{result['what']}` from a clean home", "", f"{text}, n = {result['n']}"


SECTIONS: tuple[Callable[[Json], Iterator[Row]], ...] = (
    table,
    table_favoured,
    sampler,
    loader,
    epoch,
    step,
    step_gpu,
    step_mps,
    kernels,
    scale,
    tracking,
    cost_table9,
    trainable_forms,
    crowd,
    thousand,
    drill,
    kills,
    stops,
    outage,
    everything,
)


def lines() -> Iterator[str]:
    """Yield the table of results, then the table of files: by which command and on what machine each was measured."""
    yield "| measured | target | result: median (least to most) | file |"
    yield "|---|---|---|---|"
    sources = []
    for section in SECTIONS:
        path = HERE / "results" / f"{section.__name__}.json"
        if path.is_file():
            result = json.loads(path.read_text(encoding="utf-8"))
            link = f"[{path.stem}](results/{path.name})"
            yield from (f"| {what} | {target} | {cell} | {link} |" for what, target, cell in section(result))
            commit = result["commit"][:7] + "+" * result["commit"].endswith("+")
            card = result.get("gpu", {}).get("name", "")
            on = ", ".join(filter(None, (card, result["hardware"], result.get("date", ""), f"commit {commit}")))
            sources.append(f"| {link} | `{result['command']}` | {on} |")
    yield from ("", "| file | command | measured on |", "|---|---|---|", *sources)


def main() -> int:
    """Write the tables, or check them."""
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
            print(f"{README} differs from the results. Run: python tests/benchmarks/readme.py", file=sys.stderr)
        return int(new != old)
    README.write_text(before + begin + new + end + after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
