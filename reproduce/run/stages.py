"""The two stages of Algorithm 1 in order, or the one of a baseline; whatever goes wrong inside becomes an outcome."""

from __future__ import annotations

import errno
import logging
import re
from dataclasses import dataclass

from torch import nn

import effconv
from reproduce.errors import Interrupted, UserError
from reproduce.phases import phase
from reproduce.records import Outcome, Params
from reproduce.run import models
from reproduce.run.context import Run
from reproduce.run.distributed import Group
from reproduce.run.outcome import TrainingResult
from reproduce.run.ranks import beside
from reproduce.run.resume import Slot
from reproduce.run.size_learning import Learned, learn, resized
from reproduce.run.streams import stream_seed
from reproduce.run.training import train
from reproduce.specs import RunSpec

log = logging.getLogger(__name__)
FOLDERS = re.compile(r"(?<![\w.])(?:/[\w.+~-]+)+/")  # the folders of an absolute path


@dataclass(frozen=True, kw_only=True)
class Result:
    """What the stages gave, as far as they came."""

    outcome: Outcome
    params: Params
    learned: Learned | None = None
    trained: TrainingResult | None = None
    network: nn.Module | None = None


def carry_out(run: Run) -> Result:
    """Both stages. A loss that is not finite, or a number out of its range, is `diverged`, another exception `failed`.

    Raises `Interrupted`, `UserError` and `OSError` (a full disk, say): those are no results.
    """
    untrained = models.build(run.spec.model, run.spec.data.name, 0)
    params = params_of(untrained, run.spec, learned=run.spec.size_learning is None)
    try:
        with beside(run, stages) as group:
            return stages(run, group)
    except (Interrupted, UserError, OSError):
        raise
    except effconv.DivergedError as error:
        return Result(outcome=Outcome(status="diverged", reason=f"size learning: {reason(error)}"), params=params)
    except FloatingPointError as error:  # such as an N-Jet layer's sigma that ran away
        return Result(outcome=Outcome(status="diverged", reason=reason(error)), params=params)
    except Exception as error:
        if (full := disk_full(error)) is not None:
            raise full from error
        log.info("the run failed", exc_info=error)  # in a worker, for its log
        return Result(outcome=Outcome(status="failed", reason=reason(error)), params=params)


def stages(run: Run, group: Group | None = None) -> Result:
    """`group`: the processes that all do this; what they return is the same but for seconds."""
    spec, seed, context = run.spec, run.seed, run.context
    learned = None
    if spec.size_learning is None:
        network = models.build(spec.model, spec.data.name, stream_seed(seed, "initialisation"))
    else:
        phase("sizes")
        learned = learn(
            spec,
            seed,
            run.dataset,
            device=run.device,
            folder=run.folder,
            every=context.save_every,
            progress=context.progress,
            stop=context.stop,
            group=group,
        )
        network = resized(spec, seed, learned.sizes)
    phase("training")
    trained = train(
        network,
        run.dataset,
        spec.training,
        seed=seed,
        device=run.device,
        resume=Slot(run.folder / "training.pt", every=context.save_every),
        progress=context.progress,
        stop=context.stop,
        engine=spec.engine,
        precision=spec.precision,
        group=group,
    )
    outcome = Outcome(status="diverged" if trained.diverged else "finished", reason=trained.diverged)
    params = params_of(network, spec)
    return Result(outcome=outcome, params=params, learned=learned, trained=trained, network=network)


def params_of(network: nn.Module, spec: RunSpec, *, learned: bool = True) -> Params:
    """Eq. 3 is open as long as the sizes are not learned."""
    eq3 = models.eq3_count(network, spec.model) if learned else None
    return Params(eq3=eq3, total=models.total_count(network, spec.model))


def reason(error: BaseException) -> str:
    """The error's kind and first line, without the folders of any path in it."""
    first = (str(error).strip() or "no message").splitlines()[0]
    return f"{type(error).__name__}: {FOLDERS.sub('', first)}"


def disk_full(error: BaseException | None) -> OSError | None:
    """The full disk behind an error: torch hides it behind one of its own."""
    while error is not None and not (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)):
        error = error.__cause__ or error.__context__
    return error
