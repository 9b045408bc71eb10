"""Predictions against truth, of whole data sets: pairing by name, scores, intervals, comparisons. No torch."""

from medseg.evaluation.comparing import compare
from medseg.evaluation.evaluating import Evaluation, evaluate
from medseg.evaluation.pairs import Pairs, match
from medseg.evaluation.results import load, save
from medseg.evaluation.sources import Source, find_sources, read_names

__all__ = [
    "Evaluation",
    "Pairs",
    "Source",
    "compare",
    "evaluate",
    "find_sources",
    "load",
    "match",
    "read_names",
    "save",
]
