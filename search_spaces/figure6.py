"""Figure 6: learning speed at four constant learning rates, under the standard procedure.

    study run figure6                         digits-LT at IF 50, 3 replicates: 1200 epochs of 1200
    study run figure6 --paper                 CIFAR-10-LT at IF 50: 800 epochs of 800 a replicate

Paper: Figure 6 (A.7). Evidence on digits: exploratory. The runs are Table 14's, and what is shown is Figure 2's. The
paper's claims: smaller rates converge faster down to 0.01, and 0.001 is too small.
"""

from dataclasses import replace

from search_spaces import figure2, table14
from search_spaces.shared.protocol import class_counts
from study.space import Request, Space
from trainables.config import Config

view = figure2.view


def space(request: Request) -> Space:
    """Table 14's runs of the standard procedure at constant rates."""
    title = "Figure 6: learning speed of four classes at constant lr, standard"
    return replace(constant_rates(request, "Standard"), name="figure6", title=title)


def constant_rates(request: Request, procedure: str) -> Space:
    """Table 14's runs of one procedure at constant rates, a panel a rate."""
    made = table14.space(request)
    trials = []
    for each in made.trials:
        class_counts(Config.from_json(each.config))
        if each.axes["procedure"] == procedure and each.axes["rate"] != table14.STAGE_WISE:
            trials.append(replace(each, row=f"lr = {each.axes['rate']}"))
    return replace(made, trials=tuple(trials), contrasts=(), evidence=made.evidence and "exploratory")
