"""Metrics by kind, each defined once; `METRICS` has them all."""

from tunewright.evaluation.metrics.base import Kind, Metric, Outcome
from tunewright.evaluation.metrics.registry import METRICS, facts_of, get_metric

__all__ = ["METRICS", "Kind", "Metric", "Outcome", "facts_of", "get_metric"]
