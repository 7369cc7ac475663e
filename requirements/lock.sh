#!/bin/sh
# Writes what the images install, each package pinned with the digests of its files: `make lock`, or `make lock UPGRADE=--upgrade`
# for the newest versions. Versions that are there already stay. Needs uv, and the package index that uv is set up with.
set -eu
cd "$(dirname "$0")/.."

lock() { # FILE, then what is compiled
  file=$1
  shift
  uv pip compile "$@" --output-file "requirements/$file.txt" --universal --python-version 3.12 --generate-hashes \
    --no-emit-index-url --no-emit-find-links --no-annotate --no-config --quiet ${UPGRADE:-} \
    --custom-compile-command "make lock"
  echo "requirements/$file.txt"
}

lock api pyproject.toml --extra server --extra postgres --extra s3 --extra jobs --extra gates
lock api-torch pyproject.toml --extra server --extra torch --extra postgres --extra s3 --extra jobs --extra gates
lock runner pyproject.toml --extra torch --extra postgres --extra s3 --extra jobs --extra gates
lock build requirements/build.in
