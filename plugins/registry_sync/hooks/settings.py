"""The ``[registry_sync]`` section of Airflow's configuration, read in one place, defaults included.

Reading opens nothing; :mod:`registry_sync.hooks.stores` does.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path
from urllib.parse import urlsplit

from registry_sync.domain.file_modes import GROUP_TOO, OWNER_ONLY, FileModes
from registry_sync.domain.quantities import parse_flag
from registry_sync.domain.runs import MIN_SHARD_BYTES
from registry_sync.domain.serving import DEFAULT_URL_SECONDS, LEAST_URL_SECONDS, MOST_URL_SECONDS, BlobDelivery
from registry_sync.errors import ConfigurationError, redact_url

SECTION = "registry_sync"
DEFAULT_MAX_SHARDS = 4
DEFAULT_MIN_SHARD_MIB = MIN_SHARD_BYTES // (1024 * 1024)
DEFAULT_SYNC_DAG_ID = "registry_sync"
DEFAULT_ORPHAN_GRACE_HOURS = 24
DEFAULT_APPROVAL_HOURS = 24
DEFAULT_CONFIRM_TAGS_HOURS = 24
DEFAULT_METRICS_MIRRORS = 200
MOST_METRICS_MIRRORS = 100_000
#: Ten years.
MOST_HOURS = 87_600


@dataclass(frozen=True)
class Settings:
    """The settings. ``sql_alchemy_conn`` and ``blob_store`` are URLs.

    ``max_shards`` limits the mapped tasks of one stage; ``min_shard_bytes`` is the minimum work of a task. ``contact``
    is the contact for operators of registries, None for none. ``orphan_grace`` is how long unreferenced content is kept
    before it is collected, ``confirm_tags`` how long a registry's list of digests may stand in for a request for each
    tag. ``trust_triggers`` says that the parameters of a run count as those of its DAG's author, whoever triggered it.
    ``approval_wait`` is how long a sync that would remove too many tags waits for a person, zero for not at all.
    ``share_with_group`` makes stored files accessible to their group; ``home`` is the folder of
    the embedded defaults. ``sync_dag_id`` is the DAG that a sync over REST runs, and whose access rules apply to
    reading over REST. ``pull_login_url`` is the Airflow whose users may log in at the pull server, None for robots
    alone; ``pull_trusted_proxies`` are the addresses and networks whose ``X-Forwarded-For`` counts there, and for HTTP
    Basic at the REST API, which ``rest_basic_over_http`` allows without TLS from other machines.
    ``pull_metrics`` is the ``host:port`` of its metrics and ``pull_access_log`` the file of its access log, ``-`` for
    standard output; None for neither.
    ``blob_delivery`` says who sends the bytes of blobs to container clients, and ``signed_url_seconds`` how long a URL
    of the object store for that can be used. ``fleet_path`` is the file or folder that declares mirrors, None for none.
    ``metrics_mirrors`` is how many mirrors have a name of their own in metrics.
    """

    sql_alchemy_conn: str
    blob_store: str
    max_shards: int
    min_shard_bytes: int
    sync_dag_id: str = DEFAULT_SYNC_DAG_ID
    contact: str | None = None
    orphan_grace: timedelta = timedelta(hours=DEFAULT_ORPHAN_GRACE_HOURS)
    approval_wait: timedelta = timedelta(hours=DEFAULT_APPROVAL_HOURS)
    confirm_tags: timedelta = timedelta(hours=DEFAULT_CONFIRM_TAGS_HOURS)
    trust_triggers: bool = False
    share_with_group: bool = False
    home: Path | None = None
    pull_login_url: str | None = None
    pull_trusted_proxies: tuple[str, ...] = ()
    pull_metrics: str | None = None
    pull_access_log: str | None = None
    blob_delivery: BlobDelivery = BlobDelivery.DIRECT
    signed_url_seconds: int = DEFAULT_URL_SECONDS
    rest_basic_over_http: bool = False
    fleet_path: Path | None = None
    metrics_mirrors: int = DEFAULT_METRICS_MIRRORS

    @property
    def fleet_cache(self) -> Path | None:
        """The folder of compiled fleets."""
        return None if self.home is None else self.home / "fleet"

    @property
    def file_modes(self) -> FileModes:
        """The permissions of files of the embedded stores."""
        return GROUP_TOO if self.share_with_group else OWNER_ONLY


def load_settings() -> Settings:
    """The settings in force. Empty ones are the embedded defaults below ``$AIRFLOW_HOME/registry_sync``.

    Raises :class:`ConfigurationError` when a value cannot be used.
    """
    from airflow.configuration import AIRFLOW_HOME, conf

    home = Path(AIRFLOW_HOME).expanduser().resolve() / "registry_sync"
    return Settings(
        sql_alchemy_conn=conf.get(SECTION, "sql_alchemy_conn", fallback="") or f"sqlite:///{home / 'registry_sync.db'}",
        blob_store=conf.get(SECTION, "blob_store", fallback="") or (home / "blobs").as_uri(),
        max_shards=_count(conf.get(SECTION, "max_shards", fallback=""), "max_shards", DEFAULT_MAX_SHARDS),
        min_shard_bytes=_count(conf.get(SECTION, "min_shard_mib", fallback=""), "min_shard_mib", DEFAULT_MIN_SHARD_MIB)
        * 1024
        * 1024,
        sync_dag_id=conf.get(SECTION, "sync_dag_id", fallback="") or DEFAULT_SYNC_DAG_ID,
        contact=_contact(conf.get(SECTION, "contact", fallback="").strip()),
        orphan_grace=_hours(
            conf.get(SECTION, "orphan_grace_hours", fallback=""), "orphan_grace_hours", DEFAULT_ORPHAN_GRACE_HOURS
        ),
        approval_wait=_hours(
            conf.get(SECTION, "approval_hours", fallback=""), "approval_hours", DEFAULT_APPROVAL_HOURS
        ),
        confirm_tags=_hours(
            conf.get(SECTION, "confirm_tags_hours", fallback=""), "confirm_tags_hours", DEFAULT_CONFIRM_TAGS_HOURS
        ),
        trust_triggers=_flag(conf.get(SECTION, "trust_triggers", fallback=""), "trust_triggers"),
        metrics_mirrors=_most(conf.get(SECTION, "metrics_mirrors", fallback=""), DEFAULT_METRICS_MIRRORS),
        share_with_group=_flag(conf.get(SECTION, "share_with_group", fallback=""), "share_with_group"),
        home=home,
        pull_login_url=_address(conf.get(SECTION, "pull_login_url", fallback="").strip(), "pull_login_url"),
        pull_trusted_proxies=_networks(conf.get(SECTION, "pull_trusted_proxies", fallback=""), "pull_trusted_proxies"),
        pull_metrics=conf.get(SECTION, "pull_metrics", fallback="").strip() or None,
        pull_access_log=conf.get(SECTION, "pull_access_log", fallback="").strip() or None,
        blob_delivery=_delivery(conf.get(SECTION, "blob_delivery", fallback="").strip()),
        signed_url_seconds=_url_seconds(conf.get(SECTION, "signed_url_seconds", fallback="").strip()),
        rest_basic_over_http=_flag(conf.get(SECTION, "rest_basic_over_http", fallback=""), "rest_basic_over_http"),
        fleet_path=_path(conf.get(SECTION, "fleet_path", fallback="").strip(), "fleet_path"),
    )


def serves_pulls_in_api_server() -> bool:
    """Whether Airflow's API server serves the pull API, too. Raises :class:`ConfigurationError`."""
    from airflow.configuration import conf

    return _flag(conf.get(SECTION, "pull_in_api_server", fallback=""), "pull_in_api_server")


