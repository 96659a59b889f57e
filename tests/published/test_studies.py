"""The shipped tables: exactly the errors that counting can find. And a public list that is right: none."""

from __future__ import annotations

from pathlib import Path

import pytest

from flyweight.published.audit import Audited, audit_files
from flyweight.published.shipped import STUDIES, resolve

SEVEN = {
    "convnext_tiny", "efficientnetv2_s", "mobilenetv3_large_100", "mobilevitv2_100", "mobilevitv2_050", "repvgg_a2",
    "tiny_vit_21m_224",
}  # fmt: skip
MOBILEVIT = {"mobilevitv2_100", "mobilevitv2_050"}
# table: {check: networks}
TUNING = {
    "tuning_seven_v1": {
        "built_is_claimed": MOBILEVIT,
        "gain_arithmetic": {*MOBILEVIT, "repvgg_a2", "tiny_vit_21m_224"},
        "gain_repeated": MOBILEVIT,
        "accuracy_above_same_net": {*MOBILEVIT, "repvgg_a2", "tiny_vit_21m_224"},
        "accuracy_without_interval_or_seeds": SEVEN,
    },
    "tuning_seven_v2": {
        "built_is_claimed": MOBILEVIT,
        "params_match": SEVEN - {"convnext_tiny"},
        "macs_called_flops": SEVEN,
        "latency_is_inverse_throughput": SEVEN,
        "accuracy_above_same_net": SEVEN - {"convnext_tiny"},
        "accuracy_above_best_listed": {"tiny_vit_21m_224"},
        "accuracy_without_interval_or_seeds": SEVEN,
    },
    "tuning_seven_augmentation": {
        "built_is_claimed": MOBILEVIT,
        "gain_arithmetic": {"convnext_tiny", "efficientnetv2_s", "mobilenetv3_large_100", "mobilevitv2_100"},
        "same_accuracy_everywhere": SEVEN,
        "accuracy_above_same_net": SEVEN,
        "accuracy_above_best_listed": SEVEN - {"convnext_tiny"},
        "accuracy_without_interval_or_seeds": SEVEN,
        "differences_inside_noise": SEVEN - {"mobilevitv2_100"},
    },
}
FIVE = {
    "lightweight_five": {
        "pretraining_saw_test": {"torchvision:mobilenet_v3_small"},
        "accuracy_without_interval_or_seeds": {"torchvision:mobilenet_v3_small", "torchvision:squeezenet1_1"},
    }
}
DUAL = {"dual_cnn"}
TINY = {
    "arXiv:2501.15547": {
        "size_matches_params": DUAL,
        "latency_is_overhead": DUAL,
        "best_is_beaten": DUAL,
        "accuracy_without_interval_or_seeds": DUAL,
    },
    "Shazer-Nadeem README": {"built_is_claimed": DUAL, "accuracy_without_interval_or_seeds": DUAL},
    "shabanhassan142 report": {
        "built_is_claimed": DUAL,
        "params_match": DUAL,
        "same_params_everywhere": DUAL,
        "accuracy_without_interval_or_seeds": DUAL,
    },
    "shabanhassan142 notebook": {"same_accuracy_everywhere": DUAL, "accuracy_without_interval_or_seeds": DUAL},
}


def as_sets(audited: Audited) -> dict[str, dict[str, set[str]]]:
    found: dict[str, dict[str, set[str]]] = {}
    for finding in audited.findings:
        found.setdefault(finding.table, {}).setdefault(finding.check, set()).add(finding.model)
    return found


@pytest.fixture(scope="module")
def tuning() -> Audited:
    return audit_files(resolve("tuning_seven"))


def test_tuning_seven(tuning: Audited) -> None:
    assert as_sets(tuning) == TUNING


@pytest.mark.parametrize(
    ("model", "why"),
    [
        ("efficientnetv2_s", "normalisation parameters left out"),
        ("mobilenetv3_large_100", "the classifier dropped and normalisation parameters left out (4,177,632)"),
        ("mobilevitv2_100", "normalisation parameters left out"),
        ("mobilevitv2_050", "normalisation parameters left out"),
        ("repvgg_a2", "branches un-fused"),
        ("tiny_vit_21m_224", "a head of 21,841 classes (33,223,825)"),
    ],
)
def test_tuning_seven_says_where_its_parameter_counts_come_from(tuning: Audited, model: str, why: str) -> None:
    (finding,) = [f for f in tuning.findings if (f.check, f.model) == ("params_match", model)]
    assert why in finding.explanation
    assert finding.level == ("unsupported" if model == "repvgg_a2" else "wrong")


