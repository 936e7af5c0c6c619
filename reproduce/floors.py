"""The least that one epoch of a network must move through memory and compute: its floor. Pure functions, no torch.

The model is of a machine that fuses whatever can be fused into one kernel for each direction of each layer, and keeps
nothing in a cache from one kernel to the next. Bytes of each image, with y the output of a layer, c_out x side x side
elements of the activations' width:

- forward, 2 passes over y: its layer writes it, the next one reads it, and normalises, rectifies, pools and adds on the
  way (the sums of batch norm are taken while y is written);
- backward, 3 passes: the next layer reads y again for the gradient of its weights and writes the gradient of y, which
  y's layer reads. 1 pass more where batch norm follows: y's layer reads y again, as the gradient through batch norm
  needs it together with two sums over the whole batch (in a network with batch norm, one is taken to stand behind each
  convolution larger than 1 x 1);
- the image, one byte for each pixel and channel, is read forward and for the gradient of the first weights.

Bytes of each step, float32 whatever the precision: a parameter is read forward, backward and by the optimiser, and
written; its gradient is written and read; each number that the optimiser keeps for it is read and written. A kernel
that other parameters generate is written, read forward and backward, and its gradient is written and read.

FLOPs are two for each multiply-add of a convolution or linear layer, three times over: forward, gradient of the input,
gradient of the weights; the first layer's input needs none. Products with padding do not count: oneDNN passes them
over, and with them N-JetNet-ALLCNN came out at 0.8 of its floor. What is left is counted as of stride 1, where padding
has the largest share. A kernel larger than 9 x 9, or 3 x 3 where a kernel network samples it (`reproduce.layers`),
counts as a convolution by FFT of side m = side + size // 2, which leaves the outputs clean: 2.5 m^2 log2 m^2 FLOPs for
each real transform (of each input and output channel forward, and of their gradients; of each kernel and its gradient
once a step), 8 for each product of two complex numbers, m (m // 2 + 1) for each pair of channels and direction. No
library comes near that: products of spectra wait for memory. A generated kernel adds one multiply-add for each
parameter of its layer at each of its positions, three times a step. Size learning adds its kernel predictors (R-06): a
head of 64 + 1 by c_out c_in numbers at each position, and a GRU from 64 to 64 units, whose fixed inputs need no
gradient. The layers of an ODE run once for each evaluation, and forward once more for the adjoint.

Ignored: labels and shuffling, losses, the second reader of what a shortcut adds, a CapsNet's routing and decoder,
elementwise arithmetic, the size predictor, masks, what Winograd saves at small kernels, and launching kernels. Where
the tensors of a batch fit into a cache, a run may move less; nowhere else should one come out below its floor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from math import ceil, log2
from typing import Any

from reproduce.formulas import FORMULAS
from reproduce.layers import Layer
from reproduce.specs import DATASETS, Precision, RunSpec
from reproduce.timings import RowTiming, Stage, stages

ACTIVATION_BYTES: Mapping[Precision, int] = {"float32": 4, "tf32": 4, "bf16": 2}
WEIGHT_BYTES = 4
ACTIVATION_PASSES, NORM_PASSES, IMAGE_PASSES = 5, 1, 2  # over a layer's output; more where a norm follows; the image
PARAMETER_PASSES, STATE_PASSES, KERNEL_PASSES = 6, 2, 5  # a parameter, a number of the optimiser's, a generated kernel
COMPLEX_FLOPS = 8  # a product of two complex numbers, added to a sum
DIRECTIONS = 3  # forward, gradient of the input, gradient of the weights
ADAM_STATES = 2  # numbers that it keeps for each parameter
UNITS = 64  # inputs and hidden units of a kernel predictor's GRU
GRU_INPUT = GRU_HIDDEN = 3 * UNITS * UNITS  # multiply-adds of one step of it: of the input, of the state before


@dataclass(frozen=True, kw_only=True)
class Floor:
    """What one epoch moves and computes at least. `precision`: of the products."""

    bytes: float
    flops: float
    precision: Precision = "float32"

    def seconds(self, ceilings: Mapping[str, float]) -> float | None:
        """The longer of moving at `copy_tb_s` and computing at `matmul_<precision>_tflop_s`, else `matmul_tflop_s`.

        None if a ceiling is missing, or where there is nothing to do.
        """
        copy = ceilings.get("copy_tb_s")
        matmul = ceilings.get(f"matmul_{self.precision}_tflop_s", ceilings.get("matmul_tflop_s"))
        if not copy or not matmul or not self.bytes:
            return None
        return max(self.bytes / copy, self.flops / matmul) / 1e12


@dataclass(frozen=True, kw_only=True)
class Term:
    """What one layer adds: numbers moved and FLOPs, for each image and for each step."""

    layer: Layer  # at the size that is asked for
    growth: float = 1.0  # of its kernel beyond that, where sizes are known by the budget alone
    is_first: bool = False
    is_normed: bool = False
    is_generated: bool = False  # the kernel, by other parameters of the layer
    is_predicted: bool = False  # the kernel, by a kernel predictor

    @property
    def activations(self) -> float:
        """Numbers of each image: the layer's output and its gradient."""
        again = 2 if self.layer.uses > 1 else 0  # the adjoint's own forward pass
        passes = ACTIVATION_PASSES + NORM_PASSES * self.is_normed + again
        return passes * self.layer.uses * self.layer.c_out * self.layer.side**2

    @property
    def flops(self) -> float:
        """Of each image."""
        directions = DIRECTIONS - self.is_first + (self.layer.uses > 1)
        if self.layer.is_by_fft:
            inputs = (2 - self.is_first) * self.layer.c_in
            transforms = self.transform_flops * (inputs + 2 * self.layer.c_out)
            products = COMPLEX_FLOPS * self.layer.fft_side * (self.layer.fft_side // 2 + 1) * self.channel_pairs
            return self.layer.uses * (transforms + directions * products)
        return 2 * directions * self.products * self.growth

    @property
    def products(self) -> int:
        """Of each image in one direction of the direct convolution: those in which no padding has a part."""
        side, size = self.layer.side, self.layer.size
        shifts = range(-((size - 1) // 2), size // 2 + 1)  # an even kernel reaches further to the right
        inside = sum(max(0, side - abs(shift)) for shift in shifts)  # in each of the two dimensions
        return self.layer.uses * self.channel_pairs * inside**2

    @property
    def transform_flops(self) -> float:
        """Of one real transform of fft_side x fft_side numbers."""
        points = self.layer.fft_side**2
        return 2.5 * points * log2(points)

    @property
    def channel_pairs(self) -> int:
        return self.layer.c_in * self.layer.c_out // self.layer.groups

    @property
    def kernel(self) -> float:
        """Numbers of the kernel, if it is made anew in each step."""
        return self.layer.weights * self.growth if self.is_generated or self.is_predicted else 0

    @property
    def parameters(self) -> float:
        if self.is_generated:
            return self.layer.parameters
        bias = self.layer.parameters - self.layer.weights
        if self.is_predicted:
            gru = GRU_INPUT + GRU_HIDDEN + 6 * UNITS
            return (UNITS + 1) * self.layer.c_in * self.layer.c_out + gru + bias
        return self.layer.weights * self.growth + bias

    @property
    def making_flops(self) -> float:
        """Of each step: making the kernel, and the gradients of what makes it; its spectrum, and the gradient's."""
        positions = self.layer.size**2 * self.growth
        spectra = 2 * self.transform_flops * self.channel_pairs if self.layer.is_by_fft else 0
        if self.is_generated:
            return spectra + 2 * DIRECTIONS * self.layer.parameters * positions
        if self.is_predicted:
            head = (UNITS + 1) * self.layer.c_in * self.layer.c_out
            return spectra + 2 * positions * (DIRECTIONS * (head + GRU_HIDDEN) + (DIRECTIONS - 1) * GRU_INPUT)
        return spectra


def floor(spec: RunSpec, stage: Stage, *, sizes: Sequence[int] | None = None) -> Floor:
    """One epoch over all training images of a spec, in one of its stages.

    `sizes`: of the spatial convolutions after the first, in forward order, or of the first one too. None: the network's
    own at the start; where sizes are learned, all kernels grow (or shrink) by the factor that meets the budget exactly.
    Raises `ValueError` for a stage that the spec has not, and for another number of sizes.
    """
    recipe, learning = spec.training, spec.size_learning
    if stage == "training":
        states = ADAM_STATES if recipe.optimizer.startswith("adam") else int(recipe.momentum > 0)
        found, norms = terms(spec, sizes, predicted=False)
        return _epoch(spec, found, norms, states, recipe.batch_size, drop_last=recipe.drop_last)
    if learning is None:
        raise ValueError("this network has no size learning")
    if learning.source != "data":  # a control that trains no network
        return Floor(bytes=0, flops=0, precision=spec.precision)
    found, norms = terms(spec, sizes, predicted=True)
    return _epoch(spec, found, norms, ADAM_STATES, learning.batch_size, drop_last=False)


def floor_seconds(record: RowTiming, stage: Stage) -> float | None:
    """What the ceilings measured with a timing allow for an epoch; None without them.

    It is computed here, so that older records have the floor of this module too. In size learning the sizes moved; the
    floor is at those where they ended, or, in older records, which do not tell, at those of training.
    """
    timing = stages(record).get(stage)
    if timing is None:
        return None
    if record.certificate.ceilings:
        with suppress(ValueError, KeyError):  # sizes or a network that this checkout cannot make sense of
            return seconds_at_least(record.spec, stage, timing.sizes or record.sizes, record.certificate.ceilings)
    return timing.floor_seconds


def seconds_at_least(
    spec: RunSpec, stage: Stage, sizes: Mapping[str, int] | None, ceilings: Mapping[str, float]
) -> float | None:
    """What these ceilings allow for an epoch at these sizes by layer; None without ceilings."""
    if not ceilings:
        return None
    return floor(spec, stage, sizes=None if sizes is None else list(sizes.values())).seconds(ceilings)


def terms(spec: RunSpec, sizes: Sequence[int] | None, *, predicted: bool) -> tuple[list[Term], int]:
    """The layers of a spec's network, and the channels of its norms. `predicted`: as in size learning."""
    facts = DATASETS[spec.data.name]
    arguments: dict[str, Any] = spec.model.args
    layers, norms = FORMULAS[spec.model.family](facts.in_channels, facts.image_size, facts.num_classes, **arguments)
    resized = layers if sizes is None else with_sizes(layers, sizes)
    growth = 1.0
    if sizes is None and spec.size_learning is not None:
        growth = spec.size_learning.budget / sum(layer.weights for layer in layers[1:] if layer.is_spatial)
    found = []
    for index, (start, layer) in enumerate(zip(layers, resized, strict=True)):
        learnable = index > 0 and start.is_spatial  # also where its size is now 1
        term = Term(
            layer=layer,
            growth=growth if learnable else 1.0,
            is_first=index == 0,
            is_normed=norms > 0 and start.is_spatial,
            is_generated=is_generated(start),
            is_predicted=predicted and learnable,
        )
        found.append(term)
    return found, norms


def with_sizes(layers: Sequence[Layer], sizes: Sequence[int]) -> list[Layer]:
    """The layers with other kernel sizes; see `floor`."""
    spatial = [index for index, layer in enumerate(layers) if layer.is_spatial]
    changed = spatial[len(spatial) - len(sizes) :]
    if len(sizes) not in (len(spatial), len(spatial) - 1):
        raise ValueError(f"this network has {len(spatial)} spatial convolutions; got {len(sizes)} kernel sizes")
    resized = list(layers)
    for index, size in zip(changed, sizes, strict=True):
        old, new = layers[index], replace(layers[index], size=size)
        more = 0 if is_generated(old) else new.weights - old.weights
        resized[index] = replace(new, parameters=old.parameters + more)
    return resized


def is_generated(layer: Layer) -> bool:
    """Whether the kernel is made of other parameters than its own weights."""
    return layer.parameters - layer.weights not in (0, layer.c_out)  # but for a bias


def _epoch(
    spec: RunSpec, found: Sequence[Term], norms: int, states: int, batch_size: int, *, drop_last: bool
) -> Floor:
    facts = DATASETS[spec.data.name]
    images = spec.data.train_images or facts.train_images
    steps = images // batch_size if drop_last else ceil(images / batch_size)
    images = min(images, steps * batch_size)
    parameters = 2 * norms + sum(term.parameters for term in found)
    image_bytes: float = IMAGE_PASSES * facts.in_channels * facts.image_size**2
    image_bytes += ACTIVATION_BYTES[spec.precision] * sum(term.activations for term in found)
    step_numbers = (PARAMETER_PASSES + STATE_PASSES * states) * parameters
    step_numbers += KERNEL_PASSES * sum(term.kernel for term in found)
    return Floor(
        bytes=images * image_bytes + steps * WEIGHT_BYTES * step_numbers,
        flops=images * sum(term.flops for term in found) + steps * sum(term.making_flops for term in found),
        precision=spec.precision,
    )
