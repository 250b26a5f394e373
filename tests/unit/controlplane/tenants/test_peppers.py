"""A pepper is replaced while keys are in use: what the old one hashed is hashed anew at use."""

from support.shop import PEPPER, Shop

from controlplane.tenants import keys

NEW = b"the next pepper"


def test_a_key_of_the_pepper_before_opens_and_needs_it_no_more(shop: Shop) -> None:
    token = shop.customer().token
    with shop.sessions.begin() as session:
        assert keys.authenticate(session, NEW, token) is None
    with shop.sessions.begin() as session:
        assert keys.by_pepper(session, NEW) == {"current": 0, "other": 1, "unknown": 0}
        assert keys.authenticate(session, NEW, token, previous=PEPPER) is not None
    with shop.sessions.begin() as session:
        assert keys.by_pepper(session, NEW) == {"current": 1, "other": 0, "unknown": 0}
        assert keys.authenticate(session, NEW, token) is not None
        assert keys.authenticate(session, PEPPER, token) is None


def test_an_admins_key_too(shop: Shop) -> None:
    with shop.sessions.begin() as session:
        _, token = keys.issue_admin(session, PEPPER, name="root")
    with shop.sessions.begin() as session:
        assert keys.authenticate_admin(session, NEW, token, previous=PEPPER) is not None
    with shop.sessions.begin() as session:
        assert keys.authenticate_admin(session, NEW, token) is not None


def test_a_wrong_secret_is_not_hashed_anew(shop: Shop) -> None:
    mine, other = shop.customer().token, shop.customer().token
    forged = mine[:20] + other[20:]
    with shop.sessions.begin() as session:
        assert keys.authenticate(session, NEW, forged, previous=PEPPER) is None
    with shop.sessions.begin() as session:
        assert keys.by_pepper(session, NEW)["other"] == 2
