#!/usr/bin/env bash
# 16-bit pictures (depth maps): `load_image` makes them white, `VaeImageProcessor` hands on values up to 257.
#
# Expected: a 16-bit gray PNG, as depth sensors and depth estimators write it, becomes the same picture in 8 bits, or in
#           0 to 1 as a tensor.
# Happens:  `load_image` converts to RGB by cutting at 255 of 65,535: everything but the darkest 0.4 % is white.
#           `VaeImageProcessor.preprocess` of the picture as opened divides by 255 whatever its depth: 0 to 257 in place of
#           0 to 1 (after normalisation -1 to 513).
# Hurt:     depth ControlNets, inpainting with 16-bit masks, image to image from scans: the condition is a white sheet, or
#           numbers two hundred times too large, and no warning says so.
# Instead:  bring them to 8 bits first: `numpy.asarray(picture) >> 8`, then `Image.fromarray(... .astype("uint8"))`.
# Known:    that Pillow cuts in this conversion is known there; no report of the two helpers of diffusers found.
# Seen (2026-11): a ramp over all 16 bits: 99.6 % white by `load_image`; by `preprocess` a mean of 128.5 and 257 at most.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq --disable-pip-version-check \
  torch==2.13.0 numpy==2.4.6 diffusers==0.42.0 transformers==5.23.0 huggingface_hub==2.4.0 safetensors==0.8.0 pillow==13.0.0
cat > "$folder/finding.py" <<'EOF'
import sys

import diffusers
import numpy as np
import PIL
from diffusers.image_processor import VaeImageProcessor
from diffusers.utils import load_image
from PIL import Image

file = sys.argv[1]
ramp = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
Image.fromarray(ramp).save(file)
print(f"diffusers {diffusers.__version__}, Pillow {PIL.__version__}; a ramp from {ramp.min()} to {ramp.max()}")
loaded = np.asarray(load_image(file))
white = (loaded == 255).mean()
print(f"load_image: {loaded.dtype} {loaded.shape}, {white:.1%} white, mean {loaded.mean():.1f} (127.5 is right)")
tensor = VaeImageProcessor(do_normalize=False).preprocess(Image.open(file)).float()
print(f"preprocess: mean {tensor.mean():.2f}, largest {tensor.max():.1f} (0.5 and 1 are right)")
eight = VaeImageProcessor(do_normalize=False).preprocess(Image.fromarray((ramp >> 8).astype(np.uint8))).float()
print(f"brought to 8 bits first: mean {eight.mean():.2f}, largest {eight.max():.1f}")
if white < 0.9 or tensor.max() < 10 or eight.max() != 1:
    sys.exit("no longer so: 16-bit pictures are read as such, or refused")
EOF
HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 "$folder/venv/bin/python" -I "$folder/finding.py" "$folder/depth.png"
