"""From a trained network to what ships: ONNX, a parity check, a card, a bundle.

`from flyweight.export import export` is the whole step; `.onnx`, `.parity`, `.card` and `.bundle` are its parts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flyweight.export.trained import export

__all__ = ["export"]


def __getattr__(name: str) -> Any:
    """Import `export` when it is asked for: its parts are used without the data sets it needs."""
    if name == "export":
        from flyweight.export.trained import export

        return export
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
