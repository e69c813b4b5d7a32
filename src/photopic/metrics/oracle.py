"""The oracle: a judge trained apart that says what is in a picture of the emoji world. It scores; it is never a loss.

It names concepts, style, tint, background and relations, embeds the objects of a picture for subject similarity (image
alignment) and checks a picture against the facts of a caption (text alignment). What it reaches itself on real
held-out scenes stands in ``recipes/emoji-oracle/card.json``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from safetensors import safe_open
from torch import Tensor

from photopic.core.errors import DataError, ModelError
from photopic.data import scenes, splits
from photopic.metrics import facts as caption_facts
from photopic.metrics.oracle_network import CELLS, SIZE, OracleConfig, OracleNetwork, pool

Images = Shaped[np.ndarray, "..."] | Shaped[Tensor, "..."]  # uint8 (n, h, w, 3) or float (n, 3, h, w); ``score`` checks
FULL = 2.0  # cells of objects in a 3x3 window that count as a whole one: a thin small object covers two


@dataclass(frozen=True)
class Scores:
    """Everything the oracle says of n pictures; the other methods are questions about it."""

    cells: Float[Tensor, "n 128 8 8"]  # embedding of each cell, of length 1
    foreground: Float[Tensor, "n 8 8"]  # probability that an object is in the cell
    coarse_cells: Float[
        Tensor, "n 128 4 4"
    ]  # the same of the picture at half its size, where large objects are read best
    coarse_foreground: Float[Tensor, "n 4 4"]
    moments: Float[Tensor, "n moments 8 8"]  # what style and tint are read from
    top: Float[Tensor, "n colours"]  # probability of the background's (top) colour
    bottom: Float[Tensor, "n colours"]  # of the bottom colour; the top one's where there is no gradient
    kind: Float[Tensor, "n kinds"]  # probability of the background's kind

    @property
    def embedding(self) -> Float[Tensor, "n 128"]:
        """Embedding of the objects of each picture: cells weighed by foreground, so the background does not count."""
        fine, coarse = pool(self.cells, self.foreground), pool(self.coarse_cells, self.coarse_foreground)
        return F.normalize(F.normalize(fine, dim=1) + F.normalize(coarse, dim=1), dim=1)


class Oracle:
    """The judge. ``Oracle.load()`` gives the bundled one.

    Example:
        >>> from photopic.data.scenes import SceneOptions, sample_scene
        >>> scene = sample_scene(SceneOptions(concepts=("bear",), objects=(1, 0, 0, 0)), seed=1)
        >>> Oracle.load().concept(scene.image[None])
        ['bear']
    """

    def __init__(self, network: OracleNetwork):
        self.network = network.eval().requires_grad_(False)
        self.config = network.config
        self.scale = float(network.log_scale.exp())  # of the normalised softmax

    @classmethod
    def load(cls, path: str | Path | None = None, device: str | torch.device = "cpu") -> Oracle:
        """Load the bundled oracle, or one of your own ``recipes/emoji-oracle`` run.

        Raises:
            ModelError: If the file is not an oracle.
        """
        bundled = resources.files(__package__).joinpath("bundled", "emoji-oracle.safetensors")
        with resources.as_file(bundled) as default:
            file = Path(path or default)
            try:
                with safe_open(file, "pt") as reader:
                    stated = json.loads(reader.metadata()["photopic"])
                    weights = {name: reader.get_tensor(name).float() for name in reader.keys()}  # noqa: SIM118
                config = OracleConfig(
                    **{key: tuple(value) if isinstance(value, list) else value for key, value in stated.items()}
                )
                network = OracleNetwork(config)
                missing, unexpected = network.load_state_dict(weights, strict=False)
                assert not unexpected and all(name.endswith("num_batches_tracked") for name in missing), missing
            except Exception as error:
                raise ModelError(f"{file}: not an oracle ({error}); make one with recipes/emoji-oracle") from error
        return cls(network.to(device, memory_format=torch.channels_last))

    @torch.no_grad()
    def score(self, images: Images | Scores, batch: int = 64) -> Scores:
        """Read pictures.

        Args:
            images: uint8 (n, h, w, 3) or float (n, 3, h, w) in -1 to 1; any size, judged at 64x64. Scores pass through.
            batch: Pictures read at a time.

        Raises:
            DataError: If the pictures have another shape or type, or there is none.
        """
        if isinstance(images, Scores):
            return images
        network, parts = self.network, []
        for chunk in _prepared(images).split(batch):
            chunk = chunk.to(network.prototypes.device)
            fine = network(chunk)
            coarse = network(F.interpolate(chunk, (SIZE // 2, SIZE // 2), mode="bilinear", antialias=True))
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
        scores = self.score(images)
        style, _ = self.network.attribute_logits(scores.moments, scores.foreground)
        return [self.config.styles[k] for k in style.argmax(1)]

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
    ) -> Float[Tensor, "n names 8 8"]:
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
        places = torch.arange(CELLS, dtype=torch.float32)
        x, y = share.sum(2) @ places, share.sum(3) @ places  # (n, 2) each
        gaps = torch.stack([x[:, 1] - x[:, 0], y[:, 1] - y[:, 0]], 1) / CELLS
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
            embedding, amount = _window(cells, foreground)
            found.append((embedding @ wanted * amount).amax((1, 2)))
        return torch.maximum(*found).numpy()

    def caption_facts(
        self, images: Images | Scores, captions: Sequence[str | caption_facts.Facts]
    ) -> list[dict[str, float]]:
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
                caption if isinstance(caption, caption_facts.Facts) else caption_facts.parse(caption),
            )
            for i, caption in enumerate(captions)
        ]

    def text_alignment(
        self, images: Images | Scores, captions: Sequence[str | caption_facts.Facts]
    ) -> Float[np.ndarray, "n"]:
        """Mean probability of the facts each caption states about its picture, 0 to 1; raises as ``caption_facts``."""
        judged = self.caption_facts(images, captions)
        if not all(judged):
            empty = captions[next(i for i, facts in enumerate(judged) if not facts)]
            raise DataError(f"caption {empty!r} states nothing the oracle judges; name a background or a known concept")
        return np.array([float(np.mean([*facts.values()])) for facts in judged])

    def _judge(self, scores: Scores, stated: caption_facts.Facts) -> dict[str, float]:
        known = [item for item in stated.objects if item.token is None]
        names = tuple(dict.fromkeys(item.concept for item in known))
        judged: dict[str, float] = {}
        maps = self.presence_maps(scores, names) if names else None
        for item in known:
            assert maps is not None
            judged[item.concept] = float(maps[0, names.index(item.concept)].max())
        for item in stated.objects:
            alone = maps is None or item.token is not None or len(stated.objects) == 1
            weights = scores.foreground * (1.0 if alone else maps[:, names.index(item.concept)])
            style, tint = self.network.attribute_logits(scores.moments, weights)
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
        embedding, amount = _window(cells, foreground)
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


def _window(
    cells: Float[Tensor, "n 128 rows columns"], foreground: Float[Tensor, "n rows columns"]
) -> tuple[Float[Tensor, "n rows columns 128"], Float[Tensor, "n rows columns"]]:
    """Embedding of the objects in the 3x3 cells around each cell, and how nearly they fill ``FULL`` cells."""
    embedding = F.normalize(F.avg_pool2d(cells * foreground[:, None], 3, 1, 1), dim=1).permute(0, 2, 3, 1)
    mass = 9 * F.avg_pool2d(foreground[:, None], 3, 1, 1)[:, 0]
    return embedding, (mass / FULL).clamp(max=1)


def _share(logits: Float[Tensor, "1 choices"], index: int) -> float:
    return float(logits.softmax(1)[0, index])


def _prepared(images: Images) -> Float[Tensor, "n 3 64 64"]:
    """Pictures as the network reads them."""
    if isinstance(images, np.ndarray) and images.dtype == np.uint8 and images.ndim == 4 and images.shape[3] == 3:
        tensor = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 127.5 - 1
    elif isinstance(images, Tensor) and images.is_floating_point() and images.ndim == 4 and images.shape[1] == 3:
        tensor = images.detach().float()
    else:
        raise DataError(
            "expected pictures as uint8 (n, h, w, 3) or float (n, 3, h, w) in -1 to 1, found "
            f"{getattr(images, 'dtype', type(images).__name__)} {tuple(getattr(images, 'shape', ()))}"
        )
    if not len(tensor):
        raise DataError("expected at least one picture, found none")
    if tensor.shape[2:] != (SIZE, SIZE):
        tensor = F.interpolate(tensor, (SIZE, SIZE), mode="bilinear", antialias=True).clamp(-1, 1)
    return tensor.contiguous(memory_format=torch.channels_last)
