"""Convolutions at other sizes: resolution, the kernel's place, and the plain network that comes out."""

from __future__ import annotations

import itertools
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effconv import resize
from effconv.conversion import PADDINGS, PredictedConv2d, pad_widths
from tests.effconv.helpers import TinyNet, convolutions

SIZES = range(1, 8)


def _originals() -> list[nn.Conv2d]:
    """Kernels 3, 4, 5, 7; strides 1 and 2; padding as usual, more, none, in words, and uneven in the axes."""
    convs = []
    for own, stride in itertools.product((3, 4, 5, 7), (1, 2)):
        for padding in (own // 2, own // 2 + 2, 0, "valid", (own // 2, own // 2 + 1)):
            convs.append(nn.Conv2d(2, 3, own, stride=stride, padding=padding))
    return convs + [nn.Conv2d(2, 3, own, padding="same") for own in (3, 4, 5, 7)]


ORIGINALS = _originals()
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")


def _resized(conv: nn.Conv2d, size: int, padding: str = "right") -> tuple[nn.Module, nn.Conv2d]:
    """The module that stands for `conv` at another size, and the convolution in it."""
    module = resize(nn.Sequential(conv), {"0": size}, padding=padding).get_submodule("0")
    (new,) = convolutions(module)
    return module, new


@pytest.mark.parametrize("conv", ORIGINALS, ids=lambda c: f"{c.kernel_size[0]}-stride{c.stride[0]}-padding{c.padding}")
def test_resolution_is_the_originals(conv: nn.Conv2d) -> None:
    for size, padding in itertools.product(SIZES, PADDINGS):
        module, new = _resized(conv, size, padding)
        predicted = PredictedConv2d(conv, 7, extra_left=PADDINGS[padding](0))
        predicted.kernel = new.weight
        for height, width in ((7, 12), (8, 9), (15, 16), (32, 33)):
            images = torch.zeros(1, 2, height, width)
            expected = conv(images).shape
            assert module(images).shape == expected, (size, padding, height, width)
            assert predicted(images).shape == expected, (size, padding, height, width)


def test_usual_padding_gives_ceil_of_height_over_stride() -> None:
    for stride, size, height in itertools.product((1, 2), SIZES, (8, 15, 16, 28, 32, 96)):
        module, _ = _resized(nn.Conv2d(1, 1, 3, stride=stride, padding=1), size)
        assert module(torch.zeros(1, 1, height, height)).shape[2] == -(-height // stride)


def _embedded(kernel: Tensor, *, extra_left: bool) -> Tensor:
    """The kernel in the middle of a 7 x 7 one; an even one reaches further to the right and bottom, or left and top."""
    size = kernel.shape[2]
    first = 3 - (size // 2 if extra_left else (size - 1) // 2)
    largest = kernel.new_zeros(*kernel.shape[:2], 7, 7)
    for row, column in itertools.product(range(size), repeat=2):
        largest[:, :, first + row, first + column] = kernel[:, :, row, column]
    return largest


@pytest.mark.parametrize("own", [3, 5, 7])
@pytest.mark.parametrize("extra_left", [False, True])
def test_every_size_equals_a_7x7_kernel_with_zeros_around_it(own: int, extra_left: bool) -> None:
    torch.manual_seed(0)
    images = torch.randn(2, 2, 13, 10, dtype=torch.float64)
    for stride, more, size in itertools.product((1, 2), (0, 2, -own // 2 + 1), SIZES):
        conv = nn.Conv2d(2, 3, own, stride=stride, padding=own // 2 + more, dtype=torch.float64)
        predicted = PredictedConv2d(conv, 7, extra_left=extra_left)
        predicted.kernel = torch.randn(3, 2, size, size, dtype=torch.float64)
        around = 3 + more
        largest = _embedded(predicted.kernel, extra_left=extra_left)
        expected = F.conv2d(F.pad(images, (around,) * 4), largest, conv.bias, stride)
        torch.testing.assert_close(predicted(images), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("own", [3, 4])
def test_predicted_and_plain_convolutions_agree_on_equal_weights(padding: str, own: int) -> None:
    torch.manual_seed(0)
    images = torch.randn(2, 2, 9, 9)
    for stride, pad, size in itertools.product((1, 2), (0, 1, 3), SIZES):
        conv = nn.Conv2d(2, 3, own, stride=stride, padding=pad)
        for index in range(2):  # "alternate" treats odd ones otherwise
            sizes = {"0": 3, "1": size} if index else {"0": size}
            network = resize(
                nn.Sequential(*(nn.Conv2d(2, 2, 3, padding=1) for _ in range(index)), conv), sizes, padding=padding
            )
            (new,) = convolutions(network.get_submodule(str(index)))
            predicted = PredictedConv2d(conv, 7, extra_left=PADDINGS[padding](index))
            assert new.bias is not None and predicted.bias is not None
            with torch.no_grad():
                new.bias.copy_(predicted.bias)
            predicted.kernel = new.weight
            torch.testing.assert_close(predicted(images), network.get_submodule(str(index))(images))


def test_an_even_kernel_reaches_to_the_right_and_bottom_and_alternating_ones_take_turns() -> None:
    conv = nn.Conv2d(1, 1, 3, padding=1)
    assert pad_widths(conv, 4) == (1, 2, 1, 2)
    assert pad_widths(conv, 4, extra_left=True) == (2, 1, 2, 1)
    assert pad_widths(conv, 1) == (0, 0, 0, 0)
    assert pad_widths(nn.Conv2d(1, 1, 3), 1) == (-1, -1, -1, -1)  # crops what the original does not reach
    assert [PADDINGS["right"](index) for index in range(4)] == [False] * 4
    assert [PADDINGS["alternate"](index) for index in range(4)] == [False, True, False, True]


def test_two_alternating_even_kernels_leave_the_content_in_its_place() -> None:
    image = torch.zeros(1, 1, 9, 9)
    image[0, 0, 4, 4] = 1
    centre = {}
    for padding in PADDINGS:
        network = resize(
            nn.Sequential(*(nn.Conv2d(1, 1, 3, padding=1, bias=False) for _ in range(2))),
            {"0": 2, "1": 2},
            padding=padding,
        )
        for conv in convolutions(network):
            nn.init.ones_(conv.weight)
        rows = network(image).detach().sum((0, 1, 3))
        centre[padding] = float((rows * torch.arange(9.0)).sum() / rows.sum())
    assert centre == {"right": 3.0, "alternate": 4.0}


def test_resized_network_is_plain_new_and_leaves_the_original_alone() -> None:
    torch.manual_seed(0)
    model = TinyNet().double().eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    network = resize(model, {"first": 5, "second": 2})
    for name, size in (("first", 5), ("second", 2)):
        (conv,) = convolutions(network.get_submodule(name))
        old = model.get_submodule(name)
        assert isinstance(old, nn.Conv2d)
        assert conv.kernel_size == (size, size) and conv.stride == old.stride
        assert (conv.bias is None) == (old.bias is None) and conv.weight.dtype == torch.float64
    assert isinstance(network.get_submodule("first"), nn.Conv2d)
    assert not torch.equal(network.get_parameter("stem.weight"), model.get_parameter("stem.weight"))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert network(torch.zeros(1, 3, 8, 8, dtype=torch.float64)).shape == (1, 3)


def test_init_sees_every_module() -> None:
    seen: list[nn.Module] = []

    def init(module: nn.Module) -> None:
        seen.append(module)
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 0.5)

    network = resize(TinyNet(), {"first": 4}, init=init)
    assert seen == list(network.modules())
    assert all((conv.weight == 0.5).all() for conv in convolutions(network))


def test_batch_norm_starts_anew() -> None:
    model = TinyNet()
    model.norm(torch.randn(8, 4, 5, 5) + 3)
    assert not resize(model, {}).get_buffer("norm.running_mean").any()


class _Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.scale = nn.Conv2d(1, 1, 3), nn.Parameter(torch.tensor(2.0))

    def forward(self, images: Tensor) -> Tensor:
        return self.scale * self.conv(images)


def test_weights_that_nothing_can_renew_are_kept_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="the model has no reset_parameters"):
        assert resize(_Scaled(), {"conv": 5}).get_parameter("scale") == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        resize(_Scaled(), {"conv": 5}, init=lambda module: None)  # the caller sees to it


def test_a_module_used_twice_is_resized_once() -> None:
    shared = nn.Conv2d(2, 2, 3, padding=1)
    network = resize(nn.Sequential(shared, nn.ReLU(), shared), {"0": 4})
    assert network.get_submodule("0") is network.get_submodule("2") and len(convolutions(network)) == 1


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"third": 3}, "'third': there is no such module"),
        ({"norm": 3}, "'norm': not a plain Conv2d"),
        ({"first": 0}, "'first' to 0"),
    ],
)
def test_what_cannot_be_resized_is_an_error(sizes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resize(TinyNet(), sizes)
