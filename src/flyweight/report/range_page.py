"""The page of a learning-rate range test."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from flyweight.files import write_json, write_text
from flyweight.report.build import ReportFiles, draw_page

if TYPE_CHECKING:
    from flyweight.train.range_curve import RangeTest


def build_range_report(found: RangeTest, content: dict[str, Any], title: str, out: Path) -> ReportFiles:
    """Write `range.json` and `range.html` into the folder `out`; raises as `report.build.build_report`.

    Args:
        content: What the JSON holds.
    """
    files = ReportFiles(Path(out) / "range.json", Path(out) / "range.html")
    write_json(files.json, content)
    write_text(files.html, draw_page("range.html.j2", {"plot-range": curve(found)}, found=found, title=title))
    return files


def curve(found: RangeTest) -> dict[str, Any]:
    """Return loss against rate (log scale), with the rates that were read from it."""
    raw = {
        "type": "scatter", "mode": "markers", "name": "loss of a batch", "x": found.lrs[: len(found.losses)],
        "y": found.losses, "marker": {"color": "muted", "size": 4},
    }  # fmt: skip
    mean = {
        "type": "scatter", "mode": "lines", "name": "smoothed", "x": found.lrs[: len(found.losses)],
        "y": found.smoothed, "line": {"color": "accent", "width": 2},
    }  # fmt: skip
    marks = (("suggested", found.suggested, "second"), ("diverges", found.diverges, "warn"))
    shapes = [
        {"type": "line", "x0": at, "x1": at, "y0": 0, "y1": 1, "yref": "paper",
         "line": {"color": colour, "width": 1.5, "dash": "dash"},
         "label": {"text": name, "textposition": "end", "font": {"color": colour, "size": 11}}}
        for name, at, colour in marks if at is not None
    ]  # fmt: skip
    axes = {
        "xaxis": {"title": {"text": "learning rate"}, "type": "log", "exponentformat": "power"},
        "yaxis": {"title": {"text": "training loss"}, "range": [0, 1.1 * max(found.smoothed)]},
    }
    return {"data": [raw, mean], "layout": {**axes, "shapes": shapes, "height": 440, "showlegend": True}}
