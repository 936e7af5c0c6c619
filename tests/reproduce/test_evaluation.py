"""Measures on a test set, against numbers counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from reproduce.run.datasets import Split
from reproduce.run.evaluation import evaluate, macro_measures, pack, unpack


class Told(nn.Module):
    """Gives back logits that stand in the images' first pixels."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits, self.seen = logits, 0

    def forward(self, images: Tensor) -> Tensor:
        assert not self.training
        self.seen += len(images)
        return self.logits[self.seen - len(images) : self.seen]


def split(labels: list[int]) -> Split:
    return Split(images=torch.zeros(len(labels), 1, 4, 4, dtype=torch.uint8), labels=torch.tensor(labels))


def test_all_measures_by_hand() -> None:
    labels, predicted = [0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 2, 1]
    logits = torch.full((6, 7), -1.0)
    for row, (label, guess) in enumerate(zip(labels, predicted, strict=True)):
        logits[row, label], logits[row, guess] = 1.0, 2.0
    found = evaluate(Told(logits).train(), split(labels), normalisation="mnist", epoch=3)
    assert found is not None
    measures = found.measures
    assert measures.epoch == 3
    assert measures.top1 == pytest.approx(50)
    assert measures.top5 == 100
    assert measures.precision == pytest.approx(100 * (1 + 1 / 3 + 0) / 3)
    assert measures.recall == pytest.approx(100 * (2 / 3 + 1 / 2 + 0) / 3)
    assert measures.f1 == pytest.approx(100 * (4 / 5 + 2 / 5 + 0) / 3)
    right, wrong = np.log(np.e**2 + 6 / np.e) - 2, np.log(np.e**2 + np.e + 5 / np.e) - 1
    assert measures.loss == pytest.approx((3 * right + 3 * wrong) / 6)
    assert found.correct.tolist() == [True, True, False, True, False, False]


def test_top5_counts_the_fifth_but_not_the_sixth() -> None:
    logits = torch.arange(7.0, 0.0, -1.0).repeat(2, 1)
    found = evaluate(Told(logits), split([4, 5]), normalisation="mnist", epoch=1)
    assert found is not None and found.measures.top5 == 50


def test_the_whole_test_set_is_seen_in_its_order_in_several_batches_and_the_mode_is_kept() -> None:
    labels = (torch.arange(450) % 10).tolist()
    net = Told(torch.eye(10)[torch.tensor(labels)]).train()
    found = evaluate(net, split(labels), normalisation="mnist", epoch=1)
    assert found is not None and found.measures.top1 == 100 and net.seen == 450 and net.training


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_an_output_that_is_not_finite_cannot_be_measured(bad: float) -> None:
    logits = torch.zeros(3, 5)
    logits[1, 1] = bad
    assert evaluate(Told(logits), split([0, 1, 2]), normalisation="mnist", epoch=1) is None


def test_a_class_that_is_never_predicted_has_precision_zero_without_a_warning() -> None:
    precision, recall, f1 = macro_measures(np.array([0, 1]), np.array([0, 0]))
    assert (precision, recall, f1) == pytest.approx((25, 50, 100 / 3))


@pytest.mark.parametrize("count", [1, 8, 13, 10_000])
def test_bits_come_back(count: int) -> None:
    correct = np.arange(count) % 3 == 0
    assert unpack(pack(correct), count).tolist() == correct.tolist()


def test_the_first_image_is_the_highest_bit() -> None:
    assert pack(np.array([True] + 7 * [False])) == "gA=="
