"""Table 9 in 12 epochs: the file of a user."""

from dataclasses import replace

from search_spaces import table9
from search_spaces.shared import protocol


def space(request):
    whole = table9.space(request)
    (base,) = protocol.bases(request, protocol.CIFAR)
    trials = []
    for each in whole.trials:
        shorter = {"epochs": 12, "milestones": (5, 8), "warmup": 1, "S": 1}
        config = replace(base, first=each.axes["first"], switch=each.axes["switch"], **shorter)
        trials.append(protocol.trial(config, config.combination, each.axes, {}))
    return replace(whole, name="brief", trials=tuple(trials))
