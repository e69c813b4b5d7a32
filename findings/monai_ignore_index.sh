#!/usr/bin/env bash
# MONAI's focal loss grows with the number of classes once ignore_index is set, even with nothing to ignore; Dice gets a floor.
#
# Expected: `ignore_index` leaves the voxels of one label out: where no voxel has it, or none of those left out matters, the loss
#           is what it is without it.
# Happens:  with reduction="mean" (the default) `FocalLoss` adds up voxels and classes and divides by the voxels alone: it is as
#           many times too large as there are classes. In `DiceLoss` and `TverskyLoss` an ignored class loses its voxels but
#           keeps its channel, whose overlap is then 0 by construction: one class in C has a loss of 1.
# Hurt:     a label for "unlabelled" added to a running recipe multiplies the gradient by 2 to 50 and outweighs the Dice term
#           beside it; losses of data sets with different classes are not comparable; a Dice loss that stays above 1 / C reads
#           as a model that does not learn, and its gradient drives the ignored class's probability down everywhere.
# Instead:  divide the focal loss by the classes, or reduction="none" and one's own mean; for Dice leave the ignored class's
#           channel out of both inputs.
# Known:    the option is new; requests and pull requests for it are public, a report of the factor was not found.
# Seen (2026-11): focal loss of random logits, 2 / 3 / 10 / 50 classes, no voxel of label 255: with ignore_index=255 it is 2.00 /
#           3.00 / 10.00 / 50.00 times the loss without it (sigmoid and softmax). Dice of three classes at 0.98 each: 0.020;
#           with the third ignored 0.343, where the other two alone are at 0.015.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq --disable-pip-version-check torch==2.13.0 numpy==2.4.6 monai==1.6.1
cat > "$folder/finding.py" <<'EOF'
import sys
from importlib.metadata import version

import torch
from monai.losses import DiceLoss, FocalLoss

torch.manual_seed(0)
print(f"monai {version('monai')}, torch {torch.__version__}")
factors = {}
for classes in (2, 3, 10, 50):
    logits, labels = torch.randn(2, classes, 16, 16), torch.randint(0, classes, (2, 1, 16, 16))  # no label is 255
    for softmax in (False, True):
        plain, ignoring = (
            FocalLoss(to_onehot_y=True, use_softmax=softmax, **options)(logits, labels).item()
            for options in ({}, {"ignore_index": 255})
        )
        factors[classes, softmax] = ignoring / plain
        kind = "softmax" if softmax else "sigmoid"
        print(f"focal loss, {classes} classes, {kind}: {plain:.3f}; with ignore_index=255 {ignoring:.3f}: {ignoring / plain:.2f} times")

labels = torch.arange(3).repeat_interleave(10).view(1, 1, 30, 1).expand(1, 1, 30, 30).contiguous()  # three bands
probabilities = torch.full((1, 3, 30, 30), 0.01).scatter_(1, labels, 0.98)
whole = DiceLoss(to_onehot_y=True)(probabilities, labels).item()
ignoring = DiceLoss(to_onehot_y=True, ignore_index=2)(probabilities, labels).item()
two = DiceLoss(to_onehot_y=True)(probabilities[:, :2, :20], labels[:, :, :20]).item()
print(f"Dice loss of three classes {whole:.3f}, the third ignored {ignoring:.3f}, the other two alone {two:.3f}")
if any(abs(factor / classes - 1) > 0.01 for (classes, _), factor in factors.items()) or ignoring < two + 0.3:
    sys.exit("no longer so: what is ignored leaves the loss of the rest as it is")
EOF
OMP_NUM_THREADS=1 "$folder/venv/bin/python" -I -W ignore "$folder/finding.py"
