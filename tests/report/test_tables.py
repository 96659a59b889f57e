"""Text in LaTeX: no sign of it is read as a command."""

from __future__ import annotations

from flyweight.report.tables import _escaped


def test_every_special_sign_of_latex_is_escaped() -> None:
    assert _escaped(r"a_b 5% R&D #1 $2 {x}") == r"a\_b 5\% R\&D \#1 \$2 \{x\}"
    assert _escaped("a\\b ~c ^d 4′") == r"a\textbackslash{}b \textasciitilde{}c \textasciicircum{}d 4'"
