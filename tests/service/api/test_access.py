import pytest

from service.api.access import Access, access_of, needed_scope
from service.domain.api_keys import KeyScope
from service.domain.errors import InvalidInput
from service.settings import Settings


@pytest.mark.parametrize(
    ("host", "require_keys", "access"),
    [
        ("127.0.0.1", None, Access.LOCAL),
        ("::1", None, Access.LOCAL),
        ("localhost", True, Access.KEYS),
        ("0.0.0.0", True, Access.KEYS),
        ("0.0.0.0", False, Access.OPEN),
    ],
)
def test_how_callers_are_known(host: str, require_keys: bool | None, access: Access):
    assert access_of(Settings(host=host, require_keys=require_keys)) is access


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "api.example"])
def test_an_address_that_others_reach_needs_a_decision(host: str):
    with pytest.raises(InvalidInput, match="QUANTSIEVE_REQUIRE_KEYS=true"):
        access_of(Settings(host=host, require_keys=None))


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("GET", "/healthz", None),
        ("POST", "/healthz", KeyScope.SUBMIT),
        ("GET", "/healthz/", KeyScope.READ),
        ("GET", "/v1/sweeps/x/report.html", KeyScope.READ),
        ("DELETE", "/v1/sweeps/x", KeyScope.SUBMIT),
        ("GET", "/v1/keys", KeyScope.ADMIN),
        ("DELETE", "/v1/keys/x", KeyScope.ADMIN),
        ("GET", "/v1/keys/", KeyScope.ADMIN),
        ("GET", "/v1/workers", KeyScope.ADMIN),
        ("GET", "/v1/anything/that/comes", KeyScope.READ),
        ("BREW", "/", KeyScope.SUBMIT),
    ],
)
def test_the_scope_that_a_request_needs(method: str, path: str, scope: KeyScope | None):
    assert needed_scope(method, path) is scope
