"""Flyweight: image classifiers that must be small and fast.

`flyweight.api` has the public functions (`load_data`, `train`, `export`, `measure`, `verify`, `predict`, `fit`). Nothing
is imported here, so that `flyweight --help` starts at once and a device needs no torch.
"""

__version__ = "0.1.0"
