"""The everyday commands, as the README writes them."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest

from adaptry.core.refs import AdapterName
from adaptry.registry.commit_info import CommitNote
from adaptry.registry.manifest_inheritance import inherit_manifest
from adaptry.storage.connect import connect

pytestmark = pytest.mark.usefixtures("out", "better", "base")


def test_daily_work_from_push_to_pull_works(run, answer, tmp_path: Path) -> None:
    base_id = run("base", "add", "./base", "--name", "org/tiny").stdout.strip()
    pushed = run("push", "./out", "acme/tone", "--metric", "accuracy=0.91", "--alias", "staging").stdout
    run("push", "./better", "acme/tone", "--metric", "accuracy=0.94")
    run("alias", "set", "acme/tone@2", "prod")
    run("pull", "acme/tone@prod", "-o", "./tone")

    ref, digest = pushed.split()
    assert ref == "acme/tone@1"
    assert base_id.startswith("sha256:")
    detail = answer("show", ref)
    assert detail["version"]["digest"] == digest
    assert detail["version"]["base_status"] == "verified"
    assert detail["version"]["aliases"] == ["staging"]
    assert (tmp_path / "tone" / "adapter_config.json").exists()
    found = answer("search", "base:org/tiny rank<=4 metric.accuracy>=0.9")
    assert [version["number"] for version in found] == [1]


def test_results_go_to_stdout_and_messages_to_stderr(run) -> None:
    Path("out/optimizer.pt").write_bytes(b"state")

    result = run("push", "./out", "acme/tone")

    assert result.stdout.startswith("acme/tone@1 sha256:")
    assert result.stdout.count("\n") == 1
    assert "left out optimizer.pt" in result.stderr


def test_pushing_the_same_files_again_gives_the_same_result(run) -> None:
    first = run("push", "./out", "acme/tone")
    again = run("push", "./out", "acme/tone")

    assert again.stdout == first.stdout
    assert "already has these files" in again.stderr


def test_a_push_sets_the_adapters_description_and_tags(run, answer) -> None:
    run("push", "./out", "acme/tone", "--description", "A kinder tone", "--tag", "fr", "--tag", "chat")

    (listed,) = answer("ls")
    assert (listed["description"], sorted(listed["tags"])) == ("A kinder tone", ["chat", "fr"])


def test_a_base_in_a_folder_is_claimed_by_content(run, answer) -> None:
    base_id = run("base", "add", "./base").stdout.strip()

    run("push", "./out", "acme/tone", "--base", "./base")

    detail = answer("show", "acme/tone")
    assert detail["manifest"]["base"]["id"] == base_id
    assert detail["version"]["base_id"] == base_id


def test_listings_are_tables_for_people_and_json_for_programs(run, answer) -> None:
    run("push", "./out", "acme/tone")
    run("push", "./better", "acme/tone")

    table = run("ls", "acme/tone").stdout
    assert "acme/tone@2" in table
    assert [version["number"] for version in answer("ls", "acme/tone")] == [2, 1]
    assert answer("ls", "nobody") == []


def test_a_truncated_listing_is_marked(run, answer) -> None:
    run("push", "./out", "acme/tone")
    run("push", "./better", "acme/tone")

    result = run("ls", "acme/tone", "--limit", "1", "--json")

    assert [version["number"] for version in json.loads(result.stdout)] == [2]
    assert "--limit shows more" in result.stderr


def test_show_prints_all_facts_about_a_version(run) -> None:
    run("base", "add", "./base", "--name", "org/tiny")
    run("push", "./out", "acme/tone", "--metric", "accuracy=0.91", "--alias", "prod")

    text = run("show", "acme/tone@prod").stdout

    for expected in ("acme/tone@1", "org/tiny (verified)", "2 × q_proj", "rank 4", "accuracy 0.91", "prod"):
        assert expected in text
    assert all(line == line.rstrip() for line in text.splitlines())


def test_an_adapter_without_versions_can_be_shown(run) -> None:
    run("create", "acme/tone", "--description", "soon")

    result = run("show", "acme/tone")

    assert "soon" in result.stdout
    assert "no version yet" in result.stderr


def test_diff_shows_the_changes_between_two_versions(run, answer) -> None:
    run("push", "./out", "acme/tone", "--metric", "accuracy=0.91")
    run("push", "./better", "acme/tone")

    found = {
        one["what"]: (one["before"], one["after"]) for one in answer("diff", "acme/tone@1", "acme/tone@2")
    }

    assert found["config r"] == ("4", "8")
    assert found["metric accuracy"] == ("0.91", "")
    assert found["q_proj"] == ("2 × rank 4, scale 2, 16 → 16", "2 × rank 8, scale 1, 16 → 16")
    assert "method" not in found
    assert answer("diff", "./out", "acme/tone@1") == []


def test_diff_shows_both_versions_even_where_one_has_nothing(run) -> None:
    run("push", "./out", "acme/tone")
    run("push", "./out", "acme/copy", "--metric", "accuracy=0.9")

    shown = [line.split() for line in run("diff", "acme/tone", "acme/copy").stdout.splitlines()]
    assert shown[0] == ["what", "acme/tone@1", "acme/copy@1"]
    assert ["metric", "accuracy", "none", "0.9"] in shown


def test_history_has_every_move_of_an_alias(run, answer) -> None:
    run("push", "./out", "acme/tone", "--alias", "prod")
    run("push", "./better", "acme/tone")

    run("promote", "acme/tone@2")
    back = run("rollback", "acme/tone@prod")

    assert back.stdout.startswith("acme/tone@prod sha256:")
    assert "from version 2 to 1" in back.stderr
    moves = [event for event in answer("history", "acme/tone") if event["kind"] == "alias.moved"]
    assert [event["number"] for event in moves] == [1, 2, 1]
    assert "prod from 2 to 1" in run("history", "acme/tone").stdout


def test_history_has_the_titles_of_commits(run) -> None:
    run("push", "./out", "acme/tone")
    with closing(connect()) as registry:
        name = AdapterName.parse("acme/tone")
        tree = registry.commits.tree(name, registry.commits.get(name).digest)
        config = next(entry for entry in tree.files if entry.path == "adapter_config.json")
        files = {entry.path: (entry.size, entry.sha256) for entry in tree.files}
        files["README.md"] = (config.size, config.sha256)
        registry.commits.put(
            name, "main", inherit_manifest(tree, files).to_bytes(), CommitNote(title="Fix a typo")
        )

    (line,) = [line for line in run("history", "acme/tone").stdout.splitlines() if "commit.created" in line]
    assert "Fix a typo (to main, sha256:" in line


def test_aliases_are_listed_and_removed(run, answer) -> None:
    run("push", "./out", "acme/tone", "--alias", "prod")
    assert [alias["alias"] for alias in answer("alias", "ls", "acme/tone")] == ["prod"]

    run("alias", "rm", "acme/tone", "prod")

    assert answer("alias", "ls", "acme/tone") == []
    run("alias", "rm", "acme/tone", "prod", code=3)


def test_metrics_are_added_and_all_values_kept(run, answer) -> None:
    run("push", "./out", "acme/tone")
    run("metrics", "log", "acme/tone@1", "loss=1.5", "accuracy=0.9")
    run("metrics", "log", "acme/tone@1", "loss=1.25")

    values = [(entry["metric"], entry["value"]) for entry in answer("metrics", "show", "acme/tone@1")]

    assert [value for name, value in values if name == "loss"] == [1.5, 1.25]
    assert answer("show", "acme/tone")["version"]["metrics"] == {"loss": 1.25, "accuracy": 0.9}


def test_adapters_are_edited_renamed_and_deleted(run, answer) -> None:
    run("push", "./out", "acme/tone")
    run("edit", "acme/tone", "--tag", "fr", "--public")
    run("rename", "acme/tone", "acme/voice")

    (listed,) = answer("ls")
    assert (listed["name"], listed["tags"], listed["visibility"]) == ("acme/voice", ["fr"], "public")
    run("edit", "acme/voice", "--no-tags")
    assert answer("ls")[0]["tags"] == []
    run("delete", "acme/voice", code=2)
    run("delete", "acme/voice", "--yes")
    assert answer("ls") == []


def test_a_copy_goes_to_another_registry(run, answer) -> None:
    pushed = run("push", "./out", "acme/tone").stdout.split()[1]

    copied = run("copy", "acme/tone@1", "--to-registry", "./other").stdout

    assert copied == f"acme/tone@1 {pushed}\n"
    assert answer("--registry", "./other", "ls")[0]["name"] == "acme/tone"
    assert answer("ls", "--registry", "./other")[0]["name"] == "acme/tone"


def test_registered_bases_are_listed_shown_and_matched(run, answer) -> None:
    run("base", "match", "./base", code=1)
    base_id = run("base", "add", "./base", "--name", "org/tiny", "--full").stdout.strip()

    assert [info["id"] for info in answer("base", "ls")] == [base_id]
    assert answer("base", "show", "org/tiny")["roots"] is not None
    assert "org/tiny" in run("base", "show", base_id[:20]).stdout
    (found,) = answer("base", "match", "./base")
    assert found["base"]["names"] == ["org/tiny"]


def test_inspect_prints_the_same_for_a_folder_and_its_version(run, answer) -> None:
    run("push", "./out", "acme/tone")

    assert answer("inspect", "./out") == answer("inspect", "acme/tone")
    assert answer("inspect", "./out")["rank"] == 4


def test_control_characters_in_stored_text_are_escaped(run) -> None:
    run("create", "acme/tone", "--description", "\x1b[2Jgone")

    text = run("ls").stdout

    assert "\x1b" not in text
    assert r"\x1b[2Jgone" in text


def test_a_diff_leaves_out_options_that_are_off_on_one_side_and_absent_on_the_other(run, answer) -> None:
    """PEFT writes every option of a method, other tools only those that they set."""
    for folder, more in (
        ("out", {"use_dora": False, "layers_pattern": None}),
        ("better", {"revision": "v2"}),
    ):
        config = Path(folder, "adapter_config.json")
        fields = {name: value for name, value in json.loads(config.read_text()).items() if value}
        config.write_text(json.dumps(fields | more))

    found = {each["what"] for each in answer("diff", "./out", "./better")}

    assert "config revision" in found
    assert not {"config use_dora", "config layers_pattern"} & found
