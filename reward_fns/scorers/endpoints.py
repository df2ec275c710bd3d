"""A pool of HTTP endpoints that speak JSON: any address, proxies, keys, the least-loaded choice, one error a fault."""

from __future__ import annotations

import base64
import email.utils
import json
import os
import ssl
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import unquote, urlsplit, urlunsplit

import aiohttp
import yarl

from medix.errors import ConfigError
from medix.options import Count, CountOrZero, NotNegative, Positive, Texts, check_options
from medix.secrets import mask_secrets
from reward_fns.clinical_rules.rule_judge import RULE_JUDGE_URL, RuleJudgeModel
from reward_fns.scorers.retry import CONTENT_STATUSES, EndpointError, FaultKind, RetryPolicy, Slots

_encode = json.JSONEncoder(ensure_ascii=False).encode
FILTER_WORDS = ("content_filter", "content filter", "content management", "content_policy", "moderation", "safety")
ServerName = Literal["auto", "vllm", "sglang", "ollama", "llama.cpp", "openai", "azure", "gemini", "mistral"]


@dataclass(frozen=True)
class EndpointOptions:
    """How to reach a service. Times are seconds."""

    urls: Texts = ()
    """Bases such as `http://host:8000` or `https://host/openai/v1?api-version=1`, or the full `.../chat/completions`. A
    base without a path gets `/v1`. Several serve the same model: the least loaded one is asked."""
    api_key_env: str = ""
    """Name of the environment variable that holds the key; the key itself is never configured or logged."""
    max_in_flight: Count = 256
    timeout_s: Positive = 60.0
    """For one try, from the first byte sent to the last received."""
    connect_timeout_s: Positive = 5.0
    retries: CountOrZero = 2
    """Further tries of a call whose failure is its own; see `medix.scorer.hold_limit_s` for an outage."""
    backoff_s: NotNegative = 0.5
    backoff_max_s: NotNegative = 30.0
    max_reply_bytes: Count = 1_048_576
    server: ServerName = "auto"
    """What kind of server it is: spares the calls that find out which parameters it takes."""
    api_key_header: str = ""
    """Header that carries the key; empty: the server kind's own (`api-key` for azure), else `Authorization: Bearer`."""
    headers: dict[str, str] = field(default_factory=dict)
    """Further request headers."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Further fields of the request body, e.g. {chat_template_kwargs: {enable_thinking: false}}; null omits one."""

    def retry_policy(self, name: str, address: str, hold_limit_s: float = 0.0) -> RetryPolicy:
        """Return a policy with these limits."""
        waits = (self.backoff_s, self.backoff_max_s)
        return RetryPolicy(name, address, self.retries, Slots(self.max_in_flight), waits, hold_limit_s)


@dataclass(frozen=True)
class EndpointReply:
    """The decoded JSON object, where it came from, and the seconds it took."""

    data: Mapping[str, Any]
    url: str
    latency_s: float


class Address:
    """One base URL: where to post, with which credentials, through which proxy, and what of it may be shown."""

    def __init__(self, text: str, where: str) -> None:
        try:
            parts = urlsplit(text)
            is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:  # a port that is no number
            is_address = False
        if not is_address or not (text.isascii() and text.isprintable()) or " " in text:
            raise ConfigError(
                f"{mask_secrets(text)!r} in {where}.urls is no address.",
                "Write it as http://HOST:PORT or https://HOST/PATH, and what is outside ASCII in its %-encoded form.",
            )
        user, _, self.host = parts.netloc.rpartition("@")
        path = parts.path.rstrip("/").removesuffix("/chat/completions").removesuffix("/embeddings")
        self._parts = parts._replace(netloc=self.host, path=path or "/v1", fragment="")
        self.shown = mask_secrets(urlunsplit(self._parts))
        self.authorization = f"Basic {base64.b64encode(unquote(user).encode()).decode()}" if user else ""
        # Not aiohttp's `trust_env`: it would also send what ~/.netrc has for the host in place of the configured key.
        is_direct = urllib.request.proxy_bypass(self.host)
        self.proxy = None if is_direct else urllib.request.getproxies().get(parts.scheme)

    def join(self, path: str) -> yarl.URL:
        """Return the URL of `chat/completions` or `embeddings` below this base, its query kept."""
        return yarl.URL(urlunsplit(self._parts._replace(path=f"{self._parts.path}/{path}")), encoded=True)


