"""What is said of a method besides its code: its name, paper, command and words, which the manifest takes from here."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from photopic.core.view import View


class About:
    """What is said of a method besides its code.

    Attributes:
        name: Dotted path under ``photopic``, such as ``tune.few_shot.mask_tuning``; also its id in provenance.
        paper: Such as ``arXiv:2303.05125``.
        claims: The prefix of its claims in the ledger, such as ``mask_tuning.``; several, with a space between.
        presets: Configs by name; ``paper`` is what was published.
        command: The words of its command where they are not its folder and name, such as ``tune mask``.
        examples: Lines for the end of its help, each ``What it does: the command``.
        view: Makes what shows the result, where the default tables do not do.
        after: Lines to print when the result is written, with ``{output}`` and keys of its provenance.
        page: Whether the command writes a report as a page by default, rather than showing it on the terminal.
        failed: Whether the command of a result leaves with status 1, as ``photopic diff`` does for two that differ.
    """

    def __init__(
        self,
        body: Any,
        paper: str,
        claims: str,
        presets: Mapping[str, Any],
        command: str,
        examples: Sequence[str],
        view: Callable[[Any], View] | None,
        after: Sequence[str],
        page: bool = True,
        failed: Callable[[Any], bool] | None = None,
    ):
        self.name = f"{body.__module__.removeprefix('photopic.').rpartition('.')[0]}.{_snake(body.__name__)}"
        self.paper, self.claims, self.presets = paper, claims, dict(presets)
        self.command = command or f"{self.name.partition('.')[0]} {_snake(body.__name__).replace('_', '-')}"
        self.examples, self.view, self.after = tuple(examples), view, tuple(after)
        self.page, self.failed = page, failed


def _snake(name: str) -> str:
    """``AdaptiveGuidance`` -> ``adaptive_guidance``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
