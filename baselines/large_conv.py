"""Convolution with zero padding and kernels of any odd size: direct, or by FFT where that is faster."""

from __future__ import annotations

import math

import torch
from torch import Tensor
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


def check_method(method: str) -> None:
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}; got {method!r}")


def fft_is_faster(x: Tensor, kernel: Tensor, stride: int) -> bool:
    """Whether the kernel has enough weights, per position that is kept, for x: (N, Ci, H, W) to make up for the FFT.

    CPU: measured, forward and backward, one thread (AMD EPYC, AVX2; batch 64, 16 or 8; 16 to 64 channels; 3 x 3 to
    15 x 15). The two take the same time at 5 x 5 to 7 x 7 for images of 8 to 32 pixels a side, at 9 x 9 for 96 pixels,
    at 11 x 11 to 13 x 13 for one or three channels, and, as every output is computed, at 11 x 11 with stride 2.
    Elsewhere: not measured. Direct up to 15 x 15, as vendors' libraries are good at it.
    """
    if x.dtype not in (torch.float32, torch.float64):
        return False
    side = math.sqrt(x.shape[2] * x.shape[3])
    enough = 32 + side / 2 if x.device.type == "cpu" else 225
    few_channels = min(kernel.shape[:2]) <= 4
    return kernel.shape[2] * kernel.shape[3] > enough * stride**2 * (3 if few_channels else 1)


def fft_conv(x: Tensor, kernel: Tensor) -> Tensor:
    """The same with stride 1, through the frequencies. x: (N, Ci, H, W) -> (N, Co, H, W).

    A convolution of period n = H + (kh - 1) / 2 or more is wrong only in rows that are dropped anyway; so for columns.
    """
    height, width = x.shape[2:]
    top, left = kernel.shape[2] // 2, kernel.shape[3] // 2
    periods = (fast_period(height + top), fast_period(width + left))
    x_hat = torch.fft.rfft2(x, s=periods)
    kernel_hat = torch.fft.rfft2(kernel.flip(2, 3), s=periods)
    by_frequency = kernel_hat.flatten(2).permute(2, 0, 1) @ x_hat.flatten(2).permute(2, 1, 0)  # (F, Co, N)
    y_hat = by_frequency.permute(2, 1, 0).unflatten(2, x_hat.shape[2:])
    return torch.fft.irfft2(y_hat, s=periods)[:, :, top : top + height, left : left + width]


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
