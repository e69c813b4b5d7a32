#!/usr/bin/env bash
# time-interpret's metrics with several noisy samples mask every input by another input's attribution, and turn `topk` round.
#
# Expected: `comprehensiveness`, `sufficiency`, `log_odds` and the others with `n_samples=n` are means over n noisy copies of every
#           input, each masked by the input's own attribution; with `stdevs=0.0` all copies are equal and nothing changes.
# Happens:  inputs are repeated one by one (a a b b), attributions and targets as a whole (a b a b): most copies meet another's.
#           With `n_samples_batch_size` below n, `sufficiency` sets topk to 1 - topk anew in every batch: 0.8, 0.2, 0.8, ...
# Hurt:     the more samples against noise, the more a good attribution looks like one drawn by lot; rankings of methods vanish.
# Instead:  n_samples=1 and the mean over one's own noisy copies; comprehensiveness and log_odds also by n_samples_batch_size=1.
# Known:    no report found (josephenguehard/time_interpret).
# Seen (2026-11): 16 series, linear network, stdevs 0. Comprehensiveness of the exact attribution 0.197 by 1 sample, 0.027 by 4, as
#           low as a random attribution (0.026); sufficiency of the random one 0.070, in batches of one sample 0.044.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq --disable-pip-version-check \
  torch==2.13.0 numpy==2.4.6 scikit-learn==1.9.0 matplotlib==3.11.2 packaging==26.3 tqdm==4.70.1
"$folder/venv/bin/pip" install -qq --disable-pip-version-check --no-deps time-interpret==0.3.0 captum==0.9.0
cat > "$folder/finding.py" <<'EOF'
import sys
from importlib.metadata import distribution, version
from types import ModuleType

import torch
from torch import nn

package = distribution("time-interpret")
sys.modules["tint"] = ModuleType("tint")  # without its attributions and data sets
sys.modules["tint"].__path__ = [str(package.locate_file("tint"))]
from tint.metrics import comprehensiveness, sufficiency  # noqa: E402

torch.manual_seed(0)
network, series = nn.Sequential(nn.Flatten(), nn.Linear(30, 2)), torch.randn(16, 10, 3)
weight = network[1].weight.detach().view(2, 10, 3)
target = network(series).argmax(1)
exact = series * (weight[target] - weight[1 - target])  # of a linear network: what each value adds to the margin
random = torch.randn(16, 10, 3)


def by_hand(attribution, kept):
    """Mean fall of the target's probability with the largest fifth set to 0, or with only that fifth left."""
    flat = attribution.flatten(1)
    largest = torch.zeros_like(flat).scatter(1, flat.topk(6, dim=1).indices, 1).view_as(series).bool()
    masked = torch.where(largest if kept else ~largest, series, 0)
    row = torch.arange(16)
    return (network(series).softmax(1) - network(masked).softmax(1))[row, target].mean().item()


print(f"time-interpret {package.version}, captum {version('captum')}, torch {torch.__version__}; stdevs 0: all samples equal")
found = {}
for metric, kept in ((comprehensiveness, False), (sufficiency, True)):
    for name, attribution in (("exact", exact), ("random", random)):
        values = [
            metric(network, series, attribution, target=target, topk=0.2, n_samples=n, n_samples_batch_size=size)
            for n, size in ((1, None), (4, None), (4, 1))
        ]
        found[metric.__name__, name] = by_hand(attribution, kept), *values
        print(f"{metric.__name__}, {name} attribution: by hand %.3f; 1 sample %.3f, 4 samples %.3f, one by one %.3f"
              % found[metric.__name__, name])  # fmt: skip
hand, one, four, single = found["comprehensiveness", "exact"]
hand_kept, one_kept, _, single_kept = found["sufficiency", "random"]
if max(abs(hand - one), abs(hand - single), abs(hand_kept - one_kept)) > 1e-3:
    sys.exit("the comparison itself no longer holds")
if abs(four - one) < 0.02 or abs(single_kept - one_kept) < 0.02:
    sys.exit("no longer so: equal samples do not change the metrics")
EOF
OMP_NUM_THREADS=1 "$folder/venv/bin/python" -I -W ignore "$folder/finding.py"
