"""A look at a pickle's opcodes before any of them is carried out: what its header sizes claim must be there."""

from __future__ import annotations

import pickle
import pickletools
from collections.abc import Container
from typing import IO

# What a dict of plain values and arrays needs, in pickle protocols 2 to 5.
OPCODES = """
PROTO FRAME STOP MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT BINSTRING SHORT_BINSTRING
BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8 BINUNICODE SHORT_BINUNICODE BINUNICODE8 EMPTY_LIST APPEND APPENDS
EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_DICT SETITEM SETITEMS GLOBAL STACK_GLOBAL REDUCE BUILD BINPUT LONG_BINPUT
MEMOIZE BINGET LONG_BINGET
"""
PLAIN = frozenset(OPCODES.split())
MOST_TUPLES = 30_000  # Python hashes tuples within tuples on the C stack, which some 150,000 of them overrun


class Foreign(Exception):
    """The file asks for something that its kind never needs; the message names it."""


def scan(stream: IO[bytes], more: Container[str] = (), names: Container[str] | None = None) -> None:
    """Checks the pickle that begins at `stream`, which stands behind it then.

    Python's unpickler makes room for whatever length a string declares and whatever place in its memo an opcode names,
    so both are checked here. more: opcodes beside `PLAIN`. names: what GLOBAL may ask for, "module name"; None leaves
    that to the unpickler. Raises `Foreign` for another name, else `UnpicklingError` or `ValueError`.
    """
    tuples = 0
    for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):  # strings: only as long as they are
        if opcode.name == "GLOBAL" and names is not None and argument not in names:
            raise Foreign(str(argument).replace(" ", "."))
        if opcode.name not in PLAIN and opcode.name not in more:
            raise pickle.UnpicklingError(f"opcode {opcode.name}, which plain data do not need")
        if opcode.name in ("BINPUT", "LONG_BINPUT") and not (isinstance(argument, int) and argument <= count):
            raise pickle.UnpicklingError(f"place {argument} in a memo of at most {count} things")
        tuples += opcode.name.startswith("TUPLE")
        if tuples > MOST_TUPLES:
            raise pickle.UnpicklingError(f"more than {MOST_TUPLES:,} tuples")
