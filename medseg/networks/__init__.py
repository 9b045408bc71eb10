"""Networks and their weights.

`SegFormer` needs the extra `segformer`, and loads it when the first one is built.
"""

from medseg.networks.export import to_onnx, to_torchscript
from medseg.networks.segformer import SegFormer
from medseg.networks.weights import load_weights

__all__ = ["SegFormer", "load_weights", "to_onnx", "to_torchscript"]
