"""Answers to challenges: basic credentials and bearer tokens, kept as long as they are good.

One `Authorizer` serves one conversation: one registry, one user. Tokens never outlive it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from urllib.parse import urlencode

from tare.base.errors import Unauthorized
from tare.registry import hosts
from tare.registry.challenge import Challenge, Refusal, Token, merge_scopes, parse_challenges, parse_token, refusal
from tare.registry.credentials import Credentials
from tare.registry.hosts import Endpoint
from tare.registry.transport import Answer, Transport, shown

_CLIENT = "docker"  # token servers know their clients by name, and this one is known to all
_MARGIN_S = 10
_MAX_ANSWER = 1024 * 1024


class Authorizer:
    """Which Authorization header goes with a request. `header` before it, `accept` when it was answered by 401."""

    def __init__(
        self, transport: Transport, credentials: Credentials, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._transport = transport
        self._credentials = credentials
        self._clock = clock
        self._headers: dict[tuple[str, str], tuple[str, float]] = {}
        self.refresh_token = ""

    def __repr__(self) -> str:
        return f"Authorizer({self._credentials!r})"

    def header(self, endpoint: Endpoint, scope: str) -> str:
        """What to send at once; "" for nothing known. scope: what the request needs, the key of what is kept."""
        if endpoint.is_mirror:
            return ""
        if self._credentials.registry_token:
            return f"Bearer {self._credentials.registry_token}"
        text, until = self._headers.get((endpoint.base, scope), ("", 0.0))
        return text if self._clock() < until else ""

    async def accept(self, answer: Answer, endpoint: Endpoint, scope: str, *, used: str) -> str:
        """The header to repeat the request with, after a 401. used: the header that was refused, "" for none.

        Raises Unauthorized when there is nothing (more) to offer, with the registry's own words.
        """
        body = await answer.read(_MAX_ANSWER)
        words = refusal(401, body, what=shown(answer.url)).message
        self._headers.pop((endpoint.base, scope), None)
        if self._credentials.registry_token and not endpoint.is_mirror:
            raise Unauthorized(words)
        for challenge in parse_challenges(answer.challenges()):
            if challenge.scheme == "bearer" and "realm" in challenge.params:
                token = await self._token(challenge, endpoint, scope)
                header = f"Bearer {token.text}"
                if header == used:
                    break
                self._headers[endpoint.base, scope] = (header, self._clock() + max(token.life_s - _MARGIN_S, 1))
                return header
            if challenge.scheme == "basic" and not endpoint.is_mirror:
                if not self._credentials.username or self._credentials.basic() == used:
                    break
                self._headers[endpoint.base, scope] = (self._credentials.basic(), float("inf"))
                return self._credentials.basic()
        raise Unauthorized(words)

    async def _token(self, challenge: Challenge, endpoint: Endpoint, scope: str) -> Token:
        realm = challenge.params["realm"]
        credentials = Credentials() if endpoint.is_mirror else self._credentials
        if not hosts.may_authenticate(endpoint, realm, self._transport.options):
            raise Unauthorized(
                f"{endpoint.host} wants credentials to be sent to {shown(realm)}: refused",
                hint="name that host with --trusted-realm if it is the registry's",
            )
        service = challenge.params.get("service", "")
        scopes = merge_scopes(challenge.params.get("scope", ""), scope)
        if credentials.identity_token:
            form = {"grant_type": "refresh_token", "service": service, "client_id": _CLIENT, "scope": scopes}
            return await self._post(realm, endpoint, {**form, "refresh_token": credentials.identity_token})
        return await self._get(realm, endpoint, service, scopes, credentials)

    async def _get(self, realm: str, endpoint: Endpoint, service: str, scopes: str, credentials: Credentials) -> Token:
        query = [("service", service)] if service else []
        query += [("scope", scope) for scope in scopes.split()]
        headers = {}
        if credentials.has_secret:
            query += [("account", credentials.username), ("client_id", _CLIENT), ("offline_token", "true")]
            headers["Authorization"] = credentials.basic()
        url = realm + ("&" if "?" in realm else "?") + urlencode(query) if query else realm
        # The token server is an origin of its own: the header is meant for it.
        async with self._transport.send("GET", url, endpoint=_at(realm, endpoint), headers=headers) as answer:
            return self._kept(await self._checked(answer))

    async def _post(self, realm: str, endpoint: Endpoint, form: dict[str, str]) -> Token:
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        body = urlencode(form).encode()
        async with self._transport.send(
            "POST", realm, endpoint=_at(realm, endpoint), headers=headers, body=body
        ) as answer:
            return self._kept(await self._checked(answer))

    def _kept(self, token: Token) -> Token:
        self.refresh_token = token.refresh or self.refresh_token
        return token

    @staticmethod
    async def _checked(answer: Answer) -> Token:
        body = await answer.read(_MAX_ANSWER)
        if answer.status in (401, 403):
            raise Unauthorized(_words(refusal(answer.status, body, what=shown(answer.url))))
        if answer.status != 200:
            raise refusal(answer.status, body, what=f"token server {shown(answer.url)}")
        token = parse_token(body)
        if token is None:
            raise Refusal(f"token server {shown(answer.url)}: no token in its answer", status=502)
        return token


def _words(error: Refusal) -> str:
    return error.message if error.message.startswith("unauthorized") else f"unauthorized: {error.message}"


def _at(realm: str, endpoint: Endpoint) -> Endpoint:
    """The token server as an endpoint with the registry's terms."""
    scheme, _, rest = realm.partition("://")
    host = rest.partition("/")[0].partition("?")[0]
    is_verified = endpoint.is_verified or host != endpoint.host
    if not endpoint.is_verified and hosts.host_name(host) == hosts.host_name(endpoint.host):
        is_verified = False
    return Endpoint(scheme=scheme, host=host, is_verified=is_verified)


def scope_of(path: str, *, push: bool) -> str:
    """The scope of work on a repository."""
    return f"repository:{path}:{'pull,push' if push else 'pull'}"


def scopes_of(paths: Sequence[str]) -> str:
    """The scope of reading several repositories."""
    return merge_scopes(*(scope_of(path, push=False) for path in paths))


__all__ = ["Authorizer", "scope_of", "scopes_of"]
