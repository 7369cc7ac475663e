"""The limits of the results inbox, each tested at the limit and one above it, by the route that
lm-eval uses.
"""

from __future__ import annotations

import base64
import random
from collections.abc import Iterable, Mapping

import pytest
import urllib3

from adaptry.core.evidence.posted_file import MAX_PATH, MAX_RESULTS, MAX_SAMPLES
from adaptry.core.identity import Identity
from adaptry.registry.inbox import MAX_BYTES_OF_ONE, MAX_FILES_OF_ONE, MAX_KEPT_FILES
from adaptry.testing.contract.inbox import DOCUMENTS, TIME, lm_eval_results
from adaptry_api.hub.results_inbox import MAX_FILES
from adaptry_api.testing import Server

from .pushed import lines

COMMIT = "/api/datasets/acme/lm-eval-results-private/commit/main"
RESULTS, SAMPLES = f"results_{TIME}.json", f"samples_gsm8k_{TIME}.jsonl"


def commit(server: Server, files: Mapping[str, bytes], token: str | None = None) -> tuple[int, bytes]:
    """The status and body. There is no time limit, since each file is read by a process of low priority."""
    headers = {"Content-Type": "application/x-ndjson", "Authorization": f"Bearer {token or server.admin}"}
    answer = urllib3.request(
        "POST", server.url + COMMIT, body=lines(dict(files)), headers=headers, retries=False, timeout=None
    )
    return answer.status, answer.data


def results(numbers: Iterable[int]) -> dict[str, bytes]:
    """Different results files that state no version."""
    return {f"{number}/{RESULTS}": lm_eval_results("./out", value=number / 4096) for number in numbers}


def kept(server: Server) -> int:
    return len(server.registry().inbox.posted("acme"))


@pytest.mark.parametrize("beyond", [0, 1])
def test_a_file_of_results_has_at_most_four_mebibytes(server: Server, beyond: int) -> None:
    data = lm_eval_results("./out").ljust(MAX_RESULTS + beyond)
    status, said = commit(server, {f"out/{RESULTS}": data})
    assert (status, kept(server)) == ((400, 0) if beyond else (200, 1)), said[:300]
    assert not beyond or b"at most 4 MiB are posted" in said


@pytest.mark.parametrize("beyond", [0, 1])
def test_a_file_of_samples_has_at_most_sixteen_mebibytes(server: Server, beyond: int) -> None:
    assert commit(server, results([1]))[0] == 200
    status, said = commit(server, {f"1/{SAMPLES}": DOCUMENTS.ljust(MAX_SAMPLES + beyond, b"\n")})
    assert (status, kept(server)) == ((400, 1) if beyond else (200, 2)), said[:300]
    assert not beyond or b"at most 16 MiB are posted" in said


@pytest.mark.parametrize("beyond", [0, 1])
def test_a_path_has_a_largest_length(server: Server, beyond: int) -> None:
    folder = "f" * (MAX_PATH - len(RESULTS) - 1 + beyond)
    status, said = commit(server, {f"{folder}/{RESULTS}": lm_eval_results("./out")})
    assert (status, kept(server)) == ((400, 0) if beyond else (200, 1)), said[:300]


@pytest.mark.parametrize("beyond", [0, 1])
def test_a_commit_has_at_most_sixty_four_files(server: Server, beyond: int) -> None:
    status, said = commit(server, results(range(MAX_FILES + beyond)))
    assert (status, kept(server)) == ((413, 0) if beyond else (200, MAX_FILES)), said[:300]


def test_the_number_of_files_kept_apart_is_limited_by_poster_and_namespace(server: Server) -> None:
    posters = [server.token_of(Identity.with_role(f"ron-{at}", "viewer", ("acme",))) for at in range(6)]
    full = MAX_KEPT_FILES // MAX_FILES_OF_ONE
    for place, token in enumerate(posters[:full]):
        mine = range(place * MAX_FILES_OF_ONE, (place + 1) * MAX_FILES_OF_ONE)
        for start in mine[::MAX_FILES]:
            assert commit(server, results(range(start, min(start + MAX_FILES, mine.stop))), token)[0] == 200
        if place == 0:
            status, said = commit(server, results([MAX_KEPT_FILES]), token)
            assert (status, b"200 files and 16 MiB from ron-0" in said) == (413, True)
    status, said = commit(server, results([MAX_KEPT_FILES]), posters[full])
    assert (status, b"1,000 files and 64 MiB; attach" in said) == (413, True)
    (one,) = server.registry().inbox.list("acme", limit=1).items
    server.registry().inbox.discard(one.id)
    assert commit(server, results([MAX_KEPT_FILES]), posters[full])[0] == 200


def test_the_compressed_bytes_kept_apart_are_limited_by_poster(server: Server) -> None:
    """Random digits compress to three quarters of their length."""
    source = random.Random(1)

    def large(number: int) -> dict[str, bytes]:
        noise = base64.b64encode(source.randbytes((MAX_RESULTS - 4096) * 3 // 4))
        data = (
            lm_eval_results("./out", value=number / 16).removesuffix(b"}") + b', "noise": "' + noise + b'"}'
        )
        return {f"{number}/{RESULTS}": data}

    statuses = [commit(server, large(number))[0] for number in range(6)]
    assert statuses == [200] * 5 + [413]  # 5 times 3 MiB, and not 6 times
    assert 5 * 3 << 20 < MAX_BYTES_OF_ONE < 6 * 3 << 20
    assert commit(server, results([1]))[0] == 200
