"""The whole demo as one generator: the work, the pair, and the page of both."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from photopic.core.events import Steps
from photopic.core.provenance import machine, versions
from photopic.demo.page import page
from photopic.demo.pair import work_pair
from photopic.demo.teach import DemoConfig
from photopic.demo.work import DemoResult, work

if TYPE_CHECKING:
    from photopic.models.text_to_image.handle import TextToImage


def report_events(model: TextToImage, folder: Path, config: DemoConfig, *, with_pair: bool = True) -> Steps[str]:
    """Teach a subject, draw it, and put it beside a second one.

    Args:
        model: The model to customise; it ends as it began.
        folder: Where every part is kept; what is finished there is not done again.
        config: Whom to teach, and for how long.
        with_pair: Whether the second subject follows.

    Returns:
        One HTML page.
    """
    started = time.monotonic()
    result = yield from work(model, folder, config)
    pair = (yield from work_pair(model, folder, result)) if with_pair else None
    return page(result, _facts(result, time.monotonic() - started), pair)


def _facts(result: DemoResult, elapsed_s: float) -> list[tuple[str, str]]:
    edit = result.edits["shut"]
    located, tuned = (result.edits[name].provenance.get("elapsed_s") for name in ("shut", "tuned"))
    return [
        ("model", f"{result.model} ({edit.base.digest[:12]})"),
        ("settings", json.dumps(asdict(result.config))),
        ("time", f"locating {located} s, tuning {tuned} s, this run {elapsed_s:.0f} s"),
        ("machine", ", ".join(f"{key} {value}" for key, value in machine().items() if value)),
        ("versions", ", ".join(f"{key} {value}" for key, value in versions().items())),
    ]