def rows(audited: Audited, table: str, check: str) -> list[int]:
    return [found.row for found in audited.findings if (found.table, found.check) == (f"tuning_seven_{table}", check)]


@pytest.mark.parametrize(
    ("error", "table", "check", "wanted"),
    [
        ("MobileNetV3-L without its classifier, TinyViT with the head of ImageNet-22k, RepVGG un-fused", "v2",
         "params_match", [3, 4, 5, 6, 8, 7]),
        ("MobileViT v1 is built under the name of v2", "v1", "built_is_claimed", [8, 10]),
        ("MobileViT v1 is built under the name of v2", "v2", "built_is_claimed", [5, 6]),
        ("MobileViT v1 is built under the name of v2", "augmentation", "built_is_claimed", [17, 22]),
        ("every latency is 1000 / FPS", "v2", "latency_is_inverse_throughput", [2, 3, 4, 5, 6, 7, 8]),
        ("90.94 % is above every network of ImageNet", "v2", "accuracy_above_best_listed", [8]),
        ("90.56 to 93.84 % are too", "augmentation", "accuracy_above_best_listed", [9, 14, 20, 24, 29, 36]),
        ("gains outside 1.5 to 3.5", "v1", "gain_arithmetic", [9, 11, 13, 15]),
        ("gains outside 1.5 to 3.5", "augmentation", "gain_arithmetic", [5, 9, 14, 20]),
        ("+4.00 twice", "v1", "gain_repeated", [9, 11]),
        ("other baselines in v1 than in v2, of the same runs", "augmentation", "same_accuracy_everywhere",
         [2, 7, 12, 17, 22, 27, 32]),
    ],
)  # fmt: skip
def test_each_error_of_tuning_seven_is_found_in_its_rows(
    tuning: Audited, error: str, table: str, check: str, wanted: list[int]
) -> None:
    assert rows(tuning, table, check) == wanted, error


def test_the_baseline_that_is_printed_as_87_82_and_as_87_83_is_named_with_both_places(tuning: Audited) -> None:
    (found,) = [f for f in tuning.findings if (f.check, f.row) == ("same_accuracy_everywhere", 17)]
    assert "87.82 (tuning_seven_v2, row 5) and as 87.83 (tuning_seven_augmentation, row 17)" in found.explanation
    assert "85.45 (tuning_seven_v1, row 8)" in found.explanation


def test_of_v2_alone_only_the_last_digit_of_one_baseline_differs() -> None:
    tables = [*resolve("tuning_seven_v2"), *resolve("tuning_seven_augmentation")]
    found = [f for f in audit_files(tables).findings if f.check == "same_accuracy_everywhere"]
    assert [(f.model, f.claimed, f.counted) for f in found] == [("mobilevitv2_100", "87.83", "87.82")]


def test_tuning_seven_gets_its_true_batch_latencies(tuning: Audited) -> None:
    latencies = [float(f.counted) for f in tuning.findings if f.check == "latency_is_inverse_throughput"]
    assert latencies == [16.3, 9.92, 3.19, 12.7, 10.6, 4.14, 9.48]


def test_lightweight_five() -> None:
    audited = audit_files(resolve("lightweight_five"))
    assert as_sets(audited) == FIVE
    assert audited.count("wrong") == 0


def test_tiny_cnn() -> None:
    audited = audit_files(resolve("tiny_cnn"))
    assert as_sets(audited) == TINY
    wrong = [(f.check, f.row) for f in audited.findings if f.table == "arXiv:2501.15547" and f.level == "wrong"]
    assert wrong == [("size_matches_params", row) for row in (2, 3, 4)]


def test_of_a_public_list_only_the_one_wrong_row_is_flagged() -> None:
    audited = audit_files([Path(__file__).with_name("timm_results.csv")])
    assert len(audited.rows) == 103
    (finding,) = audited.findings
    assert (finding.check, finding.model, finding.claimed) == ("params_match", "tiny_vit_21m_224", "33.2")
    assert "a head of 21,841 classes" in finding.explanation


def test_every_shipped_table_belongs_to_a_study_and_names_its_sources() -> None:
    files = [path for name in STUDIES for path in resolve(name)]
    assert sorted(files) == sorted(files[0].parent.glob("*.csv"))
    for path in files:
        assert path == resolve(path.stem)[0] or path.stem in STUDIES
        assert all(line.rstrip("\n").split(",")[-1] for line in path.read_text("utf-8").splitlines())
