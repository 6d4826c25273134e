"""Figure 6: learning speed at four constant learning rates, under the standard procedure.

    study run figure6                         digits-LT at IF 50, 3 replicates: 1200 epochs of 1200
    study run figure6 --paper                 CIFAR-10-LT at IF 50: 800 epochs of 800 per replicate

Paper: Figure 6 (A.7). The runs are Table 14's, shown as in Figure 2. The paper claims that smaller rates converge
faster down to 0.01, and that 0.001 is too small. Evidence on digits: exploratory.
"""

from dataclasses import replace

from search_spaces import figure2, table14
from search_spaces.shared.protocol import class_counts
from study.space import Request, Space
from trainables.config import Config

view = figure2.view


def space(request: Request) -> Space:
    """Return Table 14's runs of the standard procedure at constant rates."""
    title = "Figure 6: learning speed of four classes at constant lr, standard"
    return replace(constant_rates(request, "Standard"), name="figure6", title=title)


def constant_rates(request: Request, procedure: str) -> Space:
    """Return Table 14's runs of one procedure at constant rates, with a panel for each rate."""
    base = table14.space(request)
    trials = []
    for trial in base.trials:
        class_counts(Config.from_json(trial.config))
        if trial.axes["procedure"] == procedure and trial.axes["rate"] != table14.STAGE_WISE:
            trials.append(replace(trial, row=f"lr = {trial.axes['rate']}"))
    return replace(base, trials=tuple(trials), contrasts=(), evidence=base.evidence and "exploratory")
