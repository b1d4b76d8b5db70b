"""How often somebody may ask: token buckets by address, in bounded memory."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

MOST_ADDRESSES = 1024


@dataclass
class _Bucket:
    left: float
    at_s: float


class Limiter:
    """Allows `burst` at once and `rate_per_s` on average, for each key apart.

    Args:
        most_keys: that are remembered; the one that was quiet for longest is forgotten.
    """

    def __init__(self, rate_per_s: float, burst: float, most_keys: int = MOST_ADDRESSES) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._most_keys = most_keys
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def wait_s(self, key: str, now_s: float) -> float:
        """How long until `key` may do it once more; 0.0 is now. Takes nothing."""
        return max(0.0, (1 - self._filled(key, now_s).left) / self._rate_per_s)

    def take(self, key: str, now_s: float) -> bool:
        """Do it once, if that is allowed at this moment (monotonic seconds)."""
        bucket = self._filled(key, now_s)
        if bucket.left < 1:
            return False
        bucket.left -= 1
        return True

    def give_back(self, key: str) -> None:
        """Undo one `take`."""
        if key in self._buckets:
            self._buckets[key].left += 1

    def __len__(self) -> int:
        return len(self._buckets)

    def _filled(self, key: str, now_s: float) -> _Bucket:
        bucket = self._buckets.setdefault(key, _Bucket(self._burst, now_s))
        self._buckets.move_to_end(key)
        bucket.left = min(self._burst, bucket.left + max(0.0, now_s - bucket.at_s) * self._rate_per_s)
        bucket.at_s = now_s
        while len(self._buckets) > self._most_keys:
            self._buckets.popitem(last=False)
        return bucket


def address_key(client: tuple[str, int] | None) -> str:
    """Whom a peer counts as: its IPv4 address, or its IPv6 network of 64 bits, which is one household's."""
    try:
        address = ip_address(client[0]) if client else None
    except ValueError:
        address = None
    if isinstance(address, IPv6Address):
        return str(address.ipv4_mapped or IPv6Address(int(address) >> 64 << 64))
    return str(address)
