"""OAuth 2 and OpenID Connect: ID tokens of other providers, and what they are exchanged for."""
