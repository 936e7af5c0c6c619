"""The named moments of a run: whoever watches hears of each, its progress file, or a test that ends it there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

# In this order: the lock is taken; before the images are loaded; before stage 1; sizes found; before stage 2; before
# the record is written; before it gets its name.
PHASES = ("claim", "data", "sizes", "snap", "training", "write", "rename")

Listener = Callable[[str], object]
_listeners: ContextVar[tuple[Listener, ...]] = ContextVar("_listeners", default=())


def phase(name: str) -> None:
    """This moment has come."""
    for listener in _listeners.get():
        listener(name)


def listen(listener: Listener) -> None:
    """From now on, in this process and those forked from it, `listener` is told of every phase."""
    _listeners.set((*_listeners.get(), listener))


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Inside, `listener` is told of every phase of this thread."""
    before = _listeners.set((*_listeners.get(), listener))
    try:
        yield
    finally:
        _listeners.reset(before)
