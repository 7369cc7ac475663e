"""The promises of `Registry`, by part; `registry_contract` puts them together."""
