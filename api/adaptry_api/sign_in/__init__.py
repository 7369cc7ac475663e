"""Signing in with a browser at an OpenID provider: code flow with PKCE, sessions, signing out."""
