"""A short version of ``python -m benchmarks studio``: everything at once on the tiny model, and nothing fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.generate.studio import Seen, load
from tests.studio.conftest import running


@pytest.mark.filterwarnings("ignore::photopic.models.text_to_image.conditioning.TruncatedPromptWarning")
def test_everything_at_once(model: Path, tmp_path: Path) -> None:
    seen = Seen()
    with running(tmp_path, model) as page:
        load(page, 4.0, seen)
        assert page.studio.models.current.edits.names() == ()
    assert seen.failures == []
    assert {"read 200", "upload 200", "no token 401", "foreign host 421", "foreign origin 403"} <= seen.answers.keys()
    assert seen.ended["draw done"] and seen.ended["subject done"]
