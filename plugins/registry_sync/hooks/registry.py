"""The Airflow hook for registries: turns a connection, or a remote with one, into a client.

The hook is an :class:`HttpHook` by its connection fields and its place in Airflow. Behavior of an HttpHook that does
not suit a registry is replaced: Extra does not become headers, the scheme is https unless stated, requests time out, an
error keeps the registry's response, and a test requests ``/v2/`` instead of posting to ``/``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.http.hooks.http import HttpHook

from registry_sync.errors import NotARegistry, RegistrySyncError
from registry_sync.hooks.clients import load_connection, make_client, registry_of

if TYPE_CHECKING:
    from registry_sync.domain.references import RegistryUrl
    from registry_sync.domain.remote import RemoteSpec
    from registry_sync.hooks.connection import RegistryConnection
    from registry_sync.oci.client import RegistryClient
    from registry_sync.oci.http.options import ClientOptions
    from registry_sync.oci.http.session import PreparedRequest, Response, Session

LARGEST_HARMLESS_CLOCK_OFFSET_SECONDS = 60
_ONLY_REPOSITORIES = (
    ". If it is a proxy that serves only paths of repositories, a sync still works: it requests a repository"
)


class RegistryHook(HttpHook):
    """Read from a container registry.

    :param registry_conn_id: connection of type ``registry``. Without it the remote's is used; without a remote
        ``registry_default``.
    :param remote: the repository to read from, with its TLS, proxy and concurrency settings. Its connection None means
        anonymous. Without a remote the connection's own host is used.
    :param method: HTTP method of :meth:`run`; the client does not use it.
    """

    conn_name_attr = "registry_conn_id"
    default_conn_name = "registry_default"
    conn_type = "registry"
    hook_name = "Container registry"

    def __init__(
        self,
        registry_conn_id: str | None = None,
        remote: RemoteSpec | None = None,
        *,
        method: str = "GET",
        **http_options: Any,
    ) -> None:
        if registry_conn_id is None:
            registry_conn_id = remote.conn_id if remote is not None else self.default_conn_name
        super().__init__(method=method, http_conn_id=registry_conn_id or "", **http_options)
        self.registry_conn_id = registry_conn_id
        self.remote = remote
        self._session_client: RegistryClient | None = None
        self._connection: RegistryConnection | None = None

    def get_client(self) -> RegistryClient:
        """A new client for the remote, or for the connection's host; close it, or use it in a ``with``.

        Raises :class:`~registry_sync.errors.ConfigurationError` and
        :class:`~registry_sync.errors.InvalidReference`.
        """
        return make_client(self._settings(), self.remote)

    def get_conn(self, headers: dict[Any, Any] | None = None, extra_options: dict[str, Any] | None = None) -> Session:
        """A requests session that authenticates as the client does; TLS, proxy and redirect policy are the client's."""
        # The options of the caller of run(); the connection's Extra is read elsewhere.
        self.merged_extra = dict(extra_options or {})
        if self._session_client is None:
            self._session_client = self.get_client()
        self.base_url = str(self._session_client.registry)
        self._base_url_initialized = True
        session = self._session_client.session()
        session.headers.update(headers or {})
        return session

    def run_and_check(self, session: Session, prepped_request: PreparedRequest, extra_options: dict[Any, Any]) -> Any:
        """As HttpHook, with the connection's timeouts if none are given."""
        options = self._session_client.options if self._session_client else None
        if options is not None and extra_options.get("timeout") is None:
            timeout = (options.connect_timeout_seconds, options.read_timeout_seconds)
            extra_options = {**extra_options, "timeout": timeout}
        return super().run_and_check(session, prepped_request, extra_options)

    def check_response(self, response: Response) -> None:
        """Raises the :class:`~registry_sync.errors.RegistryError` for the status; it keeps ``Retry-After``."""
        if response.status_code >= 400:
            from registry_sync.oci.http.session import error_of_response

            is_anonymous = self._session_client is not None and self._session_client.is_anonymous
            raise error_of_response(response, is_anonymous=is_anonymous)

    def url_from_endpoint(self, endpoint: str | None) -> str:
        """The URL of a path on the registry."""
        return f"{registry_of(self._settings(), self.remote)}/{(endpoint or '').lstrip('/')}"

    def test_connection(self) -> tuple[bool, str]:
        """Whether the registry responds and accepts the credentials, and a description."""
        try:
            settings = self._settings()
            if settings.registry is None and self.remote is None:
                return False, "The connection has no host, so there is no registry to test it with."
            with self.get_client() as client:
                ping = client.ping(None if self.remote is None else self.remote.upstream)
                found = [f"{client.registry} is a container registry"]
                options = client.options
        except NotARegistry as problem:
            return False, f"{problem}{_ONLY_REPOSITORIES if problem.status == 404 else ''}"
        except RegistrySyncError as problem:
            return False, str(problem)
        if ping.is_served:
            found.append(_who(settings, ping.is_authenticated, ping.auth_scheme))
        else:
            found.append("/v2/ is not served there, so the credentials were not tested")
        if ping.realm_host:
            service = f" for service {ping.service}" if ping.service else ""
            found.append(f"tokens come from {ping.realm_host}{service}")
        found.append(_tls(client.registry, options))
        offset = ping.clock_offset_seconds
        if offset is not None and abs(offset) > LARGEST_HARMLESS_CLOCK_OFFSET_SECONDS:
            found.append(f"its clock is {abs(offset):.0f} seconds {'ahead of' if offset > 0 else 'behind'} this one")
        return True, "; ".join(found) + "."

    def close(self) -> None:
        """Closes the sessions returned by :meth:`get_conn`."""
        if self._session_client is not None:
            self._session_client.close()
            self._session_client = None

    def _settings(self) -> RegistryConnection:
        """The values of the connection, read once."""
        if self._connection is None:
            self._connection = load_connection(self.registry_conn_id)
        return self._connection


def _who(settings: RegistryConnection, is_authenticated: bool, scheme: str) -> str:
    if scheme == "none":
        return "it requires no credentials at /v2/"
    if not is_authenticated and scheme == "basic":
        return (
            "WARNING: it requests basic authentication, and this connection reads anonymously; such a registry usually "
            "lets nothing be read without a user name and a password"
        )
    if not is_authenticated:
        return (
            f"WARNING: it requests {scheme} authentication, and this connection reads anonymously, so that it can read "
            "public repositories only"
        )
    if settings.credential_helper:
        return f"it accepts the password that {settings.credential_helper} created ({scheme} authentication)"
    login = settings.credentials.username
    return f"it accepts {scheme} authentication as {login!r}" if login else f"it accepts the {scheme} token"


def _tls(registry: RegistryUrl, options: ClientOptions) -> str:
    if registry.scheme == "http":
        return "the connection is not encrypted"
    if options.verify is False:
        return "its certificate is NOT verified"
    by = "the configured CA" if isinstance(options.verify, str) else "public CAs"
    return f"its certificate is verified by {by}"
