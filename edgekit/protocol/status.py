"""Status numbers of the runner, as they travel in SMP responses (group 64). ``cgen`` writes the C enum from this."""

from __future__ import annotations

from enum import IntEnum


class Status(IntEnum):
    """0 is success. Numbers are never reused."""

    OK = 0
    UNKNOWN = 1
    BAD_REQUEST = 2  #: a message that does not fit its specification
    BUSY = 3  #: a session is running
    NO_PROGRAM = 4
    NO_SESSION = 5
    BAD_PROGRAM = 10  #: the file is no valid Program
    BAD_DIGEST = 11  #: the file's bytes were changed or cut
    BAD_VERSION = 12
    WRONG_BOARD = 13  #: compiled for another architecture or backend
    UNSUPPORTED_OP = 14  #: no kernel for an op
    NO_MEMORY = 15
    BAD_DATA = 20  #: the data set's files do not fit the program
    BAD_LABEL = 21  #: a target out of range
    NOT_FINITE = 22  #: NaN or infinity in the data
    DIVERGED = 23  #: the loss became NaN or infinite
    EMPTY_DATA = 24  #: fewer samples than one batch
    BAD_CHECKPOINT = 30
    NO_SPACE = 40
    NOT_FOUND = 41
    PERMISSION = 42
    IO = 43
