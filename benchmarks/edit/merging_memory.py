"""Anonymous memory while edits of a network are merged by their Fishers: what ``merging`` starts in a process of its own."""

from __future__ import annotations

import json
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from photopic.core.edits import DenseDelta, Edit
from photopic.core.edits import file as edit_file
from photopic.core.edits.stored import StoredEdit
from photopic.data.few_shot import LabelledImages
from photopic.edit.merging.merge import MergeConfig, merge
from photopic.models.classifier import Classifier
from photopic.models.preprocessing import Preprocessing

LAYERS, CLASSES, COUNTS = 10, ("a", "b", "c", "d"), (2, 8)


def resident() -> int:
    """Bytes of memory that no file is mapped to."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


class Watch:
    """The most that a block took above what there was before it, looked at every two milliseconds."""

    def __enter__(self) -> Watch:
        self.before, self.most, self._over = resident(), 0, threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def _look(self) -> None:
        while not self._over.is_set():
            self.most = max(self.most, resident() - self.before)
            time.sleep(0.002)

    def __exit__(self, *_: Any) -> None:
        self._over.set()
        self._thread.join()


def network(width: int) -> Classifier:
    """Ten square layers, each a tenth of the weights."""
    inner = [part for _ in range(LAYERS) for part in (nn.ReLU(), nn.Linear(width, width))]
    layers = [nn.Flatten(), nn.Linear(192, width), *inner, nn.ReLU(), nn.Linear(width, len(CLASSES))]
    return Classifier(nn.Sequential(*layers), preprocess=Preprocessing(resize=(8, 8)), labels=CLASSES)


def main(width: int) -> None:
    """Print the peaks over the bytes of the weights, by the number of edits."""
    model, rng = network(width), np.random.default_rng(0)
    size = 4 * model.parameter_count
    data = LabelledImages(rng.integers(0, 256, (8, 8, 8, 3), dtype=np.uint8), np.arange(8) % 4, CLASSES)
    found: dict[str, float] = {"mb": size / 1e6}
    with tempfile.TemporaryDirectory(prefix="photopic-") as folder:
        files = [StoredEdit(Path(folder) / f"{number}.edit") for number in range(max(COUNTS))]
        for each in files:
            deltas = {name: 0.01 * torch.randn_like(tensor) for name, tensor in model.parameters().items()}
            edit_file.save(Edit((DenseDelta(deltas),), model.fingerprint(*deltas)), each.path)
            del deltas
        for count in COUNTS:
            with Watch() as watch:
                merge(files[:count], model=model, images=[data] * count, config=MergeConfig(by="fisher", pictures=2))
            found[str(count)] = watch.most / size
    print(json.dumps(found))
