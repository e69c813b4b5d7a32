#!/usr/bin/env bash
# skada's nearest-neighbour reweighting takes source for target where the domains differ in size or are mixed.
#
# Expected: `NearestNeighborReweight` gives every source sample the number of target samples nearest to it; where rows lie does
#           not matter, `sample_domain` says which are target.
# Happens:  the mask of the source has become a list of positions when `~` is taken of it: ~i is -i - 1, the rows counted from
#           the end. With as many target as source rows, source first, that is the target; else it is partly or wholly source,
#           each sample its own nearest neighbour with the weight 1: no adaptation.
# Hurt:     the usual case, much source and little target data, and data in the order in which it was recorded.
# Instead:  as many target as source rows behind the source; or `sklearn.neighbors.NearestNeighbors` and `numpy.bincount`.
# Known:    no report found; its tests use domains of one size, source first.
# Seen (2026-11): source N(0, 1), target N(1, 0.7): weighted source mean 0.99 for 1,000 and 1,000 rows; 0.27 for 1,000 and 300,
#           -0.02 for 1,000 and 30; 0.50 for 1,000 and 1,000 shuffled; by nearest neighbours 0.97 to 1.02 each time.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq --disable-pip-version-check \
  numpy==2.4.6 scipy==1.17.1 scikit-learn==1.9.0 POT==0.9.7.post1 skada==0.6.0
cat > "$folder/finding.py" <<'EOF'
import sys
from importlib.metadata import version

import numpy as np
from skada import NearestNeighborReweightAdapter

rng = np.random.default_rng(0)
source, target = rng.normal(0, 1, (1000, 1)), rng.normal(1, 0.7, (1000, 1))
print("skada", version("skada"), "scikit-learn", version("scikit-learn"))
found, right = {}, {}
for name, number, mixed in (
    ("1000 and 1000", 1000, False),
    ("1000 and 300", 300, False),
    ("1000 and 30", 30, False),
    ("1000 and 1000, shuffled", 1000, True),
):
    points, domain = np.r_[source, target[:number]], np.r_[np.ones(1000), np.full(number, -2)].astype(int)
    if mixed:
        order = rng.permutation(2000)
        points, domain = points[order], domain[order]
    adapter = NearestNeighborReweightAdapter().fit(points, sample_domain=domain)
    weights = adapter.compute_weights(points, sample_domain=domain)[domain > 0]
    nearest = np.abs(target[:number] - source.T).argmin(1)
    found[name] = np.average(points[domain > 0, 0], weights=weights)
    right[name] = source[nearest, 0].mean()
    print(f"{name}: weighted source mean {found[name]:.2f}, by nearest neighbours {right[name]:.2f}; weights sum to {weights.sum():.0f}")
if min(right.values()) < 0.7 or found["1000 and 1000"] < 0.7 or max(list(found.values())[1:]) > 0.7:
    sys.exit("no longer so: the size and the order of the domains do not matter as they did")
EOF
OMP_NUM_THREADS=1 "$folder/venv/bin/python" -I -W ignore "$folder/finding.py"
