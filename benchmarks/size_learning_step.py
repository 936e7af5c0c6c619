"""A step of size learning against a plain training step of the same CNN at the same kernel sizes.

ResNet-20 at a budget of 0.66M with sizes up to 5, CIFAR-10's shapes, one thread, at the protocol's batch of 64 and at
16. The plain side has a fused AdamW too, and the memory format that suits it. CPU seconds.

    python -m benchmarks.size_learning_step
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.resnet import cifar_resnet
from benchmarks.side_by_side import Comparison, side_by_side, spread, table, timed, verdict
from effconv import Readings, Settings, SizeLearner, snap_to_budget

BUDGET, LARGEST = 660_000, 5
TARGETS = {64: 1.20}  # by batch: the protocol's; 16 is there to see what the step costs beside little work
OURS, PLAIN, PLAIN_CONTIGUOUS = "size learning", "plain", "plain, NCHW"


def learner_on_budget() -> tuple[SizeLearner, list[int]]:
    """A learner whose sizes are on budget and stay there, and those sizes."""
    model = cifar_resnet(20)
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)][1:]
    learner = SizeLearner(model, names, Settings(budget=BUDGET), Readings())
    sizes = snap_to_budget(learner.initial.tolist(), learner.costs, BUDGET, max_size=LARGEST)
    predictor = learner.size_predictor
    with torch.no_grad():  # b of Eq. 1 such that v is these sizes
        at_zero = (learner.initial - predictor.k - 1) / predictor.k
        wanted = (torch.tensor(sizes) - predictor.k - 1) / predictor.k
        predictor.bias += torch.atanh(wanted) - torch.atanh(at_zero)
    for group in learner.optimizer.param_groups:  # every operation is still done, but nothing moves any more
        group["lr"] = torch.zeros_like(group["lr"]) if isinstance(group["lr"], Tensor) else 0.0
    if learner.soft_and_integer_sizes()[1] != sizes:
        raise RuntimeError("the sizes are not those that were asked for")
    return learner, sizes


def plain_step(
    sizes: Sequence[int], images: Tensor, labels: Tensor, layout: torch.memory_format
) -> Callable[[], float]:
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


def compared(learner: SizeLearner, sizes: Sequence[int], batch: int, rounds: int) -> Comparison:
    images, labels = torch.randn(batch, 3, 32, 32), torch.randint(10, (batch,))
    laid_out = images.contiguous(memory_format=torch.channels_last)
    steps: dict[str, Callable[[], object]] = {
        OURS: lambda: learner.step(laid_out, labels, F.cross_entropy),
        PLAIN: plain_step(sizes, images, labels, torch.channels_last),
        PLAIN_CONTIGUOUS: plain_step(sizes, images, labels, torch.contiguous_format),
    }
    measures = {name: timed(step, repeats=max(1, 48 // batch), clock=time.process_time) for name, step in steps.items()}
    return side_by_side(measures, rounds=rounds)


def rows_of(batch: int, found: Comparison) -> list[list[object]]:
    fastest = min((PLAIN, PLAIN_CONTIGUOUS), key=found.median)
    rows: list[list[object]] = []
    for name in found.seconds:
        ratio = found.ratio(name, fastest)
        judged = verdict(ratio, at_most=TARGETS[batch]) if name == OURS and batch in TARGETS else ""
        rows.append([batch, name, 1000 * found.median(name), ratio, spread(found.ratios(name, fastest)), judged])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=8, help="A B C C B A this often [8]")
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 16], help="images in a step [64 16]")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    learner, sizes = learner_on_budget()
    rows = [row for batch in options.batches for row in rows_of(batch, compared(learner, sizes, batch, options.rounds))]
    print(f"sizes: {' '.join(map(str, sizes))}\n")
    title = f"A step, ResNet-20 at {BUDGET / 1e6:.2f}M, one thread (ms of CPU; ratio to the faster plain)"
    table(title, ["batch", "step", "ms", "ratio", "range", "target"], rows)


if __name__ == "__main__":
    main()
