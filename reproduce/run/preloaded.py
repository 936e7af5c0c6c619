"""What every worker needs, loaded once before the first is forked: to load it takes longer than a small run.

Nothing here may touch CUDA or start the threads of torch: neither survives a fork.
"""

from __future__ import annotations

import atexit
import gc

import sklearn.metrics  # noqa: F401
import torch._dynamo  # noqa: F401 - by the first step of an optimizer

import reproduce.run.attempt  # noqa: F401
from reproduce.run import digits
from reproduce.run.recording import code

digits.bundled()
code()  # of the modules loaded here, whatever is committed while workers run
gc.collect()
gc.freeze()  # a worker's garbage collector leaves these pages alone, which would be copied for it
atexit.register(gc.unfreeze)  # for the server itself, whose bindings else call at its end a leak what was never freed
