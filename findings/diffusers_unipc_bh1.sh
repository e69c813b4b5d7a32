#!/usr/bin/env bash
# UniPC with `solver_type="bh1"`: every picture is NaN, from the last step.
#
# Expected: the documentation recommends bh1 for unconditional sampling in fewer than ten steps; it gives pictures.
# Happens:  with the default `final_sigmas_type="zero"` the last step goes to noise 0, where bh1's factor h is infinite
#           and meets a residual of 0: NaN. All orders, all numbers of steps: fine until the last step, NaN everywhere
#           after it. bh2 (the default) uses expm1(h), which is -1 there. With `final_sigmas_type="sigma_min"` bh1 is
#           right.
# Hurt:     whoever follows the recommendation gets a black picture and one "invalid value in cast" from numpy, and
#           looks for the fault in half precision or the VAE.
# Instead:  bh2, or bh1 with `final_sigmas_type="sigma_min"`.
# Known:    no report of this cause found.
# Seen (2026-11): bh1 and zero: finite before the last step, 100 % NaN after it, for orders 1 to 3 and 5, 8 and 25
#           steps.
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
from diffusers import UniPCMultistepScheduler


def sample(solver, final, order, steps):
    """Share of NaN (before the last step, after it), with the exact noise of data of standard deviation a half."""
    scheduler = UniPCMultistepScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        solver_type=solver,
        solver_order=order,
        final_sigmas_type=final,
    )
    scheduler.set_timesteps(steps)
    x = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    for t in scheduler.timesteps:
        before = x
        signal = scheduler.alphas_cumprod[t]
        noise = (1 - signal).sqrt() * x / (1 - signal + 0.25 * signal)
        x = scheduler.step(noise, t, x).prev_sample
    return before.isnan().float().mean().item(), x.isnan().float().mean().item(), x.std().item()


print(f"diffusers {diffusers.__version__}, torch {torch.__version__}")
defaults = UniPCMultistepScheduler().config
print(f"defaults: solver_type {defaults.solver_type}, final_sigmas_type {defaults.final_sigmas_type}")
for solver in ("bh1", "bh2"):
    for final in ("zero", "sigma_min"):
        for order in (1, 2, 3):
            for steps in (5, 8, 25):
                before, after, deviation = sample(solver, final, order, steps)
                if steps == 8:
                    print(f"{solver}, {final}, order {order}, {steps} steps: deviation {deviation:.2f},", end=" ")
                    print(f"NaN {before:.0%} before the last step, {after:.0%} after")
                broken = (solver, final) == ("bh1", "zero")
                if before != 0 or after != (1 if broken else 0):
                    sys.exit(f"no longer so: {solver}, {final}, order {order}, {steps} steps")
EOF
HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 "$folder/venv/bin/python" -I "$folder/finding.py"
