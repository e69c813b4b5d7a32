"""A knowledge graph of a million edges: built from what was extracted, built again, and asked.

    python -m benchmarks knowledge-graph       # writes benchmarks/results/knowledge-graph.json

Protocol, written before the run. 40,000 pictures drawn at random, each with a caption of 20 words of a vocabulary of 5,000 (few
of them frequent), 3 objects of 1,000 concepts in a row, a class of two levels, and prepared features of picture and caption (128
numbers around 2,000 centres), lie extracted in files, as extractors leave them; that is a little more than 10^6 edges with those of
similarity.

Building: from those files to the finished folder (reading, numbering, all-with-all similarity of 40,000 pictures and 40,000
captions, joining, splits, Parquet, index, card), each build in a process of its own with two threads for the similarity. Between
the first two of them, once since it takes minutes, the same graph with dictionaries, NumPy's matrix products on as many threads and
CSV files, without splits, index or checks. Seconds are those of the wall from the first line of the build (imports count in
neither), medians over the builds with their range, on a machine that other work shares; seconds of the processor are told beside.
Memory is the most that the process held at any time.

Equal: every file of the graph has the same bytes after a build from the pictures in another order. The control is a graph of other
pictures, drawn with another seed: of its files only ``relations.json`` may be the same.

Asking: ``knowledge query`` of 300 nodes drawn uniformly (by their texts; objects of one concept share one), whole, with opening the
graph, the names of all ends and 200 edges shown, medians with their intervals; one and two steps. The node with the most edges is
told apart. The baseline is one SQL query of the same edges over the Parquet file, without the index, for one step.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge

from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from benchmarks.harness.ledger import ROOT
from benchmarks.harness.timing import median_interval
from benchmarks.knowledge.prepared_graph import prepare
from photopic.core.config import Config
from photopic.knowledge.graph.graph import Graph
from photopic.knowledge.graph.tables import database, parquet_files
from photopic.knowledge.query import query

CLAIMS = (
    Claim(
        "uknow.build_seconds", "<= 60", "seconds to build a graph of 10^6 edges from prepared features on 2 cores", "s"
    ),
    Claim("uknow.build_cpu_seconds", "", "seconds of the processor of the same builds", "s"),
    Claim("uknow.build_gib", "<= 2", "memory that the process of a build held at most", "GiB"),
    Claim("uknow.rebuilt_equal", ">= 1", "share of the files with the same bytes when pictures come in another order"),
    Claim("uknow.query_seconds", "<= 0.01", "seconds of a neighbourhood query of a random node at 10^6 edges", "s"),
    Claim("uknow.query_seconds_2_hops", "", "the same of all within two steps", "s"),
)
FOLDER = ROOT / "runs" / "knowledge-graph"
THREADS = "2"


@dataclass(frozen=True)
class GraphConfig(Config):
    """How much is built and asked."""

    pictures: Annotated[int, Ge(100)] = 40_000  # pictures of the graph
    rounds: Annotated[int, Ge(1)] = 3  # builds; the plain one is made once
    words: Annotated[int, Ge(1)] = 300  # nodes that are asked for


def cases(config: GraphConfig) -> list[dict[str, Any]]:
    """Builds one after the other, then the one of other order and the one of other pictures, then questions."""
    turns: list[dict[str, Any]] = [{"build": "ours", "round": turn} for turn in range(config.rounds)]
    turns.insert(1, {"build": "plain", "round": 0})
    sizes: dict[str, Any] = {"pictures": config.pictures}
    return [each | sizes for each in (*turns, {"equal": True}, {"words": config.words})]


def built(how: str, pictures: int, seed: int = 0, *, shuffled: bool = False) -> tuple[dict[str, float], Path]:
    """What a build in a process of its own took, and where its result is."""
    name = f"{pictures}-{seed}{'-shuffled' if shuffled else ''}"
    prepare(FOLDER / f"extracted-{name}", pictures, seed, shuffled=shuffled)
    into = FOLDER / f"{how}-{name}"
    shutil.rmtree(into, ignore_errors=True)
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    command = [
        sys.executable,
        "-m",
        "benchmarks.knowledge.prepared_graph",
        how,
        str(FOLDER / f"extracted-{name}"),
        str(into),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": THREADS, "OPENBLAS_NUM_THREADS": THREADS, "PYTHONPATH": path}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found | {"load": os.getloadavg()[0]}, into


def measure(bench: Bench[GraphConfig, Any], case: dict[str, Any]) -> Any:
    """One build, one comparison of files, or all questions."""
    pictures = case["pictures"]
    if "build" in case:
        return built(case["build"], pictures)[0]
    first = FOLDER / f"ours-{pictures}-0"
    if "equal" in case:
        others = {
            "shuffled": built("ours", pictures, shuffled=True)[1],
            "control": built("ours", pictures, seed=1)[1],
        }
        return {name: share_equal(first, other) for name, other in others.items()} | {
            "edges": Graph(first).card["edges"]
        }
    return asked(first, case["words"])


def share_equal(one: Path, other: Path) -> float:
    """The share of the files of a graph, its card among them, that another has with the same bytes."""
    names = [*json.loads((one / "card.json").read_text())["hashes"], "card.json"]
    return sum((one / name).read_bytes() == (other / name).read_bytes() for name in names) / len(names)


def asked(folder: Path, words: int) -> dict[str, Any]:
    """Seconds of questions about random nodes, in turns with the SQL of the same edges."""
    graph = Graph(folder)
    drawn = np.random.default_rng(0).integers(0, len(graph), words)
    connection = database()
    connection.execute("SET parquet_metadata_cache = true")
    (file,) = parquet_files(folder, "edges")
    found: dict[str, list[float]] = {"1": [], "2": [], "sql": []}
    for number in drawn.tolist():
        word = graph.node(number).text
        ids = graph.find(word)
        asked_sql = f"FROM read_parquet('{file}') WHERE head IN ({str(ids)[1:-1]}) OR tail IN ({str(ids)[1:-1]})"
        for kind, call in (
            ("1", lambda word=word: query(str(folder), word)),
            ("2", lambda word=word: query(str(folder), word, hops=2)),
            ("sql", lambda asked_sql=asked_sql: connection.execute(asked_sql).fetchall()),
        ):
            began = time.perf_counter()
            call()
            found[kind].append(time.perf_counter() - began)
    triples = graph.triples()
    hub = int(np.argmax(np.bincount(np.concatenate([triples.head, triples.tail]))))
    began = time.perf_counter()
    edges = query(str(folder), graph.node(hub).text).values["edges"]
    return found | {"hub": time.perf_counter() - began, "hub_edges": edges}


def rows(bench: Bench[GraphConfig, Any]) -> Iterator[Row]:
    """Medians over rounds; the comparison of files; quantiles of questions."""
    *builds, equal, questions = bench.cases
    times = {how: [bench.found(case) for case in builds if case["build"] == how] for how in ("ours", "plain")}
    edges = bench.found(equal)["edges"]
    for claim, key, scale in (
        ("uknow.build_seconds", "seconds", 1), ("uknow.build_cpu_seconds", "cpu", 1), ("uknow.build_gib", "peak_bytes", 2**30),
    ):  # fmt: skip
        ours, plain = ([each[key] / scale for each in times[how]] for how in ("ours", "plain"))
        load = statistics.median(each["load"] for each in times["ours"])
        note = (
            f"{edges:,} edges, on 2 cores with a load average of {load:.1f}; the baseline is dictionaries, NumPy and CSV without "
            "splits, index or checks"
        )
        value = (statistics.median(ours), min(ours), max(ours))
        yield row(claim, value, n=len(ours), baseline=statistics.median(plain), note=note)
    found = bench.found(equal)
    yield row(
        "uknow.rebuilt_equal", found["shuffled"], control=found["control"], n=1, note="the control is of other pictures"
    )
    seconds = bench.found(questions)
    sql = statistics.median(seconds["sql"])
    for claim, key in (("uknow.query_seconds", "1"), ("uknow.query_seconds_2_hops", "2")):
        beyond = f"95 % within {_quantile(seconds[key]):.4f} s"
        hub = f"; the node with {seconds['hub_edges']:,} edges {seconds['hub']:.3f} s; the baseline is SQL without the index"
        value = median_interval(seconds[key])
        yield row(
            claim, (value.value, value.low, value.high), n=len(seconds[key]), baseline=sql if key == "1" else None,
            note=beyond + (hub if key == "1" else ""),
        )  # fmt: skip


def _quantile(values: Sequence[float]) -> float:
    return float(np.quantile(values, 0.95))


BENCHMARKS = (
    Benchmark(
        name="knowledge-graph",
        about=__doc__,
        config=GraphConfig(),
        quick=GraphConfig(pictures=400, rounds=1, words=10),
        claims=CLAIMS,
        rows=rows,
        cases=cases,
        measure=measure,
        together=lambda case: "one after the other",
        seeds=(0, 1),
    ),
)
