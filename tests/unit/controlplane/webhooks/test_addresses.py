"""Webhooks reach the open internet and nothing else."""

import ipaddress

import pytest

from controlplane.errors import UnprocessableRequest
from controlplane.webhooks.addresses import MAX_URL_CHARS, check_url, choose, is_public

INSIDE = [
    *("127.0.0.1", "127.8.9.1", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1"),
    *("169.254.169.254", "100.64.0.1", "100.100.100.200", "168.63.129.16", "192.0.0.192"),
    *("198.18.0.1", "192.0.2.1", "203.0.113.7", "224.0.0.1", "239.1.1.1", "240.0.0.1"),
    *("255.255.255.255", "::", "::1", "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1"),
    *("::ffff:127.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1", "64:ff9b::7f00:1"),
    *("64:ff9b:1::a00:1", "2002:7f00:1::", "2001::1", "2001:db8::1", "fec0::1", "4000::1"),
]
OUTSIDE = ["8.8.8.8", "1.1.1.1", "93.184.215.14", "2606:4700:4700::1111", "2a00:1450:4001::1"]


@pytest.mark.parametrize("address", INSIDE)
def test_an_address_that_leads_inside_is_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))
    assert choose([address], allow_loopback=False) is None
    # One bad address among good ones is what a rebinding name answers.
    assert choose(["8.8.8.8", address], allow_loopback=False) is None


@pytest.mark.parametrize("address", OUTSIDE)
def test_an_address_of_the_open_internet_is_public(address: str) -> None:
    assert choose([address], allow_loopback=False) == address


def test_loopback_must_be_allowed() -> None:
    assert choose(["127.0.0.1", "::1"], allow_loopback=True) == "127.0.0.1"
    assert choose(["127.0.0.1", "10.0.0.1"], allow_loopback=True) is None
    assert choose([], allow_loopback=True) is None


@pytest.mark.parametrize(
    "url",
    [
        *("", "x", "/hook", "//example.com", "http://example.com", "ftp://example.com"),
        *("https://", "https://user@example.com", "https://u:p@example.com"),
        *("https://example.com/#part", "https://localhost/", "https://127.0.0.1/"),
        *("https://10.0.0.1/", "https://[::1]/", "https://[::ffff:10.0.0.1]/"),
        *("https://169.254.169.254/latest", "https://example.com/\n", "https://exa mple.com/"),
        *("https://example.com:99999/", "https://ex\u00e4mple.com/"),
    ],
)
def test_a_url_that_may_not_be_called_is_refused(url: str) -> None:
    with pytest.raises(UnprocessableRequest, match=r"^url: "):
        check_url(url, allow_loopback=False)


def test_an_endless_url_is_refused() -> None:
    with pytest.raises(UnprocessableRequest):
        check_url("https://example.com/" + "a" * MAX_URL_CHARS, allow_loopback=False)


def test_a_url_of_the_open_internet_is_taken() -> None:
    url = "https://hooks.example.com:8443/a?b=c"
    assert check_url(url, allow_loopback=False) == url


@pytest.mark.parametrize("url", ["http://127.0.0.1:80/a", "http://localhost/a", "https://[::1]/a"])
def test_this_machine_is_taken_where_a_setting_allows_it(url: str) -> None:
    check_url(url, allow_loopback=True)
    with pytest.raises(UnprocessableRequest):
        check_url(url, allow_loopback=False)


def test_the_setting_allows_nothing_else() -> None:
    for url in ("http://example.com/", "https://10.0.0.1/", "https://169.254.169.254/"):
        with pytest.raises(UnprocessableRequest):
            check_url(url, allow_loopback=True)
