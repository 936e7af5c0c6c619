"""Data with known answers: made from a seed alone, balanced, decidable at the proven size and not below it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from reproduce.errors import UsageError
from reproduce.known_answers import receptive_field
from reproduce.run.known.networks import Spec, effective_size, flexconv, njet, sized
from reproduce.run.known.oracle import oracle_accuracy
from reproduce.run.known.tasks import Task, factor, lag_images
from reproduce.run.models import seeded

LAGS = [1, 2, 3, 4, 7, 8, 12]


def in_both_classes(d: int, count: int = 6) -> tuple[Tensor, Tensor]:
    """The same images with their copies added and negated."""
    labels = torch.arange(count) % 2
    task = Task("lag", d)
    one, other = (
        lag_images(y, d, task.side, task.channels, torch.Generator().manual_seed(d)) for y in (labels, 1 - labels)
    )
    return one, other


def logits(sizes: list[int], images: Tensor) -> Tensor:
    """Of a network with random weights, biases of batch norm among them, in float64."""
    with seeded(1):
        model = sized(sizes).double()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.bias)
    with torch.no_grad():
        found: Tensor = model.eval()(10 * images.double())  # so that ReLU is no straight line
    return found


@pytest.mark.parametrize("name", ["lag", "texture"])
def test_images_are_bit_identical_by_seed(name: str) -> None:
    task = Task(name, 3)
    for one, other in ((task.batches(2, 8, 5)[1], task.batches(2, 8, 5)[1]), (task.test_set(5), task.test_set(5))):
        assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])
    assert not torch.equal(task.batches(1, 8, 5)[0][0], task.batches(1, 8, 6)[0][0])
    assert not torch.equal(task.batches(1, 1000, 5)[0][0], task.test_set(5)[0])


@pytest.mark.parametrize("name", ["lag", "texture"])
def test_each_batch_has_as_many_of_each_class(name: str) -> None:
    for images, labels in [*Task(name, 2).batches(3, 32, 0), Task(name, 2).test_set(0)]:
        assert images.shape == (len(labels), 8, 16, 16)
        assert int(labels.sum()) * 2 == len(labels)


def test_what_is_no_task_is_refused() -> None:
    with pytest.raises(UsageError, match="nothing"):
        Task("nothing", 2)
    with pytest.raises(UsageError, match="1 or more"):
        Task("lag", 0)


@pytest.mark.parametrize("d", LAGS)
def test_lag_is_decided_by_the_construction_of_the_proof(d: int) -> None:
    images, labels = Task("lag", d).test_set(0)
    x = images[:200, 0].double()
    left, right = nn.functional.pad(x, (0, d)), nn.functional.pad(x, (d, 0))
    assert torch.equal(((left + right).abs() - (left - right).abs()).sum((1, 2)) > 0, labels[:200] == 1)


@pytest.mark.parametrize("d", LAGS)
def test_one_layer_cannot_tell_the_classes_apart_below_the_minimal_size(d: int) -> None:
    one, other = in_both_classes(d)
    for size in range(1, min(d, 7) + 1):
        torch.testing.assert_close(logits([size], one), logits([size], other))
    assert Task("lag", d).minimal_size == d + 1
    if d < 7:
        assert (logits([d + 1], one) - logits([d + 1], other)).abs().max() > 1e-2


@pytest.mark.parametrize("sizes", [[1, 3], [3, 1], [2, 2], [2, 4], [4, 4], [1, 7]])
def test_two_layers_have_the_same_mean_in_both_classes_below_the_minimal_receptive_field(sizes: list[int]) -> None:
    d = receptive_field(sizes)
    means = [logits(sizes, x) + logits(sizes, -x) for x in in_both_classes(d)]  # the noise is as often a as -a
    torch.testing.assert_close(*means)
    one, other = ([logits(sizes, x), logits(sizes, -x)] for x in in_both_classes(d - 1))
    assert (sum(one) - sum(other)).abs().max() > 1e-4  # type: ignore[union-attr]


def test_the_class_of_a_texture_is_its_smoothness() -> None:
    images, labels = Task("texture", 2).test_set(0)
    neighbours = (images[..., 1:] * images[..., :-1]).mean((1, 2, 3))
    # exp(-1 / d^2), of the smooth half of the variance; the noise has no neighbours
    assert neighbours[labels == 0].mean().item() == pytest.approx(0.7788, abs=0.02)
    assert neighbours[labels == 1].mean().item() == pytest.approx(0.8948, abs=0.02)
    assert images.var().item() == pytest.approx(2, abs=0.05)


def test_a_factor_gives_the_correlation_that_it_says() -> None:
    a = factor(3.0, 16).double()
    assert (a @ a.T)[0, :3].tolist() == pytest.approx([1, 0.8948, 0.6412], abs=1e-3)


def test_effective_size_is_the_smallest_centred_square_with_the_share() -> None:
    kernel = torch.zeros(2, 3, 7, 7)
    kernel[:, :, 3, 3] = 1
    assert effective_size(kernel) == 1
    kernel[0, 0, 3, 5] = 1  # a seventh of the squared weights, two columns off the centre
    assert effective_size(kernel) == 5
    assert effective_size(kernel, share=0.8) == 1
    assert effective_size(kernel.flip(3)) == 5
    assert effective_size(torch.ones(1, 1, 4, 4)) == 4
    assert effective_size(torch.tensor([[0.0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]])[None, None]) == 2
    assert effective_size(torch.ones(1, 1, 3, 9)) == 9


def test_networks_with_kernels_of_their_own_start_where_they_are_told() -> None:
    assert [flexconv(Spec(layers=2, start=start)).sizes() for start in (1, 2, 3, 6)] == [[1, 1], [3, 3], [3, 3], [7, 7]]
    assert [njet(Spec(layers=1, start=start)).sizes() for start in (1, 2, 3, 4, 5, 7)] == [[3], [3], [3], [5], [5], [7]]


def test_the_oracle_confirms_the_minimal_size() -> None:
    task = Task("lag", 2)
    below, at = (oracle_accuracy(task, 1, [size], seed=0, steps=200) for size in (2, 3))
    assert 45 <= below <= 55
    assert at >= 90


@pytest.mark.slow
@pytest.mark.parametrize("d", [1, 2, 3, 4, 6])
def test_the_oracle_confirms_every_minimal_size(d: int) -> None:
    task = Task("lag", d)
    below, at = (oracle_accuracy(task, 1, [size], seed=0, steps=300) for size in (d, d + 1))
    assert 45 <= below <= 55
    assert at >= 97
    assert 45 <= oracle_accuracy(task, 2, [1, d], seed=0, steps=300) <= 55
