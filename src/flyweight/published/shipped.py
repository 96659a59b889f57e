"""The example tables that come with Flyweight: three studies of lightweight networks, from their public numbers."""

from __future__ import annotations

import difflib
from pathlib import Path

from flyweight.errors import DataError
from flyweight.published.table import PAGE

FOLDER = Path(__file__).with_name("tables")
# study: (where it was published, its tables)
STUDIES: dict[str, tuple[str, tuple[str, ...]]] = {
    "tuning_seven": (
        "arXiv:2507.23315, the README files of its code (lcnn-opt)",
        ("tuning_seven_v1", "tuning_seven_v2", "tuning_seven_augmentation"),
    ),
    "lightweight_five": ("arXiv:2505.03303v1, second-hand, beside torchvision's own figures", ("lightweight_five",)),
    "tiny_cnn": ("arXiv:2501.15547 and two re-implementations", ("tiny_cnn",)),
}


def resolve(name: str) -> list[Path]:
    """Return the files that a name means: a CSV file, a shipped table, or all tables of a shipped study.

    Raises:
        DataError: Neither a file nor a shipped name.
    """
    if name in STUDIES:
        return [FOLDER / f"{table}.csv" for table in STUDIES[name][1]]
    tables = [table for _, names in STUDIES.values() for table in names]
    if name in tables:
        return [FOLDER / f"{name}.csv"]
    if Path(name).is_file():
        return [Path(name)]
    raise DataError(
        f"there is no table {name!r}, neither a file nor shipped",
        do=f"{_near_names(name, [*STUDIES, *tables])}give a CSV file, or a name of `flyweight audit --list`",
        more=f"{PAGE}#the-file",
    )


def _near_names(name: str, names: list[str]) -> str:
    """Return the closest of `names` as words, or ""."""
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    return f"did you mean {' or '.join(close)}? " if close else ""
