"""Go on training the image encoder of a dual encoder with the neighbours that a knowledge graph gives its pictures and texts.

A picture is drawn towards the texts that describe it, as in CLIP, and towards pictures of the same thing; each family of edges is a
contrast of its own with its own weight, and one of weight 0 is as if it were not there. Edges that an encoder made are left out:
they would teach it what it knows.

Paper: UKnow (arXiv:2302.06891), whose loss is not published; this one is the mean of log softmax over all positives of an anchor
(SupCon, arXiv:2004.11362). Changed: the text encoder stays as it is, so families of texts alone teach nothing and are not used.
Claim: ``uknow.pretraining_gain`` of benchmarks/tune/graph_contrast.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Gt
from jaxtyping import Float, Int64, UInt8
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch.nn import functional as F

from photopic.core.config import Config, Sentence
from photopic.core.edits import DenseDelta, Edit
from photopic.core.errors import DataError, FieldError
from photopic.core.events import Event, Steps
from photopic.core.files import read_file
from photopic.core.fit import OptimizedTensors, fit
from photopic.core.method import method
from photopic.core.runs import Run
from photopic.core.view import Section, Table, View
from photopic.data import renderings
from photopic.data.few_shot import LabelledImages
from photopic.data.knowledge_graph import KnowledgeGraph
from photopic.data.picture_file import decode
from photopic.data.pixels import as_rgb
from photopic.learning.few_shot_batches import Training, cosine, pixels_of
from photopic.learning.losses.contrastive import multi_positive_contrast
from photopic.models.dual_encoder import DualEncoder

PAIRS, PICTURES = (
    "describes",
    "same thing",
)  # relations of the families IT_cross and I_cross that are given, not made by a model
EMOJI_WORLD = "emoji-world"


@dataclass(frozen=True, kw_only=True)
class GraphContrastConfig(Config):
    """How to train."""

    steps: Annotated[int, Ge(1)] = 200  # steps of learning; more takes longer
    batch: Annotated[int, Ge(2)] = 32  # pictures a step, each with one neighbour
    lr: Annotated[float, Gt(0)] = 1e-4  # size of a step of AdamW at first; it falls along a half cosine
    pair_weight: Annotated[float, Ge(0)] = 1.0  # weight of pictures and the texts that describe them; alone it is CLIP
    picture_weight: Annotated[float, Ge(0)] = 0.3  # weight of pictures of the same thing
    picture_temperature: Annotated[float, Gt(0)] = (
        0.1  # tau among pictures; the encoder's own is for pairs and far smaller
    )
    template: Annotated[str, Sentence()] = "{}"  # sentence with {} where a text goes, where texts are names
    augment: bool = False  # crop pictures at random while learning, to half the area or more
    seed: Annotated[int, Ge(0)] = 0  # seed of everything random; the same seed learns the same

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pair_weight == self.picture_weight == 0:
            raise FieldError("pair_weight", "expected a weight above 0 here or for pictures, found 0 for both")


def graph_contrast_view(edit: Edit) -> View:
    """What it was learnt from."""
    counts = [[name, f"{count:,}"] for name, count in edit.provenance["learnt_from"].items()]
    return View("Trained with a graph", [Section("", [Table(["learnt from", ""], counts)])])


@method(
    paper="arXiv:2302.06891",
    claims="uknow.pretraining_",
    command="tune graph",
    examples=("Example: photopic tune graph my.graph/ --pictures pictures/ -o graph.edit",),
    view=graph_contrast_view,
)
def graph_contrast(
    model: DualEncoder,
    graph: KnowledgeGraph,
    *,
    pictures: str,
    config: GraphContrastConfig = GraphContrastConfig(),
    run: Run | None = None,
) -> Steps[Edit]:
    """Go on training a CLIP-like model's image encoder with what a knowledge graph says of its pictures.

    Args:
        model: A bundled dual encoder, a folder with one of transformers, or a hub id.
        graph: With pictures, texts that describe them, and perhaps edges between pictures of the same thing.
        pictures: Folder that the graph was built of, where its pictures lie; or emoji-world.
        config: How to train.
        run: A run folder to checkpoint in and to resume from.

    Returns:
        What was added to the weights of the image encoder.

    Raises:
        DataError: If the graph has fewer than two pictures with texts, or one of them cannot be read.

    Example:
        >>> graph_contrast(model, graph, pictures="pictures/").parts[0].kind  # doctest: +SKIP
        'delta'
    """
    learner = GraphContrast(model, Neighbours(graph), pictures, config)
    yield Event("preparing")
    yield from fit(learner, config.steps, run=run)
    base = model.parameters(*learner.tensors)
    deltas = {name: (tensor - base[name]).detach() for name, tensor in learner.tensors.items()}
    deltas = {name: delta for name, delta in deltas.items() if bool(delta.any())}  # what did not move is not stored
    return Edit((DenseDelta(deltas),), model.fingerprint(*deltas), {"learnt_from": learner.neighbours.counts})


class Neighbours:
    """What a graph says of pictures: which texts describe each, and which are of one thing.

    Args:
        graph: Its training edges count.

    Attributes:
        pictures: Nodes of pictures with a text.
        texts: Nodes of texts that describe one of them.
        of_text: Pairs (place of the picture, place of the text).
        thing: Of each picture the number of its thing: what edges of ``same thing`` hold together.
    """

    def __init__(self, graph: KnowledgeGraph):
        self.graph = graph
        pairs, same = graph.edges(PAIRS, "train"), graph.edges(PICTURES, "train")
        self.pictures, at_picture = np.unique(pairs.tail, return_inverse=True)
        self.texts, at_text = np.unique(pairs.head, return_inverse=True)
        self.of_text = np.stack([at_picture.reshape(-1), at_text.reshape(-1)], 1)  # (pairs, 2)
        if len(self.pictures) < 2:
            raise DataError(
                f"graph: expected two or more pictures with a text that describes them, found {len(self.pictures)}"
            )
        edges = coo_array((np.ones(len(same), bool), (same.head, same.tail)), shape=(graph.nodes, graph.nodes))
        self.thing = connected_components(edges, directed=False)[1][self.pictures]  # (pictures,)
        self.counts = {
            "pictures": len(self.pictures),
            "texts": len(self.texts),
            "pairs": len(pairs),
            "same thing": len(same),
        }

    @cached_property
    def _of_thing(
        self,
    ) -> tuple[Int64[np.ndarray, " pictures"], Int64[np.ndarray, " pictures"], Int64[np.ndarray, " pictures"]]:
        """Pictures by thing: their order, and of each picture where its thing begins and how many it has."""
        order = np.argsort(self.thing, kind="stable")
        ordered = self.thing[order]
        starts = np.searchsorted(ordered, self.thing, "left")
        return order, starts, np.searchsorted(ordered, self.thing, "right") - starts

    def partners(self, anchors: Int64[np.ndarray, " n"], rng: np.random.Generator) -> Int64[np.ndarray, " n"]:
        """Of each picture another of its thing, drawn at random; itself where it is alone."""
        order, starts, counts = self._of_thing
        drawn = order[starts[anchors] + (rng.random(len(anchors)) * (counts[anchors] - 1)).astype(np.int64)]
        # the last of the thing stands in for the anchor, so that all others are as likely
        last = order[starts[anchors] + counts[anchors] - 1]
        return np.where(drawn == anchors, last, drawn)


class GraphContrast(OptimizedTensors):
    """A learner of the image tower.

    Args:
        model: Its text tower stays.
        neighbours: Of the pictures.
        where: Folder of the pictures, or ``emoji-world``.
        config: How.
    """

    def __init__(self, model: DualEncoder, neighbours: Neighbours, where: str, config: GraphContrastConfig):
        self.model, self.neighbours, self.where, self.config = model, neighbours, where, config
        names = [f"network.vision_model.{name}" for name, _ in model.image_tower.named_parameters()]
        tensors = {name: each.detach().clone().requires_grad_() for name, each in model.parameters(*names).items()}
        self.features = model.functional(tensors)  # pixels (n, 3, height, width) -> (n, dim) through the copies
        words = [config.template.format(neighbours.graph.texts[node]) for node in neighbours.texts.tolist()]
        self.texts = model.text_features(words).to(model.device)  # (texts, dim), of length 1
        count, known = len(neighbours.texts), neighbours.of_text
        self.pairs = np.unique(known[:, 0] * count + known[:, 1])  # sorted, one number a pair
        optimizer = torch.optim.AdamW(tensors.values(), lr=config.lr, weight_decay=0.0)
        super().__init__(tensors, optimizer, lambda step: config.lr * cosine(step, config.steps))

    def step(self, step: int) -> Mapping[str, float]:
        """One step down the weighted mean of the contrasts of the families."""
        rng = np.random.default_rng((self.config.seed, step))
        pictures, texts = self._batch(rng)
        images = F.normalize(self.features(self._pixels(pictures, step)), dim=-1)  # (n, dim)
        losses = {}
        if self.config.pair_weight:
            losses["pairs"] = self._pairs(images, pictures, texts)
        if self.config.picture_weight:
            losses["pictures"] = self._pictures(images, pictures)
        weights = {"pairs": self.config.pair_weight, "pictures": self.config.picture_weight}
        loss = torch.stack([weights[name] * each for name, each in losses.items()]).sum() / sum(
            weights[name] for name in losses
        )
        self.update(loss, step=step)
        return {"loss": loss.item(), **{name: each.item() for name, each in losses.items()}}

    def _batch(self, rng: np.random.Generator) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " m"]]:
        """Places of pictures and of texts, each once: pairs at random, with a neighbour each where that family counts."""
        known, size = self.neighbours.of_text, self.config.batch
        drawn = rng.integers(len(known), size=size if self.config.picture_weight else 2 * size)
        pictures, texts = known[drawn].T
        if self.config.picture_weight:
            partners = self.neighbours.partners(pictures, rng)
            # a text of each neighbour: the first that describes it, of those in a random order
            order = rng.permutation(len(known))
            first = order[np.sort(np.unique(known[order, 0], return_index=True)[1])]
            text_of = np.empty(len(self.neighbours.pictures), np.int64)
            text_of[known[first, 0]] = known[first, 1]
            pictures, texts = np.concatenate([pictures, partners]), np.concatenate([texts, text_of[partners]])
        pictures, place = np.unique(pictures, return_index=True)
        return pictures, np.unique(texts[place])

    def _pairs(self, images: Tensor, pictures: np.ndarray, texts: np.ndarray) -> Float[Tensor, ""]:
        """CLIP's loss in both directions; every text of the batch that describes a picture is right for it."""
        logits = self.model.logit_scale * images @ self.texts[texts].mT  # (pictures, texts)
        numbers = pictures[:, None] * len(self.neighbours.texts) + texts[None]
        place = np.searchsorted(self.pairs, numbers).clip(max=len(self.pairs) - 1)
        right = torch.from_numpy(self.pairs[place] == numbers).to(logits)
        return (multi_positive_contrast(logits, right) + multi_positive_contrast(logits.mT, right.mT)) / 2

    def _pictures(self, images: Tensor, pictures: np.ndarray) -> Float[Tensor, ""]:
        """Pictures of one thing against all others of the batch, none against itself."""
        thing = torch.from_numpy(self.neighbours.thing[pictures]).to(images.device)
        others = ~torch.eye(len(pictures), dtype=torch.bool, device=images.device)
        right = ((thing[:, None] == thing[None]) & others).to(images)
        return multi_positive_contrast(images @ images.mT / self.config.picture_temperature, right, others)

    def _pixels(self, pictures: np.ndarray, step: int) -> Float[Tensor, "n 3 height width"]:
        uris = [self.neighbours.graph.uris[node] for node in self.neighbours.pictures[pictures].tolist()]
        data = LabelledImages(read_pictures(uris, self.where), np.zeros(len(uris), np.int64), ("picture",))
        training = Training(steps=1, augment=self.config.augment, seed=self.config.seed)
        return pixels_of(self.model, data, np.arange(len(uris)), training, step)


def read_pictures(uris: list[str], where: str) -> list[UInt8[np.ndarray, "_ _ 3"]]:
    """Pictures of a graph.

    Args:
        uris: As the graph has them: paths in the folder that it was built of, or ``style/name`` of the emoji world.
        where: That folder, or ``emoji-world``.

    Raises:
        DataError: If one cannot be read.

    Example:
        >>> read_pictures(["noto/bear"], "emoji-world")[0].shape
        (64, 64, 3)
    """
    if where == EMOJI_WORLD:
        pairs = [uri.partition("/")[::2] for uri in uris]
        return list(renderings.pictures([(name, style) for style, name in pairs]))
    files = [Path(where) / uri for uri in uris]
    return [np.asarray(as_rgb(decode(read_file(file, DataError), str(file)), str(file))) for file in files]
