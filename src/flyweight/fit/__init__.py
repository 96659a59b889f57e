"""The whole way in one call: audit, candidates within the budget, successive halving, export, measure, pick, report."""

from __future__ import annotations

from flyweight.fit.flow import FitRequest, Fitted, Stage, fit

__all__ = ["FitRequest", "Fitted", "Stage", "fit"]
