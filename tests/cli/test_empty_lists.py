"""Commands that list things print nothing to stdout if there is nothing, and a sentence to stderr."""

from __future__ import annotations

from pathlib import Path

LISTS = (
    "alias ls acme/tone",
    "audit ls --actor zoe",
    "base ls",
    "evidence ls acme/tone",
    "grant ls",
    "group ls",
    "issuer ls",
    "jobs ls",
    "jobs schedules",
    "metrics show acme/tone",
    "policy ls",
    "promotion ls acme/tone",
    "publisher ls acme/tone",
    "quota ls",
    "rollout status acme/tone",
    "runners",
    "service-account ls",
    "sso ls",
    "sso users",
    "token ls",
    "uploads ls",
    "user ls",
    "webhook ls",
)


def test_an_empty_list_is_reported_in_a_sentence(run, out: Path) -> None:
    run("push", "./out", "acme/tone")
    listed = {words: run(*words.split()) for words in LISTS}

    assert [words for words, result in listed.items() if result.stdout] == []
    assert [words for words, result in listed.items() if not result.stderr.strip()] == []


def test_limits_of_all_names_are_shown_without_use(run, out: Path) -> None:
    run("push", "./out", "acme/tone")
    run("quota", "set", "*", "--versions", "10")
    run("quota", "set", "acme", "--versions", "5")

    every, acme = run("quota", "ls").stdout.splitlines()[1:]

    assert every.startswith("every namespace") and " of " not in every
    assert acme.startswith("the namespace acme") and "1 of 5" in acme
