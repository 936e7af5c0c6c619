"""The graph engine: a step that never asks the host, on CUDA captured as one graph and replayed, elsewhere just run.

Which step it is stands in a counter on the device; order, augmentation and learning rates stand in tables that the
counter reads. A second graph serves the short last batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, nn

from reproduce.errors import UserError
from reproduce.run.engine.base import Base, Lap
from reproduce.run.engine.tables import make_source
from reproduce.run.splits import Split
from reproduce.specs import Precision, Recipe

WARM_UPS = 3  # steps before a capture, in which libraries set themselves up


class GraphStepper(Base):
    """Steps that the device takes alone."""

    def __init__(
        self,
        model: nn.Module,
        split: Split,
        recipe: Recipe,
        *,
        seed: int,
        device: torch.device,
        precision: Precision,
        lap: Lap,
    ) -> None:
        super().__init__(model, split, recipe, seed=seed, device=device, precision=precision, lap=lap)
        self.counter = torch.zeros(1, dtype=torch.int64, device=device)  # steps done in the epoch
        self.source = make_source(split, recipe, self.counter, self.layout)
        # CUDA's fused optimisers read a float32; on the CPU they read a double, as plain steps give them.
        values = torch.float32 if device.type == "cuda" else torch.float64
        groups = len(self.optimizer.param_groups)
        self.rate_table = torch.zeros(self.steps, groups, dtype=values, device=device)
        self.rate_row = torch.zeros(1, groups, dtype=values, device=device)  # of the step under way
        images = len(split) if not recipe.drop_last else self.steps * recipe.batch_size
        self.last = images - (self.steps - 1) * recipe.batch_size  # images in the last batch
        sizes = {self.last} if self.steps == 1 else {recipe.batch_size, self.last}
        self.weights = {n: self.weights_of(n) for n in sizes}
        self.graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self.use_row()

    def weights_of(self, n: int) -> Tensor:
        """(3,): what a batch's mean loss, its hits and 1 count for in `sums`."""
        return torch.tensor([n, 1, n], dtype=torch.float64, device=self.device)

    def use_row(self) -> None:
        """The optimiser reads its rates where a step puts them."""
        for group, rate in zip(self.optimizer.param_groups, self.rate_row[0], strict=True):
            group["lr"] = rate
            group["capturable"] = self.device.type == "cuda"

    def start_epoch(
        self, epoch: int, *, skip: int = 0, augmentation_rng: Tensor | None = None, factor: float = 1.0
    ) -> None:
        self.enter(epoch, skip=skip, augmentation_rng=augmentation_rng, factor=factor)
        if self.device.type == "cuda" and not self.graphs:
            self.capture()
            self.lap("capture")

    def enter(self, epoch: int, *, skip: int = 0, augmentation_rng: Tensor | None = None, factor: float = 1.0) -> None:
        """All of `start_epoch` but the capture."""
        self.begin(epoch, skip, factor)
        self.source.start(self.batches(augmentation_rng))
        rates = [self.rates(step) for step in range(self.steps)]
        self.rate_table.copy_(torch.tensor(rates, dtype=self.rate_table.dtype))
        self.counter.fill_(skip)
        self.lap("tables")

    @property
    def augmentation_rng(self) -> Tensor | None:
        return self.source.augmentation_rng

    def _step(self) -> None:
        n = self.next_batch()
        if n in self.graphs:
            self.graphs[n].replay()
        else:
            self.body(n)
        self.done += 1
        self.lap("steps")

    def next_batch(self) -> int:
        """The host's part of a step: how many images the batch has that the source now holds."""
        self.ready()
        self.source.fetch()
        return self.last if self.done == self.steps - 1 else self.recipe.batch_size

    def body(self, n: int) -> None:
        """One step with a batch of n, without a look at any value: nothing here may wait for the device."""
        images, labels = self.source.batch(n)
        torch.index_select(self.rate_table, 0, self.counter, out=self.rate_row)
        # None, so that a capture takes the gradients into its own memory and a replay writes them there anew.
        self.optimizer.zero_grad(set_to_none=True)
        loss, logits = self.forward(images, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        with torch.no_grad():
            hits = (logits.argmax(1) == labels).sum(dtype=torch.float64)
            found = torch.stack((loss.double(), hits, torch.ones_like(hits)))
            self.sums.addcmul_(found, self.weights[n])
        self.counter += 1

    def load(self, optimizer: dict[str, Any], sums: Tensor, extra: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(optimizer)
        self.use_row()
        self.sums.copy_(sums)
        self.graphs.clear()  # they write to the state that was there before

    def capture(self) -> None:
        """A graph for each size of batch. They share their memory: nothing of one is read after the other."""
        stream = torch.cuda.Stream(self.device)
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):
            self.rehearse()
        torch.cuda.current_stream(self.device).wait_stream(stream)
        pool = torch.cuda.graph_pool_handle()
        for n in self.weights:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=pool):
                self.body(n)
            self.graphs[n] = graph

    def rehearse(self) -> None:
        """Steps that leave no trace but memory, optimiser state at zero, and libraries that are set up."""
        with self.unchanged():
            for n in self.weights:
                for _ in range(WARM_UPS):
                    self.counter.zero_()
                    self.body(n)
                self.counter.zero_()
                with never_waiting(type(self.model).__name__):
                    self.body(n)

    def state(self) -> list[Tensor]:
        """Every tensor that outlives a step; the optimiser's last, as its first step makes them."""
        found = [*self.model.parameters(), *self.model.buffers(), self.counter, self.sums]
        for values in self.optimizer.state.values():
            found += [value for value in values.values() if isinstance(value, Tensor)]
        return found

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Puts weights, optimiser, counter, sums and random numbers back, each where it is; new state becomes zero."""
        before = self.copied()
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            yield
        self.put_back(before)

    def copied(self) -> list[Tensor]:
        """A copy of `state`."""
        return [tensor.detach().clone() for tensor in self.state()]

    def put_back(self, before: list[Tensor]) -> None:
        """Each tensor of a copy to where it was; state that the optimiser has made since becomes zero."""
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            for tensor, value in zip_longest(self.state(), before):
                if value is None:
                    tensor.zero_()  # where every optimiser here starts
                else:
                    tensor.copy_(value)


@contextmanager
def never_waiting(name: str) -> Iterator[None]:
    """On CUDA raises `UserError` if the host waits for the device inside, which no graph can hold."""
    if not torch.cuda.is_available():
        yield
        return
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    except RuntimeError as error:
        if "synchronizing" not in str(error):
            raise
        raise UserError(f"{name} asks the host within a step; run it with --engine plain") from error
    finally:
        torch.cuda.set_sync_debug_mode(before)
