#!/usr/bin/env bash
# torchmetrics' PSNR-B falls with the number of pictures: the same JPEG is at 23.7 dB alone, at 14.6 in 16 copies, at 2.8 in 256.
#
# Expected: `PeakSignalNoiseRatioWithBlockedEffect` over a data set is the PSNR of mean squared error plus mean block effect;
#           a set of copies of one picture has the value of that picture, whatever the batches.
# Happens:  the squared error is divided by all pixels seen, but the block effect is summed over the pictures of a batch (it is
#           divided by the pixel pairs of one picture) and over the batches, and never divided by their number.
# Hurt:     deblocking and compression tables: the longer the test set, the lower the number; validation curves drop when the
#           validation set grows; a validation on 10 pictures and a test on 1,000 are 20 dB apart where block effects lead.
# Instead:  picture by picture by `peak_signal_noise_ratio_with_blocked_effect`, then the mean.
# Known:    no report found.
# Seen (2026-11): a JPEG of quality 10, PSNR 26.5 dB, data_range 1: 1 / 4 / 16 / 64 / 256 copies 23.7 / 19.8 / 14.6 / 8.8 /
#           2.8 dB, in one batch as one by one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq --disable-pip-version-check \
  torch==2.13.0 numpy==2.4.6 torchmetrics==1.9.0 scikit-image==0.26.0 pillow==13.0.0
cat > "$folder/finding.py" <<'EOF'
import io
import sys

import numpy as np
import torch
import torchmetrics
from PIL import Image
from skimage.data import camera
from torchmetrics.functional.image import peak_signal_noise_ratio_with_blocked_effect as psnr_b
from torchmetrics.image import PeakSignalNoiseRatioWithBlockedEffect


def pixels(picture):
    return torch.from_numpy(np.array(picture))[None, None].float() / 255  # (1, 1, height, width)


original = Image.fromarray(camera()).resize((128, 128))
file = io.BytesIO()
original.save(file, "JPEG", quality=10)
target, compressed = pixels(original), pixels(Image.open(file))
alone = psnr_b(compressed, target, data_range=1.0).item()
print(f"torchmetrics {torchmetrics.__version__}, torch {torch.__version__}; one picture: {alone:.1f} dB")
found = {}
for copies in (1, 4, 16, 64, 256):
    metric = PeakSignalNoiseRatioWithBlockedEffect(data_range=1.0)
    for _ in range(copies):
        metric.update(compressed, target)
    batch = psnr_b(compressed.repeat(copies, 1, 1, 1), target.repeat(copies, 1, 1, 1), data_range=1.0).item()
    found[copies] = metric.compute().item()
    print(f"{copies} copies: {found[copies]:.1f} dB one by one, {batch:.1f} dB as one batch")
    if abs(batch - found[copies]) > 0.1:
        sys.exit("no longer so: one batch and many differ")
if abs(found[1] - alone) > 0.01 or found[16] > alone - 5 or found[256] > alone - 15:
    sys.exit("no longer so: copies have the value of the picture")
EOF
OMP_NUM_THREADS=1 "$folder/venv/bin/python" -I -W ignore "$folder/finding.py"
