"""A space of many learning rates, three epochs of digits-LT each; the option `count` says how many there are."""

from dataclasses import replace

from search_spaces.shared import protocol
from study.space import Option, Real, Request, Space
from trainables.work import WORK

LEAST, MOST = 0.001, 0.2


def rates(count: int) -> list[float]:
    """Learning rates, evenly spaced by their logarithms."""
    return [LEAST * (MOST / LEAST) ** (number / count) for number in range(count)]


def space(request: Request) -> Space:
    """One trial for each learning rate: no two share an epoch."""
    config = replace(protocol.base("digits"), epochs=3, milestones=(1,), warmup=1, S=1)
    trials = [
        protocol.trial(replace(config, lr=lr), f"#{number}", {"lr": lr})
        for number, lr in enumerate(rates(int(request.options["count"])))
    ]
    options = (Option("count", "trials", "number"),)
    domain = {"lr": Real(LEAST, MOST)}
    return Space("thousand", "Learning rates", tuple(trials), domain, WORK, ("test/top1",), options=options)
