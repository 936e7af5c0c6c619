"""What size learning gives back: its network, its file, its thinned history."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from effconv import KernelSizes, learn_kernel_sizes
from effconv.result import History
from tests.effconv.helpers import TINY_BUDGET, TinyNet, convolutions, random_batches


@pytest.fixture(scope="module")
def learned() -> KernelSizes:
    torch.manual_seed(0)
    return learn_kernel_sizes(TinyNet(), random_batches(), budget=TINY_BUDGET, epochs=2)


def test_a_file_holds_all_but_the_network(learned: KernelSizes, tmp_path: Path) -> None:
    learned.save(tmp_path / "sizes.json")
    loaded = KernelSizes.load(tmp_path / "sizes.json")
    assert loaded == learned  # the network takes no part in this
    assert list(loaded.sizes) == list(learned.sizes) and loaded.history == learned.history
    assert json.loads((tmp_path / "sizes.json").read_text())["sizes"] == learned.sizes
    with pytest.raises(ValueError, match="without their network"):
        loaded.build()


def test_a_loaded_result_builds_with_the_network_given(learned: KernelSizes, tmp_path: Path) -> None:
    learned.save(tmp_path / "sizes.json")
    network = KernelSizes.load(tmp_path / "sizes.json", model=TinyNet()).build()
    assert [str(module) for module in network.modules()] == [str(module) for module in learned.build().modules()]


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "{}", '{"format": 1}', '{"format": 99, "sizes": {}}', "\0\1"])
def test_another_file_is_an_error(content: str, tmp_path: Path) -> None:
    (tmp_path / "sizes.json").write_text(content)
    with pytest.raises(ValueError, match=r"sizes\.json holds no kernel sizes"):
        KernelSizes.load(tmp_path / "sizes.json")


def test_what_the_result_says_holds_together(learned: KernelSizes) -> None:
    snapped = learned.snapped
    assert snapped.rounded == [math.floor(v + 0.5) for v in snapped.soft]
    assert snapped.sizes == [a + b for a, b in zip(snapped.rounded, snapped.moved, strict=True)]
    counts = [16 * first**2 + 32 * second**2 for first, second in (snapped.rounded, snapped.sizes)]
    assert learned.params == counts[1] and learned.budget == TINY_BUDGET
    errors = [count / TINY_BUDGET - 1 for count in counts]
    assert [snapped.error_before, snapped.error_after] == pytest.approx(errors)
    assert 0 <= snapped.differs_from_initial <= 2
    assert learned.settings["lam"] == 2.0 and learned.settings["size_predictor"] == "bigru"
    assert set(learned.history[0]) == {
        "epoch", "step", "v", "s", "loss", "budget_loss", "budget_error", "class_grad", "budget_grad",
    }  # fmt: skip


def test_build_initialises_every_module(learned: KernelSizes) -> None:
    def ones(module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d):
            nn.init.ones_(module.weight)

    assert all((conv.weight == 1).all() for conv in convolutions(learned.build(ones)))
    first, second = (learned.build().get_parameter("head.weight") for _ in range(2))
    assert not torch.equal(first, second)  # new weights each time


@pytest.mark.parametrize("length", [1, 199, 200, 201, 5_000])
def test_history_is_thinned_evenly(length: int) -> None:
    history = History()
    for step in range(length):
        history.add({"step": step})
    steps = [point["step"] for point in history.points]
    assert len(steps) <= 200 and (length > 200 or len(steps) == length)
    assert len({b - a for a, b in itertools.pairwise(steps)}) <= 1
    assert steps[0] == 0 and (length < 200 or len(steps) >= 100)


def test_a_resumed_history_goes_on_as_it_would_have() -> None:
    whole, state = History(limit=10), dict[str, Any]()
    for step in range(57):
        whole.add({"step": step})
        if step == 30:
            state = json.loads(json.dumps(whole.state()))
    resumed = History(limit=10)
    resumed.load_state(state)
    for step in range(31, 57):
        resumed.add({"step": step})
    assert resumed.points == whole.points
