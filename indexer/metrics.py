"""
What the indexer counts, in Prometheus' terms; `health.py` serves it.

Counters are moved where things happen, gauges by the heartbeat from the tables, so that a number here and a number in
`capstan status` are the same number. Nothing is decided by them.
"""

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

TRANSACTIONS = Counter(
    "capstan_transactions", "Transactions stored, by what brought them: live, enumeration, backfill", ["by"]
)
EVENTS = Counter("capstan_events", "Events inserted; replays count nothing")
FORKED = Counter("capstan_forked_transactions", "Confirmed transactions that a fork dropped or moved")
ERRORS = Counter("capstan_errors", "Failures that were retried, by the part that met them", ["part"])
NOTIFICATIONS = Counter("capstan_notifications", "PubSub notifications, by kind", ["kind"])
EXPORTED_ROWS = Counter("capstan_exported_rows", "Rows committed to the lake")
EXPORT_SECONDS = Histogram(
    "capstan_export_seconds", "How long an export took", buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
)
WRITE_SECONDS = Histogram(
    "capstan_write_seconds",
    "How long a batch took to be committed",
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)

TIP_SLOT = Gauge("capstan_tip_slot", "The newest slot of the chain that was seen")
FRONTIER_SLOT = Gauge("capstan_frontier_slot", "Everything up to here is proven to be stored", ["program"])
LAG_SLOTS = Gauge("capstan_lag_slots", "The tip less the frontier", ["program"])
GAPS = Gauge("capstan_gaps", "Ranges below the newest proven slot that are not proven", ["program"])
PROBLEMS = Gauge("capstan_problems", "What was there and could not be read, by program and kind", ["program", "kind"])
OPEN_JOBS = Gauge("capstan_open_jobs", "Pieces of backfills that are not done")
INCOMPLETE = Gauge(
    "capstan_incomplete_transactions", "Transactions whose logs were cut or absent, or whose version is too new"
)
QUEUE_DEPTH = Gauge("capstan_queue_depth", "What waits to be stored, by queue", ["queue"])
EXPORT_LAG_SLOTS = Gauge("capstan_export_lag_slots", "The lowest frontier less the lake's lowest watermark")
CONNECTED = Gauge("capstan_pubsub_connected", "1 while the subscriptions are up")


def exposition(registry: CollectorRegistry = REGISTRY) -> tuple[bytes, str]:
    """Return what a scrape is answered, and its content type."""
    return generate_latest(registry), CONTENT_TYPE_LATEST
