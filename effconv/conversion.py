"""Which convolutions of a CNN have a learnable size, how they run with given kernels, the plain CNN of given sizes."""

from __future__ import annotations

import copy
import fnmatch
import warnings
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Selection = str | Sequence[str] | Callable[[str, nn.Module], bool] | None

# Which side of an even kernel gets the extra row and column of padding, by the layer's index in forward order.
PADDINGS: dict[str, Callable[[int], bool]] = {
    "right": lambda index: False,  # default: right and bottom, always
    "alternate": lambda index: index % 2 == 1,  # the drift of half a pixel a layer cancels out
}


def why_not(module: nn.Module) -> str | None:
    """Why a convolution's kernel size cannot be learned, or None if it can."""
    if isinstance(module, nn.modules.conv._ConvTransposeNd):
        return "transposed"
    if type(module) is not nn.Conv2d:
        return f"not a plain Conv2d but {type(module).__name__}"
    if module.groups != 1:
        return "depthwise" if module.groups == module.in_channels else "grouped"
    if module.dilation != (1, 1):
        return "dilated"
    if module.padding_mode != "zeros":
        return f"padding mode {module.padding_mode!r}"
    if module.kernel_size[0] != module.kernel_size[1]:
        return "not square"
    return "1 x 1" if module.kernel_size == (1, 1) else None


def _forward_order(model: nn.Module, images: Tensor) -> list[str]:
    """Names of the convolutions in the order of their first call. Runs a copy of the model, in training mode."""
    called: list[str] = []
    model = copy.deepcopy(model).train()
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.conv._ConvNd):
            module.register_forward_pre_hook(lambda _module, _args, name=name: called.append(name))
    with torch.no_grad():
        model(images)
    return list(dict.fromkeys(called))


def find_learnable(model: nn.Module, images: Tensor, layers: Selection = None) -> tuple[list[str], dict[str, str]]:
    """The learnable convolutions in forward order, and why each of the others is left alone.

    images: (N, C, H, W), a few, to see the order of the forward pass. `layers`: shell patterns over module names or a
    predicate (name, module) that chooses among the possible ones; None chooses all but the first convolution.
    Raises `ValueError` if nothing is left, or if a pattern matches no possible layer.
    """
    order = _forward_order(model, images)
    modules = dict(model.named_modules())
    convolutions = [name for name, module in modules.items() if isinstance(module, nn.modules.conv._ConvNd)]
    left_alone = {name: "never called" for name in convolutions if name not in order}
    left_alone |= {name: reason for name in order if (reason := why_not(modules[name]))}
    possible = [name for name in order if name not in left_alone]
    if layers is None:
        chosen = [name for name in possible if name != order[0]]
        left_alone |= {name: "the first convolution" for name in possible if name == order[0]}
    else:
        chosen = _select(possible, modules, layers)
        left_alone |= {name: "not selected" for name in possible if name not in chosen}
    if not chosen:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_alone.items()) or "there is no convolution"
        raise ValueError(f"no convolution of this network has a learnable kernel size ({reasons})")
    return chosen, left_alone


def _select(possible: list[str], modules: Mapping[str, nn.Module], layers: Selection) -> list[str]:
    if callable(layers):
        return [name for name in possible if layers(name, modules[name])]
    patterns = [layers] if isinstance(layers, str) else list(layers or ())
    for pattern in patterns:
        if not fnmatch.filter(possible, pattern):
            raise ValueError(f"layers: {pattern!r} matches none of {', '.join(possible)}")
    return [name for name in possible if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]


