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
from reproduce.run.datasets import Dataset
from reproduce.run.distributed import Group, SharedSlot
from reproduce.run.engine import make_stepper
from reproduce.run.evaluation import Evaluated, evaluate, pack
from reproduce.run.losses import score_loss
from reproduce.run.models import seeded
from reproduce.run.outcome import StepDone, TrainingResult, TrainingState, Watcher
from reproduce.run.resume import Slot
from reproduce.run.schedules import redrawn_factor
from reproduce.run.streams import noise_state, set_noise_state, stream_seed
from reproduce.specs import Engine, Precision, Recipe

LOOK_EVERY = 20  # steps between looks at the loss, since a look waits for the device


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
    engine: Engine = "plain",
    precision: Precision = "float32",
    group: Group | None = None,
) -> TrainingResult:
    """Train `model`, in place, on `dataset`, whose tensors lie on `device`, by the steps of an engine.

    Goes on from what `resume` holds. When `stop()` is true the state is saved and `Interrupted` raised, before the next
    step. A loss that is not finite ends training as diverged. Raises `UserError` for what `make_stepper` cannot do.
    `group`: the processes that all call this alike and share every step; only the first one evaluates and saves.
    """
    trainer = _Trainer(model, dataset, recipe, seed, device, resume, progress, stop, engine, precision, group)
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
        engine: Engine,
        precision: Precision,
        group: Group | None,
    ) -> None:
        self.model, self.dataset, self.recipe, self.seed, self.device = model, dataset, recipe, seed, device
        self.resume, self.progress, self.stop = resume, progress, stop
        # What all processes do alike: whether to pause, and what the first one alone finds out.
        self.agree: Callable[[bool], bool] = bool
        self.once: Callable[[Callable[[], Evaluated | None]], Evaluated | None] = lambda work: work()
        if group is not None:
            self.resume, self.agree, self.once = SharedSlot(resume, group), group.agree, group.once
        self.stepper = make_stepper(
            model, dataset.train, recipe, seed=seed, device=device, engine=engine, precision=precision, group=group
        )
        self.steps = self.stepper.steps
        # Captured steps are so short that a look at each twentieth would be felt.
        self.look_every = self.steps if engine == "graph" and device.type == "cuda" else LOOK_EVERY
        self.redrawn = 1.0  # times all rates, in the epoch under way
        self.state = TrainingState()
        self.unsaved = False  # whether a step was done since the state was saved or loaded
        self.augmentation_rng: Tensor | None = None  # saved in the epoch under way, to go on from

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
        self.augmentation_rng = None
        self.redraw()
        torch.manual_seed(stream_seed(self.seed, "noise", self.state.epoch + 1))

    def redraw(self) -> None:
        """A redrawn rate follows from the epochs behind, so it needs no state of its own."""
        if self.recipe.schedule == "redrawn":
            self.redrawn = redrawn_factor([point["train_top1"] for point in self.state.points], self.seed)

    def train_epoch(self) -> None:
        """The steps of the epoch that are still to do."""
        with self.clock():
            self.stepper.start_epoch(
                self.state.epoch,
                skip=self.state.step,
                augmentation_rng=self.augmentation_rng,
                factor=self.redrawn,
            )
        while self.state.step < self.steps and not self.state.diverged:
            with self.clock():
                self.train_until_due()
            if self.state.step < self.steps:
                self.save()
                self.stop_if_asked()

    def train_until_due(self) -> None:
        """Steps until the epoch ends, the loss is no longer finite, or it is time to save or to stop."""
        while self.state.step < self.steps:
            self.stepper.step()
            self.state.step += 1
            self.unsaved = True
            if self.state.step % self.look_every == 0 or self.state.step == self.steps:
                self.look()
            if self.state.diverged or self.agree(self.resume.due() or self.stop()):
                return

    @contextmanager
    def clock(self) -> Iterator[None]:
        """Counts the seconds of the epoch. Saving and evaluation lie outside."""
        started = time.perf_counter()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.state.seconds += time.perf_counter() - started

    def mean_loss(self) -> float:
        """Over the epoch so far. Waits for the device."""
        return (self.stepper.sums[0] / self.stepper.sums[2]).item()

    def look(self) -> None:
        """See whether the loss is still finite, and tell the watcher."""
        loss = self.mean_loss()
        if not math.isfinite(loss) and self.stepper.settled:
            self.state.diverged = f"the training loss was not finite in epoch {self.state.epoch + 1}"
        elif math.isfinite(loss) and self.state.step < self.steps:
            self.tell(self.state.epoch + 1, self.state.step, loss)

    def tell(self, epoch: int, step: int, loss: float) -> None:
        top1 = self.state.last["top1"] if self.state.last else None
        where = {"epoch": epoch, "epochs": self.recipe.epochs, "step": step, "steps": self.steps}
        self.progress.update(StepDone(stage="training", **where, loss=loss, top1=top1))

    def finish_epoch(self) -> None:
        """Evaluate if it is its turn, count the epoch, and note what came out."""
        state, loss, epoch = self.state, self.mean_loss(), self.state.epoch + 1
        turn = epoch % self.recipe.evaluate_every == 0 or epoch == self.recipe.epochs
        measured = self.evaluate(epoch) if turn else {}
        state.epoch = epoch
        state.epoch_seconds.append(state.seconds)
        point = {
            "epoch": epoch,
            "lr": self.stepper.lr,  # of the last step, without a group's factor
            "train_loss": loss,
            "train_top1": 100.0 * (self.stepper.sums[1] / self.stepper.sums[2]).item(),
        }
        state.points.append(point | measured)
        self.tell(epoch, self.steps, loss)

    def evaluate(self, epoch: int) -> dict[str, float]:
        """Measures on the test set, for the history; empty, and diverged, if an output is not finite."""
        state, started = self.state, time.perf_counter()
        try:
            found = self.once(partial(self.measures, epoch))
        except Interrupted:
            if self.unsaved:
                self.save()  # after the last step of the epoch: the evaluation will be done anew
            raise
        state.evaluation_seconds.append(time.perf_counter() - started)
        if found is None:
            state.diverged = f"an output on the test set was not finite after epoch {epoch}"
            return {}
        state.note_evaluation(found.measures, pack(found.correct))
        return {"top1": found.measures.top1, "test_loss": found.measures.loss}

    def measures(self, epoch: int) -> Evaluated | None:
        return evaluate(
            self.model,
            self.dataset.test,
            normalisation=self.recipe.normalisation,
            epoch=epoch,
            loss=partial(score_loss, self.recipe),
            stop=self.stop,
        )

    def stop_if_asked(self) -> None:
        """Only where the state was just saved, or there is none yet."""
        if self.agree(self.stop()):
            raise Interrupted

    def save(self) -> None:
        self.resume.save(
            {
                "state": asdict(self.state),
                "model": self.model.state_dict(),
                "optimizer": self.stepper.optimizer.state_dict(),
                "sums": self.stepper.sums,
                "augmentation_rng": self.stepper.augmentation_rng if self.state.step else None,
                "noise": noise_state(self.device),
                "stepper": self.stepper.extra(),
            }
        )
        self.unsaved = False

    def load(self) -> bool:
        """Go on from the saved state; False if there is none."""
        saved = self.resume.load(self.device)
        if saved is None:
            return False
        try:
            self.state = TrainingState(**saved["state"])
            self.model.load_state_dict(saved["model"])
            self.stepper.load(saved["optimizer"], saved["sums"], saved.get("stepper", {}))
            self.redraw()
            self.augmentation_rng = saved["augmentation_rng"]
            set_noise_state(saved["noise"][: 2 if self.device.type == "cuda" else 1])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            folder = self.resume.path.parent
            raise UserError(f"the saved state in {folder} is of another version; delete that folder") from error
        return True
