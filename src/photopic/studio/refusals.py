"""What a request is told when it is refused: one line, the field it is about, and a status."""

from __future__ import annotations

from photopic.core.errors import PhotopicError


class Refused(PhotopicError):
    """A request that is not done.

    Args:
        status: Of HTTP.
        reason: One line: what was expected and what was found.
        field: Of the form, where one is at fault.

    Example:
        >>> Refused(404, "bear.edit: expected an edit of the workspace, found none").status
        404
    """

    def __init__(self, status: int, reason: str, *, field: str | None = None):
        super().__init__(reason)
        self.status, self.field = status, field
