#!/usr/bin/env bash
# LyCORIS in bypass mode is another function: OFT and BOFT rotate the bias too, weight decomposition falls away.
#
# Expected: `bypass_mode=True` computes the same adapter beside the layer instead of in its weight: by its release notes
#           for efficiency; it is forced on quantised layers, which cannot take a changed weight.
# Happens:  - diag-oft and boft rotate the layer's output, bias included, where the usual mode rotates the weight and
#             leaves the bias. Without a bias both agree to 1e-7.
#           - `dora_wd=True` is kept in the file and in the parameters, but bypass mode never reads it: lora, loha and
#             lokr run without their learnt norms. No warning for either.
# Hurt:     a file trained beside a quantised base and applied to the plain one, or the other way round, is another
#           model; so is one trained in bypass mode and then merged. Attention's to_out, feed-forward and convolution
#           layers have biases.
# Instead:  leave bypass mode off; on quantised layers use lora, loha or lokr without dora_wd, which agree.
# Known:    no report found for the bias; that bypass skips weight decomposition is known to some trainers, not
#           documented.
# Seen (2026-11): usual and bypass apart by 0.10 (diag-oft) and 0.22 (boft) of the output with a bias, 2e-7 without;
#           with dora_wd by 0.4 to 1.5; lora, loha and lokr without it 1e-7.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq --disable-pip-version-check \
  torch==2.13.0 numpy==2.4.6 lycoris-lora==4.1.3 einops==0.8.2 toml==0.10.2
cat > "$folder/finding.py" <<'EOF'
import logging
import sys
from importlib.metadata import version

import torch
from torch import nn

logging.disable(logging.WARNING)  # LyCORIS lists the kinds of layer that this tiny network lacks

from lycoris import LycorisNetwork, create_lycoris  # noqa: E402


class Net(nn.Module):
    def __init__(self, bias):
        super().__init__()
        self.layer = nn.Linear(32, 32, bias=bias)

    def forward(self, x):
        return self.layer(x)


@torch.no_grad()
def output(algorithm, bias, bypass, **options):
    """The layer's output with an adapter of fixed weights."""
    torch.manual_seed(0)
    net, x = Net(bias), torch.randn(8, 32)
    LycorisNetwork.apply_preset({"target_name": ["layer"]})
    adapter = create_lycoris(net, 1.0, linear_dim=4, linear_alpha=4, algo=algorithm, bypass_mode=bypass, **options)
    adapter.apply_to()
    torch.manual_seed(1)
    for parameter in adapter.parameters():
        parameter.add_(0.2 * torch.randn_like(parameter))
    adapter.eval()
    return net(x)


def apart(*arguments, **options):
    usual = output(*arguments, False, **options)
    return ((output(*arguments, True, **options) - usual).norm() / usual.norm()).item()


torch.manual_seed(0)
gaps = {}
for algorithm in ("diag-oft", "boft", "lora", "loha", "lokr"):
    gaps[algorithm] = apart(algorithm, True), apart(algorithm, False)
for algorithm in ("lora", "loha", "lokr"):
    gaps[algorithm + ", dora_wd"] = apart(algorithm, True, dora_wd=True), apart(algorithm, False, dora_wd=True)
print("lycoris-lora", version("lycoris-lora"), "torch", torch.__version__)
for name, (with_bias, without) in gaps.items():
    print(f"{name}: bypass from usual {with_bias:.1e} with a bias, {without:.1e} without")
rotations = [gaps["diag-oft"], gaps["boft"]]
plain = [max(gaps[name]) for name in ("lora", "loha", "lokr")]
decomposed = [min(gaps[name + ", dora_wd"]) for name in ("lora", "loha", "lokr")]
bias_matters = all(with_bias > 0.05 and without < 1e-4 for with_bias, without in rotations)
if not bias_matters or max(plain) > 1e-4 or min(decomposed) < 0.05:
    sys.exit("no longer so: the two modes agree or differ elsewhere")
EOF
OMP_NUM_THREADS=1 "$folder/venv/bin/python" -I "$folder/finding.py"
