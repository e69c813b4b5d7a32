#!/usr/bin/env bash
# skada's MaNo score falls as the network gets better: the least likely class is given the largest probability.
#
# Expected: `MaNoScorer` estimates accuracy on unlabelled target data, higher is better: where predictions are not sure (criterion
#           at most 5), logits z become probabilities by 1 + z + z^2 / 2 (eq. 6 of its paper, NeurIPS 2024).
# Happens:  the softmax that computes the criterion takes the row's largest logit away in place; the polynomial then sees 0 for
#           the predicted class and large negative numbers for the others, whose square is large: the order is turned round.
# Hurt:     choosing models, epochs and settings without target labels: the worst one wins.
# Instead:  `MaNoScorer(threshold=0)`: always softmax, which does not mind the shift.
# Known:    no report found; its tests check the range of the score.
# Seen (2026-11): logits of ten classes with an ever larger margin, accuracy 0.35, 0.70, 0.93, 0.99: the score falls, 0.241, 0.227,
#           0.197, 0.167; by the formula it rises, 0.228, 0.262, 0.311, 0.356.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq --disable-pip-version-check torch==2.13.0 numpy==2.4.6 scipy==1.17.1 scikit-learn==1.9.0 \
  POT==0.9.7.post1 skorch==1.4.0 skada==0.6.0
cat > "$folder/finding.py" <<'EOF'
import sys
from importlib.metadata import version

import numpy as np
import torch
from skada.deep import SourceOnly
from skada.metrics import MaNoScorer


class Identity(torch.nn.Module):
    """A network whose logits are its input, so that what is right can be seen."""

    def __init__(self):
        super().__init__()
        self.features, self.head = torch.nn.Identity(), torch.nn.Linear(10, 10)
        with torch.no_grad():
            self.head.weight.copy_(torch.eye(10))
            self.head.bias.zero_()

    def forward(self, x, sample_weight=None):
        return self.head(self.features(x))


print("skada", version("skada"), "torch", torch.__version__)
rng, n = np.random.default_rng(0), 500
noise, classes = rng.normal(size=(2 * n, 10)).astype(np.float32), rng.integers(0, 10, 2 * n)
domain = np.r_[np.ones(n), np.full(n, -2)].astype(int)
hidden = np.where(domain < 0, -1, classes)
scores, right = [], []
for margin in (1, 2, 3, 4):
    logits = noise + margin * np.eye(10, dtype=np.float32)[classes]
    model = SourceOnly(Identity(), layer_name="features", max_epochs=1, lr=0.0, batch_size=100, train_split=None, verbose=0)
    model.fit(logits, hidden, sample_domain=domain)  # learning rate 0: it stays the identity
    scorer, target = MaNoScorer(), logits[n:]
    scores.append(scorer(model, logits, hidden, sample_domain=domain))
    q = 1 + target + target**2 / 2
    q = (q - q.min(1, keepdims=True)) / (q - q.min(1, keepdims=True)).sum(1, keepdims=True)
    right.append(np.mean(q**4) ** 0.25)
    accuracy = np.mean(target.argmax(1) == classes[n:])
    print(f"accuracy {accuracy:.2f}: score {scores[-1]:.3f} ({scorer.chosen_normalization}), by the formula {right[-1]:.3f}")
if np.any(np.diff(right) <= 0) or np.any(np.diff(scores) >= 0):
    sys.exit("no longer so: the score falls where accuracy rises")
EOF
OMP_NUM_THREADS=1 "$folder/venv/bin/python" -I -W ignore "$folder/finding.py"
