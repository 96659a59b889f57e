"""Post-training int8: weights on 255 levels for each output channel, activations on 256 whose range images give.

Training images calibrate the ranges (ONNX Runtime's calibrators). Layers that lose more than the others can stay in
float: each is quantized alone, and the ones whose answers move most are taken back, as many as it needs and no more.
Hard-swish, sigmoids and products of two maps are not quantized: ONNX Runtime would compute them in float between two
conversions.
Source: ONNX Runtime, "Quantize ONNX models" (static quantization, QDQ); sensitivity by one layer at a time as in Wu et
al. 2020 (arXiv:2004.09602), section 5.2.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from pydantic import Field

from flyweight.compress.files.context import FileContext, Made, answers, refuse_branches
from flyweight.compress.step import Options
from flyweight.errors import CompressError
from flyweight.export.tidy import shorten
from flyweight.measure.statistics import tango

CHUNK = 32  # images that a calibrator holds at once
SELECTION_IMAGES = 4000  # training images, other than those that calibrate
SENSITIVITY_IMAGES = 64
MOST_KEPT = 0.25  # of the layers, at most, are taken back into float
FLIPS = 0.02  # of the images may get another class before layers are taken back
_OPERATORS = [
    "Conv", "Gemm", "MatMul", "Add", "GlobalAveragePool", "AveragePool", "MaxPool", "Concat", "Relu", "Clip", "Reshape",
    "Flatten", "Squeeze", "Unsqueeze", "Transpose",
]  # fmt: skip
_HEAVY = ("Conv", "Gemm", "MatMul")
_PASSING = {"Relu", "Clip", "HardSigmoid", "Sigmoid", "HardSwish", "Conv", "Add", "Mul", "Div", "Reshape"}


class Int8(Options):
    """How ranges are taken, and what stays in float.

    Attributes:
        calibration: minmax: the ends that occurred; percentile: all but the outermost values; entropy: the range whose
            histogram loses least information (ONNX Runtime's, which begins with 128 bins: with few images it has
            nothing to choose between, and is minmax).
        percentile: Share in % that lies inside, for percentile.
        images: Training images that calibrate.
        keep: auto: layers are taken back by sensitivity while accuracy asks for it; none; or names joined by "+":
            first, last, se, or nodes of the graph.
    """

    calibration: Literal["minmax", "percentile", "entropy"] = "minmax"
    percentile: float = Field(default=99.99, gt=50.0, le=100.0)
    images: int = Field(default=256, ge=8)
    keep: str = "auto"


def int8(context: FileContext, options: Int8) -> Made:
    """Return the int8 file of a float one.

    Raises:
        CompressError: The file has an early exit, or a layer to keep does not exist.
    """
    model = context.model()
    refuse_branches(model, "int8")
    images, _ = context.training_images(options.images)
    with _quiet():
        ranges = calibrated(model, images, options)
        if options.keep == "auto":
            kept, tried, reached = _by_sensitivity(context, model, ranges, options)
        else:
            kept, tried, reached = named(model, options.keep), [], True
        content = quantized(model, ranges, kept)
    told = f"ranges of {len(images)} training images, {options.calibration}"
    left = ", ".join(kept) if kept else "none"
    return Made(
        name="int8",
        content=content,
        precision="int8",
        kept=tuple(kept),
        kept_weights=kept_weights(model, kept, content),
        facts={"calibration": options.calibration, "images": len(images), "kept": list(kept), "tried": tried},
        said=(told, f"kept in float: {left}", *([] if reached else [_not_reached(tried, len(kept), context.margin)])),
    )


def _not_reached(tried: Sequence[Mapping[str, Any]], kept: int, margin: float) -> str:
    """Say what keep=auto fell short of with the layers that it took."""
    best = next(one for one in tried if one["kept"] == kept)
    return (
        f"on training images the margin was not reached with {MOST_KEPT:.0%} of the layers in float: with {kept} "
        f"the accuracy changes by {100 * best['change']:+.2f} points (lower end {100 * best['low']:+.2f}, margin "
        f"-{100 * margin:g}), and {100 * best['flips']:.1f} % of the images flip (at most {100 * FLIPS:g} %)"
    )


def calibrated(model: onnx.ModelProto, images: NDArray[np.uint8], options: Int8) -> Any:
    """Return the range of every tensor, as ONNX Runtime's quantizer takes it."""
    from onnxruntime.quantization.calibrate import CalibrationMethod, create_calibrator

    kinds = {
        "minmax": CalibrationMethod.MinMax,
        "percentile": CalibrationMethod.Percentile,
        "entropy": CalibrationMethod.Entropy,
    }
    more = {"percentile": options.percentile} if options.calibration == "percentile" else {}
    with tempfile.TemporaryDirectory(prefix="flyweight-int8-") as folder:
        file = Path(folder) / "float.onnx"
        onnx.save(model, str(file))
        calibrator = create_calibrator(
            file,
            _OPERATORS,
            augmented_model_path=str(Path(folder) / "augmented.onnx"),
            calibrate_method=kinds[options.calibration],
            extra_options=more,
        )
        name = model.graph.input[0].name
        for at in range(0, len(images), CHUNK):
            calibrator.collect_data(_Reader(name, images[at : at + CHUNK]))
        return calibrator.compute_data()