def pad_widths(conv: nn.Conv2d, size: int, *, extra_left: bool = False) -> tuple[int, int, int, int]:
    """Zero padding (left, right, top, bottom) that gives a size x size kernel the original's output resolution.

    For every input size and stride: the total is the original's, plus `size` minus the original kernel size. It may be
    negative, which crops. The kernel's centre stays where it was, even sizes reaching half a pixel further to the right
    and bottom (`extra_left`: left and top).
    """
    near, far = (size // 2, (size - 1) // 2) if extra_left else ((size - 1) // 2, size // 2)
    widths = []
    for axis in (1, 0):  # F.pad wants the last axis first
        own = conv.kernel_size[axis]
        if conv.padding == "same":
            widths += [near, far]
        else:
            padding = 0 if conv.padding == "valid" else int(conv.padding[axis])
            widths += [padding - (own - 1) // 2 + near, padding - own // 2 + far]
    return widths[0], widths[1], widths[2], widths[3]


class PredictedConv2d(nn.Module):
    """A convolution whose kernel comes from outside: `kernel` (out, in, s, s) is set before each forward pass."""

    kernel: Tensor

    def __init__(self, conv: nn.Conv2d, max_size: int, *, extra_left: bool = False) -> None:
        super().__init__()
        self.bias = conv.bias
        self.stride = conv.stride
        self._widths = [pad_widths(conv, size, extra_left=extra_left) for size in range(1, max_size + 1)]

    def forward(self, images: Tensor) -> Tensor:
        left, right, top, bottom = self._widths[self.kernel.shape[2] - 1]
        kernel = self.kernel
        if not images.is_contiguous() and images.is_contiguous(memory_format=torch.channels_last):
            kernel = kernel.contiguous(memory_format=torch.channels_last)  # else conv2d does it, in each direction anew
        if left == right and top == bottom and left >= 0 and top >= 0:
            return F.conv2d(images, kernel, self.bias, self.stride, (top, left))
        return F.conv2d(F.pad(images, (left, right, top, bottom)), kernel, self.bias, self.stride)


def replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Puts `new` in place of every occurrence of `old`."""
    for parent in model.modules():
        for name, child in parent._modules.items():
            if child is old:
                parent._modules[name] = new


def with_predicted(model: nn.Module, names: Sequence[str], max_size: int, padding: str) -> list[PredictedConv2d]:
    """Replaces the named convolutions of `model`, in place, by ones that wait for their kernels."""
    predicted = []
    for index, name in enumerate(names):
        conv = model.get_submodule(name)
        assert isinstance(conv, nn.Conv2d)
        predicted.append(PredictedConv2d(conv, max_size, extra_left=PADDINGS[padding](index)))
        replace(model, conv, predicted[-1])
    return predicted


def _resized(conv: nn.Conv2d, size: int, extra_left: bool) -> nn.Module:
    """The same convolution at another size: a plain Conv2d, after a ZeroPad2d where the padding is lopsided."""
    left, right, top, bottom = pad_widths(conv, size, extra_left=extra_left)
    plain = left == right and top == bottom and left >= 0 and top >= 0
    new = nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        size,
        stride=(conv.stride[0], conv.stride[1]),
        padding=(top, left) if plain else 0,
        bias=conv.bias is not None,
        device=conv.weight.device,
        dtype=conv.weight.dtype,
    )
    return new if plain else nn.Sequential(nn.ZeroPad2d((left, right, top, bottom)), new)


def resize(
    model: nn.Module,
    sizes: Mapping[str, int],
    *,
    init: Callable[[nn.Module], object] | None = None,
    padding: str = "right",
) -> nn.Module:
    """The plain network for given kernel sizes, with new weights; `model` stays as it is.

    sizes: module name -> kernel size, in forward order. At each name stands one `nn.Conv2d` of that size, inside an
    `nn.Sequential` with an `nn.ZeroPad2d` where an even size needs lopsided padding. Every layer's output has exactly
    the resolution that the original gives. Weights: each module's `reset_parameters`, then `init`, if given, on every
    module.
    Raises `ValueError` for a name that is no convolution of learnable size, or a size below 1.
    """
    model = copy.deepcopy(model)
    modules = dict(model.named_modules())
    for index, (name, size) in enumerate(sizes.items()):
        conv = modules.get(name)
        reason = "there is no such module" if conv is None else why_not(conv)
        if reason not in (None, "1 x 1") or not isinstance(conv, nn.Conv2d):
            raise ValueError(f"cannot resize {name!r}: {reason}")
        if size < 1:
            raise ValueError(f"cannot resize {name!r} to {size}: sizes start at 1")
        replace(model, conv, _resized(conv, size, PADDINGS[padding](index)))
    _renew(model, init)
    return model


def _renew(model: nn.Module, init: Callable[[nn.Module], object] | None) -> None:
    for name, module in model.named_modules():
        if callable(reset := getattr(module, "reset_parameters", None)):
            reset()
        elif any(True for _ in module.parameters(recurse=False)) and init is None:
            warnings.warn(f"{name or 'the model'} has no reset_parameters; its own weights are kept", stacklevel=3)
    if init is not None:
        for module in model.modules():
            init(module)
