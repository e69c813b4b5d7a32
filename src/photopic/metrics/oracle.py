"""The oracle: a judge trained apart that says what is in a picture of the emoji world. It scores; it is never a loss.

It names concepts, style, tint, background and relations, embeds the objects of a picture for subject similarity (image
alignment) and checks a picture against the facts of a caption (text alignment). What it reaches itself on real
held-out scenes stands in ``recipes/emoji-oracle/card.json``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors import safe_open
from torch import Tensor

from photopic.core.errors import DataError, ModelError
from photopic.data import scenes, splits
from photopic.metrics import facts as caption_facts
from photopic.metrics.facts import Facts
from photopic.metrics.oracle_network import OracleConfig, OracleNetwork, describe
from photopic.metrics.oracle_scores import Images, Scores, prepared, window

BUNDLED = {64: "emoji-oracle.safetensors", 128: "emoji-oracle-128.safetensors"}


class Oracle:
    """The judge. ``Oracle.load()`` gives the bundled one for pictures of 64 pixels.

    Example:
        >>> from photopic.data.scenes import SceneOptions, sample_scene
        >>> scene = sample_scene(SceneOptions(concepts=("bear",), objects=(1.0, 0.0, 0.0, 0.0)), seed=1)
        >>> Oracle.load().concept(scene.image[None])
        ['bear']
    """

    def __init__(self, network: OracleNetwork):
        self.network = network.eval().requires_grad_(False)
        self.config = network.config
        self.scale = float(network.log_scale.exp())  # of the normalised softmax

    @classmethod
    def load(
        cls, path: str | Path | None = None, device: str | torch.device = "cpu", *, side: Literal[64, 128] = 64
    ) -> Oracle:
        """Load a bundled oracle, or one of your own ``recipes/emoji-oracle`` run.

        Args:
            path: A file of the recipe; None: a bundled one.
            device: Where it computes.
            side: Of the bundled ones, the pixels along a side of the pictures it learnt from.

        Raises:
            ModelError: If the file is not an oracle.
        """
        bundled = resources.files(__package__).joinpath("bundled", BUNDLED[side])
        with resources.as_file(bundled) as default:
            file = Path(path or default)
            try:
                with safe_open(file, "pt") as reader:
                    stated = json.loads(reader.metadata()["photopic"])
                    weights = {name: reader.get_tensor(name).float() for name in reader.keys()}  # noqa: SIM118
                fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in stated.items()}
                config = OracleConfig(**fields)
                network = OracleNetwork(config)
                missing, unexpected = network.load_state_dict(weights, strict=False)
                assert not unexpected and all(name.endswith("num_batches_tracked") for name in missing), missing
            except Exception as error:
                raise ModelError(f"{file}: not an oracle ({error}); make one with recipes/emoji-oracle") from error
        network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return cls(network)

    @torch.no_grad()
    def score(self, images: Images | Scores, batch: int = 64) -> Scores:
        """Read pictures.

        Args:
            images: uint8 (n, h, w, 3) or float (n, 3, h, w) in -1 to 1; any size, judged at the size it
                learnt from (``config.side``: 64x64 the bundled one). Scores pass through.
            batch: Pictures read at a time.

        Raises:
            DataError: If the pictures have another shape or type, or there is none.
        """
        if isinstance(images, Scores):
            return images
        network, parts, side = self.network, [], self.config.side
        for chunk in prepared(images, side).split(batch):
            chunk = chunk.to(network.prototypes.device)
            fine = network(chunk)
            coarse = network(F.interpolate(chunk, (side // 2, side // 2), mode="bilinear", antialias=True))
            parts.append(
                (
                    fine.embedding,
                    fine.foreground.sigmoid(),
                    coarse.embedding,
                    coarse.foreground.sigmoid(),
                    fine.moments,
                    *(logits.softmax(1) for logits in network.background_logits(fine)),
                )
            )
        return Scores(*(torch.cat(columns).cpu() for columns in zip(*parts, strict=True)))

    def concept_probabilities(
        self,
        images: Images | Scores,
        among: Sequence[str] | None = None,
        *,
        also: Mapping[str, Images | Scores] | None = None,
    ) -> tuple[tuple[str, ...], Float[np.ndarray, "n names"]]:
        """Which concept the objects of each picture are, as (names, probabilities).

        Args:
            images: As in ``score``; one object each, or the answer is a mixture.
            among: Names to choose from; None: those ``emoji-diffusion`` draws (``splits.KNOWN``).
            also: Concepts nobody trained the oracle on, each with reference pictures that stand in for its prototype.
        """
        names = self._names(among)
        prototypes = [self._prototypes(names)]
        for references in (also or {}).values():
            prototypes.append(F.normalize(self.score(references).embedding.mean(0, keepdim=True), dim=1))
        logits = self.scale * self.score(images).embedding @ torch.cat(prototypes).T
        return (*names, *(also or {})), logits.softmax(-1).numpy()

    def concept(
        self,
        images: Images | Scores,
        among: Sequence[str] | None = None,
        *,
        also: Mapping[str, Images | Scores] | None = None,
    ) -> list[str]:
        """The most probable concept of each picture; arguments as ``concept_probabilities``."""
        names, probabilities = self.concept_probabilities(images, among, also=also)
        return [names[index] for index in probabilities.argmax(1)]

    def style(self, images: Images | Scores) -> list[str]:
        """The most probable style of each picture's objects."""
        names, probabilities = self.style_probabilities(images)
        return [names[k] for k in probabilities.argmax(1)]

    def style_probabilities(self, images: Images | Scores) -> tuple[tuple[str, ...], Float[np.ndarray, "n styles"]]:
        """Which style the objects of each picture are drawn in, as (names, probabilities)."""
        scores = self.score(images)
        style, _ = self._attributes(scores, scores.foreground)
        return tuple(self.config.styles), style.softmax(1).numpy()

    def background(self, images: Images | Scores) -> list[scenes.Background]:
        """The most probable background of each picture."""
        scores = self.score(images)
        found = []
        for top, bottom, kind in zip(scores.top.argmax(1), scores.bottom.argmax(1), scores.kind.argmax(1), strict=True):
            name, colours = self.config.kinds[kind], self.config.colours
            found.append(scenes.Background(colours[top], name, colours[bottom] if name == "gradient" else None))
        return found

    def presence_maps(
        self, images: Images | Scores, names: Sequence[str], among: Sequence[str] | None = None
    ) -> Float[Tensor, "n names rows rows"]:
        """Probability that a named concept is around a cell: of the objects in its 3x3 window, times how much there is.

        Args:
            images: As in ``score``.
            names: Concepts asked for.
            among: What the objects may be apart from ``names``; None: ``splits.KNOWN``.
        """
        scores = self.score(images)
        fine = self._windows(scores.cells, scores.foreground, names, among)
        coarse = self._windows(scores.coarse_cells, scores.coarse_foreground, names, among)
        return torch.maximum(fine, F.interpolate(coarse, fine.shape[2:]))

    def presence(
        self, images: Images | Scores, names: Sequence[str], among: Sequence[str] | None = None
    ) -> Float[np.ndarray, "n names"]:
        """Probability that each named concept is somewhere in each picture; above 0.5 counts as present."""
        return self.presence_maps(images, names, among).amax((2, 3)).numpy()

    def relation(self, images: Images | Scores, first: str, second: str) -> list[str | None]:
        """How ``first`` lies to ``second``, by the centroids of their maps; None where they are not clearly apart."""
        scores = self.score(images)
        maps = self._windows(scores.cells, scores.foreground, (first, second), None) ** 4  # the surest cells count
        share = maps / maps.sum((2, 3), keepdim=True).clamp_min(1e-9)
        rows = share.shape[2]
        places = torch.arange(rows, dtype=torch.float32)
        x, y = share.sum(2) @ places, share.sum(3) @ places  # (n, 2) each
        gaps = torch.stack([x[:, 1] - x[:, 0], y[:, 1] - y[:, 0]], 1) / rows
        found: list[str | None] = []
        for gap in gaps.tolist():
            axis = int(abs(gap[1]) > abs(gap[0]))
            found.append(scenes.RELATIONS[2 * axis + int(gap[axis] < 0)] if abs(gap[axis]) > 0.15 else None)
        return found

    def subject_similarity(self, images: Images | Scores, references: Images | Scores) -> Float[np.ndarray, "n"]:
        """Image alignment: mean cosine of each picture's objects to the reference pictures' objects, in -1 to 1."""
        return (self.score(images).embedding @ self.score(references).embedding.T).mean(1).numpy()

    def subject_presence(self, images: Images | Scores, references: Images | Scores) -> Float[np.ndarray, "n"]:
        """Highest similarity of any 3x3 window of cells to the references' mean embedding: for several objects."""
        scores = self.score(images)
        wanted = F.normalize(self.score(references).embedding.mean(0), dim=0)
        found = []
        for cells, foreground in (
            (scores.cells, scores.foreground),
            (scores.coarse_cells, scores.coarse_foreground),
        ):
            embedding, amount = window(cells, foreground)
            found.append((embedding @ wanted * amount).amax((1, 2)))
        return torch.maximum(*found).numpy()

    def caption_facts(self, images: Images | Scores, captions: Sequence[str | Facts]) -> list[dict[str, float]]:
        """Probability of each fact that each picture's caption states, by the fact's name such as ``left of``.

        A customised subject ("a <mine> bear") is not judged as a bear; ``subject_similarity`` judges it. Counts are
        not judged.

        Raises:
            DataError: If a caption cannot be read, names a concept the oracle does not know, or lengths differ.
        """
        scores = self.score(images)
        if len(captions) != len(scores.cells):
            raise DataError(f"expected one caption a picture, found {len(captions)} for {len(scores.cells)} pictures")
        return [
            self._judge(
                Scores(*(getattr(scores, field)[i : i + 1] for field in Scores.__dataclass_fields__)),
                caption if isinstance(caption, Facts) else caption_facts.parse(caption),
            )
            for i, caption in enumerate(captions)
        ]

    def text_alignment(self, images: Images | Scores, captions: Sequence[str | Facts]) -> Float[np.ndarray, "n"]:
        """Mean probability of the facts each caption states about its picture, 0 to 1; raises as ``caption_facts``."""
        judged = self.caption_facts(images, captions)
        if not all(judged):
            empty = captions[next(i for i, facts in enumerate(judged) if not facts)]
            raise DataError(f"caption {empty!r} states nothing the oracle judges; name a background or a known concept")
        return np.array([float(np.mean([*facts.values()])) for facts in judged])

    def _judge(self, scores: Scores, stated: Facts) -> dict[str, float]:
        known = [item for item in stated.objects if item.token is None]
        names = tuple(dict.fromkeys(item.concept for item in known))
        judged: dict[str, float] = {}
        maps = self.presence_maps(scores, names) if names else None
        for item in known:
            assert maps is not None
            judged[item.concept] = float(maps[0, names.index(item.concept)].max())
        for item in stated.objects:
            weights = scores.foreground
            if maps is not None and item.token is None and len(stated.objects) > 1:
                weights = weights * maps[:, names.index(item.concept)]
            style, tint = self._attributes(scores, weights)
            if item.style in self.config.styles:
                judged[f"{item.style} {item.concept}"] = _share(style, self.config.styles.index(item.style))
            if item.colour in self.config.tints:
                judged[f"{item.colour} {item.concept}"] = _share(tint, self.config.tints.index(item.colour))
        if stated.relation and len(names) == 2:
            holds = self.relation(scores, *names)[0] == stated.relation
            judged[stated.relation] = float(holds) * min(judged[name] for name in names)
        if (background := stated.background) is not None:
            colours, kinds = self.config.colours, self.config.kinds
            judged[f"{background.colour} background"] = float(scores.top[0, colours.index(background.colour)])
            if background.kind != "flat":
                judged[f"{background.kind} background"] = float(scores.kind[0, kinds.index(background.kind)])
            if background.second:
                judged[f"{background.second} below"] = float(scores.bottom[0, colours.index(background.second)])
        return judged

    def _attributes(self, scores: Scores, weights: Float[Tensor, "n rows rows"]) -> tuple[Tensor, Tensor]:
        """Logits of (style, tint) of what lies where the weights are."""
        described = describe(scores.moments, scores.cells, weights)
        style, tint = self.network.attribute_logits(described.to(self.network.prototypes.device))
        return style.cpu(), tint.cpu()

    def _names(self, among: Sequence[str] | None) -> tuple[str, ...]:
        return tuple(sorted(splits.KNOWN)) if among is None else tuple(among)

    def _windows(
        self,
        cells: Float[Tensor, "n 128 rows columns"],
        foreground: Float[Tensor, "n rows columns"],
        names: Sequence[str],
        among: Sequence[str] | None,
    ) -> Float[Tensor, "n names rows columns"]:
        """Probability of each name in the 3x3 window around each cell, times how much of an object is there."""
        choices = tuple(dict.fromkeys((*self._names(among), *names)))
        embedding, amount = window(cells, foreground)
        shares = (self.scale * embedding @ self._prototypes(choices).T).softmax(-1)
        return (shares[..., [choices.index(name) for name in names]] * amount[..., None]).permute(0, 3, 1, 2)

    def _prototypes(self, names: Sequence[str]) -> Float[Tensor, "names 128"]:
        index = {name: i for i, name in enumerate(self.config.concepts)}
        if unknown := [name for name in names if name not in index]:
            raise DataError(
                f"the oracle does not know {unknown[0]!r}; it knows {len(index)} concepts (Oracle.config.concepts); "
                "give pictures of a held-out one as references"
            )
        return F.normalize(self.network.prototypes, dim=1)[[index[name] for name in names]].cpu()


def _share(logits: Float[Tensor, "1 choices"], index: int) -> float:
    return float(logits.softmax(1)[0, index])
