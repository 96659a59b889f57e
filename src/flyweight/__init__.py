"""Flyweight: image classifiers that must be small and fast.

The public functions are in `flyweight.api`. Nothing is imported here, so that `flyweight --help` starts at once and a
device needs no torch.
"""

__version__ = "0.1.0"
