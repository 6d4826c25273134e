"""Figure 5: Figure 2 again, which the paper repeats beside Figures 6 and 7.

    study run figure5                         digits-LT at IF 50, 3 replicates: 447 epochs of 600
    study run figure5 --paper                 CIFAR-10-LT at IF 50: 299 epochs of 400 per replicate

Paper: Figure 5 (A.7). The runs are Figure 2's. Evidence on digits: exploratory.
"""

from dataclasses import replace

from search_spaces import figure2
from study.space import Request, Space

view = figure2.view


def space(request: Request) -> Space:
    """Return Figure 2's runs."""
    title = "Figure 5: learning speed of four classes, stage-wise lr"
    return replace(figure2.space(request), name="figure5", title=title)
