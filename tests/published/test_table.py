"""Reading claims: numbers as printed, and every unusable table in three lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from flyweight.errors import DataError, FlyweightError, ModelError
from flyweight.published.audit import audit_files
from flyweight.published.numbers import read_number
from flyweight.published.shipped import resolve
from flyweight.published.table import COLUMNS, PAGE, load_table, parse_table

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("text", "value", "half"),
    [
        ("14,862", 14862, 0.5),
        ("28.59", 28.59, 0.005),
        ("+2.5", 2.5, 0.05),
        ("1,234.50", 1234.5, 0.005),
        ("-1", -1, 0.5),
    ],
)
def test_a_number_is_known_to_half_its_last_digit(text: str, value: float, half: float) -> None:
    number = read_number(text)
    assert (number.value, number.half) == pytest.approx((value, half))


def test_a_range_has_two_ends() -> None:
    assert (read_number("1.5..3.5").value, read_number("1.5 to 3.5").upper) == (1.5, 3.5)


@pytest.mark.parametrize("text", ["28,59", "20k", "~5", "1e6", "nan", "", "3.5..1.5", "1..2..3"])
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        read_number(text)


def test_agreement_is_rounding_and_a_thousandth() -> None:
    claim = read_number("28.59")
    assert claim.agrees(28.589128)
    assert claim.agrees(28.6235)
    assert not claim.agrees(28.63)
    assert claim.prints(28.594)
    assert not claim.prints(28.596)


def table(text: str) -> list[str]:
    return [row.model for row in parse_table(text, "mine", "mine.csv")]


def test_the_columns_may_come_in_any_order_and_cells_may_be_empty() -> None:
    rows = parse_table("note,model,params_m\n,resnet18,11.69\n\n,resnet18d,\n", "mine", "mine.csv")
    assert [(row.table, row.line, row.model) for row in rows] == [("mine", 2, "resnet18"), ("mine", 4, "resnet18d")]
    assert rows[1].number("params_m") is None
    assert (rows[0].num_classes, rows[0].image_size, rows[0].states_classes) == (1000, 224, False)


def test_a_known_data_set_fills_in_what_is_not_said() -> None:
    (row,) = parse_table("model,dataset\nresnet18,mnist\n", "mine", "mine.csv")
    assert (row.num_classes, row.image_size, row.in_chans, row.test_images) == (10, 28, 1, 10_000)


@pytest.mark.parametrize(
    ("text", "name"),
    [("CIFAR-10", "cifar10"), ("Tiny ImageNet", "tiny-imagenet"), ("ImageNet", "imagenet-1k"), ("my own", "my own")],
)
def test_usual_spellings_of_data_sets_are_known(text: str, name: str) -> None:
    assert parse_table(f"model,dataset\na,{text}\n", "mine", "mine.csv")[0].text("dataset") == name


BAD = {
    "unknown column": ("model,param_m,acuracy\nresnet18,11,70\n", ["'param_m'", "'acuracy'"], "accuracy"),
    "no network column": ("table,params\na,5\n", ["`model`"], "`model`"),
    "column twice": ("model,model\na,b\n", ["['model']"], "one of each"),
    "no rows": ("model\n", ["no row"], "row"),
    "no header": ("", ["empty"], "header"),
    "number": ("model,params_m,fps\nresnet18,x,0\nvgg11,28,5\n", ["column params_m: 'x'", "column fps"], "cells"),
    "comma": ('model,params_m\nresnet18,"28,59"\n', ["row 2, column params_m: '28,59'"], "comma"),
    "percent": ("model,accuracy\nresnet18,107\n", ["row 2, column accuracy: '107' is not a percentage"], "cells"),
    "whole": ("model,num_classes\nresnet18,10.5\n", ["a whole number above 0"], "cells"),
    "range": ("model,accuracy\nresnet18,70..80\n", ["not a percentage"], "cells"),
    "no model": ("model,layers,params\n,,5\n", ["row 2 has neither model nor layers"], "cells"),
    "layers": ("model,layers,in_chans\nmine,conv3x3,3\n", ["row 2, column layers: 'conv3x3' is no layer"], "cells"),
    "built": ("model,layers,built\nmine,gap,blur\n", ["row 2, column built: 'blur'"], "cells"),
    "best": ("model,best\nresnet18,maybe\n", ["row 2, column best: 'maybe'"], "cells"),
    "cells": ("model\nresnet18,5\n", ["row 2 has 1 cells more"], "cells"),
    "quotes": ('model\n"resnet18" x\n', ["not a CSV table"], "quote"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_table_is_told_in_three_lines(case: str) -> None:
    text, parts, do = BAD[case]
    with pytest.raises(DataError) as caught:
        table(text)
    assert all(part in caught.value.what for part in ["mine.csv", *parts])
    assert do in caught.value.do
    assert_documented(caught.value)


def test_all_unreadable_cells_are_told_together() -> None:
    rows = "".join(f"resnet18,x{i}\n" for i in range(20))
    with pytest.raises(DataError, match=r"row 2, .*row 13, .*and 8 more"):
        table(f"model,fps\n{rows}")


def test_a_file_that_is_not_there_or_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"model\nr\xe9snet\n")
    with pytest.raises(DataError, match="not UTF-8"):
        load_table(tmp_path / "a.csv")
    with pytest.raises(DataError, match="there is no table"):
        load_table(tmp_path / "b.csv")
    with pytest.raises(DataError, match="there is no table 'tuning_sven'") as caught:
        resolve("tuning_sven")
    assert "tuning_seven" in caught.value.do


def test_a_byte_order_mark_is_no_part_of_the_header(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("\ufeffmodel\nresnet18\n", "utf-8")
    assert load_table(tmp_path / "a.csv")[0].model == "resnet18"


def test_unknown_networks_are_told_together_with_the_closest_names(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("model,built\nresnet81,\nresnet18,torchvision:resnet81\n", "utf-8")
    with pytest.raises(ModelError) as caught:
        audit_files([tmp_path / "a.csv"])
    assert all(part in caught.value.what for part in ("'resnet81' (row 2)", "'torchvision:resnet81' (row 3)"))
    assert "resnet18" in caught.value.do
    assert_documented(caught.value)


def test_an_input_that_a_network_cannot_take_names_the_row(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("model,image_size,params_m\nresnet18,224,11.69\nvgg11,7,5\n", "utf-8")
    with pytest.raises(ModelError, match="a, row 3: vgg11"):
        audit_files([tmp_path / "a.csv"])


def test_the_page_lists_every_column_and_check() -> None:
    from flyweight.published.checks import CHECKS

    page = (ROOT / PAGE).read_text("utf-8")
    assert [name for name in (*COLUMNS, *CHECKS) if f"`{name}`" not in page] == []


def assert_documented(error: FlyweightError) -> None:
    page, _, heading = error.more.partition("#")
    headings = [line.strip("# ").lower().replace(" ", "-") for line in (ROOT / page).read_text("utf-8").splitlines()
                if line.startswith("#")]  # fmt: skip
    assert heading in headings