class EndpointPool:
    """Sends one request at a time to the endpoint with the least load. Use from one event loop; close it at the end.

    Raises:
        ConfigError: no URL or a wrong one, a number out of its range, or a key that is not set or can not be one.
    """

    COOLING_S = 5.0
    """How long an endpoint that failed is passed over while others are there: one that fails at once looks idle."""

    def __init__(self, options: EndpointOptions, where: str = "medix.scorer.judge", key_header: str = "") -> None:
        if not options.urls:
            raise ConfigError(f"There is no address in {where}.urls.", f"Set {where}.urls=[http://HOST:PORT].")
        check_options(options, where)
        self.options, self._where = options, where
        self._addresses = {url: Address(url, where) for url in options.urls if url != RULE_JUDGE_URL}
        self.shown = ", ".join(address.shown for address in self._addresses.values()) or RULE_JUDGE_URL
        self._load = dict.fromkeys(options.urls, 0)
        self._cold_until = dict.fromkeys(options.urls, 0.0)
        self._has_answered: set[str] = set()
        self._key = self._read_key()
        self._headers = {"Content-Type": "application/json", **options.headers}
        if self._key:
            name = options.api_key_header or key_header or "Authorization"
            self._headers[name] = f"Bearer {self._key}" if name.lower() == "authorization" else self._key
        self._session: aiohttp.ClientSession | None = None

    def _read_key(self) -> str:
        name = self.options.api_key_env
        key = os.environ.get(name, "").strip()  # a key read from a file brings its line end
        if name and not (key and key.isascii() and key.isprintable()):
            problem = f"The environment variable {name} holds no key, or one with characters that no header can have."
            raise ConfigError(problem, f"export {name}=... on one line.")
        return key

    async def post(self, path: str, payload: Mapping[str, Any], left_s: float = float("inf")) -> EndpointReply:
        """POST JSON once, get a JSON object.

        Args:
            path: `chat/completions` or `embeddings`.
            left_s: seconds that the caller has left; the try ends at these, but gets one, or at `timeout_s`.

        Raises:
            EndpointError: anything else came of it.
        """
        now = time.monotonic()
        url = min(self._load, key=lambda url: (self._cold_until[url] > now, self._load[url]))
        self._load[url] += 1
        try:
            data = await self._exchange(url, path, payload, min(self.options.timeout_s, max(left_s, 1.0)))
        except EndpointError as error:
            if error.status not in CONTENT_STATUSES:
                self._cold_until[url] = time.monotonic() + max(self.COOLING_S, error.retry_after_s)
            error.is_after_answers = bool(self._has_answered)
            # Before its first answer a refusal or a wrong certificate is the set-up, later it is an outage like any.
            error.final = error.kind in ("filtered", "oversized") or error.status in CONTENT_STATUSES
            error.final |= error.kind in ("refused", "setup") and url not in self._has_answered
            raise
        finally:
            self._load[url] -= 1
        self._has_answered.add(url)
        shown = self._addresses[url].shown if url in self._addresses else url
        return EndpointReply(data, shown, time.monotonic() - now)

    async def _exchange(self, url: str, path: str, payload: Mapping[str, Any], timeout_s: float) -> Mapping[str, Any]:
        headers: Mapping[str, str] = {}
        if url == RULE_JUDGE_URL:
            shown = url
            status, answer = RuleJudgeModel().complete(payload)
            body = _encode(answer).encode()
        else:
            address = self._addresses[url]
            shown = f"{address.shown.partition('?')[0]}/{path}"
            try:
                status, headers, body = await self._send(address, address.join(path), payload, timeout_s)
            except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
                raise self._transport_fault(error, shown, address) from error
        if status != 200:
            raise self._status_fault(shown, status, headers, body)
        return self._decode(body, shown)

    async def _send(
        self, address: Address, target: yarl.URL, payload: Mapping[str, Any], timeout_s: float
    ) -> tuple[int, Mapping[str, str], bytes]:
        o = self.options
        if self._session is None:
            # Servers close idle connections after 5 s (uvicorn's default); a client that does it first loses no call.
            secure = any(url.startswith("https:") for url in self._addresses)
            tls = ssl.create_default_context() if secure else True  # which takes a while to make
            connector = aiohttp.TCPConnector(limit=0, ssl=tls, keepalive_timeout=4)
            jar = aiohttp.DummyCookieJar()
            self._session = aiohttp.ClientSession(connector=connector, headers=self._headers, cookie_jar=jar)
        body = _encode(payload).encode(errors="replace")  # a lone surrogate is no UTF-8
        headers = {"Authorization": address.authorization} if address.authorization else None
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=o.connect_timeout_s)
        asking = self._session.post(
            target, data=body, headers=headers, timeout=timeout, proxy=address.proxy, allow_redirects=False
        )
        async with asking as reply:
            read = bytearray()
            async for part in reply.content.iter_any():
                read += part
                if len(read) > o.max_reply_bytes:
                    problem = f"The reply of {address.shown} is longer than {o.max_reply_bytes} bytes."
                    raise EndpointError(problem, f"Raise {self._where}.max_reply_bytes if it is meant.", "oversized")
            return reply.status, reply.headers, bytes(read)

    def _transport_fault(self, error: Exception, shown: str, address: Address) -> EndpointError:
        said = f"{mask_secrets(str(error) or type(error).__name__):.300}"
        kind: FaultKind = "connect"
        problem = f"There is no connection to {shown}: {said}."
        fix = f"Check that the server is up ({self._where}.urls)."
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            kind, problem = "setup", f"The certificate of {shown} is not valid here: {said}."
            fix = "Set SSL_CERT_FILE to the file of your site's certificate authority, or use the certificate's name."
        elif isinstance(error, aiohttp.ClientSSLError):
            kind, fix = "setup", f"Write http:// in {self._where}.urls if the server speaks no TLS."
        elif isinstance(error, aiohttp.ClientConnectorDNSError):
            kind, problem = "setup", f"The host of {shown} is not known here: {said}."
            fix = f"Correct the host in {self._where}.urls, or the machine's DNS; behind a proxy set HTTPS_PROXY."
        elif isinstance(error, (aiohttp.ClientProxyConnectionError, aiohttp.ClientHttpProxyError)):
            kind = "setup" if getattr(error, "status", 0) in (401, 403, 407) else "connect"
            problem = f"The proxy {mask_secrets(str(address.proxy))} gives no way to {shown}: {said}."
            fix = "Correct HTTP_PROXY or HTTPS_PROXY, or name the host in NO_PROXY."
        elif isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ConnectionTimeoutError):
            kind, problem = "timeout", f"There is no reply from {shown} in time."
        elif not isinstance(error, (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, OSError)):
            kind, problem = "malformed", f"What came from {shown} is no HTTP reply: {said}."
        return EndpointError(problem, fix, kind)

    def _status_fault(self, shown: str, status: int, headers: Mapping[str, str], body: bytes) -> EndpointError:
        said = body[:300].decode(errors="replace")
        said = mask_secrets(said.replace(self._key, "***") if self._key else said)
        after = _retry_after(headers)
        kind: FaultKind = "refused"
        if status in (429, 529) or (status == 503 and after):
            kind = "busy"
        elif status >= 500 or status == 408:
            kind = "server"
        elif status in (*CONTENT_STATUSES, 403) and any(word in said.lower() for word in FILTER_WORDS):
            kind = "filtered"
        fix = f"See the log of {shown}."
        if status in (401, 403):
            fix = f"Check the key in ${self.options.api_key_env or f'the variable named by {self._where}.api_key_env'}."
        elif status == 404:
            fix = f"Check {self._where}.urls and the model's name."
        elif 300 <= status < 400:
            location = mask_secrets(headers.get("Location", "nowhere"))
            fix = f"It points to {location}: write the final address in {self._where}.urls."
        found = f"HTTP {status}: {said!r}"
        problem = f"POST {shown} was answered by {found}."
        return EndpointError(problem, fix, kind, status=status, retry_after_s=after, found=found)

    def _decode(self, raw: bytes, shown: str) -> Mapping[str, Any]:
        fix = f"Check that {self._where}.urls is an OpenAI-compatible server."
        try:
            data = json.loads(raw)
        except (ValueError, RecursionError):
            problem = f"The reply of {shown} is not JSON: {mask_secrets(repr(raw[:120]))}."
            raise EndpointError(problem, fix, "malformed") from None
        if not isinstance(data, dict):
            raise EndpointError(f"The reply of {shown} is a JSON {type(data).__name__}, no object.", fix, "malformed")
        error = data.get("error")
        if error and not data.get("choices") and not data.get("data"):  # some gateways send every error with HTTP 200
            code = error.get("code") if isinstance(error, Mapping) else 0
            status = code if isinstance(code, int) and 400 <= code < 600 else 500
            raise self._status_fault(shown, status, {}, raw)
        return data

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None


def _retry_after(headers: Mapping[str, str]) -> float:
    """Return the seconds that a server asks to wait, given as a number or as a date; 0 where it asks for none."""
    text = headers.get("Retry-After", "")
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(text).timestamp() - time.time()
        except (ValueError, OverflowError):
            return 0.0
    return seconds if 0 < seconds < 86_400 else 0.0
