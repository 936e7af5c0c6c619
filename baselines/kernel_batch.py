"""All kernels of a network in one batched pass: `[layer.kernel() for layer in layers]` with far fewer operations.

Layers of similar size are evaluated together, on the window of the largest among them. A kernel network is a function
of one position, so the smaller windows are cut out of it. All crop sizes take one transfer from the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from baselines.ckconv import CKConv2d
from baselines.filter_products import AxisMasks, axis_positions, masked_features, on_axes
from baselines.flexconv import FlexConv2d, centre
from baselines.masks import both_axes, crop_side, gaussian_mask, moving_axis_masks
from baselines.pointwise import LastLayer, MaskedLinear, affine, matrix
from baselines.stacked_nets import grid_features, kind

KernelLayer = FlexConv2d | CKConv2d
Size = tuple[int, int]


@dataclass(frozen=True)
class Limits:
    """Positions, counted for each layer: the most in one pass, and the most that joining a pass may add in vain."""

    most: int
    in_vain: int


# On the CPU measured with benchmarks/flexnet_kernels.py: one more pass costs as much as about 500 positions. On other
# devices an operation costs more to start than these positions cost; memory alone sets the limit.
CPU, OTHERS = Limits(16384, 512), Limits(65536, 65536)
FEW = 400  # positions of a kernel; with more, `MaskedLinear` is the faster last layer on the CPU


@dataclass(frozen=True)
class Job:
    """A kernel to make. `size`: the crop; `window`: what the kernel has; `extent`: where its network is evaluated."""

    index: int
    layer: KernelLayer
    size: Size
    window: Size
    extent: Size


def crop_sizes(layers: Sequence[KernelLayer]) -> list[Size]:
    """`kernel_size()` of every layer, with one transfer from the device for all whose size is not held."""
    masked = [layer for layer in layers if isinstance(layer, FlexConv2d) and layer.held is None]
    rows = iter(torch.stack([layer.mask_params.detach() for layer in masked]).tolist() if masked else [])

    def size(layer: KernelLayer) -> Size:
        if isinstance(layer, CKConv2d) or layer.held is not None:
            return layer.kernel_size()
        kh, kw = (crop_side(mean, sigma, layer.horizon) for mean, sigma in next(rows))
        return kh, kw

    return [size(layer) for layer in layers]


def reserved_or_cropped(layers: Sequence[KernelLayer]) -> list[Size]:
    """What is reserved for each layer's crop, or else the crop."""
    reserved = [layer.reserved if isinstance(layer, FlexConv2d) else None for layer in layers]
    cropped = iter(crop_sizes([layer for layer, size in zip(layers, reserved, strict=True) if size is None]))
    return [size or next(cropped) for size in reserved]


def batched_kernels(layers: Sequence[KernelLayer]) -> list[Tensor]:
    """`[layer.kernel() for layer in layers]`, each (out, in, kh, kw)."""
    sizes = reserved_or_cropped(layers)
    jobs = [make_job(i, layer, size) for i, (layer, size) in enumerate(zip(layers, sizes, strict=True))]
    kernels = {job.index: kernel for group in groups(jobs) for job, kernel in zip(group, together(group), strict=True)}
    return [kernels[i] for i in range(len(jobs))]


def make_job(index: int, layer: KernelLayer, size: Size) -> Job:
    if isinstance(layer, CKConv2d):
        return Job(index, layer, size, size, size)
    window = layer.window(size)
    return Job(index, layer, size, window, (layer.horizon, layer.horizon) if layer.full_grid else window)


def groups(jobs: Sequence[Job]) -> list[list[Job]]:
    """The jobs in groups that are evaluated together: the same kind of network and mask, similar extents."""
    found: dict[tuple[object, ...], list[list[Job]]] = {}
    for job in sorted(jobs, key=lambda job: area(job.extent)):
        alike = found.setdefault(traits(job.layer), [])
        if alike and may_join(alike[-1], job):
            alike[-1].append(job)
        else:
            alike.append([job])
    return [group for alike in found.values() for group in alike]


def traits(layer: KernelLayer) -> tuple[object, ...]:
    """Equal for layers that can be evaluated together."""
    common = (type(layer), layer.horizon, layer.bias.dtype, *kind(layer.kernel_net))
    if isinstance(layer, CKConv2d):
        return common
    return *common, layer.regrow, layer.reserved is None, layer.multiplies()


