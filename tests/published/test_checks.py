"""Each check on claims made for it: what it must flag, and what it must leave alone."""

from __future__ import annotations

import pytest

from flyweight.published.audit import audit_rows
from flyweight.published.checks.accuracy import smallest_difference
from flyweight.published.finding import Finding
from flyweight.published.table import parse_table

DUAL = "(conv3x3x10v relu pool2 conv3x3x20v relu pool2 dense10)x2 concat dense32 relu dense10"


def found(*lines: str) -> list[Finding]:
    return list(audit_rows(parse_table("\n".join(lines), "mine", "mine.csv")).findings)


def told(*lines: str) -> list[tuple[str, str]]:
    return [(finding.level, finding.check) for finding in found(*lines)]


@pytest.mark.parametrize(
    ("cells", "why"),
    [
        ("tiny_vit_21m_224,1000,33.21", "head of 21,841 classes"),
        ("mobilenetv3_large_100,1000,4.18", "the classifier dropped and normalisation parameters left out"),
        ("mobilenetv3_large_100,1000,4.20", "the classifier dropped (4,202,032)"),
        ("tf_efficientnetv2_s,1000,21.31", "normalisation parameters left out"),
        ("resnet18,100,11.69", "head of 1,000 classes"),
        ("resnet18,1000,11.18", "the classifier dropped (11,176,512), or with a head of 10 classes (11,181,642)"),
        ("mobilevit_xs,1000,1.27", "another network, mobilevit_xxs"),
        ("resnet18,1000,400.0", "34.22 times"),
    ],
)
def test_a_wrong_parameter_count_is_explained(cells: str, why: str) -> None:
    (finding,) = found("model,num_classes,params_m", cells)
    assert (finding.level, finding.check) == ("wrong", "params_match")
    assert why in finding.explanation


@pytest.mark.parametrize(
    "cells",
    [
        "repvgg_a2,1000,25.50,",
        "repvgg_a2,1000,28.21,rvgg_in1k",
        "resnet18,1000,11.69,",
        "resnet18,1000,11.68,",
        "resnet18,10,11.18,",
        "torchvision:squeezenet1_0,1000,1.248,",
        "tiny_cnn_16,10,,",
    ],
)
def test_a_right_parameter_count_is_left_alone(cells: str) -> None:
    assert told("model,num_classes,params_m,weights", cells) == []


def test_the_training_graph_is_unsupported_where_something_is_deployed() -> None:
    assert told("model,num_classes,params_m", "repvgg_a2,1000,28.21") == [("unsupported", "params_match")]


def test_without_a_number_of_classes_a_parameter_count_is_not_called_wrong() -> None:
    assert told("model,params_m", "resnet18,11.18") == [("unsupported", "params_match")]


def test_macs_called_flops() -> None:
    assert told("model,image_size,flops_g", "convnext_tiny,224,4.46") == [("wrong", "macs_called_flops")]
    assert told("model,image_size,flops_g", "convnext_tiny,224,8.91") == []
    assert told("model,image_size,macs_g", "convnext_tiny,224,4.46") == []
    assert told("model,image_size,macs_g", "convnext_tiny,224,8.91") == [("wrong", "macs_match")]
    assert told("model,image_size,flops_g", "convnext_tiny,224,30") == [("wrong", "flops_match")]
    assert "un-fused" in found("model,image_size,flops_g", "repvgg_a2,224,5.69")[0].explanation
    assert told("model,image_size,macs_g", "repvgg_a2,224,5.69") == [("unsupported", "macs_match")]


