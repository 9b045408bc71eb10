"""Networks and their weights.

`SegFormer` needs the extra `segformer`, and loads it when the first one is built.
"""

from medseg.networks.segformer import SegFormer, require_variant
from medseg.networks.weights import load_weights

__all__ = ["SegFormer", "load_weights", "require_variant"]