def _path(text: str, name: str) -> Path | None:
    """``text`` as an absolute path; None for an empty one."""
    if not text:
        return None
    path = Path(text).expanduser()
    if not path.is_absolute():
        raise ConfigurationError(f"[registry_sync] {name} = {text[:80]!r}: give an absolute path")
    return path


def _flag(text: str, name: str) -> bool:
    """``text`` as true or false; false for an empty one."""
    return bool(parse_flag(text, f"[registry_sync] {name}"))


def _address(text: str, name: str) -> str | None:
    """``text`` as the http URL of a server; None for an empty one."""
    parts = urlsplit(text)
    if text and (parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.username):
        raise ConfigurationError(f"[registry_sync] {name} = {redact_url(text)!r}: give a URL such as https://host:8080")
    return text or None


def _networks(text: str, name: str) -> tuple[str, ...]:
    """Addresses and networks, separated by commas or blanks."""
    return tuple(_network(part, name) for part in text.replace(",", " ").split())


def _network(text: str, name: str) -> str:
    try:
        return str(ip_network(text, strict=False))
    except ValueError:
        raise ConfigurationError(
            f"[registry_sync] {name}: {text[:80]!r} is no address and no network such as 10.0.0.0/8"
        ) from None


def _contact(text: str) -> str | None:
    """``text`` as sent in ``User-Agent``; None for an empty one."""
    from registry_sync.oci.http.options import CONTACT_SHAPE, is_contact

    if text and not is_contact(text):
        raise ConfigurationError(f"[registry_sync] contact = {text[:80]!r}: give {CONTACT_SHAPE}")
    return text or None


def _count(text: str, name: str, default: int) -> int:
    """``text`` as a whole number from 1; the default for an empty one."""
    if not text:
        return default
    if not text.isdigit() or int(text) < 1:
        raise ConfigurationError(f"[registry_sync] {name} = {text!r}: give a whole number, 1 or more")
    return int(text)


def _most(text: str, default: int) -> int:
    """``text`` as a number of mirrors, 0 for none; the default for an empty one."""
    if not text:
        return default
    if not text.isdigit() or int(text) > MOST_METRICS_MIRRORS:
        raise ConfigurationError(
            f"[registry_sync] metrics_mirrors = {text!r}: give a whole number, 0 to {MOST_METRICS_MIRRORS:,}"
        )
    return int(text)


def _hours(text: str, name: str, default: int) -> timedelta:
    """``text`` as whole hours, 0 for no time at all; the default for an empty one."""
    if not text:
        return timedelta(hours=default)
    if not text.isdigit() or int(text) > MOST_HOURS:
        raise ConfigurationError(f"[registry_sync] {name} = {text!r}: give whole hours, 0 to {MOST_HOURS:,}")
    return timedelta(hours=int(text))


def _delivery(text: str) -> BlobDelivery:
    """``text`` as who sends blobs; the server itself for an empty one."""
    try:
        return BlobDelivery(text or BlobDelivery.DIRECT)
    except ValueError:
        known = ", ".join(kind.value for kind in BlobDelivery)
        raise ConfigurationError(f"[registry_sync] blob_delivery = {text[:80]!r}: give one of {known}") from None


def _url_seconds(text: str) -> int:
    """``text`` as seconds between the bounds; the default for an empty one."""
    if not text:
        return DEFAULT_URL_SECONDS
    if not text.isdigit() or not LEAST_URL_SECONDS <= int(text) <= MOST_URL_SECONDS:
        raise ConfigurationError(
            f"[registry_sync] signed_url_seconds = {text[:80]!r}: give {LEAST_URL_SECONDS} to {MOST_URL_SECONDS:,}"
        )
    return int(text)
