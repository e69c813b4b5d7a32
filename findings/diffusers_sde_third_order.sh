#!/usr/bin/env bash
# DPM-Solver++ as an SDE in diffusers: the third order has a wrong sign and is worse than the second, the more so with more steps.
#
# Expected: `algorithm_type="sde-dpmsolver++", solver_order=3` uses the last three predictions for a better step than order 2, as
#           the ordinary differential equation's order 3 does; a quadratic change of the prediction is followed to third order.
# Happens:  the coefficient of the second difference ends in -0.5 where the integral gives +0.5: in place of a small number (one
#           third of the step in log signal-to-noise) about -1. Every step takes that much of the second difference off.
# Hurt:     grain and mottled pictures at 50 to 200 steps, where one asks for order 3; with `final_sigmas_type="sigma_min"` noise.
# Instead:  `solver_order=2`.
# Known:    no report found; the pull request that added it (huggingface/diffusers #9104) asks the reviewers to check it.
# Seen (2026-11): exact predictions of Gaussian data of spread 0.50, 30, 50, 100, 200 steps: order 2 0.48, 0.50, 0.50, 0.51; order 3
#           0.51, 0.55, 0.58, 0.62; ending at sigma_min, 100 steps, 0.54 and 2.47. A step of 0.01 without noise, quadratic prediction:
#           order 2 is off by 0.017 of the second difference, order 3 by 1.003, with the sign turned by 0.003.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq --disable-pip-version-check \
  torch==2.13.0 numpy==2.4.6 diffusers==0.42.0 transformers==5.23.0 accelerate==1.15.0 \
  huggingface_hub==2.4.0 safetensors==0.8.0
cat > "$folder/finding.py" <<'EOF'
import math
import sys

import diffusers
import torch
from diffusers import DPMSolverMultistepScheduler

MEAN, SPREAD = 1.0, 0.5


def make(order, **kwargs):
    return DPMSolverMultistepScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        algorithm_type="sde-dpmsolver++",
        solver_order=order,
        **kwargs,
    )


def spread(steps, order, **kwargs):
    """Of 4,000 samples with the exact mean of the noise for Gaussian data."""
    scheduler = make(order, **kwargs)
    scheduler.set_timesteps(steps)
    x, seed = torch.randn(4000, 1, 1, 1, generator=torch.Generator().manual_seed(0)), torch.Generator().manual_seed(1)
    for t in scheduler.timesteps:
        a = scheduler.alphas_cumprod[t]
        clean = MEAN + a.sqrt() * SPREAD**2 / (a * SPREAD**2 + 1 - a) * (x - a.sqrt() * MEAN)
        x = scheduler.step((x - a.sqrt() * clean) / (1 - a).sqrt(), t, x, generator=seed).prev_sample
    return x.std().item()


def one_step(h, order):
    """Error of a step without noise from lambda = 0 to h, in second differences of the prediction, lambda**2; sign turned too."""
    scheduler = make(order)
    lambdas = torch.arange(-2, 2, dtype=torch.float64) * h
    scheduler.sigmas, scheduler._step_index = torch.exp(-lambdas), 2
    outputs, sample = [(lam**2).reshape(1) for lam in lambdas[:3]], torch.zeros(1, dtype=torch.float64)
    update = {2: "second", 3: "third"}[order]
    found = getattr(scheduler, f"multistep_dpm_solver_{update}_order_update")(outputs, sample=sample, noise=sample).item()
    alpha = 1 / math.sqrt(1 + math.exp(-2 * h))
    exact = alpha * (h * h - h + (1 - math.exp(-2 * h)) / 2)  # integral of 2 exp(-2 (h - s)) s**2 from 0 to h
    return abs(found - exact) / (alpha * h * h), abs(found + alpha * h * h - exact) / (alpha * h * h)


print(f"diffusers {diffusers.__version__}, torch {torch.__version__}; right: spread {SPREAD}")
counts = (30, 50, 100, 200)
spreads = {order: [spread(n, order) for n in counts] for order in (2, 3)}
early = {order: spread(100, order, final_sigmas_type="sigma_min") for order in (2, 3)}
for order in (2, 3):
    found = ", ".join(f"{each:.2f}" for each in spreads[order])
    print(f"order {order}: {counts} steps {found}; 100 steps to sigma_min {early[order]:.2f}")
second, (third, turned) = one_step(0.01, 2)[0], one_step(0.01, 3)
print(f"a step of 0.01, in second differences: order 2 off by {second:.3f}, order 3 {third:.3f}, sign turned {turned:.3f}")
if max(abs(each - SPREAD) for each in spreads[2]) > 0.05 or max(second, turned) > 0.02:
    sys.exit("the comparison itself no longer holds")
if spreads[3][-1] < 0.56 or early[3] < 1 or third < 0.5:
    sys.exit("no longer so: the third order is as good as the second")
EOF
HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 "$folder/venv/bin/python" -I -W ignore "$folder/finding.py" 2> >(grep -v transformers >&2)
