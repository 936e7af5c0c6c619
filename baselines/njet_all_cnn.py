"""N-JetNet-ALLCNN: a reconstruction (R-28). The network was never released; of Table 2 only 0.66M is known of its make.

Base: ALL-CNN-C of Springenberg et al., "Striving for simplicity" (2015). Its two strided 3x3 layers are left out, since
with them no order gives 0.66M. The other 3x3 layers are N-Jet layers of order 2, as is the last 1x1 layer, which
brings the count to 660,314 (10 classes) without a layer that the base lacks. Batch norm follows each layer, as in the
authors' Network in Network; dropout stands where the base has it.

Resolution: each layer before one left out takes over its stride of 2, so that maps are 32, 16 and 8 pixels wide as in
the base. `subsample=False` keeps all at the image's size, as the authors' Network in Network does: same parameters,
eight times the multiplications.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from baselines.njet import NJetConv2d
from baselines.njet_nin import AveragedStack, normed, normed_1x1


def njet_all_cnn(
    order: int = 2,
    *,
    extent: float = 2.0,
    subsample: bool = True,
    in_channels: int,
    num_classes: int,
    image_size: int,
) -> AveragedStack:
    """Raises `ValueError` for images below 5 pixels (2 without subsampling): batch norm could not train with one."""
    least = 5 if subsample else 2
    if image_size < least:
        raise ValueError(f"this N-JetNet-ALLCNN takes images of {least} pixels or more; got {image_size}")
    stride = 2 if subsample else 1

    def njet(c_in: int, c_out: int, stride: int = 1) -> nn.Sequential:
        return normed(NJetConv2d(c_in, c_out, order=order, extent=extent, stride=stride), c_out)

    return AveragedStack(
        OrderedDict(
            drop0=nn.Dropout(0.2),
            njet1=njet(in_channels, 96),
            njet2=njet(96, 96, stride),
            drop1=nn.Dropout(0.5),
            njet3=njet(96, 192),
            njet4=njet(192, 192, stride),
            drop2=nn.Dropout(0.5),
            njet5=njet(192, 192),
            mlp=normed_1x1(192, 192),
            njet6=njet(192, num_classes),
        )
    )
