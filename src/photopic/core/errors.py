"""Every mistake a user can make, as one line: the thing, what was expected, what was found, the fix.

The command line prints the line and leaves with status 2; anything that is not a `PhotopicError` is a bug of ours.
"""

from __future__ import annotations


def printable(text: str) -> str:
    """Text of a file or of a user, a name among them, as one line that a terminal only shows: what would steer it becomes ``?``.

    Example:
        >>> printable("a\\x1b[2J bear\\n.png")
        'a?[2J bear?.png'
    """
    return "".join(letter if letter.isprintable() else "?" for letter in text)


class PhotopicError(ValueError):
    """The base of all errors a user can cause; the message is one line.

    Example:
        >>> issubclass(EditFileError, PhotopicError)
        True
    """


class EditError(PhotopicError):
    """An edit that cannot be made, applied or combined."""


class OverlapError(EditError):
    """Edits that want different values of the same entries.

    Attributes:
        overlapping: What overlaps where, without the advice, for whoever has better advice.
        tensor: Its name.
        count: How many entries of it.

    Example:
        >>> str(OverlapError("w: both touch 2 entries", "pass overlap='last'", tensor="w", count=2))
        "w: both touch 2 entries; pass overlap='last'"
    """

    def __init__(self, overlapping: str, advice: str, *, tensor: str, count: int):
        super().__init__(f"{overlapping}; {advice}")
        self.overlapping, self.tensor, self.count = overlapping, tensor, count


class EditFileError(EditError):
    """A file that is not a valid edit; names the file, the tensor, what was expected and what was found."""


class ModelError(PhotopicError):
    """A model, pipeline or checkpoint that cannot be loaded or used for this."""


class DivergedError(ModelError):
    """Training whose loss is no longer a finite number: the same settings would lead there again."""


class DataError(PhotopicError):
    """Images, captions or folders that cannot be used."""


class FieldError(DataError):
    """A field of a config that is out of its range; a command names it by its option.

    Example:
        >>> FieldError("steps", "expected 1 or more, found 0")
        FieldError('steps: expected 1 or more, found 0')
    """

    def __init__(self, field: str, problem: str):
        super().__init__(f"{field}: {problem}")
        self.field, self.problem = field, problem
