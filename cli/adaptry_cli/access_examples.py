"""Examples for `--help` of commands about users, tokens, rights and the audit log."""

from __future__ import annotations

from collections.abc import Mapping

ACCESS_EXAMPLES: Mapping[str, tuple[str, ...]] = {
    "token": (
        "adaptry token create trainer --role contributor --namespace acme",
        "adaptry token create laptop --for alice --only read",
        "adaptry token ls",
    ),
    "token create": (
        "adaptry token create trainer --role contributor --namespace acme --days 30",
        "adaptry token create alice --role viewer --namespace '*'",
    ),
    "token ls": ("adaptry token ls",),
    "token revoke": ("adaptry token revoke 3",),
    "user": ("adaptry user create alice", "adaptry user ls"),
    "user create": ("adaptry user create alice", "adaptry user create gpu-1 --worker"),
    "user invite": ("adaptry user invite alice", "adaptry user invite alice --hours 2"),
    "user disable": ("adaptry user disable alice",),
    "user enable": ("adaptry user enable alice",),
    "user ls": ("adaptry user ls",),
    "service-account": (
        "adaptry service-account create acme/ci",
        "adaptry service-account ls",
    ),
    "service-account create": ("adaptry service-account create acme/ci",),
    "service-account disable": ("adaptry service-account disable acme/ci",),
    "service-account enable": ("adaptry service-account enable acme/ci",),
    "service-account ls": ("adaptry service-account ls",),
    "group": ("adaptry group create release", "adaptry group add release alice"),
    "group create": ("adaptry group create release",),
    "group add": ("adaptry group add release alice",),
    "group rm": ("adaptry group rm release alice",),
    "group ls": ("adaptry group ls",),
    "group delete": ("adaptry group delete release",),
    "member": ("adaptry member set acme alice --role maintainer", "adaptry member ls acme"),
    "member set": (
        "adaptry member set acme alice --role maintainer",
        "adaptry member set acme acme/ci --role contributor",
        "adaptry member set acme release --group --role viewer",
    ),
    "member ls": ("adaptry member ls acme",),
    "member rm": ("adaptry member rm acme alice",),
    "member accountable": ("adaptry member accountable acme alice",),
    "issuer": ("adaptry issuer add github --kind github", "adaptry issuer ls"),
    "issuer add": (
        "adaptry issuer add github --kind github",
        "adaptry issuer add ours --kind gitlab --url https://gitlab.example.com"
        " --audience https://registry.example.com",
    ),
    "issuer ls": ("adaptry issuer ls",),
    "issuer rm": ("adaptry issuer rm github",),
    "publisher": (
        "adaptry publisher add acme/tone --issuer github --project-id 1001 --owner-id 77"
        " --workflow .github/workflows/release.yml --branch main",
        "adaptry publisher ls acme/tone",
    ),
    "publisher add": (
        "adaptry publisher add acme/tone --issuer github --project-id 1001 --owner-id 77"
        " --workflow .github/workflows/release.yml --environment release",
        "adaptry publisher add acme/tone --issuer gitlab --project-id 2002 --owner-id 88"
        " --workflow .gitlab-ci.yml --branch main",
    ),
    "publisher ls": ("adaptry publisher ls acme/tone",),
    "publisher rm": ("adaptry publisher rm acme/tone 1",),
    "sso": ("adaptry sso map ml-engineers ml-team", "adaptry sso ls"),
    "sso map": ("adaptry sso map ml-engineers ml-team",),
    "sso ls": ("adaptry sso ls",),
    "sso unmap": ("adaptry sso unmap ml-engineers",),
    "sso link": ("adaptry sso link ann --issuer https://login.example.com --subject 00u1",),
    "sso users": ("adaptry sso users",),
    "quota": ("adaptry quota set acme --bytes 500GB", "adaptry quota show acme"),
    "quota show": ("adaptry quota show acme", "adaptry quota show alice --principal"),
    "quota ls": ("adaptry quota ls",),
    "quota set": (
        "adaptry quota set acme --bytes 500GB --versions 10000",
        "adaptry quota set '*' --principal --requests 600",
        "adaptry quota set acme/ci --principal --requests unlimited",
    ),
    "quota rm": ("adaptry quota rm acme",),
    "webhook": ("adaptry webhook add acme https://ci.example.com/hook", "adaptry webhook ls"),
    "webhook add": (
        "adaptry webhook add acme https://ci.example.com/hook --event alias.moved --event 'version.*'",
        "adaptry webhook add acme https://ci.example.com/hook --adapter 'tone-*'",
    ),
    "webhook ls": ("adaptry webhook ls acme",),
    "webhook show": ("adaptry webhook show 3",),
    "webhook rm": ("adaptry webhook rm 3",),
    "webhook enable": ("adaptry webhook enable 3",),
    "webhook disable": ("adaptry webhook disable 3",),
    "webhook test": ("adaptry webhook test 3",),
    "webhook rotate": ("adaptry webhook rotate 3 --overlap 48",),
    "webhook deliveries": ("adaptry webhook deliveries 3 --limit 20",),
    "webhook redeliver": ("adaptry webhook redeliver 3 msg_0123456789abcdef01234567",),
    "grant": (
        "adaptry grant add alice alias.move 'acme/*' --if 'alias!=prod'",
        "adaptry grant ls --namespace acme",
    ),
    "grant add": (
        "adaptry grant add alice alias.move 'acme/*' --if 'alias!=prod'",
        "adaptry grant add release approve acme/tone --group",
    ),
    "grant ls": ("adaptry grant ls --namespace acme", "adaptry grant ls --principal alice"),
    "grant rm": ("adaptry grant rm 7",),
    "access": ("adaptry access explain alice alias.move acme/tone@prod",),
    "access explain": (
        "adaptry access explain alice alias.move acme/tone@prod",
        "adaptry access explain alice state.set acme/tone --state revoked",
    ),
    "audit": (
        "adaptry audit ls --resource acme/tone --since 7d",
        "adaptry audit verify --checkpoint checkpoint.txt",
    ),
    "audit ls": (
        "adaptry audit ls --action alias.move --resource acme/tone@prod",
        "adaptry audit ls --actor alice --denied --since 24h",
    ),
    "audit export": (
        "adaptry audit export --to audit.jsonl",
        "adaptry audit export --action 'token.*' --since 2026-11-01 --to tokens.jsonl",
    ),
    "audit checkpoint": ("adaptry audit checkpoint --to checkpoint.txt",),
    "audit verify": (
        "adaptry audit verify --checkpoint checkpoint.txt",
        "adaptry audit verify --file audit.jsonl --key KEY",
    ),
    "admin": ("adaptry admin recover alice",),
    "admin replace-audit-key": ("adaptry admin replace-audit-key",),
    "admin recover": ("adaptry admin recover alice", "adaptry admin recover alice --namespace acme"),
}
"""Lines as a user would type them, by the command's path."""
