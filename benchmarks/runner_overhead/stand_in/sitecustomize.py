"""Python imports this at the start of every process that has this folder on its path: runs are made up, not trained."""

import os
import time
from typing import Any

if "STAND_IN" in os.environ:
    from reproduce import phases

    def carry_out(run: Any) -> Any:
        """Keeps the processor busy for its seconds, and ends as a run that has diverged does."""
        from reproduce.records import Outcome, Params
        from reproduce.run.stages import Result

        seconds = float((run.context.store.results / "seconds").read_text(encoding="utf-8"))
        end = time.process_time() + seconds
        while time.process_time() < end:
            pass
        return Result(outcome=Outcome(status="diverged", reason="made up"), params=Params(eq3=None, total=0))

    def heard(phase: str) -> None:
        if phase == "claim":
            from reproduce.run import runner

            runner.carry_out = carry_out

    phases.listen(heard)
