"""Figure 7: learning speed at four constant learning rates, under the paper's procedure.

    study run figure7                         digits-LT at IF 50, 3 replicates: 1200 epochs of 1200
    study run figure7 --paper                 CIFAR-10-LT at IF 50: 800 epochs of 800 per replicate

Paper: Figure 7 (A.7). The runs are Table 14's, shown as in Figure 2. The paper claims that switching always speeds
small classes up, at some damage to large ones, and that the damage is least with stage-wise rates. Evidence on digits:
exploratory.
"""

from dataclasses import replace

from search_spaces import figure2, figure6
from study.space import Request, Space

view = figure2.view


def space(request: Request) -> Space:
    """Return Table 14's runs of the paper's procedure at constant rates."""
    title = "Figure 7: learning speed of four classes at constant lr, ours"
    return replace(figure6.constant_rates(request, "Our"), name="figure7", title=title)
