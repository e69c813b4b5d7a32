"""Taking apart what was tuned together: each parent's entries, with the values they have now.

The inverse of ``joint_tuning``, as far as values were not changed since; with no steps of tuning the parents come back as they
were. The arithmetic is ``photopic.core.edits.decompose``.
"""

from __future__ import annotations

from photopic.core.edits import Edit
from photopic.core.edits import take_apart as parents_of
from photopic.core.edits.several import Edits
from photopic.core.events import Event, Steps
from photopic.core.method import method


@method(command="tune apart", examples=("Example: photopic tune apart both.edit -o parents/",))
def take_apart(edit: Edit) -> Steps[Edits]:
    """Take an edit that was tuned together apart again: each parent's weights, with the values they have now.

    Args:
        edit: What photopic tune together wrote.

    Returns:
        One edit a parent, named by its number and its token.

    Raises:
        EditError: If the edit was not made so, or its parts were changed afterwards.

    Example:
        >>> list(take_apart(both).edits)  # doctest: +SKIP
        ['1-mine', '2-cup']
    """
    yield Event("taking apart")
    return Edits({_name(number, each): each for number, each in enumerate(parents_of(edit), 1)})


def _name(number: int, edit: Edit) -> str:
    """``1-mine`` of ``<mine>``; a number where the token has no letters."""
    letters = "".join(letter for letter in "".join(edit.tokens[:1]) if letter.isalnum() or letter in "-_")
    return f"{number}-{letters}" if letters else str(number)
