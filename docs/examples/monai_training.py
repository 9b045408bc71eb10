"""Train a MONAI network with medseg's loss, and segment a volume with its inferer: no bundle, no config."""

import torch
from monai.networks.nets import BasicUNet

from medseg import StreamingInferer, losses

network = BasicUNet(spatial_dims=2, in_channels=1, out_channels=3)
loss, optimizer = losses.DiceCELoss(), torch.optim.AdamW(network.parameters())
for image, label in [(torch.rand(2, 1, 32, 32), torch.randint(3, (2, 1, 32, 32)))] * 5:  # in place of your loader
    optimizer.zero_grad()
    loss(network(image), label).backward()
    optimizer.step()
labels = StreamingInferer((32, 32), overlap=0.5)(torch.rand(1, 1, 48, 48, 5), network)  # (1, 1, I, J, K), class indices
