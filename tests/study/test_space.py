"""The dimensions of a search say what they cannot be."""

import pytest

from study.errors import Refusal
from study.space import Choice


@pytest.mark.parametrize("values", [(1, "1", None, True), (True, False), ("a", None)])
def test_choices_are_texts(values):
    with pytest.raises(Refusal) as refused:
        Choice(values)
    assert str(refused.value) == f"values of a Choice must be texts (got {values!r}). Optuna takes 1 for True"
