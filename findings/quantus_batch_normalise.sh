#!/usr/bin/env bash
# quantus normalises attributions by the largest of the batch: a constant explanation is "sensitive" by up to 7, complexity 11 or 58.
#
# Expected: `normalise=True` (the default of most metrics) scales "by the maximum absolute value of the explanation", each its own;
#           an explanation that does not move when the picture does has sensitivity 0; `batch_size` is a matter of memory.
# Happens:  the maximum is that of all explanations handed over together. Those given as `a_batch` are scaled by the largest of the
#           data set, those of the perturbed pictures by the largest of their batch: MaxSensitivity compares the two scales.
# Hurt:     ranking of attribution methods: a picture's complexity, sensitivity and stability depend on its neighbours and on the
#           batch size, and methods whose magnitudes vary between pictures (plain gradients) lose against those that normalise.
# Instead:  `normalise_func_kwargs={"normalise_axes": (1, 2, 3)}`, or normalise before and `normalise=False`.
# Known:    no report found of the two scales.
# Seen (2026-11): gradients of a linear model, which no noise changes, four classes with weights of size 1, 2, 4, 8:
#           MaxSensitivity with `a_batch` 6.96, 2.97, 1.05, 0 at batch size 1, 0 at batch size 8; EffectiveComplexity (eps 0.1) of
#           the first picture alone 58 of 64 pixels, in the batch 11.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq --disable-pip-version-check torch==2.13.0 numpy==2.4.6 scipy==1.17.1 scikit-learn==1.9.0 \
  scikit-image==0.26.0 pandas==3.1.1 matplotlib==3.11.2 opencv-python-headless==5.0.0.93 cachetools==8.0.2 tqdm==4.70.1
"$folder/venv/bin/pip" install -qq --disable-pip-version-check --no-deps quantus==0.6.0  # not its window for pictures (opencv-python)
cat > "$folder/finding.py" <<'EOF'
import sys
from importlib.metadata import version

import numpy as np
import quantus
import torch

torch.manual_seed(0)
print("quantus", version("quantus"), "torch", torch.__version__)
model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 4)).eval()
with torch.no_grad():
    model[1].weight.mul_(torch.tensor([1.0, 2.0, 4.0, 8.0])[:, None])
pictures, classes = np.random.default_rng(0).random((8, 1, 8, 8)).astype(np.float32), np.array([0, 1, 2, 3] * 2)


def gradient(model, inputs, targets, **_):
    """That of a linear model: the same for every picture of a class, whatever the noise."""
    return model[1].weight.detach().numpy()[targets].reshape(-1, 1, 8, 8)


def scores(metric, batch, given=True, **options):
    metric = metric(normalise=True, disable_warnings=True, **options)
    attributions = gradient(model, pictures, classes) if given else None
    found = metric(model, pictures, classes, a_batch=attributions, explain_func=gradient, batch_size=batch, channel_first=True)
    return np.array(found[:4], dtype=float)


each = {"normalise_func_kwargs": {"normalise_axes": (1, 2, 3)}}  # every explanation its own
found = {(batch, name): scores(quantus.MaxSensitivity, batch, nr_samples=4, **options)
         for batch in (1, 2, 8) for name, options in (("default", {}), ("each its own", each))}  # fmt: skip
for (batch, name), values in found.items():
    print(f"MaxSensitivity, batch size {batch}, {name}: {np.round(values, 2)}")
complexity = {batch: scores(quantus.EffectiveComplexity, batch, given=False, eps=0.1) for batch in (1, 8)}
print("EffectiveComplexity, batch size 1 and 8:", complexity[1], complexity[8])
if max(np.abs(found[batch, "each its own"]).max() for batch in (1, 2, 8)) > 1e-6:
    sys.exit("the explanation itself is not constant")
if found[1, "default"].max() < 1 or np.abs(complexity[1] - complexity[8]).max() < 10:
    sys.exit("no longer so: every explanation has its own scale")
EOF
OMP_NUM_THREADS=1 "$folder/venv/bin/python" -I -W ignore "$folder/finding.py"
