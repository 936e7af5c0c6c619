"""Efficient-CapsNet: Mazzia, Salvetti, Chiaberge, "Efficient-CapsNet: Capsule Network with Self-Attention Routing"
(Scientific Reports 2021), for images of 28 x 28 pixels.

Four convolutions and a depthwise one give 16 primary capsules of 8 numbers; self-attention routing, without
iterations, turns them into one capsule of 16 numbers for each class. A capsule's length is its class's score. The
network has 161,824 parameters; the decoder, which regularises training by drawing the image from the capsule of the
true class, has 1,411,344 more. The initialisations are those of Keras, in which the authors' code is written.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

IMAGE_SIZE = 28
CAPSULES, D_IN, D_OUT = 16, 8, 16  # primary capsules, and the numbers in a primary and in a class capsule
M_PLUS, M_MINUS, LAMBDA = 0.9, 0.1, 0.5  # margin loss: wanted lengths, and the weight of the absent classes
RECONSTRUCTION = 0.392  # weight of the mean squared error of a pixel: 0.0005 x 28 x 28
TRUNCATED_STD = 0.87962566103423978  # standard deviation of a standard normal that is cut at +-2


def squash(v: Tensor) -> Tensor:
    """v: (..., D) -> (..., D), the same direction with length 1 - exp(-||v||). A zero capsule stays zero."""
    norm = torch.linalg.vector_norm(v, dim=-1, keepdim=True)
    return -torch.expm1(-norm) * v / (norm + 1e-20)


def route(votes: Tensor, bias: Tensor) -> Tensor:
    """Self-attention routing. votes: (N, K, I, D), u^_ki; bias: (K, I, 1), b -> (N, K, D), squashed.

    a_ki = sum_m u^_ki . u^_km / sqrt(D); c = b + softmax of a over the classes k; s_k = sum_i c_ki u^_ki.
    """
    agreement = votes @ votes.sum(2).unsqueeze(-1) / math.sqrt(votes.shape[-1])  # the sum over m taken first
    c = agreement.softmax(1) + bias
    return squash((c * votes).sum(2))


def lengths(capsules: Tensor) -> Tensor:
    """capsules: (N, K, D) -> (N, K) scores, sqrt(||v||^2 + 1e-7), whose gradient is finite at 0 too."""
    return (capsules.square().sum(-1) + 1e-7).sqrt()


def margin_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """scores: (N, K); labels: (N,) int64 -> the batch's mean of

    sum_k T_k max(0, 0.9 - p_k)^2 + 0.5 (1 - T_k) max(0, p_k - 0.1)^2, with T_k = 1 for the true class.
    """
    present = F.one_hot(labels, scores.shape[1])
    missing, surplus = F.relu(M_PLUS - scores).square(), F.relu(scores - M_MINUS).square()
    return (present * missing + LAMBDA * (1 - present) * surplus).sum(1).mean()


def loss(net: EfficientCapsNet, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """images: (N, C, 28, 28), pixel / 256; labels: (N,) -> scalar training loss, (N, K) scores.

    Margin loss + 0.392 x the mean squared error between the images as fed and as the decoder draws them.
    """
    capsules = net.capsules(images)
    scores = lengths(capsules)
    error = F.mse_loss(net.reconstruct(capsules, labels), images)
    return margin_loss(scores, labels) + RECONSTRUCTION * error, scores


def conv(c_in: int, c_out: int, *, size: int, stride: int = 1) -> nn.Sequential:
    """Convolution without padding, ReLU, and batch norm last, with Keras's constants."""
    batch_norm = nn.BatchNorm2d(c_out, eps=1e-3, momentum=0.01)  # Keras's 0.99 is the share of the old statistics
    return nn.Sequential(nn.Conv2d(c_in, c_out, size, stride=stride), nn.ReLU(inplace=True), batch_norm)


class EfficientCapsNet(nn.Module):
    """(N, in_channels, 28, 28) -> (N, num_classes) scores in 0..1, the lengths of the class capsules."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.shape = (in_channels, IMAGE_SIZE, IMAGE_SIZE)
        channels = CAPSULES * D_IN
        self.features = nn.Sequential(  # sides 24, 22, 20 and 9
            conv(in_channels, 32, size=5),
            conv(32, 64, size=3),
            conv(64, 64, size=3),
            conv(64, channels, size=3, stride=2),
        )
        self.primary = nn.Conv2d(channels, channels, 9, groups=channels)
        self.weight = nn.Parameter(torch.empty(num_classes, CAPSULES, D_IN, D_OUT))
        self.bias = nn.Parameter(torch.zeros(num_classes, CAPSULES, 1))
        self.decoder = nn.Sequential(
            nn.Linear(num_classes * D_OUT, 512),
            nn.ReLU(inplace=True),
            nn.Linear(512, 1024),
            nn.ReLU(inplace=True),
            nn.Linear(1024, math.prod(self.shape)),
            nn.Sigmoid(),
        )
        init_weights(self)

    def forward(self, images: Tensor) -> Tensor:
        return lengths(self.capsules(images))

    def capsules(self, images: Tensor) -> Tensor:
        """(N, C, 28, 28) -> (N, K, 16), one capsule for each class. Raises `ValueError` for images of another shape."""
        if images.shape[1:] != self.shape:
            raise ValueError(f"Efficient-CapsNet was built for images {self.shape}; got {tuple(images.shape[1:])}")
        u = squash(self.primary(self.features(images)).reshape(-1, CAPSULES, D_IN))
        return route(torch.einsum("nid,kide->nkie", u, self.weight), self.bias)

    def reconstruct(self, capsules: Tensor, labels: Tensor) -> Tensor:
        """capsules: (N, K, 16); labels: (N,) -> (N, C, 28, 28) in 0..1, from the capsule of the label alone."""
        present = F.one_hot(labels, capsules.shape[1]).unsqueeze(-1)
        return self.decoder((capsules * present).flatten(1)).unflatten(1, self.shape)


def normal(weight: Tensor, variance: float) -> None:
    """Keras's normal initialisers: cut at two standard deviations, and widened so that the variance is as given."""
    std = math.sqrt(variance) / TRUNCATED_STD
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)


def init_weights(net: EfficientCapsNet) -> None:
    """He normal (2 / fan-in), but for Keras's Glorot defaults in the primary capsules and the last layer."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            normal(module.weight, 2 / module.weight[0].numel())
            assert module.bias is not None
            nn.init.zeros_(module.bias)
    # Keras takes every axis of `weight` but the last two for a kernel's: its fan-in is K x 16 x 8.
    normal(net.weight, 2 / net.weight[..., 0].numel())
    # Glorot uniform. Keras's fan-out of a depthwise kernel counts all output channels: 9 x 9 x 128.
    limit = math.sqrt(6 / (net.primary.weight[0].numel() + net.primary.weight.numel()))  # 0.0240
    nn.init.uniform_(net.primary.weight, -limit, limit)
    last = net.decoder[-2]
    assert isinstance(last, nn.Linear)
    normal(last.weight, 2 / (last.in_features + last.out_features))  # Glorot normal


def efficient_capsnet(*, in_channels: int, num_classes: int, image_size: int) -> EfficientCapsNet:
    """Efficient-CapsNet as for MNIST. Train it by `loss`. Raises `ValueError` for an image size other than 28."""
    if image_size != IMAGE_SIZE:
        raise ValueError(f"Efficient-CapsNet takes images of 28 x 28 pixels; got an image size of {image_size}")
    return EfficientCapsNet(in_channels, num_classes)
