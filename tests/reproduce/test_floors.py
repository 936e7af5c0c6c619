"""The floors against layers counted by hand, laws of scaling, and every row of the tables."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from reproduce import experiments
from reproduce.floors import Floor, Term, floor, is_generated, terms
from reproduce.formulas import FORMULAS, Network
from reproduce.layers import conv, linear, sampled
from reproduce.specs import DataSpec, ModelSpec, Protocol, RunSpec
from tests.reproduce.hall_samples import spec_of

PAPER = Protocol(base="paper")
H200 = {"copy_tb_s": 4.0, "matmul_tflop_s": 790.0}
TABLES = experiments.EXPERIMENTS[:4]
ROWS = [row for table in (*TABLES, "figure3") for row in experiments.rows(table, PAPER)]


def two_layers(c_in: int, side: int, classes: int) -> Network:
    """3 x 3, 4 channels, batch norm; the classifier on the average."""
    return [conv(c_in, 4, side), linear(4, classes)], 4


def three_layers(c_in: int, side: int, classes: int) -> Network:
    """As above, with another 3 x 3 of 4 -> 8 channels and stride 2 between."""
    return [conv(c_in, 4, side), conv(4, 8, side // 2), linear(8, classes)], 4 + 8


def one_generated(c_in: int, side: int, classes: int) -> Network:
    make: dict[str, Any] = {"layer": "ckconv", "kernel_net": "siren", "horizon": side + 1}
    return [conv(c_in, 4, side), sampled(4, 4, side, **make), linear(4, classes)], 0


@pytest.fixture(autouse=True)
def small_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    for formula in (two_layers, three_layers, one_generated):
        monkeypatch.setitem(FORMULAS, formula.__name__, formula)


def small(family: str, images: int, batch_size: int, *, name: str = "CIFARResNet-44", **changes: Any) -> RunSpec:
    """A spec of a made-up network on so many images of CIFAR-10, trained by Adam."""
    spec = spec_of(name, protocol="paper")
    recipe = spec.training.model_copy(update={"batch_size": batch_size, "optimizer": "adam"} | changes)
    learning = spec.size_learning and spec.size_learning.model_copy(update={"batch_size": batch_size, "budget": 720})
    return spec.model_copy(
        update={
            "model": ModelSpec(family=family),
            "data": DataSpec(name="cifar10", source="random", train_images=images),
            "training": recipe,
            "size_learning": learning,
        }
    )


def test_two_layers_by_hand() -> None:
    """CIFAR-10, 10 images in 3 steps of 4: the last one is short.

    Bytes of an image: y of the convolution 4 x 32 x 32 = 4,096 numbers, 6 passes; the logits 10 numbers, 5 passes;
    together 24,626 numbers of 4 bytes; the image 3 x 32 x 32 = 3,072 bytes, twice: 104,648.
    Bytes of a step: 9 x 3 x 4 = 108 weights, 2 x 4 of batch norm, 4 x 10 + 10 of the classifier are 166 parameters;
    each moves 6 times and its two numbers of Adam twice, 10 x 4 bytes: 6,640.
    FLOPs of an image: the middle of a kernel is inside 32 times in a row, its edges 31 times: 94 x 94 = 8,836 products
    for each of 12 pairs of channels, twice, forward and for the weights: 424,128; 2 x 40 three times: 240.
    """
    found = floor(small("two_layers", 10, 4), "training")
    assert found.bytes == 10 * 104_648 + 3 * 6_640
    assert found.flops == 10 * (424_128 + 240)


def test_optimisers_and_a_dropped_batch_by_hand() -> None:
    """Momentum is one number (8 passes), plain SGD keeps none (6). Without the short batch 8 images in 2 steps."""
    momentum = floor(small("two_layers", 10, 4, optimizer="sgd", momentum=0.9), "training")
    plain = floor(small("two_layers", 10, 4, optimizer="sgd", momentum=0.0), "training")
    dropped = floor(small("two_layers", 10, 4, drop_last=True), "training")
    assert momentum.bytes == 10 * 104_648 + 3 * 166 * 8 * 4
    assert plain.bytes == 10 * 104_648 + 3 * 166 * 6 * 4
    assert (dropped.bytes, dropped.flops) == (8 * 104_648 + 2 * 6_640, 8 * 424_368)


def test_given_sizes_by_hand() -> None:
    """The middle layer of 4 x 8 channels at other sizes, on 16 x 16 places.

    Inside in a row: of 1 x 1 16 times; of 3 x 3 15 + 16 + 15 = 46; of 4 x 4, padded by 1 before and 2 behind, 15 + 16 +
    15 + 14 = 60; of 5 x 5 14 + 15 + 16 + 15 + 14 = 74 times.
    """
    spec = small("three_layers", 10, 4)
    outer = 2 * 2 * 12 * 94**2 + 3 * 2 * 80  # the first convolution, and the classifier of 8 -> 10
    assert floor(spec, "training").flops == 10 * (outer + 3 * 2 * 32 * 46**2)
    for size, inside in {1: 16, 3: 46, 4: 60, 5: 74}.items():
        assert floor(spec, "training", sizes=[size]).flops == 10 * (outer + 3 * 2 * 32 * inside**2)
    assert floor(spec, "training", sizes=[3, 5]) == floor(spec, "training", sizes=[5])
    more = floor(spec, "training", sizes=[5]).bytes - floor(spec, "training", sizes=[1]).bytes
    assert more == 3 * 10 * 4 * (800 - 32)  # what is normalised stays so at 1 x 1
    for sizes in ([], [3, 3, 3]):
        with pytest.raises(ValueError, match="2 spatial convolutions"):
            floor(spec, "training", sizes=sizes)


def test_size_learning_by_hand() -> None:
    """The three layers, the middle one predicted at 5 x 5, one step of 4 images.

    The head makes 4 x 8 = 32 numbers of 65 at each of 25 positions; the GRU has 3 x 64 x 64 = 12,288 products of its
    state, and as many of its input, without a gradient of the latter. Parameters: 108 + 2 x 12 + 8 x 10 + 10 = 222; the
    head's 65 x 32 = 2,080; the GRU's 24,576 and 384 biases. The kernel's 800 numbers move five times.
    """
    spec = small("three_layers", 4, 4, name="EffConv-20 0.66M")
    stage_1, stage_2 = (floor(spec, stage, sizes=[5]) for stage in ("size_learning", "training"))  # type: ignore[arg-type]
    making = 2 * 25 * (3 * (2_080 + 12_288) + 2 * 12_288)
    assert stage_1.flops == stage_2.flops + making
    assert stage_1.bytes - stage_2.bytes == 4 * (10 * (2_080 + 24_576 + 384 - 800) + 5 * 800)


def test_the_budget_stands_for_sizes_that_are_not_known_yet() -> None:
    """720 weights in the middle layer instead of 3 x 3 x 4 x 8 = 288: in stage 2 as the kernel of that many weights."""
    spec = small("three_layers", 10, 4, name="EffConv-20 0.66M")
    found = floor(spec, "training")
    middle = 3 * 2 * 32 * 46**2 * 720 / 288
    assert found.flops == pytest.approx(10 * (2 * 2 * 12 * 94**2 + 3 * 2 * 80 + middle))
    assert found.bytes == pytest.approx(floor(spec, "training", sizes=[3]).bytes + 3 * 10 * 4 * (720 - 288))


def test_a_generated_kernel_by_hand() -> None:
    """33 x 33 positions, each made of every parameter of the layer; convolved by FFT of side 32 + 16 = 48.

    A transform: 2.5 x 2,304 x log2 2,304 FLOPs. Of an image: 4 channels in and 4 out, and the gradients of both; of a
    step: 16 kernels and their gradients. Products: 48 x 25 complex numbers, 8 FLOPs, 16 pairs, three times.
    """
    spec = small("one_generated", 4, 4)
    parameters = 1152 + 33 * 16 + 4
    outer = 2 * 2 * 12 * 94**2 + 3 * 2 * 40
    transform = 2.5 * 2304 * math.log2(2304)
    by_fft = 16 * transform + 3 * 8 * 48 * 25 * 16
    expected = 4 * (outer + by_fft) + 2 * 16 * transform + 3 * 2 * parameters * 33**2
    found = floor(spec, "training")
    assert found.flops == pytest.approx(expected)
    numbers = 5 * (4 * 1024 * 2 + 10)  # no norms here
    step = 4 * (10 * (108 + parameters + 50) + 5 * 16 * 33**2)
    assert found.bytes == 4 * (2 * 3072 + 4 * numbers) + step


@pytest.mark.parametrize(("side", "size"), [(32, 5), (32, 11), (32, 33), (96, 15), (96, 97)])
def test_an_fft_is_no_slower_than_the_direct_convolution(side: int, size: int) -> None:
    """At the width of a FlexNet, whatever the image; else the floor would lie above what can be had."""
    layer = replace(conv(24, 24, side, size), parameters=0, largest_direct=3)
    term = Term(layer=layer)
    assert 0 < term.flops < 2 * 3 * term.products < 2 * 3 * layer.macs


@pytest.mark.parametrize(("side", "size", "stride"), [(7, 3, 1), (6, 4, 1), (5, 7, 1), (2, 9, 1), (8, 5, 2), (4, 1, 1)])
def test_products_without_padding_are_those_of_ones(side: int, size: int, stride: int) -> None:
    """A convolution of ones with ones counts them; with a stride more are inside than is said, never fewer."""
    before, behind = (size - 1) // 2, size // 2
    ones = F.pad(torch.ones(1, 1, side * stride, side * stride), (before, behind, before, behind))
    counted = F.conv2d(ones, torch.ones(1, 1, size, size), stride=stride)
    assert counted.shape[2:] == (side, side)
    found = Term(layer=replace(conv(2, 3, side, size), parameters=0)).products
    if stride == 1:
        assert found == 6 * counted.sum()
    else:
        assert found < 6 * counted.sum()


def test_an_ode_passes_several_times_and_once_more_back() -> None:
    spec = spec_of("DCN-sigma^ji", protocol="paper")
    found, _ = terms(spec, None, predicted=False)
    ode = next(term for term in found if term.layer.uses > 1)
    assert ode.flops == 4 * 2 * ode.products and 0 < ode.products < ode.layer.macs
    assert ode.activations == (6 + 2) * ode.layer.uses * ode.layer.c_out * ode.layer.side**2


@pytest.mark.parametrize("name", ["EffConv-20 0.66M", "FlexNet-16", "CIFARResNet-44"])
def test_laws_of_scaling(name: str) -> None:
    spec = spec_of(name, protocol="paper")

    def counted(images: int, **changes: Any) -> Floor:
        data = spec.data.model_copy(update={"train_images": images})
        return floor(spec.model_copy(update={"data": data} | changes), "training")

    once, twice = counted(6400), counted(12_800)
    assert (twice.bytes, twice.flops) == pytest.approx((2 * once.bytes, 2 * once.flops))
    half, same = counted(6400, precision="bf16"), counted(6400, precision="tf32")
    activations = 4 * 6400 * sum(term.activations for term in terms(spec, None, predicted=False)[0])
    assert once.bytes - half.bytes == pytest.approx(activations / 2)
    assert half.flops == once.flops and (same.bytes, same.flops) == (once.bytes, once.flops)
    larger = spec.training.model_copy(update={"batch_size": 2 * spec.training.batch_size})
    wide = counted(6400, training=larger)  # half the steps: what a step moves is halved, what images move is not
    images = 6400 * 2 * 3072 + activations
    assert wide.bytes - images == pytest.approx((once.bytes - images) / 2)


def test_seconds_are_the_longer_of_moving_and_computing() -> None:
    moved, computed = Floor(bytes=8e12, flops=79e12), Floor(bytes=8e12, flops=7900e12)
    assert (moved.seconds(H200), computed.seconds(H200)) == pytest.approx((2.0, 10.0))
    assert computed.seconds({"copy_tb_s": 4.0}) is None and computed.seconds({"matmul_tflop_s": 790.0}) is None
    assert Floor(bytes=0, flops=0).seconds(H200) is None


def test_seconds_take_the_ceiling_of_their_precision() -> None:
    ceilings = H200 | {"matmul_float32_tflop_s": 50.0, "matmul_tf32_tflop_s": 400.0}
    seconds = {
        precision: Floor(bytes=1, flops=400e12, precision=precision).seconds(ceilings)  # type: ignore[arg-type]
        for precision in ("float32", "tf32", "bf16")
    }
    assert seconds == pytest.approx({"float32": 8.0, "tf32": 1.0, "bf16": 400 / 790})
    assert Floor(bytes=1, flops=79e12, precision="float32").seconds(H200) == pytest.approx(0.1)  # as on the CPU


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.experiment} {row.name}")
def test_every_row_has_a_floor(row: experiments.Row) -> None:
    training = floor(row.spec, "training")
    assert training.seconds(H200) and training.bytes > 0 and training.flops > 0
    learning = row.spec.size_learning
    if learning is None:
        with pytest.raises(ValueError, match="no size learning"):
            floor(row.spec, "size_learning")
    elif learning.source == "data":
        assert floor(row.spec, "size_learning").flops > training.flops
    else:
        assert floor(row.spec, "size_learning").seconds(H200) is None


def test_sizes_of_a_learned_row() -> None:
    """All 3 x 3 is the network itself, and sizes near the budget cost what the budget says."""
    spec, plain = (spec_of(name, protocol="paper") for name in ("EffConv-20 0.66M", "control: ResNet-20"))
    assert floor(spec, "training", sizes=[3] * 18) == floor(plain, "training")
    fives = floor(spec, "training", sizes=[5] * 18)  # 742,400 weights
    assert 0.85 < floor(spec, "training").flops / fives.flops < 1.0


def test_which_kernels_are_generated() -> None:
    """Those of FlexNet, CKCNN, N-Jet and DCN; a bias makes no kernel generated."""
    generated = {"flexnet", "ckcnn7", "flex_resnet", "njet_resnet", "njet_all_cnn", "dcn"}
    for row in ROWS:
        found, _ = terms(row.spec, None, predicted=False)
        assert any(term.is_generated for term in found) is (row.spec.model.family in generated), row.name
        assert not any(term.is_generated for term in found if term.layer.size == 1)
    assert not is_generated(conv(3, 4, 8, bias=True)) and not is_generated(conv(3, 4, 8))


@pytest.mark.parametrize("family", ["cifar_resnet", "flexnet", "ckcnn7", "flex_resnet", "njet_resnet"])
def test_norms_stand_behind_the_spatial_convolutions(family: str) -> None:
    """What the model of the passes takes for granted is so in the networks of most rows."""
    spec = next(row.spec for row in ROWS if row.spec.model.family == family)
    found, norms = terms(spec, None, predicted=False)
    assert sum(term.layer.c_out for term in found if term.is_normed) == norms


def test_modelled_floors_of_an_h200() -> None:
    """bf16, at 4 TB/s and 790 TFLOP/s, in the order of the tables."""
    seconds = {
        (table, name): floor(spec_of(name, experiment=table, protocol="paper").model_copy(
            update={"precision": "bf16"}
        ), "training").seconds(H200)
        for table, name in [
            ("table1", "EffConv-20 0.66M"), ("table2", "EffConv-20 0.66M"), ("table2", "CIFARResNet-44"),
            ("table2", "Wide-EffConv-28-1 0.66M"), ("table3", "EffConv-20 0.66M"), ("table4", "EffConv-20 0.50M"),
        ]
    }  # fmt: skip
    assert list(seconds.values()) == pytest.approx([0.0322, 0.0342, 0.0679, 0.0437, 0.0329, 0.7336], rel=2e-3)
