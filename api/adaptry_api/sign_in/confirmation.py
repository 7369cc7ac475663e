"""Confirms users with sessions or tokens at the identity provider, so that former users lose access.

If the provider does not respond, nothing is renewed. A sign-in that has not been confirmed for an hour is
refused until it is confirmed.
"""

from __future__ import annotations

import logging

from adaptry.core.errors import AdaptryError, Unauthenticated
from adaptry.storage import sign_ins
from adaptry.storage.catalog.database import Catalog
from adaptry_api.sign_in.provider import OpenIdProvider, Unconfirmed

LOG = logging.getLogger("adaptry.api")


def confirm_users(catalog: Catalog, provider: OpenIdProvider) -> int:
    """Confirms every user whose confirmation is due. Returns the number of ended sign-ins."""
    ended = 0
    while (user := sign_ins.claim_due(catalog)) is not None:
        try:
            if user.issuer != provider.issuer or user.refresh_token is None:
                continue
            sign_ins.confirm(catalog, user, provider.user_of_refresh(user.refresh_token, user.subject))
        except Unauthenticated as error:
            LOG.info("sign-ins of %s ended: %s", user.subject, error.message)
            sign_ins.end(catalog, user)
            ended += 1
        except Unconfirmed as error:
            LOG.warning("cannot confirm %s: %s", user.subject, error.message)
            if error.refresh_token is not None:
                sign_ins.store_refresh_token(catalog, user, error.refresh_token)
        except AdaptryError as error:
            LOG.warning("cannot confirm %s: %s", user.subject, error.message)
    return ended
