"""Cases of the benchmark computed: one thread each, several side by side, the oracle's before those that they judge."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from typing import Any

from reproduce import known_cases, plan
from reproduce.errors import Interrupted, UserError
from reproduce.known_answers import ORACLE, Case, KnownAnswer, KnownClock, KnownStore, case_id, first_sizes
from reproduce.known_scores import scores
from reproduce.run import machine
from reproduce.run.known import learners, oracle
from reproduce.run.known.tasks import Task
from reproduce.run.recording import code
from reproduce.store import Store, machine_id
from reproduce.traces import now

Say = Callable[[str], None]
Curve = Mapping[int, float]  # the oracle's {receptive field: accuracy in %}


def run_case(
    case: Case, *, stop: Callable[[], bool] = lambda: False, curve: Curve | None = None, commit: Any = None
) -> KnownAnswer:
    """Compute one case and score it. It is not stored.

    curve: what the oracle reaches; None: its networks are trained here. commit: as `recording.code` has it.
    Raises `Interrupted` if `stop()` is true before it begins, `UserError` for a method that is not there.
    """
    if stop():
        raise Interrupted(idle=True)
    if case.method == ORACLE:
        return _recorded(case, lambda: _fixed(case), commit)
    if case.method not in learners.METHODS:
        raise UserError(f"no method is named {case.method!r}; there are {', '.join(learners.METHODS)}")
    if curve is None:
        curve = known_cases.curve(run_case(one, stop=stop, commit=commit) for one in known_cases.oracle_cases(case))
    return _recorded(case, lambda: _learned(case, curve), commit)


def _fixed(case: Case) -> dict[str, Any]:
    """The oracle's networks have the sizes that they have."""
    accuracy = oracle.oracle_accuracy(
        Task(name=case.task, scale=case.scale), case.layers, case.fixed, case.seed, case.steps
    )
    sizes = list(case.fixed)
    return {"sizes": sizes, "effective_sizes": sizes, "test_accuracy": accuracy, "minimal": case.minimal}


def _learned(case: Case, curve: Curve) -> dict[str, Any]:
    found = learners.METHODS[case.method](case)
    accuracy = found.test_accuracy if found.test_accuracy == found.test_accuracy else None  # NaN: diverged
    judged = scores(
        case,
        sizes=found.sizes,
        effective_sizes=found.effective_sizes,
        accuracy=accuracy,
        curve=curve,
        reachable=known_cases.reachable(case),
        dead=bool(found.notes.get("dead")),
        started=first_sizes(case, found.notes),
    )
    return {
        "sizes": found.sizes,
        "effective_sizes": found.effective_sizes,
        "test_accuracy": accuracy,
        "notes": found.notes,
        **judged,
    }


def _recorded(case: Case, compute: Callable[[], dict[str, Any]], commit: Any) -> KnownAnswer:
    started, begun = now(), time.monotonic()
    with machine.settings(1):
        found = compute()
    clock = KnownClock(started=started, finished=now(), seconds=round(time.monotonic() - begun, 2))
    return KnownAnswer(
        case_id=case_id(case),
        case=case,
        clock=clock,
        machine=machine_id(machine.description()),
        code=code() if commit is None else commit,
        **found,
    )


def run_cases(
    cases: Sequence[Case],
    store: KnownStore,
    *,
    jobs: int = 1,
    progress: Say = lambda line: None,
    stop: Callable[[], bool] = lambda: False,
) -> list[KnownAnswer]:
    """The answers to all cases, in their order; those without a record are computed and stored, as are the oracle's.

    jobs: processes side by side. progress: told a line for each case. Raises `Interrupted` when `stop()` is true
    between two cases, with all finished ones stored; `UserError` if a record cannot be read or a process was killed.
    """
    wanted = known_cases.with_oracle([case for case in cases if store.find(case) is None])
    todo = [case for case in wanted if store.find(case) is None]
    if todo:
        Store(store.results).write_machine(machine.description())
    with ExitStack() as stack:
        workers = max(1, min(jobs, len(todo)))
        work = _Work(store, len(todo), progress, stop, workers, _pool(stack, workers))
        work.through([(case, None) for case in todo if case.method == ORACLE])
        work.through([(case, _curve(case, store)) for case in todo if case.method != ORACLE])
    found = [store.find(case) for case in cases]
    if None in found:
        raise UserError(store.problems[-1])
    return [answer for answer in found if answer is not None]


def _curve(case: Case, store: KnownStore) -> Curve:
    found = (store.find(one) for one in known_cases.oracle_cases(case))
    return known_cases.curve(answer for answer in found if answer is not None)


class _Work:
    """Cases on their way: a pool of processes, or none for this one."""

    def __init__(
        self,
        store: KnownStore,
        total: int,
        progress: Say,
        stop: Callable[[], bool],
        workers: int,
        pool: ProcessPoolExecutor | None,
    ) -> None:
        self.store, self.total, self.progress, self.stop = store, total, progress, stop
        self.workers, self.pool = workers, pool
        self.done, self.begun, self.commit = 0, time.monotonic(), code()

    def through(self, todo: Sequence[tuple[Case, Curve | None]]) -> None:
        """Compute and store these; what runs when a stop is asked for is finished first."""
        pending = deque(todo)
        running: set[Future[KnownAnswer]] = set()
        while pending or running:
            while pending and len(running) < self.workers:
                if self.stop():
                    self._end(running)
                    raise Interrupted(idle=not self.done)
                case, curve = pending.popleft()
                running.add(self._begin(case, curve))
            done, running = wait(running, return_when=FIRST_COMPLETED)
            self._end(done)

    def _begin(self, case: Case, curve: Curve | None) -> Future[KnownAnswer]:
        if self.pool is not None:
            return self.pool.submit(run_case, case, curve=curve, commit=self.commit)
        future: Future[KnownAnswer] = Future()
        future.set_result(run_case(case, curve=curve, commit=self.commit))
        return future

    def _end(self, done: set[Future[KnownAnswer]]) -> None:
        for future in done:
            try:
                answer = future.result()
            except BrokenProcessPool as killed:
                raise UserError(
                    "a process was killed, perhaps for want of memory; give the same command again, with fewer --jobs"
                ) from killed
            self.store.write(answer)
            self.done += 1
            self.progress(self._line(answer))

    def _line(self, answer: KnownAnswer) -> str:
        left = (time.monotonic() - self.begun) / self.done * (self.total - self.done)
        accuracy = "diverged" if answer.test_accuracy is None else f"{answer.test_accuracy:.1f} %"
        sizes = " ".join(map(str, answer.effective_sizes))
        rest = f"; {plan.duration(left)} left" if self.done < self.total else ""
        return f"{self.done} of {self.total}: {known_cases.describe(answer.case)}: size {sizes}, {accuracy}{rest}"


def _pool(stack: ExitStack, workers: int) -> ProcessPoolExecutor | None:
    """None for a single worker. `spawn`, since torch's threads do not survive a fork."""
    if workers == 1:
        return None
    context = multiprocessing.get_context("spawn")
    return stack.enter_context(ProcessPoolExecutor(workers, mp_context=context, initializer=_deaf))


def _deaf() -> None:
    """A terminal's Ctrl-C reaches all processes; the first one decides."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