class _Reader:
    """Hands images to a calibrator, as ONNX Runtime's `CalibrationDataReader` asks for."""

    def __init__(self, name: str, images: NDArray[np.uint8]) -> None:
        self._left: Iterator[dict[str, NDArray[np.uint8]]] = iter([{name: images}])

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        return next(self._left, None)

    def __iter__(self) -> _Reader:
        return self

    def __next__(self) -> dict[str, NDArray[np.uint8]]:
        return next(self._left)


def quantized(
    model: onnx.ModelProto, ranges: Any, kept: Sequence[str] = (), only: Sequence[str] = (), *, plain: bool = True
) -> bytes:
    """Return the int8 file.

    Args:
        kept: Nodes that stay in float.
        only: Nodes that alone are quantized; (): all that can be.
        plain: Give tensors short names, as ships.
    """
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    made = onnx.shape_inference.infer_shapes(copy.deepcopy(model))
    quantizer = QDQQuantizer(
        made,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=ranges,
        nodes_to_quantize=list(only),
        nodes_to_exclude=list(kept),
        op_types_to_quantize=_OPERATORS,
        extra_options={"ActivationSymmetric": False, "WeightSymmetric": True},
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    found: onnx.ModelProto = quantizer.model.model
    del found.graph.value_info[:]
    if plain:
        _drop_origin(found)
        shorten(found)
    onnx.checker.check_model(found)
    content: bytes = found.SerializeToString(deterministic=True)
    return content


def heavy_nodes(model: onnx.ModelProto) -> list[str]:
    """Return the names of the nodes that multiply weights, in the order in which they run."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return [n.name for n in model.graph.node if n.op_type in _HEAVY and set(n.input[1:2]) & constants]


def kept_weights(model: onnx.ModelProto, kept: Sequence[str], content: bytes) -> tuple[str, ...]:
    """Return the names that the weights of these nodes have in the int8 file, by their values: its names are short."""
    chosen = {node.input[1] for node in model.graph.node if node.name in set(kept)}
    values = {_values(tensor) for tensor in model.graph.initializer if tensor.name in chosen}
    made = onnx.load_model_from_string(content)
    return tuple(tensor.name for tensor in made.graph.initializer if _values(tensor) in values)


def _values(tensor: onnx.TensorProto) -> tuple[int, tuple[int, ...], bytes]:
    return tensor.data_type, tuple(tensor.dims), onnx.numpy_helper.to_array(tensor).tobytes()


def named(model: onnx.ModelProto, text: str) -> list[str]:
    """Return the nodes that a text such as "first+last+se" means. Raises CompressError."""
    heavy = heavy_nodes(model)
    groups = {"none": [], "first": heavy[:1], "last": heavy[-1:], "se": gates(model)}
    found: dict[str, None] = {}
    for name in filter(None, (part.strip() for part in text.split("+"))):
        if name not in groups and name not in heavy:
            raise CompressError(
                f"int8: there is no layer {name!r} to keep in float among {len(heavy)}",
                do=f"choose first, last, se, or nodes such as {', '.join(heavy[:3])} … {heavy[-1]}",
            )
        found |= dict.fromkeys(groups.get(name, [name]))
    return list(found)


def gates(model: onnx.ModelProto) -> list[str]:
    """Return the layers of squeeze-and-excitation: convolutions from a pooled map to what a map is multiplied by."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    makers = {name: node for node in model.graph.node for name in node.output}
    heavy = set(heavy_nodes(model))
    found = []
    for node in model.graph.node:
        if node.op_type != "Conv" or node.name not in heavy or not _behind_pool(node, makers):
            continue
        if _reaches_product(node, readers):
            found.append(node.name)
    return found


def _behind_pool(node: onnx.NodeProto, makers: dict[str, onnx.NodeProto]) -> bool:
    """True where what a node reads comes from a pooled map, with no more than small layers between."""
    while True:
        made = makers.get(node.input[0])
        if made is None:
            return False
        if made.op_type in {"GlobalAveragePool", "ReduceMean"}:
            return True
        if made.op_type not in _PASSING:
            return False
        node = made


def _reaches_product(node: onnx.NodeProto, readers: dict[str, list[onnx.NodeProto]]) -> bool:
    """True where a node's values, through activations and one more layer, multiply a map."""
    for _ in range(8):
        after = readers.get(node.output[0], [])
        if len(after) != 1:
            return False
        if after[0].op_type == "Mul" and node.op_type in {"HardSigmoid", "Sigmoid", "Clip", "Div", "Mul"}:
            return True
        if after[0].op_type not in _PASSING:
            return False
        node = after[0]
    return False


def _by_sensitivity(
    context: FileContext, model: onnx.ModelProto, ranges: Any, options: Int8
) -> tuple[list[str], list[dict[str, Any]], bool]:
    """Return the layers to take back into float, what was tried on training images, and whether the last was enough."""
    images, labels = context.training_images(SELECTION_IMAGES, skip=options.images)
    floating = answers(context.source.file, images)
    tried: list[dict[str, Any]] = []

    def fine(kept: list[str]) -> bool:
        found = answers(quantized(model, ranges, kept), images)
        was, now = floating.argmax(axis=1) == labels, found.argmax(axis=1) == labels
        change = tango(int((now & ~was).sum()), int((was & ~now).sum()), len(labels))
        flips = float((floating.argmax(axis=1) != found.argmax(axis=1)).mean())
        tried.append({"kept": len(kept), "change": change.value, "low": change.low, "flips": flips})
        return change.low > -context.margin and flips <= FLIPS

    if fine([]):
        return [], tried, True
    order = sensitivity(model, ranges, images[:SENSITIVITY_IMAGES], floating[:SENSITIVITY_IMAGES])
    most = max(1, int(MOST_KEPT * len(order)))
    counts = sorted({min(most, 2**power) for power in range(most.bit_length() + 1)})
    for count in counts:
        kept = [name for name, _ in order[:count]]
        if fine(kept):
            return kept, tried, True
    best = min(range(len(tried)), key=lambda index: (tried[index]["flips"], tried[index]["kept"]))
    return [name for name, _ in order[: tried[best]["kept"]]], tried, False


def sensitivity(
    model: onnx.ModelProto, ranges: Any, images: NDArray[np.uint8], floating: NDArray[np.float32]
) -> list[tuple[str, float]]:
    """Return the layers, the most sensitive first, with the mean square by which logits move when it alone is int8."""
    found = []
    for name in heavy_nodes(model):
        moved = answers(quantized(model, ranges, only=[name], plain=False), images) - floating
        found.append((name, float(np.mean(np.square(moved)))))
    return sorted(found, key=lambda item: -item[1])


def _drop_origin(model: onnx.ModelProto) -> None:
    """Leave out where the weights come from: a kilobyte of text that stands in bundle.json too."""
    kept = [(entry.key, entry.value) for entry in model.metadata_props if entry.key not in {"provenance"}]
    del model.metadata_props[:]
    for key, value in kept:
        model.metadata_props.add(key=key, value=value)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep progress lines, and advice about preprocessing that export has done already, from the user."""
    logger = logging.getLogger()
    level = logger.level
    try:
        logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
