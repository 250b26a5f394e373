"""Prometheus objects of caches and watches, whatever process has them."""

from prometheus_client import Counter, Gauge

WATCH_AGE_SECONDS = Gauge(
    "flashplane_watch_age_seconds", "Time since a watch last gave a sign of life", ["resource"]
)
WATCH_ERRORS = Counter(
    "flashplane_watch_errors", "Lists and watches that failed", ["resource", "error"]
)
RELISTS = Counter("flashplane_watch_relists", "Complete lists read", ["resource"])
CACHED_OBJECTS = Gauge("flashplane_watch_cached_objects", "Objects in a cache", ["resource"])
BROKEN_OBJECTS = Gauge(
    "flashplane_watch_broken_objects",
    "Cached objects that this version cannot read",
    ["resource"],
)
