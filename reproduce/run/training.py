"""The one training loop: a network from scratch by a recipe, evaluated on the test set, resumable at any step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial

import torch
from torch import Tensor, nn

from reproduce.errors import Interrupted, UserError
from reproduce.run.batches import Batches, memory_format, steps_per_epoch
from reproduce.run.datasets import Dataset
from reproduce.run.evaluation import evaluate, pack
from reproduce.run.losses import make_loss, score_loss
from reproduce.run.models import seeded
from reproduce.run.optimizers import make_optimizer
from reproduce.run.outcome import TrainingResult, TrainingState, Watcher
from reproduce.run.resume import Slot
from reproduce.run.schedules import redrawn_factor, schedule
from reproduce.run.streams import stream_seed
from reproduce.specs import Recipe

CHECK_EVERY = 20  # steps between looks at the loss, since a look waits for the device


def train(
    model: nn.Module,
    dataset: Dataset,
    recipe: Recipe,
    *,
    seed: int,
    device: torch.device,
    resume: Slot,
    progress: Watcher,
    stop: Callable[[], bool],
) -> TrainingResult:
    """Train `model`, in place, on `dataset`, whose tensors lie on `device`.

    Goes on from what `resume` holds. When `stop()` is true the state is saved and `Interrupted` raised, before the next
    step. A loss that is not finite ends training as diverged. Raises `UserError` for fewer images than one batch.
    """
    trainer = _Trainer(model, dataset, recipe, seed, device, resume, progress, stop)
    with seeded(stream_seed(seed, "noise")):  # dropout's, if there is any; torch's own generator stays as it was
        trainer.run()
    return trainer.state.result()


class _Trainer:
    """One call of `train`."""

    def __init__(
        self,
        model: nn.Module,
        dataset: Dataset,
        recipe: Recipe,
        seed: int,
        device: torch.device,
        resume: Slot,
        progress: Watcher,
        stop: Callable[[], bool],
    ) -> None:
        self.model = model.to(device=device, memory_format=memory_format(device))  # type: ignore[call-overload]
        self.dataset, self.recipe, self.seed, self.device = dataset, recipe, seed, device
        self.resume, self.progress, self.stop = resume, progress, stop
        images = len(dataset.train)
        self.steps = steps_per_epoch(images, recipe.batch_size, drop_last=recipe.drop_last)
        if not self.steps:
            raise UserError(f"{images} training images are less than one batch of {recipe.batch_size}; take more")
        self.optimizer = make_optimizer(self.model, recipe)
        factors = [group["lr_factor"] for group in self.optimizer.param_groups]
        self.rates = [schedule(recipe, self.steps, lr_factor=factor) for factor in factors]
        self.redrawn = 1.0  # times all rates, in the epoch under way
        self.loss = make_loss(recipe)
        self.state = TrainingState()
        self.sums = torch.zeros(3, dtype=torch.float64, device=device)  # over the epoch: loss, correct, images
        self.batches = self.batches_to_come(None)

    def batches_to_come(self, augmentation_rng: Tensor | None) -> Batches:
        """What is left of the epoch under way."""
        return Batches(
            split=self.dataset.train,
            seed=self.seed,
            stream=(),
            epoch=self.state.epoch + 1,
            batch_size=self.recipe.batch_size,
            augmentation=self.recipe.augmentation,
            normalisation=self.recipe.normalisation,
            drop_last=self.recipe.drop_last,
            skip=self.state.step,
            augmentation_rng=augmentation_rng,
        )

    def run(self) -> None:
        if not self.load():
            self.start_epoch()
        while self.state.epoch < self.recipe.epochs and not self.state.diverged:
            self.stop_if_asked()
            self.train_epoch()
            if not self.state.diverged:
                self.finish_epoch()
            self.start_epoch()
            self.save()

    def start_epoch(self) -> None:
        """Every epoch starts its own streams, so that it does not depend on how those before were interrupted."""
        self.state.step, self.state.seconds = 0, 0.0
        self.sums.zero_()
        self.batches = self.batches_to_come(None)
        self.redraw()
        torch.manual_seed(stream_seed(self.seed, "noise", self.state.epoch + 1))

    def redraw(self) -> None:
        """A redrawn rate follows from the epochs behind, so it needs no state of its own."""
        if self.recipe.schedule == "redrawn":
            self.redrawn = redrawn_factor([point["train_top1"] for point in self.state.points], self.seed)

    def train_epoch(self) -> None:
        """The steps of the epoch that are still to do."""
        self.model.train()
        batches = iter(self.batches)
        while self.state.step < self.steps and not self.state.diverged:
            with self.clock():
                self.train_until_due(batches)
            if self.state.step < self.steps:
                self.save()
                self.stop_if_asked()

    def train_until_due(self, batches: Iterator[tuple[Tensor, Tensor]]) -> None:
        """Steps until the epoch ends, the loss is no longer finite, or it is time to save or to stop."""
        for images, labels in batches:
            self.step(images, labels)
            if self.state.step % CHECK_EVERY == 0 or self.state.step == self.steps:
                self.look()
            if self.state.diverged or self.resume.due() or self.stop():
                return

    @contextmanager
    def clock(self) -> Iterator[None]:
        """Counts the seconds of the epoch. Saving and evaluation lie outside."""
        started = time.perf_counter()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.state.seconds += time.perf_counter() - started

    def step(self, images: Tensor, labels: Tensor) -> None:
        """One update. images: (B, C, H, W) float32; labels: (B,)."""
        now = self.state.epoch * self.steps + self.state.step
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = self.redrawn * rate(now)
        self.optimizer.zero_grad(set_to_none=True)
        loss, logits = self.loss(self.model, images, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        with torch.no_grad():
            right = (logits.argmax(1) == labels).sum().double()
            self.sums += torch.stack((loss.double() * len(labels), right, torch.ones_like(right) * len(labels)))
        self.state.step += 1

    def mean_loss(self) -> float:
        """Over the epoch so far. Waits for the device."""
        return (self.sums[0] / self.sums[2]).item()

    def look(self) -> None:
        """See whether the loss is still finite, and tell the watcher."""
        loss = self.mean_loss()
        if not math.isfinite(loss):
            self.state.diverged = f"the training loss was not finite in epoch {self.state.epoch + 1}"
        elif self.state.step < self.steps:
            self.tell(self.state.epoch + 1, self.state.step, loss)

    def tell(self, epoch: int, step: int, loss: float) -> None:
        top1 = self.state.last["top1"] if self.state.last else None
        self.progress.update("training", epoch, self.recipe.epochs, step, self.steps, loss, top1)

    def finish_epoch(self) -> None:
        """Count the epoch, evaluate if it is its turn, and note what came out."""
        state, loss = self.state, self.mean_loss()
        state.epoch += 1
        state.epoch_seconds.append(state.seconds)
        point = {
            "epoch": state.epoch,
            "lr": self.optimizer.param_groups[-1]["lr"],  # of the last step, without a group's factor
            "train_loss": loss,
            "train_top1": 100.0 * (self.sums[1] / self.sums[2]).item(),
        }
        if state.epoch % self.recipe.evaluate_every == 0 or state.epoch == self.recipe.epochs:
            point |= self.evaluate()
        state.points.append(point)
        self.tell(state.epoch, self.steps, loss)

    def evaluate(self) -> dict[str, float]:
        """Measures on the test set, for the history; empty, and diverged, if an output is not finite."""
        state, started = self.state, time.perf_counter()
        found = evaluate(
            self.model,
            self.dataset.test,
            normalisation=self.recipe.normalisation,
            epoch=state.epoch,
            loss=partial(score_loss, self.recipe),
        )
        state.evaluation_seconds.append(time.perf_counter() - started)
        if found is None:
            state.diverged = f"an output on the test set was not finite after epoch {state.epoch}"
            return {}
        state.note_evaluation(found.measures, pack(found.correct))
        return {"top1": found.measures.top1, "test_loss": found.measures.loss}

    def stop_if_asked(self) -> None:
        """Only where the state was just saved, or there is none yet."""
        if self.stop():
            raise Interrupted

    def save(self) -> None:
        noise = [torch.get_rng_state()] + ([torch.cuda.get_rng_state()] if self.device.type == "cuda" else [])
        self.resume.save(
            {
                "state": asdict(self.state),
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "sums": self.sums,
                "augmentation_rng": self.batches.augmentation_rng,
                "noise": noise,
            }
        )

    def load(self) -> bool:
        """Go on from the saved state; False if there is none."""
        saved = self.resume.load(self.device)
        if saved is None:
            return False
        try:
            self.state = TrainingState(**saved["state"])
            self.model.load_state_dict(saved["model"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.sums = saved["sums"]
            self.redraw()
            self.batches = self.batches_to_come(saved["augmentation_rng"])
            torch.set_rng_state(saved["noise"][0].cpu())
            if self.device.type == "cuda" and len(saved["noise"]) > 1:
                torch.cuda.set_rng_state(saved["noise"][1].cpu())
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            folder = self.resume.path.parent
            raise UserError(f"the saved state in {folder} is of another version; delete that folder") from error
        return True
