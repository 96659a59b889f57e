"""Our tiny family at the limits of the published nets: five seeds, float and int8, on the official test parts.

Published (arXiv:2501.15547): 99 % on MNIST and 89 % on Fashion-MNIST with 14,862 parameters, 65 % on CIFAR-10 with
19,622. MLPerf Tiny's ResNet-8: an int8 file of 98,496 bytes with 86.97 % on CIFAR-10. Each row is a shipped recipe.
Each seed is trained, then trained on its int8 levels with itself as the teacher (recipe `qat`), and both are scored
once, as ONNX files through ONNX Runtime, on the full official test part. The float file's channels are padded with
zeros to multiples of 4 where the limit of parameters, zeros counted, allows it. The seed with the best validation
accuracy becomes the bundle; the claim is the mean over all seeds.

    FLYWEIGHT_DATA=DIR python benchmarks/tiny_cnn.py [--only tiny-mnist] [--seeds 5] [--first-seed 0] [--runs DIR]

Stop it anywhere: finished epochs are kept in --runs. Two at a time with --only, one thread each. Then once without
--only: it measures latency on the quiet machine and writes results/tiny_cnn.json and bundles/. With --shipped nothing
is trained: what bundles/ holds is scored and timed.
"""

from __future__ import annotations

from results_file import HERE, Measured, write_results
from shipped import Row, measure, prepare

RESULTS = "tiny_cnn.json"
ROWS = (
    Row("tiny-mnist", "mnist", 0.99, "tiny_mnist_accuracy", 14_862, 30_000),
    Row("tiny-fashion-mnist", "fashion-mnist", 0.89, "tiny_fashion_mnist_accuracy", 14_862, 30_000),
    Row("small-cifar10", "cifar10", 0.8697, "small_cifar10_int8_accuracy", None, 98_496, claimed="int8", seeds=1),
    Row("tiny-cifar10", "cifar10", 0.65, "tiny_cifar10_accuracy", 19_622, 30_000, teacher="small-cifar10"),
)


def main() -> None:
    """Train what is missing; then, without --only, measure, print, and write results and bundles."""
    chosen = prepare(__doc__, ROWS, HERE.parent / "runs" / "tiny", seeds=5)
    measured, details = measure(ROWS, chosen, RESULTS)
    timed = details["tiny-mnist"]["shipped"]["fp32"]["latency"]
    p50 = timed["p50"]
    measured["tiny_mnist_latency_p50_ms"] = Measured(p50["ms"], p50["low_ms"], p50["high_ms"], timed["n"])
    write_results(
        RESULTS,
        measured,
        seeds=range(chosen.seeds),
        conditions={"threads": 1, "batch": 1, "test": "official test parts, through ONNX Runtime"},
        details=details,
    )


if __name__ == "__main__":
    main()
