"""Predictions against the truth: pairing by name, scores, bootstrap intervals, comparisons. Imports no torch.

Example:
    evaluation = medseg.evaluation.evaluate("masks", "Totalsegmentator_dataset", partial=True)
    pandas.DataFrame(evaluation.rows())
"""

from medseg.evaluation.comparison import compare_evaluations
from medseg.evaluation.pairs import Pairs, by_scan, match
from medseg.evaluation.results import Evaluation, load, save
from medseg.evaluation.scores import evaluate, evaluate_pairs
from medseg.evaluation.sources import Source, dataset_sources, find_sources, read_names

__all__ = [
    "Evaluation",
    "Pairs",
    "Source",
    "by_scan",
    "compare_evaluations",
    "dataset_sources",
    "evaluate",
    "evaluate_pairs",
    "find_sources",
    "load",
    "match",
    "read_names",
    "save",
]