def may_join(group: Sequence[Job], job: Job) -> bool:
    limits = CPU if job.layer.bias.device.type == "cpu" else OTHERS
    n, joined = len(group) + 1, area(hull([*group, job]))
    in_vain = n * joined - (n - 1) * area(hull(group)) - area(job.extent)
    return n * joined <= limits.most and in_vain <= limits.in_vain


def hull(group: Sequence[Job]) -> Size:
    """The least extent that holds all of the group's."""
    return max(job.extent[0] for job in group), max(job.extent[1] for job in group)


def area(size: Size) -> int:
    return size[0] * size[1]


def together(group: Sequence[Job]) -> list[Tensor]:
    """The kernels of a group."""
    if multiplies(group[0].layer):
        return fused(group)
    points = centre(group[0].layer.positions, hull(group))
    z = grid_features([job.layer.kernel_net for job in group], points).unflatten(-1, points.shape[1:])
    mask = masks(group, points)
    if mask is None:
        return [readout(job, z_n) for job, z_n in zip(group, z.unbind(), strict=True)]
    if points[0].numel() <= FEW or points.device.type != "cpu":
        return [readout(job, z_n) for job, z_n in zip(group, torch.cat((z * mask, mask), 1).unbind(), strict=True)]
    return [readout(job, z_n, m_n) for job, z_n, m_n in zip(group, z.unbind(), mask.unbind(), strict=True)]


def fused(group: Sequence[Job]) -> list[Tensor]:
    """The same with `FilterProducts`."""
    extent = hull(group)
    x = axis_positions(group[0].layer.positions, extent)
    features = masked_features([job.layer.kernel_net for job in group], x, extent, axis_masks(group, x))
    return [readout(job, z_n.unflatten(1, extent)) for job, z_n in zip(group, features.unbind(), strict=True)]


def multiplies(layer: KernelLayer) -> bool:
    return isinstance(layer, FlexConv2d) and layer.multiplies()


def axis_masks(group: Sequence[Job], x: Tensor) -> Tensor:
    """The masks of both axes of FlexConv layers at positions (k,) -> (G, 2, k)."""
    layers = [job.layer for job in group if isinstance(job.layer, FlexConv2d)]
    first, params = layers[0], torch.stack([layer.mask_params for layer in layers])
    if first.reserved is not None:
        return moving_axis_masks(on_axes(x), params, horizon=first.horizon, regrow=first.regrow).squeeze(-1)
    if all(job.window == job.size for job in group):
        return AxisMasks.apply(x, params)
    found = [layer.axis_masks(on_axes(x), job.size) for layer, job in zip(layers, group, strict=True)]
    return torch.stack(found).squeeze(-1)


def masks(group: Sequence[Job], points: Tensor) -> Tensor | None:
    """The masks (G, 1, kh, kw) at points (2, kh, kw), or None for layers without."""
    layers = [job.layer for job in group if isinstance(job.layer, FlexConv2d)]
    if not layers:
        return None
    first, params = layers[0], torch.stack([layer.mask_params for layer in layers])
    if first.reserved is not None:
        return both_axes(moving_axis_masks(points, params, horizon=first.horizon, regrow=first.regrow)).unsqueeze(1)
    if all(job.window == job.size for job in group):
        return gaussian_mask(points, params).unsqueeze(1)
    found = [layer.mask(points, job.size) for layer, job in zip(layers, group, strict=True)]  # some may regrow: R-24
    return torch.stack(found).unsqueeze(1)


def readout(job: Job, z: Tensor, mask: Tensor | None = None) -> Tensor:
    """A z + a, or m (A z + a) = [A a] [m z; m] with a mask, which may be in z already -> (out, in, kh, kw).

    z: (h, KH, KW) or (h + 1, KH, KW), mask: (1, KH, KW).
    """
    layer, output, z = job.layer, job.layer.kernel_net.output, centre(z, job.extent).flatten(1)
    assert output.bias is not None
    if mask is not None:
        kernel = MaskedLinear.apply(z, centre(mask, job.extent).flatten(1), matrix(output), output.bias)
    elif multiplies(layer):
        kernel = LastLayer.apply(z, output.weight, output.bias)
    elif len(z) > output.in_channels:
        kernel = torch.cat((matrix(output), output.bias.unsqueeze(1)), 1) @ z
    else:
        kernel = affine(output, z)
    return centre(kernel.view(layer.out_channels, layer.in_channels, *job.extent), job.window)
