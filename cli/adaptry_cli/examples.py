"""Examples for `--help`, by the command's path.

Imported when help is shown. A test runs each example through its command's parser.
"""

from __future__ import annotations

from collections.abc import Mapping

from adaptry_cli.access_examples import ACCESS_EXAMPLES

EXAMPLES: Mapping[str, tuple[str, ...]] = {
    **ACCESS_EXAMPLES,
    "push": (
        "adaptry push ./out acme/tone --metric accuracy=0.91",
        "adaptry push ./out acme/tone --base org/model --alias staging",
        "adaptry push hf:someone/their-lora acme/theirs",
    ),
    "policy": (
        "adaptry policy set acme/tone policy.yaml",
        "adaptry policy try acme/tone@3",
        "adaptry policy ls acme/tone",
    ),
    "policy ls": ("adaptry policy ls", "adaptry policy ls acme/tone"),
    "policy show": ("adaptry policy show acme/tone", "adaptry policy show acme --alias staging --history"),
    "policy rm": ("adaptry policy rm acme/tone",),
    "policy set": ("adaptry policy set acme/tone policy.yaml", "adaptry policy set acme policy.yaml"),
    "policy try": (
        "adaptry policy try acme/tone",
        "adaptry policy try acme/tone@3 --policy policy.yaml",
    ),
    "approve": ("adaptry approve acme/tone@3", "adaptry approve acme/tone --list"),
    "promotion": (
        "adaptry promotion ls acme/tone",
        "adaptry promotion show 12",
        "adaptry promotion replay 12",
    ),
    "promotion ls": ("adaptry promotion ls acme/tone@prod",),
    "promotion show": ("adaptry promotion show 12", "adaptry promotion show 12 --json"),
    "promotion replay": (
        "adaptry promotion replay 12",
        "adaptry promotion replay decision.json --evidence",
    ),
    "pull": (
        "adaptry pull acme/tone@prod --to ./tone",
        "adaptry pull --locked adaptry.lock --to ./adapters",
    ),
    "import": (
        "adaptry import ./runs --to acme --dry-run",
        "adaptry import hf:someone --to acme --dry-run",
        "adaptry import --search medical --filter lora --limit 50",
    ),
    "copy": (
        "adaptry copy acme/tone@3 archive/tone",
        "adaptry copy acme/tone@prod --to-registry https://registry.example.com",
    ),
    "mirror": (
        "adaptry mirror --from https://registry.example.com --dry-run",
        "adaptry mirror 'namespace:acme' --from https://registry.example.com --aliases --follow",
    ),
    "bundle": (
        "adaptry bundle create acme/tone@prod -o tone.tar",
        "adaptry bundle load tone.tar --aliases",
    ),
    "bundle create": (
        "adaptry bundle create acme/tone@prod acme/facts -o adapters.tar --with-base",
        "adaptry bundle create --query 'namespace:acme' -o acme.tar",
    ),
    "bundle load": ("adaptry bundle load adapters.tar --aliases",),
    "bundle show": ("adaptry bundle show adapters.tar",),
    "lock": (
        "adaptry lock acme/tone@prod acme/facts -o adaptry.lock",
        "adaptry lock --check",
    ),
    "ls": (
        "adaptry ls",
        "adaptry ls acme --sort updated",
        "adaptry ls acme/tone --sort metric.accuracy",
    ),
    "search": (
        "adaptry search tone",
        "adaptry search 'base:org/model rank<=16 metric.accuracy>=0.9'",
        "adaptry search 'method:lora -tag:draft state:*'",
        "adaptry search 'fits:vllm (alias:prod OR created>=7d)' --sort eval.gsm8k.exact_match",
    ),
    "show": ("adaptry show acme/tone", "adaptry show acme/tone@prod --json"),
    "history": ("adaptry history acme/tone", "adaptry history acme/tone --exact-times"),
    "events": (
        "adaptry events --follow --adapter 'acme/*'",
        "adaptry events --after 120 --json",
    ),
    "lineage": (
        "adaptry lineage acme/both",
        "adaptry lineage acme/tone@1 --descendants",
        "adaptry lineage acme/both --recipe",
    ),
    "diff": (
        "adaptry diff acme/tone",
        "adaptry diff acme/tone@prod acme/tone@staging --weights",
        "adaptry diff acme/tone ./out",
    ),
    "similar": ("adaptry similar acme/tone", "adaptry similar ./out --base org/model --min-cosine 0.95"),
    "inspect": (
        "adaptry inspect ./out",
        "adaptry inspect acme/tone@2 --weights",
        "adaptry inspect ./runs",
    ),
    "check": (
        "adaptry check ./out --base org/model",
        "adaptry check acme/tone@prod --runtime vllm@0.33,max_lora_rank=64",
        "adaptry check ./runs/*/adapter",
        "adaptry check ./out --json",
    ),
    "create": ("adaptry create acme/tone --description 'Answers in our tone of voice' --tag style",),
    "edit": ("adaptry edit acme/tone --public", "adaptry edit acme/tone --tag style --tag french"),
    "rename": ("adaptry rename acme/tone acme/tone-of-voice",),
    "delete": ("adaptry delete acme/old-experiment", "adaptry delete acme/old-experiment --yes"),
    "metrics": ("adaptry metrics log acme/tone@2 accuracy=0.93", "adaptry metrics show acme/tone@2"),
    "metrics log": ("adaptry metrics log acme/tone@2 accuracy=0.93 loss=0.21",),
    "metrics show": ("adaptry metrics show acme/tone@2",),
    "eval": (
        "adaptry eval acme/tone@prod --task gsm8k --limit 200",
        "adaptry eval acme/tone@3 --task caps --include-path ./tasks --base ./SmolLM2",
        "adaptry eval acme/tone@3 --task gsm8k --engine http://localhost:8000",
        "adaptry eval acme/tone@3 --task gsm8k --dry-run",
    ),
    "evidence": ("adaptry evidence add acme/tone@3 ./out", "adaptry evidence ls acme/tone@3"),
    "evidence add": (
        "adaptry evidence add acme/tone@3 ./out",
        "adaptry evidence add acme/tone@prod results_2026-11-28T10-00-00.json samples_*.jsonl",
    ),
    "evidence attach": ("adaptry evidence attach 7 acme/tone@3",),
    "evidence discard": ("adaptry evidence discard 7",),
    "evidence inbox": ("adaptry evidence inbox acme", "adaptry evidence inbox acme --json"),
    "evidence ls": (
        "adaptry evidence ls acme/tone",
        "adaptry evidence ls acme/tone@prod --task gsm8k --json",
    ),
    "evidence show": ("adaptry evidence show 41", "adaptry evidence show 41 --save-samples samples.jsonl"),
    "evidence withdraw": (
        "adaptry evidence withdraw 41 --reason 'measured without the chat template'",
        "adaptry evidence withdraw 41 --whole-file --reason 'the test set was in the training data'",
    ),
    "alias": ("adaptry alias set acme/tone@1 staging", "adaptry alias ls acme/tone"),
    "alias set": (
        "adaptry alias set acme/tone@1 staging",
        "adaptry alias set acme/tone@2 staging --expect 1",
    ),
    "alias rm": ("adaptry alias rm acme/tone@staging",),
    "alias ls": ("adaptry alias ls acme/tone",),
    "alias rewrites": ("adaptry alias rewrites 'acme/*@prod' --pool vllm | kubectl apply -f -",),
    "promote": (
        "adaptry promote acme/tone@staging",
        "adaptry promote acme/tone@3 --to canary --expect 2",
        "adaptry promote acme/tone@3 --if 'metric(\"accuracy\") > 0.9'",
    ),
    "rollback": ("adaptry rollback acme/tone", "adaptry rollback acme/tone@staging"),
    "deprecate": ("adaptry deprecate acme/tone@1 --reason 'version 2 is better' --successor acme/tone@2",),
    "yank": ("adaptry yank acme/tone@1 --reason 'trained on the wrong data'",),
    "quarantine": ("adaptry quarantine acme/tone@2 --reason 'a customer reported leaked names'",),
    "revoke": ("adaptry revoke acme/tone@2 --reason 'leaks names' --successor acme/tone@3",),
    "restore": (
        "adaptry restore acme/tone@1 --reason 'the report was a mistake'",
        "adaptry restore ./backup --registry ./registry --dry-run",
        "adaptry restore ./backup.tar --registry ./registry --replace",
    ),
    "base": ("adaptry base add ./base --name org/model", "adaptry base match ./checkpoint"),
    "base add": (
        "adaptry base add ./base --name org/model",
        "adaptry base add hf:org/model",
        "adaptry base add ./base --name org/model --store --visibility internal",
    ),
    "base edit": ("adaptry base edit org/model --visibility internal",),
    "base bind": ("adaptry base bind acme/tone@1 org/model", "adaptry base bind acme/tone ./base --all"),
    "base ls": ("adaptry base ls",),
    "base show": ("adaptry base show org/model",),
    "base match": ("adaptry base match ./checkpoint",),
    "merge": (
        "adaptry merge --base ./base acme/tone@prod -o ./merged",
        "adaptry merge --base org/model acme/tone=0.7 acme/facts=0.3 -o ./merged --dry-run",
        "adaptry merge --base org/model acme/tone acme/facts --method ties -o ./merged",
    ),
    "verify-merge": (
        "adaptry verify-merge ./merged",
        "adaptry verify-merge ./checkpoint --base org/model --adapter acme/tone@2=0.7",
    ),
    "combine": (
        "adaptry combine acme/tone acme/facts=0.5 --method ties --param density=0.3 -o acme/both",
        "adaptry combine --recipe recipe.yaml --dry-run",
        "adaptry combine --methods",
    ),
    "stack": ("adaptry stack acme/tone@prod acme/facts=0.5 -o acme/both",),
    "extract": ("adaptry extract ./fine-tuned --base org/model --rank 32 -o acme/extracted",),
    "convert": (
        "adaptry convert ./loha --energy 0.99 -o acme/as-lora",
        "adaptry convert ./kohya.safetensors --base org/model -o ./peft",
        "adaptry convert acme/experts --layout transformers5 -o ./rewritten",
    ),
    "resize": (
        "adaptry resize acme/both --dry-run",
        "adaptry resize acme/both --allowed 8,16,32 --energy 0.95 -o acme/both-small",
    ),
    "runtime": (
        "adaptry runtime ls vllm",
        "adaptry runtime plan acme/tone@prod acme/facts@prod --runtime vllm@0.33",
    ),
    "runtime ls": ("adaptry runtime ls", "adaptry runtime ls vllm"),
    "runtime plan": ("adaptry runtime plan acme/tone@prod acme/facts@prod --runtime vllm@0.33 --slots 8",),
    "runtime compare": ("adaptry runtime compare http://localhost:8000 --base org/model",),
    "export": (
        "adaptry export acme/tone@prod --for llama.cpp -o ./tone-gguf",
        "adaptry export acme/tone@prod --for vllm@0.33,max_lora_rank=64 --dry-run",
        "adaptry export acme/tone@prod --push oci://registry.example.com/acme/tone:1",
    ),
    "follow": (
        "adaptry follow --engine vllm --url http://localhost:8000 --watch 'acme/*@prod'",
        "adaptry follow --engine vllm --url http://localhost:8000 --watch acme/tone@prod"
        " --proxy 127.0.0.1:8001",
    ),
    "cache": ("adaptry cache ls", "adaptry cache path acme/tone@prod"),
    "cache ls": ("adaptry cache ls",),
    "cache path": ("adaptry cache path acme/tone@prod",),
    "cache gc": ("adaptry cache gc --size 20GB", "adaptry cache gc --engine-gone http://localhost:8000"),
    "cache block": ("adaptry cache block sha256:9f2c61d04a17 --reason 'leaks names'",),
    "cache unblock": ("adaptry cache unblock sha256:9f2c61d04a17",),
    "probe": ("adaptry probe acme/tone@prod --engine http://localhost:8000",),
    "workers": ("adaptry workers ls", "adaptry workers show gpu-1-8000"),
    "workers ls": ("adaptry workers ls",),
    "workers show": ("adaptry workers show gpu-1-8000",),
    "workers declare-gone": (
        "adaptry workers declare-gone gpu-1-8000 --reason 'the machine was switched off'",
    ),
    "workers forget": ("adaptry workers forget gpu-1-8000",),
    "rollout": (
        "adaptry rollout start acme/tone@prod --to 3 --every 10m",
        "adaptry rollout status acme/tone",
    ),
    "rollout start": (
        "adaptry rollout start acme/tone@prod --to 3",
        "adaptry rollout start acme/tone@prod --to 3 --steps 5,25,100 --every 10m",
    ),
    "rollout status": ("adaptry rollout status acme/tone",),
    "rollout advance": ("adaptry rollout advance acme/tone@prod",),
    "rollout abort": ("adaptry rollout abort acme/tone@prod --reason 'more errors than before'",),
    "recall": ("adaptry recall status acme/tone@2",),
    "recall status": ("adaptry recall status acme/tone@2 --wait 60",),
    "jobs": (
        "adaptry jobs submit merge base=org/model inputs=acme/tone@3 to=acme/merged --wait",
        "adaptry jobs watch",
    ),
    "jobs submit": (
        "adaptry jobs submit merge base=org/model inputs=acme/tone@3 inputs=acme/voice=0.5 to=acme/both",
        "adaptry jobs submit verify --wait",
    ),
    "jobs schedule": ("adaptry jobs schedule nightly '30 2 * * *' verify",),
    "jobs unschedule": ("adaptry jobs unschedule nightly",),
    "jobs schedules": ("adaptry jobs schedules",),
    "jobs ls": ("adaptry jobs ls --state running",),
    "jobs show": ("adaptry jobs show JOB",),
    "jobs watch": ("adaptry jobs watch", "adaptry jobs watch JOB"),
    "jobs logs": ("adaptry jobs logs JOB --follow",),
    "jobs cancel": ("adaptry jobs cancel JOB",),
    "jobs retry": ("adaptry jobs retry JOB",),
    "work": ("adaptry work --concurrency 2 --memory 16GB", "adaptry work --device cuda --tag big"),
    "runners": ("adaptry runners",),
    "serve": (
        "adaptry serve",
        "adaptry serve --data ./registry --host 0.0.0.0 --port 8750 --work",
    ),
    "uploads": ("adaptry uploads ls", "adaptry uploads rm ID"),
    "uploads ls": ("adaptry uploads ls acme",),
    "uploads rm": ("adaptry uploads rm ID",),
    "backup": ("adaptry backup ./backups", "adaptry backup ./backup.tar --registry ./registry"),
    "verify": ("adaptry verify", "adaptry verify --read-data --registry ./registry"),
    "repair": ("adaptry repair --dry-run", "adaptry repair --from https://registry.example.com --read-data"),
    "gc": ("adaptry gc --dry-run", "adaptry gc --grace 7d"),
    "migrate": (
        "adaptry migrate",
        "adaptry migrate --from sqlite:./registry --to postgresql://adaptry@db.example.com/adaptry",
    ),
    "demo": ("adaptry demo", "adaptry demo --folder ./demo"),
    "doctor": ("adaptry doctor", "adaptry doctor --registry https://registry.example.com"),
    "login": (
        "adaptry login https://registry.example.com",
        "adaptry login https://registry.example.com --token-file ./token",
        "adaptry login https://registry.example.com --with-token",
    ),
    "logout": ("adaptry logout https://registry.example.com",),
    "whoami": ("adaptry whoami",),
    "open": ("adaptry open acme/tone@prod", "adaptry open acme/tone --print"),
    "completion": ("adaptry completion bash", "adaptry completion fish"),
}
"""Lines as a user would type them, by the command's path."""
