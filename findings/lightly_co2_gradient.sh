#!/usr/bin/env bash
# lightly's CO2 regularizer has no gradient: at any weight the training is the one without it.
#
# Expected: `loss_fn(out0, out1) + co2(out0, out1)`, as its documentation has it, trains with the consistency term of CO2,
#           the symmetric Kullback-Leibler divergence of both views' similarities, at weight `alpha`.
# Happens:  the value is right, but it is returned as `torch.tensor(alpha * 0.5 * div)`, a copy without history. Added to a
#           loss that has a gradient it changes the number and nothing else; alone, backward() fails.
# Hurt:     runs "with CO2" are runs without, whatever alpha; the reported loss is larger. torch warns of the copy once, among
#           the warnings of a training's first step.
# Instead:  train with the divergence written out: logits of out0 and of out1 against the other view, log_softmax, and
#           `0.5 * alpha * (kl_div(p, q) + kl_div(q, p))`, "batchmean" with log_target=True.
# Known:    no report found.
# Seen (2026-11): 100 steps of SGD with SimCLR's loss: with alpha 1 and 1000 bitwise the weights without it, though its mean
#           value is 0.07 and 71; the divergence written out moves them by 0.76 (of a norm of 2.4) at weight 1.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/pip" install -qq --disable-pip-version-check --no-deps lightly==1.6.0  # the losses need no more
cat > "$folder/finding.py" <<'EOF'
import sys
from importlib.metadata import distribution
from types import ModuleType

import torch
from torch.nn.functional import kl_div, log_softmax, normalize

package = distribution("lightly")
for part in ("", ".models", ".models.modules", ".loss", ".loss.regularizer", ".utils"):
    name = "lightly" + part
    sys.modules[name] = ModuleType(name)  # its folders without what their __init__ imports (torchvision, lightning)
    sys.modules[name].__path__ = [str(package.locate_file(name.replace(".", "/")))]
sys.modules["lightly.models"].utils = None  # used with several machines only
from lightly.loss.ntx_ent_loss import NTXentLoss  # noqa: E402
from lightly.loss.regularizer.co2 import CO2Regularizer  # noqa: E402

PICTURES, SIZE = 32, 16


def written_out(out0, out1, temperature=0.05):
    """The same divergence with its gradient: each view's similarities to the other view of its own and of other pictures."""
    out0, out1 = normalize(out0, dim=1), normalize(out1, dim=1)
    others = ~torch.eye(len(out0), dtype=torch.bool)

    def labels(a, b):
        sims = a @ b.T
        return log_softmax(torch.cat([sims.diagonal()[:, None], sims[others].view(len(a), -1)], dim=1) / temperature, dim=-1)

    p, q = labels(out0, out1), labels(out1, out0)
    return 0.5 * sum(kl_div(a, b, reduction="batchmean", log_target=True) for a, b in ((p, q), (q, p)))


def train(regularizer, weight):
    """Weights of an encoder after 100 steps of SGD on two noisy views, and the sum of the regularizer's values."""
    torch.manual_seed(0)
    encoder = torch.nn.Linear(SIZE, SIZE)
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.1)
    contrast, total = NTXentLoss(), 0.0
    for _ in range(100):
        pictures = torch.randn(PICTURES, SIZE)
        out0, out1 = (encoder(pictures + 0.3 * torch.randn_like(pictures)) for _ in range(2))
        penalty = regularizer(out0, out1)
        total += weight * penalty.item()
        optimizer.zero_grad()
        (contrast(out0, out1) + weight * penalty).backward()
        optimizer.step()
    return encoder.weight.detach(), total / 100


torch.manual_seed(0)
out0, out1 = (torch.randn(PICTURES, SIZE, requires_grad=True) for _ in range(2))
value, right = CO2Regularizer()(out0, out1), written_out(out0, out1)
print(f"lightly {package.version}, torch {torch.__version__}")
print(f"value {value:.4f}, written out {right:.4f}; has a gradient: {value.requires_grad}, {right.requires_grad}")
plain, _ = train(written_out, 0.0)
moved = {}
for alpha in (1.0, 1000.0):
    weights, mean = train(CO2Regularizer(alpha=alpha), 1.0)
    moved[alpha] = (weights - plain).norm().item()
    print(f"CO2Regularizer, alpha {alpha:g}: mean value {mean:.3f}, weights differ by {moved[alpha]:g} from those without")
weights, mean = train(written_out, 1.0)
real = (weights - plain).norm().item()
print(f"written out, weight 1: mean value {mean:.3f}, weights differ by {real:.3f} (of {plain.norm():.3f})")
if abs(value - right) > 1e-4 or value.requires_grad or any(moved.values()) or real < 0.01:
    sys.exit("no longer so: the regularizer's value has a gradient")
EOF
OMP_NUM_THREADS=1 "$folder/venv/bin/python" -I -W ignore "$folder/finding.py"
