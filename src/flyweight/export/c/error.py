"""What the generator says of an operator without a kernel."""

from __future__ import annotations


class CannotExpress(Exception):
    """No kernel computes this operator.

    Args:
        operator: Its name in the graph.
        where: What it makes, of which shapes.
    """

    def __init__(self, operator: str, where: str) -> None:
        self.operator, self.where = operator, where
        super().__init__(f"{operator} ({where})")
