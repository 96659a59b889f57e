"""CIFAR-10 in files of one and of five megabytes, and the comparison of five networks beside them.

Published: 94.4 % with 97,530 parameters (cifar10-tiniest). Each row is a shipped recipe; what is claimed is the int8
file's accuracy on the full official test part, of the seed that validates best. The study is what `flyweight reproduce
lightweight_five --scale cpu` measured; its report is copied in.

    FLYWEIGHT_DATA=DIR python benchmarks/lightweight_five.py [--only cifar10-1mb] [--seeds 1] [--runs DIR] [--shipped]

Stop it anywhere: finished epochs are kept in --runs. One thread a run; two at a time with --only. Then once without
--only: it measures latency on the quiet machine and writes results/lightweight_five.json and bundles/. With --shipped
nothing is trained: what bundles/ holds is scored and timed, and the study's report copied in.
"""

from __future__ import annotations

import json

from results_file import HERE, write_results
from shipped import Row, measure, prepare

ROWS = tuple(
    Row(name, "cifar10", 0.944, claim, None, most, claimed="int8", levels=1, mirror=True, alone=True)
    for name, claim, most in (
        ("cifar10-1mb", "cifar10_1mb_accuracy", 1_000_000),
        ("cifar10-5mb", "cifar10_5mb_accuracy", 5_000_000),
    )
)
RESULTS = "lightweight_five.json"
STUDY = HERE.parent / "docs" / "studies" / "lightweight_five-cpu.json"


def main() -> None:
    """Train what is missing; then, without --only, measure, print, and write results and bundles."""
    chosen = prepare(__doc__, ROWS, HERE.parent / "runs" / "tiny", seeds=1)
    measured, details = measure(ROWS, chosen, RESULTS)
    study = {"study": json.loads(STUDY.read_text(encoding="utf-8"))} if STUDY.is_file() else {}
    write_results(
        RESULTS,
        measured,
        seeds=range(chosen.seeds),
        conditions={"threads": 1, "batch": 1, "test": "official test part, through ONNX Runtime"},
        details={**details, **study},
    )


if __name__ == "__main__":
    main()
