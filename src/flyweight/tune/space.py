"""What a search may change: values of a recipe with their ranges, as a YAML file. No torch, no Optuna.

Roles as in the Deep Learning Tuning Playbook (Godbole et al. 2023): a scientific value is what the search asks about,
so each of its choices gets the same number of trials; nuisance values are tuned for each choice; fixed ones are set.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from flyweight.errors import RecipeError
from flyweight.models.zoo import ZOO
from flyweight.train.recipe import Recipe

DOCS = "docs/tuning.md#spaces"
ANY = "training"  # the space for any network
Value = bool | int | float | str


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Param(_Part):
    """One value of the recipe and where it may lie: between `low` and `high`, or one of `choices`.

    Attributes:
        key: Of the recipe, as `--set` takes it: `optim.lr`.
        log: True where equal ratios are equal steps.
        integer: True where only whole numbers are taken.
        choices: In place of a range.
        likely: Where a good value is expected; the first trials lie around it. None: the recipe's own, if it is inside.
        when: Other keys and the values they must have for this one to matter.
    """

    key: str
    low: float | None = None
    high: float | None = None
    log: bool = False
    integer: bool = False
    choices: tuple[Value, ...] = ()
    likely: Value | None = None
    role: Literal["nuisance", "scientific"] = "nuisance"
    when: dict[str, tuple[Value, ...]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _can_be_drawn(self) -> Param:
        if self.choices and (self.low is not None or self.high is not None):
            raise ValueError(f"{self.key}: give either choices or low and high")
        if self.choices and len(set(map(repr, self.choices))) < 2:
            raise ValueError(f"{self.key}: one choice {list(self.choices)} is nothing to search; put it under fixed")
        if not self.choices:
            self._check_range()
        if self.role == "scientific" and not self.choices:
            raise ValueError(f"{self.key}: a scientific value needs choices, since each gets the same trials")
        if self.role == "scientific" and self.when:
            raise ValueError(f"{self.key}: a scientific value cannot depend on another (when)")
        if self.likely is not None and not self.holds(self.likely):
            raise ValueError(f"{self.key}: likely {self.likely!r} is not inside")
        return self

    def _check_range(self) -> None:
        if self.low is None or self.high is None:
            raise ValueError(f"{self.key}: give low and high, or choices")
        if not (math.isfinite(self.low) and math.isfinite(self.high)) or self.low >= self.high:
            raise ValueError(f"{self.key}: low {self.low:g} must be below high {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"{self.key}: with log, low must be above 0 (it is {self.low:g})")
        if self.integer and not (self.low.is_integer() and self.high.is_integer()):
            raise ValueError(f"{self.key}: integer, but low {self.low:g} or high {self.high:g} is not")

    @property
    def name(self) -> str:
        """Its name in the study: the key, and the condition where there is one."""
        conditions = ", ".join(f"{key}={'|'.join(map(str, values))}" for key, values in self.when.items())
        return f"{self.key} ({conditions})" if conditions else self.key

    @property
    def range(self) -> tuple[float, float]:
        """Return low and high; only for one without choices."""
        assert self.low is not None, f"{self.key} has choices"
        assert self.high is not None, f"{self.key} has choices"
        return self.low, self.high

    def holds(self, value: Any) -> bool:
        """True where `value` may be drawn."""
        if self.choices:
            return any(type(value) is type(one) and value == one for one in self.choices)
        low, high = self.range
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and low <= value <= high and (not self.integer or float(value).is_integer())

    def place(self, value: float) -> float:
        """Return where in its range a value lies, 0 to 1 in the scale it is searched on."""
        low, high = (math.log(end) if self.log else end for end in self.range)
        return ((math.log(value) if self.log else value) - low) / (high - low)

    def at(self, place: float) -> float | int:
        """Return the value at a place of the range, 0 to 1: the inverse of `place`."""
        low, high = (math.log(end) if self.log else end for end in self.range)
        found = low + (high - low) * min(max(place, 0.0), 1.0)
        value = min(max(math.exp(found) if self.log else found, self.range[0]), self.range[1])
        return round(value) if self.integer else value

    def active(self, values: Mapping[str, Any]) -> bool:
        """True where the values drawn so far, by key, fulfil its condition."""
        return all(key in values and values[key] in allowed for key, allowed in self.when.items())


class Space(_Part):
    """A search space: what is drawn, in this order, and what is fixed.

    Attributes:
        source: Where its ranges and likely values are from.
        families: Of the zoo's networks that it is meant for; it is theirs where no space is named.
    """

    name: str = "custom"
    about: str = ""
    source: str = ""
    families: tuple[str, ...] = ()
    params: tuple[Param, ...] = Field(min_length=1)
    fixed: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _fits_together(self) -> Space:
        for number, param in enumerate(self.params):
            earlier = {one.key: one for one in self.params[:number]}
            for key, values in param.when.items():
                known = earlier.get(key)
                if known is None:
                    raise ValueError(f"{param.key}: when names {key!r}, which is not drawn before it")
                unknown = [value for value in values if not known.holds(value)]
                if unknown:
                    raise ValueError(f"{param.key}: when asks for {key}={unknown[0]!r}, which is never drawn")
            for other in self.params[:number]:
                if other.key == param.key and not _exclude(other, param):
                    raise ValueError(f"{param.key} is drawn twice, and nothing keeps the two apart (when)")
            if param.key in self.fixed:
                raise ValueError(f"{param.key} is both drawn and fixed")
        return self

    @property
    def scientific(self) -> tuple[Param, ...]:
        """The values that the search asks about."""
        return tuple(param for param in self.params if param.role == "scientific")

    def active(self, values: Mapping[str, Any]) -> tuple[Param, ...]:
        """Return the params that matter, given values by key."""
        return tuple(param for param in self.params if param.active(values))

    def recipe(self, base: Recipe, values: Mapping[str, Any]) -> Recipe:
        """Return `base` with the fixed values and with those drawn, by key.

        Raises:
            RecipeError: A key is not one of the recipe's, or the values contradict each other.
        """
        settings = {**self.fixed, **values}
        return base.with_settings([f"{key}={json.dumps(value)}" for key, value in settings.items()])

    def values_of(self, recipe: Recipe) -> dict[str, Any] | None:
        """Return what a recipe has for the params, by key; None where it lies outside."""
        found: dict[str, Any] = {}
        for param in self.params:
            if param.active(found):
                value = _value_at(recipe, param.key)
                if not param.holds(value):
                    return None
                found[param.key] = value
        return found

    def check(self, base: Recipe) -> None:
        """Raise RecipeError where a value of the space makes no recipe: every end, choice and likely value is tried."""
        for param in self.params:
            needed = {key: values[0] for key, values in param.when.items()}
            for value in param.choices or (param.at(0.0), param.at(1.0)):
                self.recipe(base, {**needed, param.key: value})


def load_space(name: str | Path) -> Space:
    """Return a shipped space by name, or one from a YAML file.

    Raises:
        RecipeError: No such space or file, not YAML, unknown keys or impossible ranges (all reported together).
    """
    shipped = shipped_spaces()
    path = Path(name)
    if str(name) in shipped:
        text, where = shipped[str(name)], f"shipped space {str(name)!r}"
    elif path.is_file():
        text, where = path.read_text(encoding="utf-8"), str(path)
    else:
        close = difflib.get_close_matches(str(name), shipped, n=3, cutoff=0.4) or sorted(shipped)
        raise RecipeError(
            f"there is no search space or file {str(name)!r}",
            do=f"name a YAML file or one of: {', '.join(close)}",
            more=DOCS,
        )
    try:
        content = yaml.safe_load(text)
        return Space.model_validate(content)
    except yaml.YAMLError as error:
        raise RecipeError(f"{where} is not YAML: {error}", do="mend that line", more=DOCS) from error
    except ValidationError as error:
        problems = [_problem(one) for one in error.errors()]
        raise RecipeError(
            f"{where}: {len(problems)} problem{'s' * (len(problems) > 1)}: {'; '.join(problems)}",
            do="correct the space; start from a shipped one: flyweight tune --show-space training > space.yaml",
            more=DOCS,
        ) from error


def space_for(network: str) -> str:
    """Return the name of the shipped space for a network's family; `training` for one that the zoo does not list."""
    family = ZOO[network].family if network in ZOO else None
    spaces = {name: Space.model_validate(yaml.safe_load(text)) for name, text in shipped_spaces().items()}
    return next((name for name, space in spaces.items() if family in space.families), ANY)


def shipped_spaces() -> dict[str, str]:
    """Return the YAML text of every shipped space, by name."""
    folder = resources.files("flyweight.tune") / "spaces"
    files = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".yaml")), key=lambda entry: entry.name)
    return {entry.name.removesuffix(".yaml"): entry.read_text(encoding="utf-8") for entry in files}


def _problem(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    message = error["msg"].removeprefix("Value error, ")
    return message if error["type"] == "value_error" else f"{where or 'space'} {message.lower()}"


def _exclude(first: Param, second: Param) -> bool:
    """True where the two are never drawn together."""
    return any(
        key in second.when and not set(map(repr, values)) & set(map(repr, second.when[key]))
        for key, values in first.when.items()
    )


def _value_at(recipe: Recipe, key: str) -> Any:
    found: Any = recipe.model_dump(mode="json")
    for part in key.split("."):
        found = found[int(part)] if isinstance(found, list) and part.isdecimal() else (found or {}).get(part)
    return found


def keys_of(params: Sequence[Param], named: Mapping[str, Any]) -> dict[str, Any]:
    """Return values by key from values by the params' names in the study."""
    return {param.key: named[param.name] for param in params if param.name in named}
