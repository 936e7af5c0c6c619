"""The errors that a user can mend. The command line prints them as one line, never as a traceback."""

from __future__ import annotations


class UserError(Exception):
    """Something outside the code is wrong. The message is one clear line that names the mend."""

    exit_code = 1


class UsageError(UserError):
    """The command itself cannot be understood: an unknown row, depth, protocol or seed."""

    exit_code = 2


class Interrupted(Exception):
    """A stop was asked for (a signal, a time budget). Everything is saved at a step boundary; nothing is lost."""

    def __init__(self, message: str = "stopped; the same command goes on from here", *, idle: bool = False) -> None:
        super().__init__(message)
        self.idle = idle  # not even one step was done
