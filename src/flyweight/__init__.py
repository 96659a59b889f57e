"""Flyweight: image classifiers that must be small and fast.

The public functions are in `flyweight.api`. Nothing heavy is imported here, so that `flyweight --help` starts at once
and a device needs no torch.
"""

import os

# Since 1.29 ONNX Runtime sends usage to its makers and writes an identifier into the home folder, unless it is told not
# to before it loads (https://github.com/microsoft/onnxruntime/pull/27379). Flyweight is offline; 0 in the environment
# has it so nevertheless.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
