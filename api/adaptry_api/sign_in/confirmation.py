"""Confirms users with sessions or tokens at the identity provider, so that former users lose access.

If the provider does not respond, nothing is renewed. A sign-in that has not been confirmed for an hour is
refused until it is confirmed. Several users are confirmed at once, since thousands may be due and a response
may take a second. A round ends once the provider seems to be down, so an outage costs few requests.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Literal

from adaptry.core.errors import AdaptryError, Unauthenticated
from adaptry.storage import sign_ins
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.catalog.sign_ins import ExternalUser
from adaptry_api.sign_in.provider import ConfirmationUnavailable, OpenIdProvider

LOG = logging.getLogger("adaptry.api")
_CONCURRENCY = 4
_MAX_FAILURES = 5  # consecutive failures after which the provider counts as down
Outcome = Literal["confirmed", "ended", "unclear", "unavailable"]


def confirm_users(
    catalog: Catalog, provider: OpenIdProvider, is_stopping: Callable[[], bool] = lambda: False
) -> int:
    """Confirms every user whose confirmation is due, until `is_stopping`. Returns the number of ended
    sign-ins.
    """
    ended = failures = 0
    under_way: set[Future[Outcome]] = set()
    with ThreadPoolExecutor(_CONCURRENCY, thread_name_prefix="adaptry-confirmation") as threads:
        while True:
            user = None
            if failures < _MAX_FAILURES and not is_stopping():
                user = sign_ins.claim_due(catalog, provider.issuer)
            if user is not None:
                under_way.add(threads.submit(_confirm, catalog, provider, user))
            if user is None or len(under_way) == _CONCURRENCY:
                done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                for each in done:
                    outcome = each.result()
                    ended += outcome == "ended"
                    if outcome != "unclear":
                        failures = failures + 1 if outcome == "unavailable" else 0
                if not done:
                    return ended


def _confirm(catalog: Catalog, provider: OpenIdProvider, user: ExternalUser) -> Outcome:
    assert user.refresh_token is not None, "users without one are never due"
    try:
        confirmed = provider.user_of_refresh(user.refresh_token, user.subject)
        if not sign_ins.confirm(catalog, user, confirmed):
            LOG.info("sign-ins of %s ended: in no mapped group", user.subject)
            return "ended"
    except Unauthenticated as error:
        LOG.info("sign-ins of %s ended: %s", user.subject, error.message)
        sign_ins.end(catalog, user)
        return "ended"
    except ConfirmationUnavailable as error:  # concerns this user only, so continue with the others
        LOG.warning("cannot confirm %s: %s", user.subject, error.message)
        if error.refresh_token is not None:
            sign_ins.store_refresh_token(catalog, user, error.refresh_token)
        return "unclear"
    except AdaptryError as error:
        LOG.warning("cannot confirm %s: %s", user.subject, error.message)
        return "unavailable"
    return "confirmed"
