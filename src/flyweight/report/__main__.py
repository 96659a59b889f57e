"""`python -m flyweight.report OUT` writes a sample report, to look at the page without training anything."""

from __future__ import annotations

import sys
from pathlib import Path

from flyweight.errors import FlyweightError
from flyweight.report.build import build_report
from flyweight.report.sample import sample_facts


def main(arguments: list[str]) -> int:
    """Write the sample to the folder that is named, and return the exit code."""
    if len(arguments) != 1:
        print("usage: python -m flyweight.report OUT", file=sys.stderr)
        return 2
    try:
        print(build_report(sample_facts(), Path(arguments[0])).html)
    except FlyweightError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
