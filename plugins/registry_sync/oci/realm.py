"""Where tokens may be asked for, and who may be given the credentials on that occasion.

A challenge is written by the registry, or by whoever took it over: it must not be able to send a stored password to a
host of its choice (CVE-2020-15157 and its many relatives).
"""

from __future__ import annotations

from registry_sync.errors import RealmRefused
from registry_sync.oci.origins import Origin, Target

#: Public registries whose token service has another host, known to belong to them.
KNOWN_REALMS = {
    "registry-1.docker.io": frozenset({"auth.docker.io"}),
    "registry.gitlab.com": frozenset({"gitlab.com"}),
}


class RealmPolicy:
    """The policy of one registry, ``own``; ``trusted_hosts`` are exact ``host`` or ``host:port`` of its connection."""

    def __init__(self, own: Origin, trusted_hosts: frozenset[str], *, allow_insecure: bool) -> None:
        self._own = own
        self._trusted = trusted_hosts | KNOWN_REALMS.get(own.netloc, frozenset())
        self._allow_insecure = allow_insecure

    def check(self, realm: str, asked_at: Target, *, has_secret: bool) -> Target:
        """The token service that ``realm`` names. Raises :class:`RealmRefused`.

        A relative realm is resolved against the request, and must then be the registry itself.
        """
        if "#" in realm:
            raise self._refusal(realm, "it has a fragment")
        is_relative = "://" not in realm
        try:
            target = Target.parse(realm, relative_to=asked_at)
        except ValueError as problem:
            raise self._refusal(realm, str(problem)) from None
        if is_relative and target.origin != self._own:
            raise self._refusal(realm, "it is relative and leaves the registry")
        if target.origin.scheme == "http" and self._own.scheme != "http":
            raise self._refusal(
                realm, "it is plain http while the registry is https; its operator must set an https realm"
            )
        if has_secret:
            self._check_secret(target)
        return target

    def check_basic(self) -> None:
        """Whether a password may go to the registry itself. Raises :class:`RealmRefused`."""
        if self._own.scheme == "http" and not self._allow_insecure:
            raise RealmRefused(
                f"{self._own.netloc} asks for a password over plain http; use https, or set "
                "allow_insecure_credentials on the connection if this network is trusted",
                host=self._own.netloc,
            )

    def _check_secret(self, target: Target) -> None:
        origin = target.origin
        if origin.scheme == "http" and not self._allow_insecure:
            raise self._refusal(
                target.url,
                "credentials would travel over plain http; use https, or set allow_insecure_credentials on the "
                "connection if this network is trusted",
            )
        if origin != self._own and not origin.is_named_by(self._trusted):
            raise self._refusal(
                target.url,
                f"the credentials are for the registry; if {origin.netloc} belongs to it, add it to "
                "trusted_realm_hosts of the connection",
            )

    def _refusal(self, realm: str, reason: str) -> RealmRefused:
        try:
            shown = Target.parse(realm).origin.netloc
        except ValueError:
            shown = "a realm that is no URL"
        return RealmRefused(
            f"{self._own.netloc} sends to {shown} for a token, and that is refused: {reason}", host=self._own.netloc
        )
