#!/usr/bin/env bash
# Training noise in bfloat16: two timesteps get no noise at all, a thousand levels become 192.
#
# Expected: `DDPMScheduler.add_noise(latents, noise, t)` noises by sqrt(1 - alpha_bar_t), whatever the dtype of the
#           latents.
# Happens:  alpha_bar is cast to the dtype of the latents before 1 - alpha_bar is taken. Near 1 bfloat16 has steps of
#           0.004, so with Stable Diffusion's schedule timesteps 0 and 1 are not noised at all (right: 0.029, 0.041), 2
#           to 5 all get 0.0625, and 1,000 levels become 192. `get_velocity` does the same: the targets of these two
#           timesteps lose the sample's part. float16: 762 levels.
# Hurt:     whoever trains with latents in half precision (a VAE run in bfloat16 gives them); the network is told
#           timestep 0 and asked for noise that is not there. Levels are off by more than 1 % up to about t = 50; no
#           warning.
# Instead:  hand over latents and noise in float32 and cast the result.
# Known:    huggingface/diffusers pull request 9004 described steps without noise in 2024; the behaviour is in 0.42.0.
# Seen (2026-11): float32 1,000 levels; float16 762, worst relative error 0.07; bfloat16 192, two timesteps without
#           noise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq --disable-pip-version-check \
  torch==2.13.0 numpy==2.4.6 diffusers==0.42.0 huggingface_hub==2.4.0 safetensors==0.8.0
cat > "$folder/finding.py" <<'EOF'
import sys

import diffusers
import torch
from diffusers import DDPMScheduler

scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")  # Stable Diffusion's
timesteps = torch.arange(1000)
exact = (1 - scheduler.alphas_cumprod).sqrt()


def noise_level(dtype):
    """What the scheduler multiplies unit noise by, (1000,)."""
    sample, noise = torch.zeros(1000, 1, dtype=dtype), torch.ones(1000, 1, dtype=dtype)
    return scheduler.add_noise(sample, noise, timesteps).float().flatten()


print(f"diffusers {diffusers.__version__}, torch {torch.__version__}")
levels = {dtype: noise_level(dtype) for dtype in (torch.float32, torch.float16, torch.bfloat16)}
for dtype, level in levels.items():
    worst = ((level - exact).abs() / exact).max().item()
    count, without = len(level.unique()), int((level == 0).sum())
    print(f"{dtype}: {count} levels, {without} timesteps without noise, worst relative error {worst:.3f}")
half = levels[torch.bfloat16]
for t in (0, 1, 2, 5, 10, 100):
    print(f"t={t}: right {exact[t]:.4f}, bfloat16 {half[t]:.4f}")
if len(levels[torch.float32].unique()) != 1000 or int((half == 0).sum()) != 2 or len(half.unique()) > 250:
    sys.exit("no longer so: bfloat16 noise levels are not as described")
EOF
HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 "$folder/venv/bin/python" -I "$folder/finding.py"
