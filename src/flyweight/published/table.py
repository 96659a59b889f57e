"""A CSV of published claims: one row for each claim about one network. Everything wrong in a file is told at once."""

from __future__ import annotations

import csv
import difflib
import io
from dataclasses import dataclass
from pathlib import Path

from flyweight.errors import DataError
from flyweight.published.datasets import DATASETS, Known, canonical
from flyweight.published.layers import count_layers
from flyweight.published.numbers import Number, read_number

PAGE = "docs/audit-tables.md"
TEXTS = ("table", "model", "label", "built", "layers", "weights", "dataset", "arm", "pretrained", "best", "note")
WHOLE = ("num_classes", "image_size", "in_chans", "test_images", "seeds", "params", "size_bytes", "latency_batch")
PERCENT = ("accuracy", "baseline", "accuracy_low", "accuracy_high")
POSITIVE = ("params_m", "size_mb", "macs_g", "flops_g", "latency_ms", "fps")
COLUMNS = (*TEXTS, *WHOLE, *PERCENT, "gain", *POSITIVE)


@dataclass(frozen=True)
class Row:
    """One claim about one network.

    Attributes:
        table: Name of its table.
        line: Where it ends in the file; the header is line 1.
        texts: The cells that hold words, without empty ones.
        numbers: The cells that hold numbers.
    """

    table: str
    line: int
    texts: dict[str, str]
    numbers: dict[str, Number]

    def text(self, column: str) -> str:
        """Return what a cell says; "" where it is empty."""
        return self.texts.get(column, "")

    def number(self, column: str) -> Number | None:
        """Return the number of a cell; None where it is empty."""
        return self.numbers.get(column)

    @property
    def model(self) -> str:
        """The network that the claim is about: a name of the catalogue, or the label of a layer string."""
        return self.text("model") or self.text("label") or "layers"

    @property
    def fixed(self) -> bool:
        """True for a row that evaluates published weights: nothing was trained, nothing varies."""
        return bool(self.text("weights"))

    @property
    def known(self) -> Known | None:
        """The public data set that the row names, if it is one."""
        return DATASETS.get(self.text("dataset"))

    @property
    def num_classes(self) -> int:
        """Classes of the head: as said, else those of the data set, else ImageNet-1k's."""
        return self._whole("num_classes", self.known.num_classes if self.known else 1000)

    @property
    def states_classes(self) -> bool:
        """True when the classes of the head are not a guess."""
        return "num_classes" in self.numbers or self.known is not None

    @property
    def image_size(self) -> int:
        """Side of the input in px: as said, else the data set's own, else 224."""
        return self._whole("image_size", self.known.image_size if self.known else 224)

    @property
    def in_chans(self) -> int:
        """Channels of the input: as said, else the data set's, else 3."""
        return self._whole("in_chans", self.known.in_chans if self.known else 3)

    @property
    def test_images(self) -> int | None:
        """Images that accuracy was measured on: as said, else the data set's test split; None when not known."""
        said = self.number("test_images")
        return int(said.value) if said else self.known.test_images if self.known else None

    def _whole(self, column: str, otherwise: int) -> int:
        said = self.number(column)
        return int(said.value) if said else otherwise


def load_table(path: Path) -> list[Row]:
    """Return the rows of a CSV file.

    Raises:
        DataError: It cannot be read as a table; the message names every row and column at fault.
    """
    try:
        text = path.read_text("utf-8-sig")
    except (FileNotFoundError, IsADirectoryError) as error:
        raise DataError(f"there is no table {str(path)!r}", do="give a CSV file, or a name of `flyweight audit --list`",
                        more=f"{PAGE}#the-file") from error  # fmt: skip
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8: byte {error.start}", do="save the table as UTF-8",
                        more=f"{PAGE}#the-file") from error  # fmt: skip
    return parse_table(text, path.stem, str(path))


