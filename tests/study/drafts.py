"""Plans of small spaces, for tests."""

import json

from hypothesis import strategies as st

from study.machine import Machine
from study.plan import drafting
from study.plan.stored import Plan, Resources
from study.space import Request

CELLS = (("IB", "IB"), ("IB", "CR"))
MORE = (("IB", "CR"), ("IB", "CB"), ("CR", "CB"))
CPU = Machine("cpu", 1)


def draft(*references, replicates=2, request=None, machine=CPU):
    return drafting.draft(references, request or Request(), replicates, machine, Resources())


def stored(drawn):
    """A plan as it comes back from the store."""
    return Plan.from_json(json.loads(json.dumps(drawn.plan.to_json())))


def searched(trials=4, replicates=1, early_stop=0, objectives=(), imbalance=()):
    request = Request(trials=trials, early_stop=early_stop, objectives=objectives, imbalance=imbalance)
    return draft("sampler_search", replicates=replicates, request=request)


def beginnings(drawn):
    """By brute force: what is distinct among the first 1, 2, … epochs of all replicates."""
    return {
        json.dumps([recipe.origin, recipe.epochs[: n + 1]], sort_keys=True)
        for recipe in drawn.recipes.values()
        for n in range(len(recipe.epochs))
    }


OWN = """
    trials = tuple(replace(t, measure="tau_normalised/top1", least=4, provenance="*") if t.row == "IB⇒CR" else t
                   for t in trials)
    return replace(table, """


VALUES = [
    {"first_q": 0.0, "switch_q": 0.3, "S": 1},
    {"first_q": 0.0, "switch_q": -1.0, "S": 1},
    {"first_q": 1.0, "switch_q": -0.7, "S": 9},
    {"first_q": 0.0, "switch_q": 0.3, "S": 20},
]


schedules = st.fixed_dictionaries(
    {"first_q": st.sampled_from([0.0, 1.0]), "switch_q": st.sampled_from([-1.0, 0.5]), "S": st.sampled_from([0, 7, 40])}
)
