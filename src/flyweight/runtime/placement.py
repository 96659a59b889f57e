"""Where every node of a graph really runs: an engine that lacks an operator on a device quietly takes the processor.

ONNX Runtime records the provider that it assigned each node to (`session.record_ep_graph_assignment_info`), after its
optimizations and fusions; OpenVINO is asked which device takes which operation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flyweight.errors import BundleError
from flyweight.runtime.backends import CUDA, CUDA_PROVIDER, DEFAULT, ENGINES, import_backend

CPU_PROVIDER = "CPUExecutionProvider"
PROVIDERS = {DEFAULT: (CPU_PROVIDER,), CUDA: (CUDA_PROVIDER, CPU_PROVIDER)}


@dataclass(frozen=True)
class Node:
    """A node of the graph as the engine runs it."""

    name: str
    op: str
    provider: str


@dataclass(frozen=True)
class Placement:
    """Where the nodes of a graph run.

    Attributes:
        asked: The provider (of OpenVINO: the device) that all of them were meant for.
    """

    asked: str
    nodes: tuple[Node, ...]

    @property
    def elsewhere(self) -> tuple[Node, ...]:
        """The nodes that run on another one."""
        return tuple(node for node in self.nodes if node.provider != self.asked)

    def __str__(self) -> str:
        if not self.nodes:
            return f"on {self.asked}, which is all this backend has here"
        if not self.elsewhere:
            return f"all {len(self.nodes)} nodes on {self.asked}"
        counts = Counter(f"{node.op} on {node.provider}" for node in self.elsewhere)
        kinds = ", ".join(f"{count} {kind}" for kind, count in counts.most_common())
        return f"{len(self.elsewhere)} of {len(self.nodes)} nodes are not on {self.asked}: {kinds}"


def placement(file: Path, backend: str) -> Placement:
    """Return where the nodes of a model file run with a backend.

    Raises:
        BundleError: The file cannot be loaded, or the backend does not say.
    """
    if backend in PROVIDERS:
        return placed_by_onnxruntime(file, PROVIDERS[backend])
    if backend == "openvino":
        return _placed_by_openvino(file)
    if backend in ENGINES:  # they have the processor alone here: nothing can fall back to it
        return Placement("CPU", ())
    raise BundleError(f"the backend {backend!r} does not say where nodes run", do=f"ask about one of {[*PROVIDERS]}")


def placed_by_onnxruntime(file: Path, providers: Sequence[str]) -> Placement:
    """Return where ONNX Runtime puts the nodes when it is to use `providers`, the first of them wherever it can.

    Raises:
        BundleError: It cannot load the file, or was not built for the first of the providers.
    """
    import onnxruntime

    known = onnxruntime.get_available_providers()
    if providers[0] not in known:
        raise BundleError(f"ONNX Runtime has no {providers[0]!r} here", do=f"use one of {known}")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    try:
        session = onnxruntime.InferenceSession(Path(file).read_bytes(), options, providers=list(providers))
    except Exception as error:  # ONNX Runtime's own errors share no public class
        raise BundleError(f"onnxruntime cannot load {str(file)!r}: {error}", do="export the model again") from error
    parts = session.get_provider_graph_assignment_info()
    nodes = (Node(node.name, node.op_type, part.ep_name) for part in parts for node in part.get_nodes())
    return Placement(providers[0], tuple(nodes))


def _placed_by_openvino(file: Path) -> Placement:
    import_backend("openvino")  # keeps its reports from the network
    import openvino

    from flyweight.runtime.backends.openvino import read

    core = openvino.Core()
    try:
        model = read(core, file)
        takes = core.query_model(model, "CPU")
    except RuntimeError as error:
        raise BundleError(f"openvino cannot load {str(file)!r}: {error}", do="export the model again") from error
    operations = [op for op in model.get_ordered_ops() if op.get_type_name() not in ("Constant", "Parameter", "Result")]
    names = ((op.get_friendly_name(), op.get_type_name()) for op in operations)
    return Placement("CPU", tuple(Node(name, kind, takes.get(name, "no device")) for name, kind in names))
