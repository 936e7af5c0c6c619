"""A step of size learning against a plain training step of the same CNN at the same kernel sizes.

ResNet-20 at a budget of 0.66M, CIFAR-10's shapes, batch 16, one thread. The plain side has a fused AdamW too, and the
memory format that suits it. CPU seconds.

    python -m benchmarks.size_learning_step
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.resnet import cifar_resnet
from benchmarks.side_by_side import side_by_side, spread, table, timed, verdict
from effconv import Readings, Settings, SizeLearner

BUDGET = 660_000
TARGET = 1.25
OURS, PLAIN, PLAIN_CONTIGUOUS = "size learning", "plain", "plain, NCHW"


def learner_on_budget() -> tuple[SizeLearner, list[int]]:
    """A learner whose sizes are within 1 % of the budget and stay there, and those sizes."""
    model = cifar_resnet(20)
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)][1:]
    learner = SizeLearner(model, names, Settings(budget=BUDGET), Readings())
    images, labels = torch.randn(2, 3, 8, 8), torch.tensor([0, 1])  # small: only the budget matters here
    for _ in range(1000):
        found = learner.step(images, labels, F.cross_entropy)
        if abs(found["budget_error"]) < 0.01:
            break
    else:
        raise RuntimeError("the sizes did not come within 1 % of the budget in 1,000 steps")
    for group in learner.optimizer.param_groups:  # every operation is still done, but nothing moves any more
        group["lr"] = torch.zeros_like(group["lr"]) if isinstance(group["lr"], Tensor) else 0.0
    return learner, learner.step(images, labels, F.cross_entropy)["s"]


def plain_step(sizes: list[int], images: Tensor, labels: Tensor, layout: torch.memory_format) -> Callable[[], float]:
    model = cifar_resnet(20, kernel_sizes=sizes).to(memory_format=layout)  # type: ignore[call-overload]
    images = images.contiguous(memory_format=layout)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=1e-3, fused=True)

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15, help="A B C C B A this often [15]")
    parser.add_argument("--batch", type=int, default=16, help="images in a step [16]")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    learner, sizes = learner_on_budget()
    images = torch.randn(options.batch, 3, 32, 32)
    labels = torch.randint(10, (options.batch,))
    laid_out = images.contiguous(memory_format=torch.channels_last)
    steps: dict[str, Callable[[], object]] = {
        OURS: lambda: learner.step(laid_out, labels, F.cross_entropy),
        PLAIN: plain_step(sizes, images, labels, torch.channels_last),
        PLAIN_CONTIGUOUS: plain_step(sizes, images, labels, torch.contiguous_format),
    }
    measures = {name: timed(step, repeats=3, clock=time.process_time) for name, step in steps.items()}
    found = side_by_side(measures, rounds=options.rounds)
    fastest = min((PLAIN, PLAIN_CONTIGUOUS), key=found.median)
    rows: list[list[object]] = []
    for name in steps:
        ratio = found.ratio(name, fastest)
        judged = verdict(ratio, at_most=TARGET) if name == OURS else ""
        rows.append([name, 1000 * found.median(name), ratio, spread(found.ratios(name, fastest)), judged])
    print(f"sizes: {' '.join(map(str, sizes))}\n")
    title = f"A step, ResNet-20 at {BUDGET / 1e6:.2f}M, batch {options.batch}, one thread"
    table(
        f"{title} (ms of CPU; ratio to the faster plain)",
        ["step", "ms", "ratio", "range", "target"],
        rows,
    )


if __name__ == "__main__":
    main()
