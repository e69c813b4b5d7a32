#!/usr/bin/env bash
# scikit-image's medial axis lies on the frame where a shape is cut by it, its thinning in the middle of what is seen.
#
# Expected: `medial_axis`, `skeletonize` and `thin` of one module agree on what lies beyond a picture, or say that they do not.
# Happens:  thinning takes it for background, the medial axis for the shape going on: the axis of a bar along the frame is the
#           frame's own row, with the bar's whole thickness as its radius. Its documentation says nothing of it.
# Hurt:     widths of vessels, roots or cracks from crops and tiles, twice too large wherever a tile cuts a shape; skeletons of tiles
#           that do not meet when one function is exchanged for the other.
# Instead:  pad by one pixel of background before, cut it off after; or keep away from what touches the frame.
# Known:    no report found for scikit-image; other libraries have the like (ukoethe/vigra#438, PMEAL/porespy#72).
# Seen (2026-12): a bar 5 high in the upper rows of 9: thinning in row 2, medial axis in row 0 with radius 5; padded, radius 3.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq --disable-pip-version-check numpy==2.4.6 scipy==1.17.1 scikit-image==0.26.0
cat > "$folder/finding.py" <<'EOF'
import sys
from importlib.metadata import version

import numpy as np
from skimage.morphology import medial_axis, thin

HIGH, LONG = 5, 20
bar = np.zeros((9, LONG), bool)
bar[:HIGH] = True  # cut by the upper edge of the picture


def axis(mask, pad):
    found, distance = medial_axis(np.pad(mask, pad), rng=0, return_distance=True)
    inner = slice(pad, pad + mask.shape[0]), slice(pad, pad + mask.shape[1])
    return found[inner], distance[inner]


thinned = np.flatnonzero(thin(bar).any(1)).tolist()
plain, radius = axis(bar, 0)
padded, true_radius = axis(bar, 1)
middle = padded[:, HIGH:-HIGH]  # without the branches into the corners
rows = np.flatnonzero(plain.any(1)).tolist(), np.flatnonzero(middle.any(1)).tolist()
# the largest disc inside what is seen, by brute force: distance to any pixel that is not of the bar, those beyond among them
ys, xs = np.mgrid[-1:10, -1 : LONG + 1]
outside = ~np.pad(bar, 1)
largest = max(
    np.hypot(ys[outside] - y, xs[outside] - x).min() for y, x in zip(*np.nonzero(bar), strict=True)
)
print(f"scikit-image {version('scikit-image')}: a bar of {HIGH} rows: thinning in rows {thinned}; medial axis in rows {rows[0]}, "
      f"radius {radius[plain].max():.0f}; padded in rows {rows[1]}, radius {true_radius[padded].max():.0f}; by brute force {largest:.0f}")
same = thinned == [2] and rows == ([0], [2]) and radius[plain].max() == 5 and true_radius[padded].max() == largest == 3
sys.exit(0 if same else "the behaviour has changed")
EOF
"$folder/venv/bin/python" "$folder/finding.py"
