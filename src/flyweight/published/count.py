"""What the network of a row costs, and what else a table could have meant. Imports torch only when it counts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from flyweight.errors import MissingExtraError, ModelError
from flyweight.published.layers import count_layers
from flyweight.published.table import PAGE, Row

CLASSES = (1000, 21841, 21843, 10, 100)  # heads that published weights come with


@dataclass(frozen=True)
class Heads:
    """The head of a network: its classes, its parameters per class, and timm's classes for its first weights."""

    classes: int
    per_class: int
    default: int | None


@dataclass(frozen=True)
class NetCount:
    """What a network costs for one image, as trained and as shipped.

    Attributes:
        params: As trained, with the head of the row.
        macs: As trained.
        merged_params: With parallel branches merged (RepVGG, MobileOne …); as `params` for other networks.
        folded_params: With branches merged and batch norms folded into convolutions: as shipped.
        merged_macs: As shipped.
        norms: Scales and shifts of the normalisations, in `params`.
        buffers: Values stored beside the parameters: running statistics.
        heads: The classifier; None for a layer string.
    """

    params: int
    macs: int
    merged_params: int
    folded_params: int
    merged_macs: int
    norms: int = 0
    buffers: int = 0
    heads: Heads | None = None

    @property
    def branched(self) -> bool:
        """True when the network trains with parallel branches that are merged before it is used."""
        return self.merged_macs < 0.99 * self.macs

    def meant(self) -> Iterator[tuple[str, int]]:
        """Yield what a wrong parameter count may be, the plainest reading first: (how it comes about, the count)."""
        heads = self.heads
        others = [("", 0)]
        if heads:
            default = () if heads.default is None else (heads.default,)
            wanted = dict.fromkeys(k for k in (*default, *CLASSES) if k != heads.classes)
            others += [(f"a head of {k:,} classes", (k - heads.classes) * heads.per_class) for k in wanted]
            others.insert(1, ("the classifier dropped", -heads.classes * heads.per_class))
        for norm_text, norms in (("", 0), ("normalisation parameters left out", self.norms)):
            for head_text, change in others:
                text = " and ".join(part for part in (head_text, norm_text) if part)
                if text:
                    yield text, self.params + change - norms


def count(row: Row) -> NetCount:
    """Return what the row's network costs on the row's input.

    Raises:
        ModelError: It cannot take this input.
        MissingExtraError: A named network, and torch is not installed.
    """
    return _of(row, "layers" if row.text("layers") else "model")


def count_built(row: Row) -> NetCount:
    """Return what the network of the column `built` costs: a layer string where the row has one, else a name."""
    return _of(row, "built")


def _of(row: Row, column: str) -> NetCount:
    if row.text("layers"):
        return _line(row.text(column), row.in_chans, row.image_size)
    try:
        return named(row.text(column), row.num_classes, row.in_chans, row.image_size)
    except ModelError as error:
        raise ModelError(f"{row.table}, row {row.line}: {error.what}", do=error.do, more=f"{PAGE}#networks") from error


@cache
def named(name: str, num_classes: int, in_chans: int, image_size: int) -> NetCount:
    """Return what a named network costs."""
    _need_torch()
    from flyweight.published.torch_count import count_network

    return count_network(name, num_classes, in_chans, image_size)


def another_net(row: Row, claimed: float, agrees: float) -> tuple[str, int] | None:
    """Return the network of a similar name, or the one in `built`, that has about `claimed` parameters."""
    if row.text("layers"):
        return None
    from flyweight.published.torch_count import relatives

    names = [row.text("built")] if row.text("built") else []
    for name in (*names, *relatives(row.text("model"))):
        try:
            found = named(name, row.num_classes, row.in_chans, row.image_size).params
        except ModelError:  # a relative that does not take this size
            continue
        if abs(found - claimed) <= agrees:
            return name, found
    return None


def check_names(rows: list[Row], where: str) -> None:
    """Raise ModelError that lists every network of the rows that does not exist, with the closest names."""
    wanted: dict[str, Row] = {}
    for row in rows:
        if not row.text("layers"):
            wanted.update({row.text(c): row for c in ("built", "model") if row.text(c) and row.text(c) not in wanted})
    if not wanted:
        return
    _need_torch()
    from flyweight.published.torch_count import check_name

    unknown: dict[str, str] = {}
    for name in wanted:
        try:
            check_name(name)
        except ModelError as error:
            unknown[name] = error.do.partition("?")[0]
    if unknown:
        shown = ", ".join(f"{name!r} (row {wanted[name].line})" for name in unknown)
        hints = "; ".join(f"{name}: {hint}?" for name, hint in unknown.items() if hint.startswith("did you mean"))
        raise ModelError(
            f"{where}: there are no networks called {shown}",
            do=f"{hints + '; or ' if hints else ''}describe them in a column `layers`",
            more=f"{PAGE}#networks",
        )


@cache
def _line(text: str, in_chans: int, image_size: int) -> NetCount:
    found = count_layers(text, in_chans, image_size)
    return NetCount(found.params, found.macs, found.params, found.params, found.macs, buffers=found.buffers)


def _need_torch() -> None:
    try:
        import timm  # noqa: F401
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            "counting named networks needs torch and timm, which are not installed",
            do='pip install "flyweight[train]"',
        ) from error
