"""Which scorers of missing links beat counting, what features add, and how fast links are ranked.

    python -m benchmarks links                 # writes benchmarks/results/links.json; the peer's rows need pykeen importable

Graph: the concept table of the emoji world, 15,851 nodes and 34,771 edges, as ``photopic knowledge build emoji-world`` makes it.
Asked for: keywords of concepts (``mentions``), a tenth of the base concepts kept for validation and a tenth for test; a base
concept's variants, and both directions of an edge, are on one side. A rank is filtered and realistic, among all nodes, in both
directions.

Protocol, written before the run. Counters (frequency; same subgroup; sibling, then subgroup) count training edges. TransE,
DistMult, ComplEx and RotatE learn for ``steps`` steps, plain and with features of ``emoji-clip-vit`` (texts, keywords, pictures;
the encoder's own edges are left out), from keywords, variants and groups alone. Relations, L2, dropout and length of learning
were chosen on the validation part: dropout .5 and L2 .003 for the products, no L2 and dropout .2 for the distances.

- ``uknow.mrr.<scorer>``, ``uknow.mrr.<scorer>_features``: MRR on test links; control: DistMult with features, whose training
  tails were shuffled within each relation; baseline: the counter that is best on validation.
- ``uknow.mrr_vs_counting``: on test links, the reciprocal rank of the scorer that is best on validation minus that of the counter
  that is best on validation; intervals resample base concepts.
- ``uknow.plugin_gain``: with features minus without, mean of the four scorers, on test links with an end of at most three
  training edges; ``uknow.plugin_gain_all``: on all test links.
- ``uknow.evaluation_vs_python``: seconds a link of a loop in Python (scores of a question in one call, then a loop over
  candidates with a set of what is known) over ours, index included. ``uknow.evaluation_vs_pykeen``: pykeen's evaluator on the
  same triples, same DistMult vectors, both with questions in batches of 256. ``uknow.ranks_as_pykeen``: share of 200 links, in
  both directions, with the same realistic rank, on vectors of small whole numbers, so that scores are exact and ties frequent.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge
from torch import Tensor

from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from benchmarks.harness.cache import ResultCache
from benchmarks.harness.timing import median_interval, side_by_side
from benchmarks.knowledge.emoji_graph import emoji_graph
from photopic.core.config import Config
from photopic.core.events import finished
from photopic.core.fit import fit
from photopic.data.knowledge_graph import KnowledgeGraph, Triples
from photopic.knowledge.links.counting import COUNTERS, Counter
from photopic.knowledge.links.embeddings import EmbeddingConfig, LinkEmbeddings
from photopic.knowledge.links.link_prediction import Asked
from photopic.knowledge.links.scorers import SCORERS, Name
from photopic.metrics.intervals import bootstrap, paired_bootstrap
from photopic.metrics.link_ranks import KnownTails, LinkRanks, filtered_ranks

RELATION, LEARN_FROM = "mentions", ("mentions", "continues", "of event")
SETTINGS: dict[str, dict[str, float]] = {  # chosen on the validation part
    "transe": {"l2": 0.0, "dropout": 0.2},
    "distmult": {"l2": 3e-3, "dropout": 0.5},
    "complex": {"l2": 3e-3, "dropout": 0.5},
    "rotate": {"l2": 0.0, "dropout": 0.2},
}
SELDOM = 3  # training edges of what the plug-in is for
CLAIMS = (
    Claim("uknow.mrr.*", "", "MRR of keywords of concepts, among all nodes, both directions"),
    Claim(
        "uknow.mrr_vs_counting",
        "low > 0",
        "MRR of the best learnt scorer minus that of the best counter, both chosen on validation",
    ),
    Claim(
        "uknow.plugin_gain",
        "low > 0",
        "MRR with features minus without, ends of at most three edges, mean of four scorers",
    ),
    Claim("uknow.plugin_gain_all", "", "the same on all test links"),
    Claim("uknow.evaluation_vs_python", ">= 20", "seconds of a Python loop over ours, a link", "times"),
    Claim("uknow.evaluation_vs_pykeen", ">= 2", "pykeen's seconds over ours, same triples and vectors", "times"),
    Claim("uknow.ranks_as_pykeen", ">= 1", "share of links with pykeen's realistic rank"),
)


@dataclass(frozen=True)
class LinksConfig(Config):
    """How much is measured."""

    steps: Annotated[int, Ge(1)] = 2000  # of each scorer
    scorers: tuple[str, ...] = tuple(SCORERS)  # learnt
    repeats: Annotated[int, Ge(1)] = 5  # rounds of the timings
    looped: Annotated[int, Ge(1)] = 40  # links that the Python loop ranks


@dataclass(frozen=True)
class Case:
    """One scorer that is learnt."""

    scorer: str
    features: bool
    steps: int
    settings: str  # in words, so that a change measures anew
    shuffled: bool = False


def cases(config: LinksConfig) -> list[Case]:
    """Every scorer, plain and with features, and the control."""
    found = [Case(name, way, config.steps, str(SETTINGS[name])) for name in config.scorers for way in (False, True)]
    return [*found, Case("distmult", True, config.steps, str(SETTINGS["distmult"]), shuffled=True)]


def measure(bench: Bench[LinksConfig, KnowledgeGraph], case: Case) -> dict[str, list[float]]:
    """Ranks of validation and test links: first asked for the tail, then for the head."""
    graph, scorer = bench.subject, _name(case.scorer)
    learnt_of = graph.with_triples(_shuffled(graph), graph.part) if case.shuffled else graph
    config = EmbeddingConfig(steps=case.steps, learn_from=LEARN_FROM, **SETTINGS[scorer])  # type: ignore[arg-type]
    learner = LinkEmbeddings(learnt_of, scorer, case.features, config)
    finished(fit(learner, case.steps))
    return {part: Asked(graph, RELATION, part).ranks(learner.scores()).rank.tolist() for part in ("valid", "test")}


def _name(word: str) -> Name:
    return next(name for name in SCORERS if name == word)


def _shuffled(graph: KnowledgeGraph) -> Triples:
    """The edges with the tails of training edges shuffled within each relation."""
    tails, rng = graph.triples.tail.copy(), np.random.default_rng(0)
    for relation in range(len(graph.relations)):
        rows = np.flatnonzero((graph.triples.relation == relation) & (graph.part == 0))
        tails[rows] = tails[rng.permutation(rows)]
    return replace(graph.triples, tail=tails)


def opened(config: LinksConfig, cache: ResultCache) -> KnowledgeGraph:
    """The graph with features, without the words, which no number depends on."""
    graph = emoji_graph(cache, features=("entity", "image", "text"))
    return replace(graph, texts=("",) * graph.nodes, uris=())


def rows(bench: Bench[LinksConfig, KnowledgeGraph]) -> Iterator[Row]:
    """All claims."""
    graph = bench.subject
    counter = Counter(graph)
    parts = {part: Asked(graph, RELATION, part) for part in ("valid", "test")}
    counted = {
        name: {part: each.ranks(counter.scores(name)).reciprocal for part, each in parts.items()} for name in COUNTERS
    }
    found = {
        (case.scorer + "_features" * case.features + "_shuffled" * case.shuffled): {
            part: 1 / np.array(ranks) for part, ranks in bench.found(case).items()
        }
        for case in bench.cases
    }
    bases = np.asarray(graph.bases)[parts["test"].links.head]
    groups = np.tile(bases, 2).tolist()
    control = found.pop("distmult_features_shuffled")
    best_counter = max(counted, key=lambda name: counted[name]["valid"].mean())
    best = max(found, key=lambda name: found[name]["valid"].mean())
    floor, n = counted[best_counter]["test"], len(groups)
    note = f"{n // 2} links of {len(set(groups))} base concepts, both directions, among {graph.nodes:,} nodes"
    for name, each in counted.items():
        claim = f"uknow.mrr.{name.replace(', then ', '_then_').replace(' ', '_')}"
        yield row(claim, bootstrap(each["test"], groups=groups), n=n, note=f"counting; {_sides(each['test'])}")
    for name, each in found.items():
        value = bootstrap(each["test"], groups=groups)
        beside = {"baseline": floor.mean(), "control": control["test"].mean()}
        yield row(f"uknow.mrr.{name}", value, n=n, note=f"{_sides(each['test'])}; {note}", **beside)
    gain = paired_bootstrap(found[best]["test"], floor, groups=groups)
    yield row(
        "uknow.mrr_vs_counting", gain, n=n, baseline=floor.mean(), control=control["test"].mean() - floor.mean(),
        note=f"{best} {found[best]['test'].mean():.3f} against '{best_counter}' {floor.mean():.3f}; {note}",
    )  # fmt: skip
    yield from _plugin_rows(bench, found, groups, _seldom(graph, parts["test"].links))
    yield from _speed_rows(bench)


def _sides(reciprocal: np.ndarray) -> str:
    tail, head = np.split(reciprocal, 2)
    return f"tail {tail.mean():.3f}, head {head.mean():.3f}"


def _seldom(graph: KnowledgeGraph, links: Triples) -> np.ndarray:
    """Of each link, in both directions, whether an end has few training edges."""
    trained = graph.training()
    degree = np.bincount(np.concatenate([trained.head, trained.tail]), minlength=graph.nodes)
    return np.tile(np.minimum(degree[links.head], degree[links.tail]) <= SELDOM, 2)


def _plugin_rows(bench: Any, found: Any, groups: list[int], seldom: np.ndarray) -> Iterator[Row]:
    mean = {way: np.mean([found[name + way]["test"] for name in bench.config.scorers], 0) for way in ("", "_features")}
    for claim, chosen in (("uknow.plugin_gain", seldom), ("uknow.plugin_gain_all", np.ones(len(seldom), bool))):
        some = [group for group, each in zip(groups, chosen, strict=True) if each]
        gain = paired_bootstrap(mean["_features"][chosen], mean[""][chosen], groups=some)
        yield row(claim, gain, n=len(some), baseline=mean[""][chosen].mean(), note=f"{len(some)} ranks")


# --- speed, and pykeen's ranks


def _speed_rows(bench: Bench[LinksConfig, KnowledgeGraph]) -> Iterator[Row]:
    config = bench.config
    key = {"repeats": config.repeats, "looped": config.looped}
    ours, loop, links = bench.value({"timed": "python", **key}, lambda: _against_python(bench.subject, config))
    ratio = median_interval([theirs / mine for mine, theirs in zip(ours, loop, strict=True)])
    yield row(
        "uknow.evaluation_vs_python",
        ratio,
        n=len(ours),
        note=f"ours {1e3 * min(ours):.3f} ms a link of {links}, one thread",
    )
    if importlib.util.find_spec("pykeen") is None:
        yield row("uknow.evaluation_vs_pykeen", None, note="pykeen is not installed")
        return
    mine, peer = bench.value({"timed": "pykeen", **key}, lambda: _against_pykeen(bench.subject, config))
    ratio = median_interval([theirs / own for own, theirs in zip(mine, peer, strict=True)])
    note = f"ours {min(mine):.2f} s, pykeen {min(peer):.2f} s, one thread, all {links} test links in both directions"
    yield row("uknow.evaluation_vs_pykeen", ratio, n=len(mine), note=note)
    same = bench.value({"ranks": "pykeen"}, lambda: _same_ranks(bench.subject))
    yield row("uknow.ranks_as_pykeen", same["share"], n=same["n"], note=f"{same['ties']} of them tied with others")


def _vectors(graph: KnowledgeGraph, *, whole: bool = False) -> tuple[Tensor, Tensor]:
    """DistMult vectors of nodes and of relations, inverse ones behind."""
    draw = torch.Generator().manual_seed(0)
    sizes = ((graph.nodes, 128), (2 * len(graph.relations), 128))
    if whole:  # few values, so that many scores are equal
        nodes, relations = (torch.randint(-1, 2, size, generator=draw).float() for size in sizes)
        return nodes * (torch.rand(sizes[0], generator=draw) < 0.1), relations
    nodes, relations = (torch.randn(size, generator=draw) for size in sizes)
    return nodes, relations


def _score(nodes: Tensor, relations: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda head, relation: SCORERS["distmult"](nodes[head], relations[relation], nodes)


def _ranked(graph: KnowledgeGraph, links: Triples, vectors: tuple[Tensor, Tensor]) -> LinkRanks:
    """Ours, with the index of what is known."""
    count = len(graph.relations)
    known = KnownTails(graph.triples.joined(graph.triples.reversed(count)), 2 * count)
    return filtered_ranks(_score(*vectors), links.joined(links.reversed(count)), known)


def _against_python(graph: KnowledgeGraph, config: LinksConfig) -> tuple[list[float], list[float], int]:
    """Seconds a link of each round: ours on all test links, the loop on some."""
    links, vectors = graph.edges(RELATION, "test"), _vectors(graph)
    some = links[np.random.default_rng(0).permutation(len(links))[: config.looped]]
    ours, loop = side_by_side(
        [lambda: _ranked(graph, links, vectors), lambda: _loop(graph, some, vectors)], config.repeats, warm_up=1
    )
    return [each / len(links) for each in ours], [each / len(some) for each in loop], len(links)


def _loop(graph: KnowledgeGraph, links: Triples, vectors: tuple[Tensor, Tensor]) -> list[float]:
    """The plain way: the set of what is known, and a loop over links and candidates."""
    count, score = len(graph.relations), _score(*vectors)
    known = graph.triples.joined(graph.triples.reversed(count))
    true = set(zip(known.head.tolist(), known.relation.tolist(), known.tail.tolist(), strict=True))
    both, ranks = links.joined(links.reversed(count)), []
    for head, relation, tail in zip(both.head.tolist(), both.relation.tolist(), both.tail.tolist(), strict=True):
        scores = score(torch.tensor([head]), torch.tensor([relation]))[0].tolist()
        own, greater, equal = scores[tail], 0, 1
        for node, each in enumerate(scores):
            if node != tail and (head, relation, node) not in true:
                greater += each > own
                equal += each == own
        ranks.append(greater + (equal + 1) / 2)
    return ranks


def _peer(graph: KnowledgeGraph, vectors: tuple[Tensor, Tensor]) -> tuple[Any, Callable[[Triples], Tensor]]:
    """pykeen's DistMult with our vectors; its relations are ours and their inverses in turn."""
    from pykeen.models import DistMult
    from pykeen.triples import CoreTriplesFactory

    def mapped(triples: Triples) -> Tensor:
        return torch.from_numpy(np.stack([triples.head, triples.relation.astype(np.int64), triples.tail], 1))

    count = len(graph.relations)
    factory = CoreTriplesFactory(mapped(graph.training()), graph.nodes, count, create_inverse_triples=True)
    model = DistMult(triples_factory=factory, embedding_dim=128, regularizer=None, entity_initializer="uniform")
    nodes, relations = vectors
    in_turn = torch.stack([relations[:count], relations[count:]], 1).reshape(
        2 * count, -1
    )  # r, its inverse, the next r
    with torch.no_grad():
        model.entity_representations[0]._embeddings.weight.copy_(nodes)
        model.relation_representations[0]._embeddings.weight.copy_(in_turn)
    return model.eval(), mapped


