"""The OpenAPI description of the REST interface, which people read and clients are generated from."""
