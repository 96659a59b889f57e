"""Where the workers of a search run: an engine is one module with `run_workers`, and a line here."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

from flyweight.errors import MissingExtraError, RecipeError
from flyweight.tune.search import Search

ENGINES = {"local": "processes of this machine", "ray": "a Ray cluster (pip install 'flyweight[ray]')"}


def run_workers(engine: str, search: Search, *, jobs: int, until: float | None) -> Iterator[Any]:
    """Yield now and then while `jobs` workers take part in the search, until nothing is left to do.

    Raises:
        RecipeError: There is no such engine.
        MissingExtraError: It is not installed.
        FlyweightError: What a worker raised.
    """
    yield from load_engine(engine).run_workers(search, jobs=jobs, until=until)


def load_engine(engine: str) -> Any:
    """Return the module of an engine.

    Raises:
        RecipeError: There is no such engine.
        MissingExtraError: It is not installed.
    """
    if engine not in ENGINES:
        raise RecipeError(
            f"there is no engine {engine!r}", do=f"choose {' or '.join(ENGINES)}", more="docs/tuning.md#engines"
        )
    try:
        return importlib.import_module(f"flyweight.tune.engines.{engine}")
    except ImportError as error:
        raise MissingExtraError(
            f"the engine {engine} is not installed: {error}", do=f"pip install 'flyweight[{engine}]'"
        ) from error
