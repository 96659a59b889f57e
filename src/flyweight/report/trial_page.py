"""The page of compression trials: the verdict, and what it rests on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flyweight.files import write_text
from flyweight.report.build import draw_page

if TYPE_CHECKING:
    from flyweight.measure.trial import Trial


def build_trial_page(trials: Sequence[Trial], title: str, out: Path, pictures: Mapping[str, bytes]) -> Path:
    """Write `trial.html` into the folder `out` and return it; raises as `report.build.build_report`.

    Args:
        pictures: PNG of images that flipped, by their names in the trials.
    """
    file = Path(out) / "trial.html"
    write_text(file, draw_page("trial.html.j2", {}, trials=trials, title=title, pictures=dict(pictures)))
    return file
