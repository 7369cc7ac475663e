"""MLflow's model registry under the operations of `bench/catalog.py`: reads sizes and operations, prints
times as JSON.

    .venvs/mlflow/bin/python bench/peers/mlflow_registry.py URL COUNT TIMES

Its own tables are filled in bulk, and its own store is called (without a server in between, like ours): ten
versions of each model, of which the newest is `prod`; one in five is tagged `checked`, sixty are tagged
`seldom`.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable

logging.disable(logging.INFO)

from mlflow.entities.model_registry import ModelVersionTag  # noqa: E402
from mlflow.store.model_registry.dbmodels import models  # noqa: E402
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore  # noqa: E402
from sqlalchemy import insert, text  # noqa: E402

PER_MODEL, RARE, BATCH = 10, 60, 50_000
NOW = 1_795_000_000_000


def main(url: str, count: int, times: int) -> None:
    store = SqlAlchemyStore(url)
    fill(store, count)
    names = [name_of(1 + number * 7919 % (count // PER_MODEL)) for number in range(times)]
    store.create_registered_model("pushed")
    fresh = iter(range(10**9))
    operations: dict[str, Callable[[str], object]] = {
        "resolve an alias": lambda name: store.get_model_version_by_alias(name, "prod"),
        "search, rare tag": lambda name: store.search_model_versions("tags.kind = 'seldom'", max_results=50),
        "search, common tag": lambda name: store.search_model_versions(
            "tags.kind = 'checked'", max_results=50
        ),
        "list a line's versions": lambda name: store.search_model_versions(
            f"name = '{name}'", max_results=50
        ),
        "list a page of lines": lambda name: store.search_registered_models(max_results=50),
        "push a version": lambda name: store.create_model_version(
            "pushed", f"file:///bench/{next(fresh)}", tags=[ModelVersionTag("kind", "pushed")]
        ),
    }
    print(json.dumps({what: timed(operation, names) for what, operation in operations.items()}))


def timed(operation: Callable[[str], object], names: list[str]) -> list[float]:
    """The seconds of each call; stops after ten seconds."""
    operation(names[0])
    spent: list[float] = []
    until = time.perf_counter() + 10
    for name in names:
        began = time.perf_counter()
        operation(name)
        spent.append(time.perf_counter() - began)
        if time.perf_counter() > until:
            break
    return spent


def name_of(key: int) -> str:
    return f"team-{key % 10}-adapter-{key}"


def fill(store: SqlAlchemyStore, count: int) -> None:
    lines = count // PER_MODEL
    rare = max(1, count // RARE)
    tables = {
        models.SqlRegisteredModel: (
            {"workspace": "default", "name": name_of(key), "creation_time": NOW, "last_updated_time": NOW}
            for key in range(1, lines + 1)
        ),
        models.SqlModelVersion: (
            {
                "workspace": "default",
                "name": name_of(1 + number % lines),
                "version": 1 + number // lines,
                "creation_time": NOW + number,
                "last_updated_time": NOW + number,
                "current_stage": "None",
                "source": f"file:///bench/{number}",
                "status": "READY",
            }
            for number in range(count)
        ),
        models.SqlModelVersionTag: (
            {
                "workspace": "default",
                "name": name_of(1 + number % lines),
                "version": 1 + number // lines,
                "key": "kind",
                "value": "seldom" if number % rare == 11 % rare else "checked",
            }
            for number in range(count)
            if number % rare == 11 % rare or number % 5 == 0
        ),
        models.SqlRegisteredModelAlias: (
            {"workspace": "default", "name": name_of(key), "alias": "prod", "version": PER_MODEL}
            for key in range(1, lines + 1)
        ),
    }
    with store.engine.begin() as connection:
        for table, rows in tables.items():
            batch: list[dict[str, object]] = []
            for row in rows:
                batch.append(row)
                if len(batch) == BATCH:
                    connection.execute(insert(table), batch)
                    batch = []
            if batch:
                connection.execute(insert(table), batch)
    with store.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE"))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
