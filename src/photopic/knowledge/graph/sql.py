"""SQL over the tables of a graph that can change nothing: one SELECT, no file but the graph's, no settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from photopic.core.errors import DataError
from photopic.knowledge.graph.tables import TABLES, database, parquet_files, quoted


def select(folder: Path, sql: str, limit: int) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Names of the columns and rows of a query.

    Args:
        folder: Of the graph.
        sql: One SELECT over ``nodes``, ``edges``, ``splits`` and ``relations``.
        limit: Rows that are read at most.

    Raises:
        DataError: If it is something else, or DuckDB refuses it.
    """
    connection = database()
    import duckdb  # after ``database``, which says what to install

    for table in TABLES:
        files = ", ".join(f"'{quoted(file)}'" for file in parquet_files(folder, table))
        connection.execute(f"CREATE VIEW {table} AS FROM read_parquet([{files}])")
    connection.execute(f"CREATE TABLE relations AS FROM read_json('{quoted(folder / 'relations.json')}')")
    connection.execute(f"SET allowed_directories = ['{quoted(folder)}']")
    connection.execute("SET enable_external_access = false; SET lock_configuration = true")
    try:
        statements = connection.extract_statements(sql)
        # a SELECT writes no file, and of files it can read those of the graph alone
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise DataError(f"sql: expected one SELECT, found {sql!r}; nothing of a graph is changed by a query")
        found = connection.execute(statements[0])
        return [each[0] for each in found.description or ()], found.fetchmany(limit)
    except duckdb.Error as error:
        raise DataError(f"sql: {str(error).splitlines()[0]}") from error
    finally:
        connection.close()
