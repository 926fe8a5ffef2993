"""SSH servers that announce themselves on the local network (mDNS, RFC 6762; service discovery, RFC 6763)."""

from __future__ import annotations

import time
from ipaddress import ip_address

from zeroconf import Error, IPVersion, ServiceBrowser, ServiceInfo, ServiceListener, Zeroconf

from edgekit.discovery.found import Found, Search

TYPE = "_ssh._tcp.local."
_ASK_SECONDS = 1.0  #: for the address of a service that was seen


class _Names(ServiceListener):
    """The services seen so far, by name."""

    def __init__(self) -> None:
        self.seen: dict[str, None] = {}

    def add_service(self, zc: Zeroconf, type_: str, name: str) -> None:  # noqa: ARG002
        self.seen[name] = None

    def update_service(self, zc: Zeroconf, type_: str, name: str) -> None:  # noqa: ARG002
        self.seen[name] = None

    def remove_service(self, zc: Zeroconf, type_: str, name: str) -> None:  # noqa: ARG002
        self.seen.pop(name, None)


def search(seconds: float) -> Search:
    """Listen for ``seconds``."""
    try:
        network = Zeroconf(ip_version=IPVersion.V4Only)  # all interfaces, loopback among them
    except (OSError, RuntimeError, Error) as error:
        return Search((), (f"mDNS: the network cannot be searched: {error}",))
    try:
        names = _Names()
        browser = ServiceBrowser(network, TYPE, names)
        time.sleep(seconds)
        browser.cancel()
        infos = [network.get_service_info(TYPE, name, int(_ASK_SECONDS * 1000)) for name in list(names.seen)]
    except (OSError, Error) as error:
        return Search((), (f"mDNS: the network cannot be searched: {error}",))
    finally:
        network.close()
    return Search(tuple(_found(info) for info in infos if info is not None and info.parsed_addresses()), ())


def _found(info: ServiceInfo) -> Found:
    addresses = info.parsed_addresses()
    host = next((a for a in addresses if ip_address(a).version == 4), addresses[0])
    shown = f"[{host}]" if ":" in host else host
    port = "" if info.port == 22 else f":{info.port}"
    facts: dict[str, str | None] = {"host": (info.server or "").rstrip(".") or None, "addresses": ", ".join(addresses)}
    return Found("network", info.name.removesuffix(f".{TYPE}"), f"ssh://{shown}{port}", "ssh", facts)
