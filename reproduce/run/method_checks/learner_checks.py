"""What is tested of a size learner: `learn(model, batches, *, budget, epochs, seed) -> result`."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from effconv.snapping import count
from reproduce.known_cases import TAP, TOLERANCE
from reproduce.run.known.networks import network
from reproduce.run.known.oracle import BATCH, train
from reproduce.run.known.tasks import Task
from reproduce.run.method_checks import trials
from reproduce.run.method_checks.methods import Method
from reproduce.run.method_checks.trials import FAR, LAYERS, NEAR, SEED, START, Batch, Check, Verdict
from reproduce.run.models import seeded

EPOCHS, STEPS = 2, 12  # of size learning; STEPS in each epoch
STOP = STEPS + STEPS // 2  # in the midst of the second epoch
# Budgets that two pairs of sizes meet exactly each, (3, 4) and (4, 7) and their mirrors, and the start meets neither.
LOW, HIGH = TAP * (3**2 + 4**2), TAP * (4**2 + 7**2)


def checks(method: Method) -> list[Check]:
    tried = _Tried(method)
    return [
        Check(name="sizes as told", run=tried.sizes_as_told),
        Check(name="budget identity", needs="has_budget", run=tried.budget_identity),
        Check(name="gradient reaches sizes", needs="gradient_based", run=tried.data_moves_sizes),
        Check(name="resume is exact", needs="resumable", run=tried.resume_is_exact),
        Check(name="seed decides", run=tried.seed_decides),
        Check(name="caller's model untouched", run=tried.untouched),
        Check(name="shuffled labels: chance", run=lambda: trials.falls_to_chance(tried.fit)),
        Check(name="overfits 64 images", run=lambda: trials.overfits(tried.fit)),
    ]


@dataclass(frozen=True)
class Learning:
    """v: soft sizes by layer; the sizes themselves where the method tells none."""

    sizes: list[int]
    v: list[float]
    result: Any
    touched: list[str]  # of the caller's model and batches


class _Tried:
    """A size learner and what it was seen to do; each run is made once, by the first check that asks for it."""

    def __init__(self, method: Method) -> None:
        self.call = method.call
        self.budgets: tuple[int | None, ...] = (LOW, HIGH) if "has_budget" in method.declared else (None,)

    def learned(
        self,
        task: Task = NEAR,
        *,
        batches: list[Batch] | None = None,
        budget: int | None = None,
        seed: int = SEED,
        elsewhere: int = 0,
        stop: int | None = None,
        **more: Any,
    ) -> Learning:
        """elsewhere: seed of torch's own generator, which is not to matter. stop: batches until it is interrupted."""
        budget = budget or self.budgets[0]
        with seeded(SEED):
            model = network(LAYERS, START)
        if batches is None:
            batches = task.batches(STEPS, BATCH, SEED)
        before, copies = trials.frozen(model), [(images.clone(), labels.clone()) for images, labels in batches]
        given = batches if stop is None else trials.Interruptible(batches, stop)
        with seeded(elsewhere):
            result = self.call(model, given, budget=budget, epochs=EPOCHS, seed=seed, **more)
        touched = trials.changed(before, trials.frozen(model))
        same = [
            one.equal(other) for pair in zip(copies, batches, strict=True) for one, other in zip(*pair, strict=True)
        ]
        touched += [] if all(same) else ["the batches"]
        sizes = list(result.sizes.values() if isinstance(result.sizes, Mapping) else result.sizes)
        return Learning(sizes, list(getattr(result, "notes", {}).get("v", sizes)), result, touched)

    @cached_property
    def first(self) -> Learning:
        return self.learned()

    @cached_property
    def again(self) -> Learning:
        return self.learned(elsewhere=1)

    @cached_property
    def by_budget(self) -> dict[int | None, Learning]:
        return {
            budget: self.first if budget == self.budgets[0] else self.learned(budget=budget) for budget in self.budgets
        }

    def fit(self, batches: list[Batch]) -> nn.Module:
        found = self.learned(batches=batches[:STEPS])
        with seeded(SEED):
            built: nn.Module = found.result.build()
            train(built, batches)
        return built

    def sizes_as_told(self) -> Verdict:
        """The plain network that is built has the sizes that the method tells."""
        for found in self.by_budget.values():
            built = [tuple(conv.kernel_size) for conv in _convs(found.result.build())]
            if built != [(size, size) for size in found.sizes]:
                return False, f"told {trials.numbers(found.sizes)}, built {built}"
        return True, "; ".join(trials.numbers(found.sizes) for found in self.by_budget.values()) + ", as built"

    def budget_identity(self) -> Verdict:
        """Eq. 3 of the sizes told is what the built convolutions hold, and lies within the tolerance of the budget."""
        texts, fine = [], True
        for budget, found in self.by_budget.items():
            assert budget is not None
            built = sum(conv.weight.numel() for conv in _convs(found.result.build()))
            said, error = count(found.sizes, [TAP] * len(found.sizes)), built / budget - 1
            fine = fine and built == said and abs(error) <= TOLERANCE
            texts.append(f"{built:,} weights ({said:,} by the sizes told) of {budget:,}: {error:+.1%}")
        return fine, "; ".join(texts) + f"; at most {TOLERANCE:.0%} asked for"

    def data_moves_sizes(self) -> Verdict:
        """At one seed and start, other data lead to other (soft) sizes; the same data do not."""
        moved = trials.largest_difference(self.first.v, self.learned(FAR).v)
        chance = trials.largest_difference(self.first.v, self.again.v)
        text = f"soft sizes differ by {moved:.2g} between two data sets, by {chance:.2g} between two runs on one"
        hint = '; tell soft sizes as result.notes["v"]' if self.first.v == self.first.sizes else ""
        return moved > chance, text + ("" if moved > chance else hint)

    def resume_is_exact(self) -> Verdict:
        """Stopped in the midst of the second epoch and called again, it ends where one call does."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "checkpoint.pt"
            try:
                self.learned(stop=STOP, checkpoint=file)
                return False, f"it reads at most {STOP} batches in {EPOCHS} epochs of {STEPS}: nothing to resume"
            except trials.Stopped:
                pass
            if not any(Path(folder).iterdir()):
                return False, f"stopped after {STOP} of {EPOCHS * STEPS} batches, there is no checkpoint"
            resumed = self.learned(elsewhere=2, checkpoint=file)
        off = trials.largest_difference(self.first.v, resumed.v)
        text = f"stopped after {STOP} of {EPOCHS * STEPS} batches and resumed: soft sizes differ by {off:.2g}"
        return off == 0 and resumed.sizes == self.first.sizes, f"{text}, sizes {trials.numbers(resumed.sizes)}"

    def seed_decides(self) -> Verdict:
        """`seed` fixes the sizes, whatever state other generators are in. One that has no effect is told."""
        off, sizes = trials.largest_difference(self.first.v, self.again.v), trials.numbers(self.first.sizes)
        if off != 0 or self.first.sizes != self.again.sizes:
            return False, f"sizes {sizes}, then {trials.numbers(self.again.sizes)}; soft sizes differ by {off:.2g}"
        moved = trials.largest_difference(self.first.v, self.learned(seed=SEED + 1).v)
        note = f"another seed moves soft sizes by {moved:.2g}" if moved else "another seed changes nothing"
        return True, f"sizes {sizes} twice, soft sizes differ by {off:.2g}; {note}"

    def untouched(self) -> Verdict:
        touched = self.first.touched
        return not touched, f"{len(touched)} parts changed" + (f", first {touched[0]}" if touched else "")


def _convs(built: nn.Module) -> list[nn.Conv2d]:
    return [module for module in built.modules() if isinstance(module, nn.Conv2d)]