def test_macs_at_an_unknown_input_are_not_called_wrong() -> None:
    assert told("model,macs_g", "resnet18,2.4") == [("unsupported", "macs_match")]
    # Adapted to small images, this network has another stem and 0.56 GMACs.
    assert told("model,image_size,macs_g", "resnet18,32,0.56") == [("unsupported", "macs_match")]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ("10,0.10,32", []),  # not 1000
        ("10034,0.10,32", [("wrong", "latency_is_inverse_throughput")]),
        ("10034,0.10,", [("unsupported", "latency_is_inverse_throughput")]),
        ("57.0,17.5,1", []),
        ("2000,16.1,32", []),
        ("2000,,32", []),
    ],
)
def test_latency_that_is_inverse_throughput(cells: str, expected: list[tuple[str, str]]) -> None:
    assert told("model,fps,latency_ms,latency_batch", f"resnet18,{cells}") == expected


def test_the_true_batch_latency_is_given() -> None:
    (finding,) = found("model,fps,latency_ms,latency_batch", "resnet18,1964.99,0.51,32")
    assert finding.counted == "16.3"


def test_latency_that_is_overhead() -> None:
    head = "model,layers,in_chans,image_size,latency_ms,latency_batch"
    assert told(head, f"mine,{DUAL},1,28,13,1") == [("unsupported", "latency_is_overhead")]
    assert told(head, f"mine,{DUAL},1,28,0.5,1") == []
    assert told(head, f"mine,{DUAL},1,28,13,64") == []


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ("0.06,", []),
        ("0.015,", []),
        ("0.17,", [("wrong", "size_matches_params")]),
        (",59448", []),
        (",30000", []),
        (",7000", [("unsupported", "size_matches_params")]),
        (",178344", [("wrong", "size_matches_params")]),
    ],
)
def test_size_against_parameters(cells: str, expected: list[tuple[str, str]]) -> None:
    assert told("model,layers,in_chans,image_size,size_mb,size_bytes", f"mine,{DUAL},1,28,{cells}") == expected


def test_sizes_in_both_kinds_of_megabytes_hold_running_statistics_and_a_name() -> None:
    head = "model,num_classes,size_mb"
    assert told(head, "resnet18,1000,46.8", "resnet18,1000,44.66", "mobilenetv3_small_100,1000,9.829") == []
    (finding,) = found(head, "resnet18,1000,140.3")
    assert "two optimizer slots" in finding.explanation


def test_what_is_built_instead() -> None:
    head = "model,built"
    assert told(head, "mobilevitv2_100,mobilevit_s", "mobilevitv2_100,mobilevit_s") == [("wrong", "built_is_claimed")]
    assert told(head, "efficientnetv2_s,torchvision:efficientnet_v2_s", "resnet18,resnet18") == []


def test_gains() -> None:
    head = "model,accuracy,baseline,gain,seeds"
    assert told(head, "resnet18,80.7,78.5,2.2,3", "resnet18,80.7,78.5,2..3,3") == []
    assert told(head, "resnet18,80.7,78.5,3.2,3") == [("wrong", "gain_arithmetic")]
    assert told(head, "resnet18,80.7,75,1.5..3.5,3") == [("wrong", "gain_arithmetic")]
    repeated = [("unsupported", "gain_repeated")] * 2
    assert told(head, "resnet18,89.45,85.45,,3", "resnet18d,85.51,81.51,,3") == repeated
    assert told(head, "resnet18,89.4,85.4,,3", "resnet18d,85.5,81.5,,3") == []


def test_one_value_printed_twice() -> None:
    head = "table,model,dataset,arm,accuracy,seeds,num_classes,params_m"
    same = [("unsupported", "same_accuracy_everywhere")]
    assert told(head, "a,resnet18,x,base,87.82,3,,", "b,resnet18,x,base,87.83,3,,") == same
    assert told(head, "a,resnet18,x,base,87.8,3,,", "b,resnet18,x,base,87.83,3,,") == []
    assert told(head, "a,resnet18,x,base,87.82,3,,", "b,resnet18,y,base,87.83,3,,") == []
    params = told(head, "a,resnet18,,,,,10,11.18", "b,resnet18,,,,,10,11.69")
    assert params == [("wrong", "params_match"), ("wrong", "same_params_everywhere")]
    assert told(head, "a,repvgg_a2,,,,,1000,25.50", "b,repvgg_a2,,,,,1000,25.50") == []


