"""Convolution with zero padding and kernels of any odd size: direct, or by FFT where that is faster."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

METHODS = ("auto", "direct", "fft")
LARGEST_LAST = 13  # side of the largest kernel whose direct convolution is fast in channels last on the CPU


def conv2d_same(
    x: Tensor, kernel: Tensor, bias: Tensor | None = None, stride: int = 1, *, method: str = "auto"
) -> Tensor:
    """Cross-correlation with zero padding that keeps the size; of it every `stride`-th row and column, from the first.

    x: (N, Ci, H, W), kernel: (Co, Ci, kh, kw) with odd sides, bias: (Co,) -> (N, Co, ceil(H/stride), ceil(W/stride)).
    method: "direct", "fft", or "auto", which asks `fft_is_faster`. Images in half precision take "fft" in the kernel's.
    Raises `ValueError` for even sides.
    """
    kh, kw = kernel.shape[2:]
    if kh % 2 == 0 or kw % 2 == 0:
        raise ValueError(f"both sides of the kernel must be odd; got {kh} x {kw}")
    check_method(method)
    kernel = reachable(kernel, *x.shape[2:])
    kh, kw = kernel.shape[2:]
    if method == "fft" or (method == "auto" and fft_is_faster(x, kernel, stride)):
        y = fft_conv(x.to(kernel.dtype), kernel)[:, :, ::stride, ::stride]
        return (y if bias is None else y + bias.view(-1, 1, 1)).to(x.dtype)
    return F.conv2d(in_usable_layout(x, kernel), kernel, bias, stride=stride, padding=(kh // 2, kw // 2))


def in_usable_layout(x: Tensor, kernel: Tensor) -> Tensor:
    """The same images, in the usual layout where PyTorch's CPU library has no fast gradient for channels last.

    Measured (AMD EPYC, AVX2, one thread, 24 to 48 channels, 1 or 4 images of 32 x 32), forward and backward: 15 x 15
    takes 1 to 9 s in channels last, but 0.03 to 0.4 s otherwise; up to 13 x 13 channels last is faster, by up to 2.3.
    """
    return x.contiguous() if x.device.type == "cpu" and max(kernel.shape[2:]) > LARGEST_LAST else x


class AutoConv2d(nn.Module):
    """A convolution of stride 1 that keeps the size of its images, of a network of plain layers: by FFT where faster.

    plain: the layer as it was, `conv` alone or after its zero padding (left, right, top, bottom); used elsewhere.
    Images and results: (N, C, H, W), in the same memory layout.
    """

    def __init__(self, plain: nn.Module, conv: nn.Conv2d, padding: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.plain, self.conv = plain, conv
        left, right, top, bottom = padding
        beside, above = max(left, right), max(top, bottom)
        self.to_odd = (beside - left, beside - right, above - top, above - bottom)  # zeros that centre an even kernel

    def forward(self, x: Tensor) -> Tensor:
        if not fft_is_faster(x, self.conv.weight, 1):
            y: Tensor = self.plain(x)
            return y
        y = conv2d_same(x, F.pad(self.conv.weight, self.to_odd), self.conv.bias, method="fft")
        return y.contiguous(memory_format=layout_of(x))


def by_fft_where_faster(network: nn.Module) -> nn.Module:
    """The same network, its convolutions of stride 1 that keep the size as `AutoConv2d`, in place.

    Such a convolution is an `nn.Conv2d`, or an `nn.Sequential` of an `nn.ZeroPad2d` and one that does not pad.
    """
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            found = padded_conv(child)
            if found is not None and keeps_size(*found):
                parent.add_module(name, AutoConv2d(child, *found))
    return network


def padded_conv(layer: nn.Module) -> tuple[nn.Conv2d, tuple[int, int, int, int]] | None:
    """The convolution that a layer is, and its zero padding (left, right, top, bottom); None if it is none."""
    if isinstance(layer, nn.Sequential) and len(layer) == 2 and isinstance(layer[0], nn.ZeroPad2d):
        inner = padded_conv(layer[1])
        return (inner[0], layer[0].padding) if inner is not None and not any(inner[1]) else None
    if not isinstance(layer, nn.Conv2d) or isinstance(layer.padding, str) or layer.padding_mode != "zeros":
        return None
    rows, columns = layer.padding
    return layer, (columns, columns, rows, rows)


def keeps_size(conv: nn.Conv2d, padding: tuple[int, int, int, int]) -> bool:
    """Whether it is dense, of stride 1, and has as many rows and columns in its result as in its images."""
    left, right, top, bottom = padding
    dense = conv.groups == 1 and conv.dilation == (1, 1) and conv.stride == (1, 1)
    return dense and (top + bottom + 1, left + right + 1) == conv.kernel_size


def layout_of(x: Tensor) -> torch.memory_format:
    """Channels last, unless the usual layout fits as well."""
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


def check_method(method: str) -> None:
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}; got {method!r}")


def fft_is_faster(x: Tensor, kernel: Tensor, stride: int) -> bool:
    """Whether the kernel has enough weights, per position that is kept, for x: (N, Ci, H, W) to make up for the FFT.

    CPU: measured, forward and backward, one and two threads (AMD EPYC, AVX-512; batch 64 or 8; 3 x 3 to 13 x 13; direct
    in the faster layout). From 24 channels on the two take the same time between 3 x 3 and 5 x 5 for images of 8 to 32
    pixels a side, and at 5 x 5 for 96 pixels; with 16 channels at 6 x 6, and where 3 become 24 at 11 x 11 to 13 x 13
    (the rule: 10 x 10), as there are more images to transform than products save. With stride 2, not measured, every
    output is computed.
    Elsewhere: not measured. Direct up to 15 x 15, as vendors' libraries are good at it.
    """
    if x.dtype not in (torch.float32, torch.float64):
        return False
    side = math.sqrt(x.shape[2] * x.shape[3])
    enough = 16 + side / 8 if x.device.type == "cpu" else 225
    c_out, c_in, kh, kw = kernel.shape
    products_of_each = c_in * c_out / (c_in + c_out)  # image or output that is transformed
    return kh * kw > enough * stride**2 * max(1.0, 12 / products_of_each)


def fft_conv(x: Tensor, kernel: Tensor) -> Tensor:
    """The same with stride 1, through the frequencies. x: (N, Ci, H, W) -> (N, Co, H, W).

    A convolution of period n = H + (kh - 1) / 2 or more is wrong only in rows that are dropped anyway; so for columns.
    """
    y: Tensor = ThroughFrequencies.apply(x, kernel)  # type: ignore[no-untyped-call]
    return y


class ThroughFrequencies(torch.autograd.Function):
    """`fft_conv`. Convolving with y is, frequency by frequency, a product with Y; with y turned around, with conj(Y).

    Its gradients are convolutions of real images again. Autograd would take the gradient of a real transform through a
    complex one of twice the size. Measured (AMD EPYC, AVX-512; 64 images of 32 x 32, 48 channels, 33 x 33), forward and
    backward, this takes 0.62 of that time with one thread and 0.5 with two.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor) -> Tensor:
        (height, width), (kh, kw) = x.shape[2:], kernel.shape[2:]
        top, left = kh // 2, kw // 2
        ctx.periods = fast_period(height + top), fast_period(width + left)
        ctx.image_size, ctx.kernel_size, ctx.layout = (height, width), (kh, kw), layout_of(x)
        x_hat = to_frequencies(x, ctx.periods)  # (F, N, Ci)
        kernel_hat = to_frequencies(kernel.transpose(0, 1).flip(2, 3), ctx.periods)  # (F, Ci, Co)
        ctx.save_for_backward(x_hat, kernel_hat)
        return from_frequencies(x_hat @ kernel_hat, ctx.periods, (height, width), (top, left))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x_hat, kernel_hat = ctx.saved_tensors
        grad_x = grad_kernel = None
        top, left = (k // 2 for k in ctx.kernel_size)
        grad_hat = to_frequencies(grad, ctx.periods, (top, left))  # (F, N, Co)
        if ctx.needs_input_grad[0]:
            grad_x = from_frequencies(grad_hat @ kernel_hat.mH, ctx.periods, ctx.image_size)
            if ctx.layout == torch.channels_last:  # in which the layers before are fast
                grad_x = grad_x.contiguous(memory_format=ctx.layout)
        if ctx.needs_input_grad[1]:
            turned = from_frequencies(x_hat.mH @ grad_hat, ctx.periods, ctx.kernel_size)
            grad_kernel = turned.flip(2, 3).transpose(0, 1)
        return grad_x, grad_kernel


def to_frequencies(x: Tensor, periods: tuple[int, int], start: tuple[int, int] = (0, 0)) -> Tensor:
    """Real (A, B, H, W), placed at `start` within zeros of the periods p x q -> (p (q / 2 + 1), A, B).

    The frequencies move to the front as a plane does, which is what torch's transposing copy is fast at.
    """
    (top, left), (p, q) = start, periods
    height, width = x.shape[2:]
    placed = F.pad(x.contiguous(), (left, q - left - width, top, p - top - height))
    return torch.fft.rfft2(placed).flatten(2).flatten(0, 1).t().contiguous().unflatten(1, x.shape[:2])


def from_frequencies(
    x_hat: Tensor, periods: tuple[int, int], size: tuple[int, int], start: tuple[int, int] = (0, 0)
) -> Tensor:
    """Back: (p (q / 2 + 1), A, B) -> (A, B, *size), the part from `start` on."""
    (top, left), (height, width), (p, q) = start, size, periods
    rows = torch.fft.ifft(x_hat.unflatten(0, (p, q // 2 + 1)), dim=0)[top : top + height]
    return torch.fft.irfft(rows.permute(2, 3, 0, 1), n=q)[..., left : left + width]


def reachable(kernel: Tensor, height: int, width: int) -> Tensor:
    """The kernel without the weights that, for images of this size, only ever meet padding: 2 H - 1 rows at most."""
    top, left = (max(0, k // 2 - side + 1) for k, side in zip(kernel.shape[2:], (height, width), strict=True))
    return kernel[:, :, top : kernel.shape[2] - top, left : kernel.shape[3] - left]


def fast_period(least: int) -> int:
    """The smallest even number from `least` on with no prime factor above 7."""
    n = least + least % 2
    while not is_smooth(n):
        n += 2
    return n


def is_smooth(n: int) -> bool:
    for prime in (2, 3, 5, 7):
        while n % prime == 0:
            n //= prime
    return n == 1
