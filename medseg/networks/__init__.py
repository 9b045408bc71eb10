"""Networks, their weights, and their export.

`SegFormer` imports the extra `segformer` when the first one is built; ONNX needs the extra `onnx`.
"""

from medseg.networks.export import to_onnx, to_torchscript
from medseg.networks.segformer import SegFormer, require_variant
from medseg.networks.weights import init_weights, load_weights

__all__ = ["SegFormer", "init_weights", "load_weights", "require_variant", "to_onnx", "to_torchscript"]
