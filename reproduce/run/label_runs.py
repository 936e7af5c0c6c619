"""Size learning alone, for the label test: a case is found in the store, or carried out, resumable, and put there."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

import effconv
from reproduce.errors import Interrupted, UserError
from reproduce.records import Outcome, Snapped
from reproduce.run import machine
from reproduce.run.context import Context, Shelf
from reproduce.run.datasets import Dataset, Split
from reproduce.run.outcome import rounded, thinned
from reproduce.run.progress import Remote
from reproduce.run.recording import code
from reproduce.run.resume import Notes, clear
from reproduce.run.size_learning import call
from reproduce.run.size_steps import FirstSteps, Follower, shuffled
from reproduce.run.workers import POLL, Asked
from reproduce.size_records import SizeCase, SizeClock, SizeRecord, SizeStore
from reproduce.specs import PROTOCOL_VERSION
from reproduce.stopping import Stop
from reproduce.store import machine_id
from reproduce.traces import hold, now


def labelled(split: Split, case: SizeCase) -> Split:
    """The images with the labels of the case's arm."""
    if case.arm == "shuffled":
        return shuffled(split, case.seed)
    return shuffled(split, case.seed, "reshuffled_labels") if case.arm == "reshuffled" else split


def name_of(case: SizeCase) -> str:
    """For people: `shuffled labels, seed 3`."""
    planted = f" {case.planted:g}" if case.arm == "planted" else " labels"
    return f"{case.arm}{planted}, seed {case.seed}"


def begun_elsewhere(cases: Sequence[SizeCase], store: SizeStore) -> list[int]:
    """Seeds of which a run is still missing while another is recorded from a machine that may round differently."""
    here = machine_id(machine.description())
    found = [(case.seed, store.find(case)) for case in cases]
    missing = {seed for seed, record in found if record is None}
    return sorted({seed for seed, record in found if record is not None and record.machine != here} & missing)


def run_case(case: SizeCase, context: Context, shelf: Shelf | None = None) -> SizeRecord:
    """The record of a case.

    Raises `Interrupted` when `context.stop()` is true, with all state saved, and `UserError` for what a user can mend.
    """
    store, label = SizeStore(context.store.results), name_of(case)
    found = store.find(case)
    if found is not None:
        context.progress.note(f"{label}: {found.outcome.status} earlier, nothing to do")
        return found
    device, folder = machine.choose_device(context.device), store.resume_dir(case)
    with machine.settings(case.spec.threads, case.spec.precision), hold(folder):
        dataset = (shelf or Shelf()).get(case.spec.data, device, context)
        context.progress.run(label, {"sizes": case.spec.steps})
        record = learned(case, dataset, context, device=device, folder=folder)
        store.write(record)
        clear(folder)
    sizes = "" if record.sizes is None else " " + " ".join(map(str, record.sizes.values()))
    context.progress.done(label, record.outcome.status + sizes)
    return record


def learned(case: SizeCase, dataset: Dataset, context: Context, *, device: torch.device, folder: Path) -> SizeRecord:
    """One run from its resume state on, as a record. A loss that is not finite is an outcome."""
    spec, notes = case.spec, Notes(folder / "run.json")
    before = notes.load(started=str, resumed=int)
    shared = bool(before.get("shared")) or context.jobs > 1 or machine.others_at_work(spec.threads)
    began = before.get("started", now())
    resumed = before["resumed"] + 1 if before else 0
    notes.save({"started": began, "resumed": resumed, "shared": shared})
    epochs = FirstSteps(
        split=labelled(dataset.train, case),
        seed=case.seed,
        learning=spec.size_learning,
        normalisation=spec.normalisation,
        steps=spec.steps,
    )
    follower = Follower(
        epochs=epochs,
        steps=spec.steps,
        notes=Notes(folder / "size_learning.json"),
        every=context.save_every,
        progress=context.progress,
        stop=context.stop,
    )
    result, outcome = None, Outcome(status="finished")
    try:
        checkpoint = folder / "size_learning.pt"
        result = call(spec, case.seed, epochs, follower, device=device, checkpoint=checkpoint, planted=case.planted)
    except effconv.DivergedError as error:
        outcome = Outcome(status="diverged", reason=str(error))
    return SizeRecord(
        protocol_version=PROTOCOL_VERSION,
        case=case,
        outcome=outcome,
        sizes=None if result is None else result.sizes,
        snapped=None if result is None else Snapped(**without_sizes(result.snapped)),
        params=None if result is None else result.params,
        history=[] if result is None else [rounded(point) for point in thinned(result.history)],
        clock=SizeClock(
            started=began,
            finished=now(),
            seconds=sum(follower.clock().epoch_seconds),
            device=device.type,
            shared_device=shared or machine.others_at_work(spec.threads),
            resumed=resumed,
        ),
        machine=context.store.write_machine(machine.description()),
        data=dataset.origin,
        code=code(),
    ).signed()