def _peer_evaluation(graph: KnowledgeGraph, vectors: tuple[Tensor, Tensor]) -> Callable[[Triples], Any]:
    from pykeen.evaluation import RankBasedEvaluator

    model, mapped = _peer(graph, vectors)
    others = [mapped(graph.triples[graph.part == part]) for part in (0, 1, 2)]

    def evaluate(links: Triples) -> Any:
        evaluator = RankBasedEvaluator(filtered=True)
        evaluator.evaluate(model, mapped(links), batch_size=256, additional_filter_triples=others, use_tqdm=False)
        return evaluator

    return evaluate


def _against_pykeen(graph: KnowledgeGraph, config: LinksConfig) -> tuple[list[float], list[float]]:
    links, vectors = graph.edges(RELATION, "test"), _vectors(graph)
    theirs = _peer_evaluation(graph, vectors)
    ours, peer = side_by_side(
        [lambda: _ranked(graph, links, vectors), lambda: theirs(links)], config.repeats, warm_up=1
    )
    return ours, peer


def _same_ranks(graph: KnowledgeGraph) -> dict[str, float]:
    """The share of 200 links, in both directions, that both give the same realistic rank."""
    links, vectors = graph.edges(RELATION, "test")[np.arange(200)], _vectors(graph, whole=True)
    mine, theirs = _ranked(graph, links, vectors).rank, []
    model, mapped = _peer(graph, vectors)
    from pykeen.evaluation import RankBasedEvaluator

    for place in range(len(links)):  # one at a time, so that its order is ours
        evaluator = RankBasedEvaluator(filtered=True, clear_on_finalize=False)
        others = [mapped(graph.triples[graph.part == part]) for part in (0, 1, 2)]
        evaluator.evaluate(
            model, mapped(links[np.array([place])]), batch_size=1, additional_filter_triples=others, use_tqdm=False
        )
        ranks = {
            side: float(np.concatenate(found)[0])
            for (side, kind), found in evaluator.ranks.items()
            if kind == "realistic"
        }
        theirs.append((ranks["tail"], ranks["head"]))
    expected = np.array(theirs).T.reshape(-1)  # tails, then heads
    ties = int((mine % 1 != 0).sum())
    return {"share": float((np.abs(mine - expected) < 1e-3).mean()), "n": len(mine), "ties": ties}


BENCHMARKS = (
    Benchmark(
        "links",
        __doc__,
        LinksConfig(),
        LinksConfig(steps=20, scorers=("distmult",), repeats=1, looped=2),
        CLAIMS,
        rows,
        cases,
        measure,
        open=opened,
    ),
)
