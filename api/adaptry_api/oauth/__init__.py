"""OAuth 2 and OpenID Connect: ID tokens of other providers, and the tokens issued in exchange."""
