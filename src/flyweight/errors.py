"""The errors Flyweight raises, each in three lines: what was found and where · what to do · where to read more.

FlyweightError          exit 1: the user can act
├── DataError           images, labels, archives, splits
├── RecipeError         a recipe key, value or combination
├── ModelError          unknown network, impossible input size, weights that do not fit
├── TrainingError       NaN loss, out of memory at the smallest batch
├── BudgetError         a limit that cannot be read, or that nothing meets
├── DeviceError         an unknown device, or one without measurements
├── CompressError       a compression step that is unknown or cannot be done
├── ExportError         an export that disagrees with the trained model
├── BundleError         a damaged, changed, newer or foreign bundle
├── OrderError          two stages in the wrong order
├── OutputError         nowhere to write, disk full
├── ServeError          a request the HTTP API does not take, or an address it cannot listen on
└── MissingExtraError   an optional package is not installed
FlyweightBug            exit 70: ours
"""

from __future__ import annotations

DOCS = "docs/errors.md"


class FlyweightError(Exception):
    """A problem the user can act on.

    Args:
        what: What is wrong, where, and the value found.
        do: What to do next, with the user's own values.
        more: Page and heading to read; by default the heading of this class in docs/errors.md.
    """

    exit_code = 1
    code = "flyweight"

    def __init__(self, what: str, *, do: str, more: str | None = None) -> None:
        self.what = " ".join(what.split())
        self.do = " ".join(do.split())
        self.more = more or f"{DOCS}#{self.code}"
        super().__init__(f"{self.what}\n  do: {self.do}\n  more: {self.more}")

    def as_dict(self) -> dict[str, str]:
        """Return the three lines and the stable code, as `--json` prints them."""
        return {"error": self.code, "what": self.what, "do": self.do, "more": self.more}

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by fields, so that an error crosses a process border whole."""
        return (_rebuild, (type(self), self.what, self.do, self.more))


def _rebuild(kind: type[FlyweightError], what: str, do: str, more: str) -> FlyweightError:
    return kind(what, do=do, more=more)


class DataError(FlyweightError):
    """Images, labels, archives or splits cannot be used as they are."""

    code = "data"


class RecipeError(FlyweightError):
    """A recipe has an unknown key, an impossible value or a contradiction."""

    code = "recipe"


class ModelError(FlyweightError):
    """A network is unknown or cannot take this input, head or these weights."""

    code = "model"


class TrainingError(FlyweightError):
    """Training cannot go on: the loss is not finite, or memory is too small for one image."""

    code = "training"


class BudgetError(FlyweightError):
    """A budget cannot be read, or nothing meets it."""

    code = "budget"


class DeviceError(FlyweightError):
    """A device is unknown or has no measurements."""

    code = "device"


class CompressError(FlyweightError):
    """A compression step is unknown, or cannot be done to this network or file."""

    code = "compress"


class ExportError(FlyweightError):
    """The exported file disagrees with the trained model, or cannot be made."""

    code = "export"


class BundleError(FlyweightError):
    """A bundle is damaged, changed, from a newer version or not a bundle."""

    code = "bundle"


class OrderError(FlyweightError):
    """A stage was given what belongs before or after another stage."""

    code = "order"


class OutputError(FlyweightError):
    """A result cannot be written."""

    code = "output"


class ServeError(FlyweightError):
    """A request is not one the HTTP API takes now, or it cannot listen where it should.

    Args:
        status: Of the answer.
        retry_after: Seconds after which the same request may be taken; None where it never will be.
    """

    code = "serve"

    def __init__(
        self, what: str, *, do: str, more: str | None = None, status: int = 400, retry_after: int | None = None
    ) -> None:
        super().__init__(what, do=do, more=more)
        self.status, self.retry_after = status, retry_after


class MissingExtraError(FlyweightError):
    """An optional package is needed; the message names the line that installs it."""

    code = "missing-extra"


class FlyweightBug(Exception):
    """Something only we can mend; exit code 70."""

    exit_code = 70
