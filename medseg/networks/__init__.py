"""Networks and their weights."""

from medseg.networks.weights import load_weights

__all__ = ["load_weights"]
