"""What Table 3 calls 'CIFARResNet-18': the ImageNet ResNet-18 of He et al. (2016), as torchvision has it.

The printed size, 11.7M, is that of this network with the 1000 classes of ImageNet (11,689,512 parameters); with the
ten classes of STL-10 it has 11,181,642. It is none of the three-stage CIFAR ResNets: 7x7 stem with stride 2, 3x3 max
pool, four stages with 64 to 512 channels of two basic blocks each, 1x1 convolutions in the shortcuts.
"""

from __future__ import annotations

from torch import nn


def resnet18(*, in_channels: int = 3, num_classes: int = 10, image_size: int = 96) -> nn.Module:
    """(N, in_channels, H, W) -> (N, num_classes) logits; untrained. Takes every image size from 1.

    Training needs two images or more where the last map is one pixel (up to 32 pixels a side).
    """
    if image_size < 1:
        raise ValueError(f"ResNet-18 takes images of 1 pixel or more a side; got {image_size}")
    from torchvision import models  # takes seconds to import, and no other network needs it

    net = models.resnet18(weights=None, num_classes=num_classes)
    if in_channels != 3:
        net.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
    return net