def parse_table(text: str, name: str, where: str) -> list[Row]:
    """Return the rows of a CSV text; `name` is the table's where a row names none, `where` is for messages.

    Raises:
        DataError: As `load_table`.
    """
    try:
        lines = csv.reader(io.StringIO(text), strict=True)
        header = [cell.strip() for cell in next(lines, [])]
        _check_header(header, where)
        cells = [(lines.line_num, row) for row in lines if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise DataError(f"{where} is not a CSV table: {error}", do="quote cells that hold commas or line breaks",
                        more=f"{PAGE}#the-file") from error  # fmt: skip
    if not cells:
        raise DataError(f"{where} has a header but no row", do="add one row per claim", more=f"{PAGE}#the-file")
    problems: list[str] = []
    rows = [
        _row(dict(zip(header, row, strict=False)), line, len(row) - len(header), name, problems) for line, row in cells
    ]
    if problems:
        shown = "; ".join(problems[:12]) + (f"; and {len(problems) - 12} more" if len(problems) > 12 else "")
        raise DataError(
            f"{where}: {shown}",
            do="correct these cells; a cell without a claim stays empty, a comma separates thousands only",
            more=f"{PAGE}#columns",
        )
    return rows


def _check_header(header: list[str], where: str) -> None:
    if not any(header):
        raise DataError(f"{where} is empty", do="begin with a header line such as: table,model,params_m,accuracy",
                        more=f"{PAGE}#the-file")  # fmt: skip
    unknown = [column for column in header if column not in COLUMNS]
    twice = sorted({column for column in header if header.count(column) > 1})
    if unknown:
        near = [f"{column!r}: {_near(column)}" for column in unknown]
        raise DataError(f"{where} has unknown columns {', '.join(map(repr, unknown))}",
                        do=f"rename or drop them; near names: {'; '.join(near)}", more=f"{PAGE}#columns")  # fmt: skip
    if twice:
        raise DataError(f"{where} has the columns {twice} twice", do="keep one of each", more=f"{PAGE}#columns")
    if not {"model", "layers"} & set(header):
        raise DataError(f"{where} has neither a column `model` nor `layers`",
                        do="name the network of each row in a column `model`", more=f"{PAGE}#columns")  # fmt: skip


def _near(column: str) -> str:
    return ", ".join(difflib.get_close_matches(column.lower(), COLUMNS, n=3, cutoff=0.4)) or "none"


def _row(cells: dict[str, str], line: int, extra: int, name: str, problems: list[str]) -> Row:
    texts = {column: cells[column].strip() for column in TEXTS if cells.get(column, "").strip()}
    numbers: dict[str, Number] = {}
    if extra > 0:
        problems.append(f"row {line} has {extra} cells more than the header")
    for column in (*WHOLE, *PERCENT, "gain", *POSITIVE):
        text = cells.get(column, "").strip()
        if not text:
            continue
        try:
            numbers[column] = _checked(column, read_number(text))
        except ValueError:
            problems.append(f"row {line}, column {column}: {text!r} is not {_kind(column)}")
    if texts.get("best", "no") not in ("yes", "no"):
        problems.append(f"row {line}, column best: {texts['best']!r} is not yes or no")
    if "dataset" in texts:
        texts["dataset"] = canonical(texts["dataset"])
    row = Row(texts.pop("table", name), line, texts, numbers)
    _check_network(row, problems)
    return row


def _kind(column: str) -> str:
    if column in WHOLE:
        return "a whole number above 0"
    if column in PERCENT:
        return "a percentage"
    return "a number or a range such as 1.5..3.5" if column == "gain" else "a number above 0"


def _checked(column: str, number: Number) -> Number:
    """Return `number` when this column may hold it."""
    if number.upper is not None and column != "gain":
        raise ValueError(number.text)
    if column in WHOLE and not number.value.is_integer():
        raise ValueError(number.text)
    if column in (*WHOLE, *POSITIVE) and number.value <= 0:
        raise ValueError(number.text)
    if column in PERCENT and not 0 <= number.value <= 100:
        raise ValueError(number.text)
    return number


def _check_network(row: Row, problems: list[str]) -> None:
    if not row.text("model") and not row.text("layers"):
        problems.append(f"row {row.line} has neither model nor layers")
    if not row.text("layers"):
        return
    for column in ("layers", "built"):
        if row.text(column):
            try:
                count_layers(row.text(column), row.in_chans, row.image_size)
            except ValueError as error:
                problems.append(f"row {row.line}, column {column}: {error}")
