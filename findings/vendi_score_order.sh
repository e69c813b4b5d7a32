#!/usr/bin/env bash
# vendi-score's score_X ignores the order q: it is always the score of order 1.
#
# Expected: `score_X(X, q)`, `score_dual(X, q)` and `score_K(X @ X.T, q)` are three ways to the same number (few samples or few
#           dimensions); q = 2 or infinity weights frequent elements, small q rare ones (Pasarkar and Dieng 2023).
# Happens:  `score_X` takes q and calls `score_K` with q=1.
# Hurt:     diversity tables of generated pictures by order: all columns are alike; or with fewer samples than dimensions (X) and with
#           more (dual) they are of different orders without a word.
# Instead:  `score_K(X @ X.T, q=q)` with rows of length 1, or `score_dual`.
# Known:    no report found (vertaix/Vendi-Score).
# Seen (2026-11): 200 points of which 150 nearly the same, q 0.5, 1, 2, inf: score_X 2.58 each time; score_dual and score_K 4.44,
#           2.58, 1.63, 1.29.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq --disable-pip-version-check \
  numpy==2.4.6 scipy==1.17.1 scikit-learn==1.9.0 vendi-score==0.0.3
cat > "$folder/finding.py" <<'EOF'
import sys
from importlib.metadata import version

import numpy as np
from vendi_score import vendi

rng = np.random.default_rng(0)
points = rng.normal(size=(200, 8))
points[:150] = points[0] + 0.05 * rng.normal(size=(150, 8))
points /= np.linalg.norm(points, axis=1, keepdims=True)
shares = np.linalg.svd(points / np.sqrt(len(points)), compute_uv=False) ** 2  # eigenvalues of the kernel over n; sum 1


def by_definition(q):
    """exp of the Renyi entropy of order q."""
    if q == "inf":
        return 1 / shares.max()
    return np.exp(-(shares * np.log(shares)).sum()) if q == 1 else (shares**q).sum() ** (1 / (1 - q))


print("vendi-score", version("vendi-score"), "scipy", version("scipy"))
found = {}
for q in (0.5, 1, 2, "inf"):
    kernel = vendi.score_K(points @ points.T, q=q)
    found[q] = by_definition(q), vendi.score_dual(points, q=q), kernel, vendi.score_X(points, q=q)
    print(f"q {q}: by definition %.2f, score_dual %.2f, score_K %.2f, score_X %.2f" % found[q])
if any(abs(right - dual) > 0.01 for right, dual, *_ in found.values()):
    sys.exit("the comparison itself no longer holds")
if any(abs(found[q][-1] - found[1][-1]) > 0.01 for q in (0.5, 2, "inf")):
    sys.exit("no longer so: score_X depends on q")
EOF
OMP_NUM_THREADS=1 "$folder/venv/bin/python" -I -W ignore "$folder/finding.py"
