#!/usr/bin/env bash
# ema-pytorch's post-hoc EMA averages the wrong part of the training: with updates every 100 steps (the default) its beginning.
#
# Expected: `PostHocEMA` and `KarrasEMA` hold the power-function average of EDM2 (weight t^gamma for step t) for the relative
#           width `sigma_rel`, and `synthesize_ema_model` any other width; `update_every` is there "to save on compute".
# Happens:  each update decays by (1 - 1 / (t + 1))^(gamma + 1), the factor of one step, though `update_every` steps have passed.
#           The average is that of the exponent (gamma + 1) / update_every - 1; the synthesis solves for the exponents asked for.
# Hurt:     diffusion models sampled from weights that the training left long ago, and a sweep over sigma_rel in which the
#           narrowest is always the best. No error, no warning.
# Instead:  update_every=1.
# Known:    no report found. The example in its documentation has update_every=10.
# Seen (2026-11): 10,000 steps, the weight at step t is t / 10,000, so that the average tells where it sits; right for widths
#           0.05 / 0.15 / 0.28: 0.947 / 0.820 / 0.539. Found with updates every step the same, every 10 steps 0.642 / 0.240 /
#           0.105, every 100 steps 0.151 / 0.041 / 0.012.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq --disable-pip-version-check torch==2.13.0 numpy==2.4.6 ema-pytorch==0.8.3
cat > "$folder/finding.py" <<'EOF'
import sys
from importlib.metadata import version
from tempfile import TemporaryDirectory

import torch
from ema_pytorch import PostHocEMA
from ema_pytorch.post_hoc_ema import sigma_rel_to_gamma

STEPS, WIDTHS = 10_000, (0.05, 0.15, 0.28)


def averages(update_every):
    """Averages of a weight that is the share of the training done: as kept for the outer widths, as synthesized for all three."""
    net = torch.nn.Linear(1, 1, bias=False)
    with TemporaryDirectory() as folder:
        emas = PostHocEMA(
            net,
            sigma_rels=(WIDTHS[0], WIDTHS[2]),
            update_every=update_every,
            checkpoint_every_num_steps=STEPS // 20,
            checkpoint_folder=folder,
            checkpoint_dtype=torch.float64,
        )
        for t in range(1, STEPS + 1):
            with torch.no_grad():
                net.weight.fill_(t / STEPS)
            emas.update()
        kept = [ema.ema_model.weight.item() for ema in emas.ema_models]
        return kept, [emas.synthesize_ema_model(sigma_rel=width).ema_model.weight.item() for width in WIDTHS]


def show(values):
    return " / ".join(f"{value:.3f}" for value in values)


gammas = [sigma_rel_to_gamma(width) for width in WIDTHS]
right = [(gamma + 1) / (gamma + 2) for gamma in gammas]  # the mean of t under the weight t^gamma on 0..1
print(f"ema-pytorch {version('ema-pytorch')}, torch {torch.__version__}; right: {show(right)}")
found = {}
for every in (1, 10, 100):
    kept, found[every] = averages(every)
    told = [(gamma + 1) / (gamma + 1 + every) for gamma in (gammas[0], gammas[2])]
    print(f"update every {every}: kept {show(kept)} (foretold {show(told)}), synthesized {show(found[every])}")
if max(abs(a - b) for a, b in zip(found[1], right)) > 0.01 or found[10][0] > 0.75 or found[100][0] > 0.3:
    sys.exit("no longer so: the averages do not move with the steps between updates")
EOF
OMP_NUM_THREADS=1 "$folder/venv/bin/python" -I -W ignore "$folder/finding.py"