def without_sizes(snapped: Any) -> dict[str, Any]:
    return {key: value for key, value in asdict(snapped).items() if key != "sizes"}


def run_cases(cases: Sequence[SizeCase], context: Context) -> list[SizeRecord]:
    """The records of all cases, in their order; with `context.jobs` above one that many processes work side by side.

    Raises what `run_case` raises, once every case under way has saved its state.
    """
    if context.jobs > 1 and len(cases) > 1:
        return _side_by_side(cases, context)
    shelf, records = Shelf(), []
    for case in cases:
        if context.stop():
            raise Interrupted  # before anything is loaded
        records.append(run_case(case, context, shelf))
    return records


class _Told(Asked):
    """In a worker process: whether it is to stop, by its parent's event, SIGTERM, the deadline or its parent's end."""

    def __init__(self, event: Any, messages: Any, deadline: float | None) -> None:
        super().__init__(deadline)
        self.event, self.messages = event, messages

    def __call__(self) -> bool:
        return bool(self.event.is_set()) or super().__call__()


_told: list[_Told] = []  # in a worker: its one; an executor can hand over an event only when the process begins


def _begin(event: Any, messages: Any, deadline: float | None) -> None:
    _told.append(_Told(event, messages, deadline))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C reaches all; the parent decides
    signal.signal(signal.SIGTERM, _told[0].note)


def _work(case: SizeCase, context: Context) -> SizeRecord:
    """In a worker: one case."""
    told = _told[0]
    if told():
        raise Interrupted
    remote = Remote(lambda kind, *args, **kwargs: told.messages.put((kind, args, kwargs)))
    return run_case(case, replace(context, progress=remote, stop=told))


def _side_by_side(cases: Sequence[SizeCase], context: Context) -> list[SizeRecord]:
    spawn = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    event, messages = spawn.Event(), spawn.SimpleQueue()
    deadline = context.stop.deadline if isinstance(context.stop, Stop) else None
    bare = replace(context, progress=None, stop=None)  # type: ignore[arg-type]
    told = (event, messages, deadline)
    with ProcessPoolExecutor(context.jobs, mp_context=spawn, initializer=_begin, initargs=told) as pool:
        futures = [pool.submit(_work, case, bare) for case in cases]
        pending: set[Future[SizeRecord]] = set(futures)
        try:
            while pending:
                done, pending = wait(pending, POLL, FIRST_COMPLETED)
                while not messages.empty():
                    kind, args, kwargs = messages.get()
                    getattr(context.progress, kind)(*args, **kwargs)
                if context.stop() or any(future.exception() for future in done):
                    event.set()  # the others save their state and end
        finally:
            event.set()
    problems = [problem for future in futures if (problem := future.exception()) is not None]
    if not problems:
        return [future.result() for future in futures]
    problem = next((one for one in problems if not isinstance(one, Interrupted)), problems[0])
    if isinstance(problem, BrokenProcessPool):
        raise UserError(
            "a process was killed, perhaps for want of memory; run the command again, which goes on from the last "
            "saved state, with fewer --jobs"
        ) from problem
    raise problem
