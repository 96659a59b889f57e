"""One step of compression as people write it: `prune:macs=0.5,round=8`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from flyweight.errors import CompressError


class Options(BaseModel):
    """What a method can be told; every field has a default but where the method says otherwise."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Step(BaseModel):
    """A method by name, with its options as text."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: str
    options: dict[str, str] = {}

    def __str__(self) -> str:
        """Return it as people write it."""
        return self.method + "".join(
            f"{':' if index == 0 else ','}{key}={value}" for index, (key, value) in enumerate(self.options.items())
        )


def parse_step(text: str) -> Step:
    """Return the step that a text such as "prune:macs=0.5,round=8" means.

    Raises:
        CompressError: It is not of that form, or has an option twice.
    """
    method, _, rest = text.strip().partition(":")
    pairs = [part.partition("=") for part in rest.split(",") if part.strip()]
    if not method or any(not key.strip() or not equals or not value.strip() for key, equals, value in pairs):
        raise CompressError(
            f"the step {text!r} is not of the form method:option=value,option=value", do="write e.g. prune:macs=0.5"
        )
    names = [key.strip() for key, _, _ in pairs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise CompressError(f"the step {text!r} says {twice} twice", do="write each option once")
    return Step(method=method.strip(), options={key.strip(): value.strip() for key, _, value in pairs})


Chosen = TypeVar("Chosen", bound=Options)


def read_options(step: Step, kind: type[Chosen]) -> Chosen:
    """Return the options of a step, checked.

    Raises:
        CompressError: An option is unknown, missing or impossible; all of them are named.
    """
    try:
        return kind.model_validate(step.options)
    except ValidationError as error:
        told = "; ".join(_problem(item, kind) for item in error.errors())
        raise CompressError(
            f"the step {str(step)!r}: {told}",
            do=f"{step.method} takes {', '.join(kind.model_fields) or 'no options'} (docs/compress.md)",
            more=f"docs/compress.md#{step.method}",
        ) from error


def _problem(item: Mapping[str, object], kind: type[Options]) -> str:
    name = ".".join(map(str, item["loc"]))  # type: ignore[call-overload]
    if item["type"] == "extra_forbidden":
        close = difflib.get_close_matches(name, kind.model_fields, n=1)
        return f"there is no option {name!r}" + (f" (did you mean {close[0]!r}?)" if close else "")
    return f"{name + ': ' if name else ''}{item['msg']} (found {item['input']!r})"


def unknown_method(step: Step, known: Iterable[str]) -> CompressError:
    """Say that there is no such method, and which come close."""
    names = list(known)
    close = difflib.get_close_matches(step.method, names, n=3, cutoff=0.4) or names
    return CompressError(f"there is no compression method {step.method!r}", do=f"choose among {', '.join(close)}")
