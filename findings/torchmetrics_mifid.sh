#!/usr/bin/env bash
# torchmetrics' memorization-informed FID asks the wrong way round: a generator of nothing but training pictures goes unpunished.
#
# Expected: MiFID divides the FID by how far the generated pictures are from their nearest training pictures (mean over the
#           generated ones, thresholded): copies of training pictures bring it to 0 and the MiFID to infinity.
# Happens:  the mean is taken over the real pictures, each to its nearest generated one. Whoever copies some of the training
#           pictures is far from all the others: no penalty. Whoever makes many new pictures and has each training picture
#           among them gets the full one.
# Hurt:     the number that is to tell a memorizing GAN or diffusion model from one that generalizes: models that repeat a part of
#           the training set, as overfitted and collapsed ones do, have exactly their FID.
# Instead:  update(training, real=False) and update(generated, real=True): the FID is symmetric, and the distance is then right.
# Known:    no report found. The authors' code (Bai et al. 2021) goes through the generated pictures; the documentation says
#           "the average minimum cosine distance between the features of the real and fake distribution".
# Seen (2026-11): 2,000 training points, 2,000 copies of 100 of them (distance 0): MiFID 1.04, which is the FID; handed over the
#           other way round 1e14. All 2,000 and 18,000 new ones (distance 0.22, no penalty due): 4e12, the other way round 0.04.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq --disable-pip-version-check torch==2.13.0 numpy==2.4.6 scipy==1.17.1 torchmetrics==1.9.0
cat > "$folder/finding.py" <<'EOF'
import sys

import torch
import torchmetrics
from torchmetrics.image import MemorizationInformedFrechetInceptionDistance


class Flat(torch.nn.Module):
    """The picture is its own feature vector."""

    num_features = 64

    def forward(self, pictures):
        return pictures.flatten(1)  # (n, 1, 8, 8) -> (n, 64)


def mifid(real, fake):
    metric = MemorizationInformedFrechetInceptionDistance(feature=Flat())
    metric.update(real, real=True)
    metric.update(fake, real=False)
    return metric.compute().item()


def copied(training, generated):
    """Mean cosine distance of the generated pictures to their nearest training pictures."""
    training, generated = (torch.nn.functional.normalize(x.flatten(1), dim=1) for x in (training, generated))
    return (1 - (generated @ training.T).abs()).clamp(min=0).amin(dim=1).mean().item()


def draw(count):
    return torch.rand(count, 1, 8, 8).square()


torch.manual_seed(0)
training = draw(2000)
generators = {
    "new pictures only": draw(2000),
    "copies of 100 training pictures": training[torch.randint(0, 100, (2000,))],
    "all training pictures and nine times as many new ones": torch.cat([training, draw(18000)]),
}
print(f"torchmetrics {torchmetrics.__version__}, torch {torch.__version__}")
found = {}
for name, generated in generators.items():
    found[name] = mifid(training, generated), mifid(generated, training)
    print(f"{name}: distance to the nearest training picture {copied(training, generated):.2f},", end=" ")
    print("MiFID {:.3g}, handed over the other way round {:.3g}".format(*found[name]))
new, copies, many = found.values()
# where the distance is 0 but for rounding, the sign is that of the rounding error
if copies[0] > 10 or abs(copies[1]) < 1e4 or abs(many[0]) < 1e4 or many[1] > 10 or max(new) > 10:
    sys.exit("no longer so: copies of training pictures are punished, and new ones are not")
EOF
OMP_NUM_THREADS=1 "$folder/venv/bin/python" -I -W ignore "$folder/finding.py"
