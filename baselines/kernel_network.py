"""What FlexNet, its CKCNN and the ResNet with such layers share: their kernels, made together, and whose size is known.

While masks learn, the host must look at them before each step to know the sizes of the kernels. Two ways without:
`hold` fixes the sizes; `reserve` makes each kernel on a window somewhat larger than its crop, in which the device puts
zeros beyond the crop as it now is. `look`, now and then, renews the windows and tells whether a crop outgrew its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import NamedTuple

import torch
from torch import Tensor, nn

from baselines.flexconv import FlexConv2d
from baselines.kernel_batch import KernelLayer, Size, batched_kernels, crop_sizes
from baselines.large_conv import check_method
from baselines.masks import crop_reach


class Look(NamedTuple):
    """outgrown: layers of which a kernel made since the last look lacked positions; changed: whether windows differ."""

    outgrown: list[str]
    changed: bool


def layers_of(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, KernelLayer]]:
    """The FlexConv and CKConv layers in a module, with their names, in the order of registration."""
    for name, child in module.named_children():
        if isinstance(child, KernelLayer):
            yield prefix + name, child
        else:
            yield from layers_of(child, f"{prefix}{name}.")


def _widened(size: Size, horizon: int, margin: int) -> Size:
    """The window around a crop."""
    kh, kw = (min(max(side + 2 * margin, 3), horizon) for side in size)
    return kh, kw


def _has_room(window: Size, size: Size, horizon: int, room: range) -> bool:
    """Whether a window has as many positions beyond the crop on each side as asked, or ends at the horizon."""
    slack = [(wide - side) // 2 for wide, side in zip(window, size, strict=True)]
    return all(one in room or (wide == horizon and one < room.start) for one, wide in zip(slack, window, strict=True))


class KernelNetwork(nn.Module):
    """A network of FlexConv or CKConv layers, registered in forward order.

    batched: all kernels in one pass; else each layer makes its own, as in the authors' code.
    """

    batched: bool = True
    margin: int | None = None  # positions on each side of the crops that are reserved
    windows: Tensor | None  # (layers, 2), how far they reach from the centre
    outgrown: Tensor | None  # (layers, 2), whether the crop reached farther since the last look

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("windows", None, persistent=False)
        self.register_buffer("outgrown", None, persistent=False)

    def layers(self) -> dict[str, KernelLayer]:
        """The layers by name, in forward order."""
        return dict(layers_of(self))

    def kernels(self) -> list[Tensor]:
        """All kernels, each (out, in, kh, kw), in forward order. `forward` takes them. Never in half precision."""
        layers = list(self.layers().values())
        with torch.autocast(layers[0].bias.device.type, enabled=False):
            self._compare()
            return batched_kernels(layers) if self.batched else [layer.kernel() for layer in layers]

    def use(self, method: str) -> None:
        """How all of its layers convolve: "auto", "direct" or "fft". Raises `ValueError` for other names."""
        check_method(method)
        for layer in self.layers().values():
            layer.method = method

    def fuse(self, on: bool) -> None:
        """Whether FlexConv's kernels come from `baselines/filter_products.py` instead of the plain form. They differ in
        rounding alone.
        """
        for layer in self._with_masks().values():
            layer.fused = on

    def hold(self, size: int | None) -> None:
        """Every kernel is `size` x `size`, and the host knows without a look; None: back to sizes that are looked at.

        Sets the masks: means 0, sigmas in the middle of those that give the size. They may learn on, the size stays;
        after None they are as they are then. Ends `reserve`. Raises `ValueError` for an even size, one above the
        horizon, or layers without masks.
        """
        masked = self._masked("hold") if size is not None else self._with_masks()
        for layer in masked.values():
            if size is not None:
                layer.check_side(size)
        for layer in masked.values():
            layer.hold(size)
        self.margin = self.windows = self.outgrown = None

    def reserve(self, margin: int | None, windows: Sequence[Size] | None = None) -> None:
        """From now on kernels are made on windows, `margin` positions wider on each side than the crops now are.

        Exact as long as no crop is wider than its window, which `look` tells. windows: those that `reserved()` told, to
        go on with. None as margin ends it. Ends `hold`. Raises `ValueError` for a margin below 0 or layers without
        masks.
        """
        if margin is not None and margin < 0:
            raise ValueError(f"the margin around the crops must be 0 positions or more; got {margin}")
        masked = self._masked("reserve") if margin is not None else self._with_masks()
        for layer in masked.values():
            layer.held = layer.reserved = None
        self.margin, self.windows, self.outgrown = margin, None, None
        if margin is not None and windows is not None:
            self._set_windows(windows)
        elif margin is not None:
            self.look()

    def reserved(self) -> list[Size]:
        """The windows (kh, kw) by layer, in forward order; empty unless there are any."""
        return [layer.reserved for layer in self._with_masks().values() if layer.reserved is not None]

    def look(self, room: range | None = None) -> Look:
        """Renews the windows that are reserved, by a transfer from the device. Needs `reserve` before.

        room: positions on each side of a crop; the windows stay as they are while each has so many (at the horizon it
        may have fewer), since new ones cost a new graph.
        """
        if self.margin is None:
            raise ValueError("there are no windows to look at before reserve(margin)")
        masked, before = self._with_masks(), self.reserved()
        outgrown = [] if self.outgrown is None else self.outgrown.any(1).tolist()
        sizes, horizons = crop_sizes(list(masked.values())), [layer.horizon for layer in masked.values()]
        if room is None or not before or not all(map(_has_room, before, sizes, horizons, repeat(room))):
            self._set_windows([_widened(*each, self.margin) for each in zip(sizes, horizons, strict=True)])
        elif self.outgrown is not None:
            self.outgrown.zero_()
        return Look([name for name, is_out in zip(masked, outgrown, strict=False) if is_out], before != self.reserved())

    def _set_windows(self, sizes: Sequence[Size]) -> None:
        """Where tensors stand already, in place: a graph that was captured with them goes on using them."""
        masked = list(self._with_masks().values())
        for layer, (kh, kw) in zip(masked, sizes, strict=True):
            layer.reserved = kh, kw
        reaches = (torch.tensor(sizes, device=masked[0].mask_params.device) - 1) // 2
        if self.windows is None or self.outgrown is None:
            self.windows, self.outgrown = reaches, torch.zeros_like(reaches, dtype=torch.bool)
        else:
            self.windows.copy_(reaches)
            self.outgrown.zero_()

    def _compare(self) -> None:
        """Notes on the device whether crops are wider than what is reserved for them."""
        if self.windows is not None and self.outgrown is not None:
            layers = list(self._with_masks().values())
            found = crop_reach(torch.stack([layer.mask_params for layer in layers]), layers[0].horizon)
            self.outgrown |= found > self.windows

    def _with_masks(self) -> dict[str, FlexConv2d]:
        return {name: layer for name, layer in self.layers().items() if isinstance(layer, FlexConv2d)}

    def _masked(self, what: str) -> dict[str, FlexConv2d]:
        found, layers = self._with_masks(), self.layers()
        if len(found) < len(layers):
            name = next(name for name in layers if name not in found)
            raise ValueError(f"{what} needs layers with masks (FlexConv); {name} is a CKConv layer, of fixed size")
        return found

    def kernel_sizes(self) -> dict[str, Size]:
        """The size (kh, kw) of each layer's kernel, in forward order."""
        layers = self.layers()
        return dict(zip(layers, crop_sizes(list(layers.values())), strict=True))

    def kernel_norms(self, kernels: Sequence[Tensor]) -> Tensor:
        """The sum over layers of ||kernel||_2 + ||bias||_2, not squared: what FlexConv's authors decay."""
        layers = self.layers().values()
        tensors = [t for kernel, layer in zip(kernels, layers, strict=True) for t in (kernel, layer.bias)]
        return torch.stack([torch.linalg.vector_norm(t) for t in tensors]).sum()

    def each_kernel(self, kernels: Sequence[Tensor] | None) -> Iterator[Tensor]:
        """The kernels one by one, made here if none are given. Raises `ValueError` unless there is one a layer."""
        kernels = self.kernels() if kernels is None else kernels
        if len(kernels) != len(self.layers()):
            raise ValueError(f"one kernel is needed for each of {len(self.layers())} layers; got {len(kernels)}")
        return iter(kernels)
