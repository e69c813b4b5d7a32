"""The tables of a graph: DuckDB numbers what extractors found, checks it, and writes sorted Parquet.

Rows and their order follow from what was found alone, whatever order it came in. The same version of DuckDB on one thread wrote the
same bytes in every test; DuckDB promises rows and order, not bytes.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from photopic.core.errors import DataError
from photopic.knowledge.graph.schema import RELATIONS, relation_id

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

ROW_GROUP = 20_480  # rows that are read at once; ten of DuckDB's vectors
ROWS_PER_FILE = 4_000_000  # above it a table is a folder of files of so many rows
CARD = "card.json"
TABLES = ("nodes", "edges", "splits")
OUTPUTS = (
    *TABLES,
    *(f"{name}.parquet" for name in TABLES),
    "relations.json",
    "features.safetensors",
    "index.safetensors",
)
LONGEST = 256 * 2**20  # bytes of a line
NEEDED = "needs {}, which is not installed; pip install 'photopic[knowledge]'"
LINE = {  # columns of a line of JSON, as ``Found.line`` writes it
    "source": "VARCHAR",
    "content": "VARCHAR",
    "nodes": 'STRUCT(kind VARCHAR, "key" VARCHAR, "text" VARCHAR, uris VARCHAR[], attributes VARCHAR)[]',
    "edges": "STRUCT(head_kind VARCHAR, head VARCHAR, relation VARCHAR, tail_kind VARCHAR, tail VARCHAR, weight FLOAT)[]",
}


def database(memory: str = "1GB") -> DuckDBPyConnection:
    """A database in memory, on one thread, so that what it writes does not depend on the machine.

    Args:
        memory: What it may take before it goes on in a file.

    Raises:
        DataError: If DuckDB is not installed.
    """
    try:
        import duckdb
    except ModuleNotFoundError as error:
        raise DataError(f"knowledge: {NEEDED.format(error.name)}") from error
    return duckdb.connect(config={"threads": 1, "memory_limit": memory})


class Construction:
    """Nodes and edges of one graph while it is made: read lines, number the nodes, join the edges, write the tables.

    Args:
        files: JSON lines as ``Found.line`` writes them.
        wanted: The (source, content) pairs that count, of what the files hold; None for all.
        scratch: Folder for what does not fit into memory.

    Raises:
        DataError: If an edge has an end that is no node, joins kinds that its relation does not, or a node with itself.
    """

    def __init__(self, files: Sequence[Path], scratch: Path, wanted: Sequence[tuple[str, str]] | None = None):
        self.database = database()
        self.database.execute(f"SET temp_directory = '{quoted(scratch)}'")
        self._read(files, wanted)
        self._number()
        self._join()

    def _read(self, files: Sequence[Path], wanted: Sequence[tuple[str, str]] | None) -> None:
        columns = ", ".join(f"{name}: '{kind}'" for name, kind in LINE.items())
        lines = f"read_json(?, format = 'newline_delimited', maximum_object_size = {LONGEST}, columns = {{{columns}}})"
        if wanted is not None:
            self.database.execute("CREATE TABLE wanted (source VARCHAR, content VARCHAR)")
            names = ("source", "content")
            pairs = {name: np.array([pair[at] for pair in wanted], object) for at, name in enumerate(names)}
            self.database.register("pairs", pairs)
            self.database.execute("INSERT INTO wanted SELECT source, content FROM pairs")
            lines += " SEMI JOIN wanted USING (source, content)"
        self.database.execute(f"CREATE TABLE lines AS FROM {lines}", [[str(file) for file in files]])

    def _number(self) -> None:
        """Dense ids by sorted (kind, key); what several extractors say of a node is put together."""
        self.database.execute("""
            CREATE TABLE nodes AS
            SELECT row_number() OVER (ORDER BY kind, key) - 1 AS id, * FROM (
                SELECT kind, key, coalesce(max(text) FILTER (text != key), key) AS text,
                    list_sort(list_distinct(flatten(list(uris)))) AS uris,
                    list_reduce(
                        list_sort(list_distinct(list(attributes::JSON))), lambda a, b: json_merge_patch(a, b)
                    ) AS attributes
                FROM (SELECT unnest(nodes, recursive := true) FROM lines) GROUP BY kind, key
            ) ORDER BY id
        """)

    def _join(self) -> None:
        rows = [(place, each.name, list(each.heads), each.tail, each.symmetric) for place, each in enumerate(RELATIONS)]
        self.database.execute(
            "CREATE TABLE relations (id SMALLINT, name VARCHAR, heads VARCHAR[], tail VARCHAR, both_ways BOOLEAN)"
        )
        self.database.executemany("INSERT INTO relations VALUES (?, ?, ?, ?, ?)", rows)
        self.database.execute("""
            CREATE TABLE joined AS
            SELECT h.id AS head, r.id AS relation, t.id AS tail, r.both_ways, e.weight, e.source, e.relation AS name,
                list_contains(r.heads, e.head_kind) AND r.tail = e.tail_kind AS legal,
                e.head AS head_key, e.tail AS tail_key, e.head_kind, e.tail_kind
            FROM (SELECT source, unnest(edges, recursive := true) FROM lines) e
            LEFT JOIN relations r ON r.name = e.relation
            LEFT JOIN nodes h ON h.kind = e.head_kind AND h.key = e.head
            LEFT JOIN nodes t ON t.kind = e.tail_kind AND t.key = e.tail
        """)
        self._check()
        self.database.execute("""
            CREATE TABLE edges AS SELECT CASE WHEN both_ways THEN least(head, tail) ELSE head END AS head, relation,
                CASE WHEN both_ways THEN greatest(head, tail) ELSE tail END AS tail, weight, source FROM joined
        """)
        self.database.execute("DROP TABLE joined; DROP TABLE lines")

    def _check(self) -> None:
        """One line for the first edge that cannot be."""
        problems = {
            "legal IS NULL": "expected a relation of the protocol",
            "NOT legal": "expected ends of the kinds that the relation joins",
            "head IS NULL OR tail IS NULL": "expected both ends among the nodes of an extractor",
            "head = tail": "expected two nodes, found one joined with itself",
        }
        for condition, expected in problems.items():
            found = self.database.execute(
                f"SELECT source, head_kind, head_key, name, tail_kind, tail_key FROM joined WHERE {condition} "
                "ORDER BY ALL LIMIT 1"
            ).fetchone()
            if found is not None:
                source, head_kind, head, name, tail_kind, tail = found
                raise DataError(
                    f"extractor {source}: {expected}, found {head_kind} {head!r} --{name}--> {tail_kind} {tail!r}; mend the "
                    "extractor"
                )

    def add(self, relation: str, source: str, edges: Mapping[str, Any]) -> None:
        """Edges between numbered nodes, such as those of a similarity.

        Args:
            relation: Its name.
            source: What made them.
            edges: Arrays ``head``, ``tail`` of ids and ``weight``.
        """
        self.database.register("further", {name: np.ascontiguousarray(each) for name, each in edges.items()})
        self.database.execute(
            "INSERT INTO edges SELECT least(head, tail), ?, greatest(head, tail), weight, ? FROM further"
            if RELATIONS[relation_id(relation)].symmetric
            else "INSERT INTO edges SELECT head, ?, tail, weight, ? FROM further",
            [relation_id(relation), source],
        )
        self.database.unregister("further")

    def chain_texts(self, source: str) -> None:
        """Texts of pictures that contain an object of one name continue each other, in the order of their ids.

        A chain has an edge less than texts, where all pairs would be a square of them.
        """
        self.database.execute(
            """
            INSERT INTO edges
            SELECT DISTINCT text, ?::SMALLINT, before, 1, ? FROM (
                SELECT text, lag(text) OVER (PARTITION BY name ORDER BY text) AS before FROM (
                    SELECT DISTINCT d.head AS text, n.text AS name FROM edges d
                    JOIN edges c ON c.relation = ? AND c.head = d.tail JOIN nodes n ON n.id = c.tail WHERE d.relation = ?
                )
            ) WHERE before IS NOT NULL
            """,
            [relation_id("continues"), source, relation_id("contains"), relation_id("describes")],
        )

    def license_pictures(self, licence: str) -> None:
        """Give a licence to pictures that have none."""
        self.database.execute(
            "UPDATE nodes SET attributes = json_merge_patch(json_object('licence', ?), attributes) WHERE kind = 'image'",
            [licence],
        )

    def keys(self, kind: str) -> tuple[int, list[str]]:
        """The first id of a kind and the keys of all its nodes in the order of their ids."""
        found = self.database.execute("SELECT id, key FROM nodes WHERE kind = ? ORDER BY id", [kind]).fetchall()
        return (found[0][0] if found else 0), [key for _, key in found]

    def close(self) -> None:
        """Put edges that say the same together and sort them; nothing can be added afterwards."""
        self.database.execute("""
            CREATE TABLE sorted AS
            SELECT head, relation, tail, max(weight) AS weight, string_agg(DISTINCT source, ', ' ORDER BY source) AS source
            FROM edges GROUP BY head, relation, tail ORDER BY head, relation, tail
        """)
        self.database.execute("DROP TABLE edges; ALTER TABLE sorted RENAME TO edges")

    def arrays(self, query: str) -> dict[str, Any]:
        """The columns of a query as arrays."""
        found: dict[str, Any] = self.database.execute(query).fetchnumpy()
        return found

    def write(self, table: str, folder: Path, rows_per_file: int = ROWS_PER_FILE) -> None:
        """Write a table as ``TABLE.parquet``, or as a folder ``TABLE`` of files where it has more rows than one file holds."""
        (count,) = self.database.execute(f"SELECT count(*) FROM {table}").fetchone() or (0,)
        if count > rows_per_file:
            (folder / table).mkdir()
        for start in range(0, max(count, 1), rows_per_file):
            name = f"{table}.parquet" if count <= rows_per_file else f"{table}/{start // rows_per_file:05d}.parquet"
            # rows lie in the order they were put in, which is that of their ids or ends
            self.database.execute(
                f"COPY (SELECT * FROM {table} WHERE rowid >= {start} AND rowid < {start + rows_per_file} ORDER BY rowid) "
                f"TO '{quoted(folder / name)}' (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {ROW_GROUP})"
            )


def parquet_files(folder: Path, table: str) -> list[Path]:
    """The file or files of a table, in order.

    Raises:
        DataError: If there is none.
    """
    one = folder / f"{table}.parquet"
    found = [one] if one.is_file() else sorted((folder / table).glob("*.parquet"))
    if not found:
        raise DataError(
            f"{folder}: expected a graph with {one.name}, found none; make it with: photopic knowledge build"
        )
    return found


def replace_tables(made: Path, folder: Path) -> None:
    """Move every table of a folder to its place, over older ones of the same name, whether file or folder.

    The card goes first and comes last, so that a graph that a kill left half moved has none and is not read.
    """
    (folder / CARD).unlink(missing_ok=True)
    for name in OUTPUTS:  # a table may have been a file and now be a folder, or there may be no features any more
        (shutil.rmtree if (folder / name).is_dir() else _unlink)(folder / name)
        if (made / name).exists():
            (made / name).replace(folder / name)
    (made / CARD).replace(folder / CARD)


def _unlink(path: Path) -> None:
    path.unlink(missing_ok=True)


def quoted(path: Path) -> str:
    """A path inside quotes of SQL."""
    return str(path).replace("'", "''")
