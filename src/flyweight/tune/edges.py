"""Best values that lie at the end of what was searched, where the recipe could go beyond it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

from optuna.trial import FrozenTrial

from flyweight.errors import RecipeError
from flyweight.tune.search import Search
from flyweight.tune.space import Param, Value, keys_of

EDGE = 0.05  # of a range: nearer to its end than this is at its edge
LOOKED_AT = 3  # best trials
LEAST_CHOICES = 3  # of two, one is always at an end

End = Literal["lower", "upper"]


def edges(search: Search, best: Sequence[FrozenTrial]) -> tuple[str, ...]:
    """Return a sentence for each value that most of the best trials have at the end of its range, or of its choices
    where these are numbers in order.

    Args:
        best: Trials, best first.
    """
    looked_at = best[:LOOKED_AT]
    found = []
    for param in search.space.params:
        if not looked_at or param.name not in looked_at[0].params or not _has_ends(param):
            continue
        values = [trial.params[param.name] for trial in looked_at if param.name in trial.params]
        at = [_end_of(param, value) for value in values]
        for end in ("lower", "upper"):
            if 2 * at.count(end) > len(at) and _goes_on(search, param, end, looked_at[0]):
                found.append(_sentence(param, end, values[0]))
    return tuple(found)


def _has_ends(param: Param) -> bool:
    return not param.choices or _ordered(param.choices)


def _ordered(choices: Sequence[Value]) -> bool:
    """True for numbers that only rise, or only fall."""
    if len(choices) < LEAST_CHOICES or any(isinstance(one, bool | str) for one in choices):
        return False
    numbers = [float(one) for one in choices]
    return numbers in (sorted(set(numbers)), sorted(set(numbers), reverse=True))


def _ends(param: Param) -> tuple[float, float]:
    numbers = [float(one) for one in param.choices]
    return (min(numbers), max(numbers)) if numbers else param.range


def _end_of(param: Param, value: Any) -> End | None:
    if param.choices:
        low, high = _ends(param)
        return "lower" if value == low else "upper" if value == high else None
    place = param.place(value)
    return "lower" if place < EDGE else "upper" if place > 1 - EDGE else None


def _goes_on(search: Search, param: Param, end: End, trial: FrozenTrial) -> bool:
    """True where a recipe may have values beyond that end: a warm-up cannot be shorter than none."""
    try:
        search.trial_recipe({**keys_of(search.space.params, trial.params), param.key: _beyond(param, end)})
    except RecipeError:
        return False
    return True


def _beyond(param: Param, end: End) -> float:
    low, high = _ends(param)
    if param.choices:
        return _next_choice(param, end)
    step = max(1.0, EDGE * (high - low)) if param.integer else EDGE * (high - low)
    if end == "lower":
        return low / 2 if param.log else low - step
    return 2 * high if param.log else high + step


def _next_choice(param: Param, end: End) -> float:
    """Return a number as far from the last choice as that from the one before; in ratio, where this would cross 0."""
    first, second, *_ = sorted((float(one) for one in param.choices), reverse=end == "upper")
    beyond = 2 * first - second
    if beyond <= 0 < first:
        beyond = first * first / second
    return math.floor(beyond) if all(isinstance(one, int) for one in param.choices) else beyond


def _sentence(param: Param, end: End, value: Any) -> str:
    where = "choices" if param.choices else "range"
    bound = _ends(param)[0 if end == "lower" else 1]
    return (
        f"{param.name}: the best trials lie at the {end} end of the {where} (best {value:.4g}, end {bound:.4g}); "
        f"a better one may lie beyond: search again with a {end} end further out."
    )