def test_accuracy_above_what_is_listed() -> None:
    head = "model,dataset,accuracy,seeds,pretrained,weights"
    both = [("unsupported", "accuracy_above_best_listed"), ("unsupported", "accuracy_above_same_net")]
    assert told(head, "resnet18,imagenet-1k,93.84,3,,") == both
    assert told(head, "resnet18,imagenet-1k,80,3,,") == both[1:]
    assert told(head, "resnet18,imagenet-1k,75,3,,", "resnet18,imagenet-1k,93.84,3,jft,") == []
    assert told(head, "resnet18,imagenet-1k,93.84,,,mine", "resnet18,cifar10,95,3,,") == []


def test_a_best_that_is_beaten() -> None:
    head = "model,layers,dataset,accuracy,seeds,best"
    assert told(head, f"mine,{DUAL},mnist,99,3,yes") == [("unsupported", "best_is_beaten")]
    assert told(head, f"mine,{DUAL},mnist,99.5,3,yes", f"mine,{DUAL},mnist,99,3,no") == []


def test_pretraining_on_the_test_images() -> None:
    head = "model,dataset,pretrained"
    assert told(head, "resnet18,tiny-imagenet,imagenet") == [("unsupported", "pretraining_saw_test")]
    assert told(head, "resnet18,Tiny ImageNet,ImageNet-1k") == [("unsupported", "pretraining_saw_test")]
    assert told(head, "resnet18,tiny-imagenet,", "resnet18,cifar10,imagenet") == []


def test_one_run_without_interval() -> None:
    head = "model,dataset,accuracy,seeds,accuracy_low,accuracy_high,weights"
    assert told(head, "resnet18,cifar10,95,,,,") == [("unsupported", "accuracy_without_interval_or_seeds")]
    assert (
        told(head, "resnet18,cifar10,95,3,,,", "resnet18,cifar10,95,,94.5,95.4,", "resnet18,cifar10,95,,,,mine") == []
    )


def test_differences_of_arms_inside_noise() -> None:
    head = "model,dataset,arm,accuracy,seeds"
    steps = ["resnet18,cifar10,a,90.0,3", "resnet18,cifar10,b,92.0,3", "resnet18,cifar10,c,92.3,3"]
    (finding,) = found(head, *steps)
    assert (finding.level, finding.check) == ("unsupported", "differences_inside_noise")
    assert finding.claimed == "b 92.0 → c 92.3"
    assert finding.counted == "0.75 points"
    assert told(head, *steps[:2]) == []
    assert told(head, *(step.replace("cifar10", "my own") for step in steps)) == []  # nobody knows on how many images


def test_a_best_over_the_runner_up_inside_noise() -> None:
    head = "model,dataset,accuracy,seeds,best,weights"
    rows = ["resnet18,cifar10,95.1,3,yes,", "resnet18d,cifar10,95.0,3,,", "resnet10t,cifar10,80,3,,"]
    (finding,) = found(head, *rows)
    assert finding.claimed == "resnet18d 95.0 → resnet18 95.1"
    assert told(head, *(row.replace("yes", "") for row in rows)) == []
    assert told(head, "resnet18,cifar10,95.1,,,x", "resnet18d,cifar10,95.0,,,x") == []
    assert told(head, "resnet18,cifar10,95.1,,yes,x", "resnet18d,cifar10,95.0,,,x") != []


def test_the_smallest_difference_is_that_of_two_shares() -> None:
    first, second = parse_table("model,dataset,accuracy\na,cifar10,90\nb,cifar10,90\n", "mine", "mine.csv")
    assert smallest_difference(first, second) == pytest.approx(100 * 1.96 * (2 * 0.9 * 0.1 / 1e4) ** 0.5, rel=1e-3)
