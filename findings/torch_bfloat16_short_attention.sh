#!/usr/bin/env bash
# torch on a CPU: in bfloat16 the gradient of fused attention over short sequences is several times slower than in float32.
#
# Expected: bfloat16 is there for speed: under `torch.autocast("cpu")` the products of linear and convolution layers take half
#           the time or less where the processor has bfloat16, and attention should at least cost no more than before.
# Happens:  in bfloat16 the fused gradient costs some 0.08 ms more for each head of each picture, however short the sequence: long
#           ones hide it, 64 tokens do not. Forward has no such cost, unfused attention neither.
# Hurt:     a small UNet on 8x8 latents spends a third of its step there: autocast trains it slower than float32, and with the
#           unfused attention 1.6 times as fast.
# Instead:  `sdpa_kernel(SDPBackend.MATH)`, or diffusers' AttnProcessor, for short sequences on a CPU.
# Known:    no report found.
# Seen (2026-12), a processor with AVX-512 and its bfloat16, one thread, processor time of the gradient, bfloat16 over float32:
#           512 heads of 64 tokens, 24 channels each: fused 4.9, unfused 1.1; 8 heads of 4,096 tokens, 40 channels: fused 0.63.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cat > "$folder/finding.py" <<'EOF'
import sys
import time

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

torch.set_num_threads(1)


def gradient_ms(dtype, backend, batch, tokens, channels, turns):
    """Median processor time of the backward pass of attention with 8 heads."""
    q, k, v = (torch.randn(batch, 8, tokens, channels, dtype=dtype, requires_grad=True) for _ in range(3))
    times = []
    for _ in range(turns):
        with sdpa_kernel(backend):
            out = scaled_dot_product_attention(q, k, v)
        ones = torch.ones_like(out)
        start = time.process_time()
        out.backward(ones)
        times.append((time.process_time() - start) * 1e3)
    return sorted(times)[turns // 2]


print(f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}")
ratios = {}
for name, backend, *sizes in (
    ("fused, 64 tokens", SDPBackend.FLASH_ATTENTION, 64, 64, 24, 15),
    ("unfused, 64 tokens", SDPBackend.MATH, 64, 64, 24, 15),
    ("fused, 4,096 tokens", SDPBackend.FLASH_ATTENTION, 1, 4096, 40, 3),
):
    single, half = (gradient_ms(dtype, backend, *sizes) for dtype in (torch.float32, torch.bfloat16))
    ratios[name] = half / single
    print(f"{name}: float32 {single:.1f} ms, bfloat16 {half:.1f} ms, ratio {half / single:.2f}")
if ratios["fused, 64 tokens"] < 2 or ratios["fused, 64 tokens"] < 1.5 * ratios["unfused, 64 tokens"]:
    sys.exit("no longer so: the fused gradient costs no more in bfloat16")
EOF
OMP_NUM_THREADS=1 "$folder/venv/bin/python" -I -W ignore "$folder/finding.py"
