"""Any address, by any proxy and certificate. Wrong settings, and what can not be reached, are told at the start."""

from __future__ import annotations

import asyncio
import base64
import math
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from medix.errors import ConfigError, ScorerError
from reward_fns.scorers.endpoints import Address, EndpointOptions, EndpointPool
from reward_fns.scorers.retry import EndpointError
from reward_fns.scorers.service import ScorerService
from tests.reward_fns.scorers.conftest import FakeJudge, ask


@pytest.mark.parametrize(
    ("base", "asked"),
    [
        ("http://h:8000", "http://h:8000/v1/chat/completions"), ("http://h/", "http://h/v1/chat/completions"),
        ("http://h/v1", "http://h/v1/chat/completions"), ("http://h/api/v1//", "http://h/api/v1/chat/completions"),
        ("https://h/v1beta/openai/", "https://h/v1beta/openai/chat/completions"),
        ("https://h/openai/v1?api-version=preview", "https://h/openai/v1/chat/completions?api-version=preview"),
        (
            "https://h/openai/deployments/d/chat/completions?api-version=2024-10-21",
            "https://h/openai/deployments/d/chat/completions?api-version=2024-10-21",
        ),
        ("http://[::1]:8000", "http://[::1]:8000/v1/chat/completions"), ("http://h/a%20b", "http://h/a%20b/chat/completions"),
        ("http://me:p%40ss@h/v1", "http://h/v1/chat/completions"),
    ],
)  # fmt: skip
def test_a_base_in_any_form_gives_the_url_to_ask(base: str, asked: str) -> None:
    address = Address(base, "medix.scorer.judge")
    assert str(address.join("chat/completions")) == asked
    assert address.authorization == ("Basic " + base64.b64encode(b"me:p@ss").decode() if "@h" in base else "")
    assert "p%40ss" not in address.shown


@pytest.mark.parametrize(
    "url",
    ["http://", "http://h:99999", "http://h:port", "http://h:0", "h:80", "ftp://h", "http://h\r\nX: y", "http://a b",
     "http://h/löss/v1", "http://me:s3cret@h:port"],
)  # fmt: skip
def test_an_address_that_is_none_fails_at_the_start(url: str) -> None:
    with pytest.raises(ConfigError, match=r"medix\.scorer\.judge\.urls") as refused:
        EndpointPool(EndpointOptions(urls=("http://fine:80/v1", url)))
    assert "s3cret" not in str(refused.value)


async def one_verdict(service: ScorerService) -> bool:
    try:
        return (await asyncio.wait_for(service.judge(ask(0)), 10)).correct
    finally:
        await service.aclose()


async def refusal(url: str, fast: Any, **judge: Any) -> str:
    """What is said at the start, where the hold limit would be an hour."""
    service = ScorerService({**fast(url, **judge), "hold_limit_s": 3600})
    with pytest.raises(ScorerError) as fault:
        await one_verdict(service)
    return str(fault.value)


async def test_user_password_and_key_are_used_and_never_printed_also_where_the_server_echoes_them(
    fake_judge: Any, fast: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = fake_judge.url.replace("http://", "http://me:s3cret@")
    assert await one_verdict(ScorerService(fast(url)))
    basic = base64.b64encode(b"me:s3cret").decode()
    assert fake_judge.headers[0]["Authorization"] == f"Basic {basic}"

    async def echo(judge: Any, request: web.Request) -> web.Response:
        return web.Response(status=401, text=str(dict(request.headers)))

    monkeypatch.setenv("VARIABLE", "abc-def-ghi-jkl")
    fake_judge.behaviour = echo
    said = await refusal(url, fast, headers={"X-Api-Key": "k3y-of-ours"})
    said += await refusal(fake_judge.url, fast, api_key_env="VARIABLE", api_key_header="x-mine")
    assert not [secret for secret in ("s3cret", basic, "abc-def-ghi-jkl") if secret in said]
    assert "Check the key in $VARIABLE" in said


async def test_a_404_shows_the_url_and_a_redirect_where_it_points(fake_judge: Any, fast: Any) -> None:
    said = await refusal(f"{fake_judge.url}/nowhere?api-version=1", fast)
    assert f"POST {fake_judge.url}/nowhere/chat/completions was answered by HTTP 404" in said

    async def moved(judge: Any, request: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": "https://elsewhere/v1"})

    fake_judge.behaviour = moved
    assert "It points to https://elsewhere/v1" in await refusal(fake_judge.url, fast)


@pytest.mark.parametrize("url", ["http://no-such-host.invalid:80", "http://no-such-host.invalid/v1"])
async def test_a_host_that_is_not_known_fails_at_the_start(url: str, fast: Any) -> None:
    assert "is not known here" in await refusal(url, fast)


class Proxy:
    """A real forward proxy for plain HTTP and CONNECT, which notes what it was asked for."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, target, _ = head.split("\r\n")[0].split(" ")
        self.seen.append(f"{method} {target}")
        host, port = (target if method == "CONNECT" else target.split("/")[2]).split(":")
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", int(port))
        if method == "CONNECT":
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            up_writer.write(head.replace(f"http://{host}:{port}", "", 1).encode())
        await asyncio.gather(self.pipe(reader, up_writer), self.pipe(up_reader, writer))

    @staticmethod
    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    running = Proxy()
    server = await asyncio.start_server(running.serve, "127.0.0.1", 0)
    running.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield running
    server.close()


async def test_a_proxy_is_used_by_the_usual_variables_and_not_for_what_no_proxy_names(
    proxy: Proxy, fake_judge: Any, fast: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`judge.internal` exists for the proxy alone, so that an answer came through it."""
    monkeypatch.setenv("http_proxy", proxy.url)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    port = fake_judge.url.rpartition(":")[2]
    assert await one_verdict(ScorerService(fast(f"http://judge.internal:{port}")))
    assert proxy.seen == [f"POST http://judge.internal:{port}/v1/chat/completions"]
    assert await one_verdict(ScorerService(fast(fake_judge.url)))
    assert len(proxy.seen) == 1
    monkeypatch.setenv("http_proxy", "http://me:s3cret@127.0.0.1:9")
    said = ""
    try:
        await one_verdict(ScorerService(fast(f"http://judge.internal:{port}")))
    except ScorerError as error:
        said = str(error)
    assert "Correct HTTP_PROXY" in said
    assert "s3cret" not in said


def certificate(folder: Path, *names: str) -> ssl.SSLContext:
    """A self-signed certificate for these names, its PEM in `folder`/ca.pem."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, names[0])])
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(each) for each in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    (folder / "ca.pem").write_bytes(built.public_bytes(serialization.Encoding.PEM))
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(*form))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "ca.pem", folder / "key.pem")
    return context


async def test_certificates_are_checked_at_the_start_and_ssl_cert_file_adds_a_sites_own(
    proxy: Proxy, fast: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = FakeJudge()
    judge.tls = certificate(tmp_path, "localhost", "judge.internal")
    await judge.start()
    port = judge.url.rpartition(":")[2]
    assert "Set SSL_CERT_FILE" in await refusal(f"https://localhost:{port}", fast)
    plain = await plain_server()
    assert "Write http://" in await refusal(f"https://{plain[1]}", fast)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    assert await one_verdict(ScorerService(fast(f"https://localhost:{port}")))
    assert "Set SSL_CERT_FILE" in await refusal(f"https://127.0.0.1:{port}", fast)  # a name that is not in it
    monkeypatch.setenv("https_proxy", proxy.url)
    assert await one_verdict(ScorerService(fast(f"https://judge.internal:{port}")))
    assert proxy.seen == [f"CONNECT judge.internal:{port}"]
    await judge.stop()
    await plain[0].cleanup()


async def plain_server() -> tuple[web.AppRunner, str]:
    runner = web.AppRunner(web.Application())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner, f"127.0.0.1:{runner.addresses[0][1]}"


async def test_what_is_no_http_has_its_own_words_and_bounded_memory() -> None:
    async def garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: %s\r\n" % (n, b"x" * 4000) for n in range(5000)))
        writer.close()

    server = await asyncio.start_server(garbage, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    pool = EndpointPool(EndpointOptions(urls=(f"http://127.0.0.1:{port}",)))
    with pytest.raises(EndpointError, match=r"no HTTP reply|broke off|no connection") as fault:
        await pool.post("chat/completions", {})
    await pool.aclose()
    server.close()
    assert len(str(fault.value)) < 1000


async def test_headers_of_a_request_are_the_configured_ones(
    fake_judge: Any, fast: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VARIABLE", "k")
    options = {"api_key_env": "VARIABLE", "server": "azure", "headers": {"X-Team": "radiology"}}
    assert await one_verdict(ScorerService(fast(fake_judge.url, **options)))
    assert fake_judge.headers[0]["api-key"] == "k"
    assert fake_judge.headers[0]["X-Team"] == "radiology"
    assert "Authorization" not in fake_judge.headers[0]


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"judge": {"urls": []}}, "medix.scorer.judge.urls"),
        ({"judge": {"urls": ["localhost:1"]}}, "http"),
        ({"judge": {"urls": ["http://h"], "api_key_env": "NO_SUCH_VARIABLE"}}, "NO_SUCH_VARIABLE"),
        ({"judge": {"urls": ["http://h"], "promt": "x"}}, "[Dd]id you mean 'prompt'"),
        ({"judge": {"urls": ["http://h"], "timeout_s": "soon"}}, "timeout_s"),
        ({"judge": {"urls": ["http://h"], "timeout_s": math.inf}}, "timeout_s"),
        ({"judge": {"urls": ["http://h"], "prompt": "/none.txt"}}, "/none.txt"),
        ({"judge": {"urls": ["http://h"]}, "cahce": {}}, "[Dd]id you mean 'cache'"),
    ],
)
def test_a_wrong_setting_fails_at_the_start(config: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        ScorerService(config).open(("judge",))


@pytest.mark.parametrize(
    ("part", "wrong"),
    [
        ("judge", {"timeout_s": -1}), ("judge", {"retries": -1}), ("judge", {"backoff_s": -0.5}),
        ("judge", {"max_in_flight": 0}), ("judge", {"max_reply_bytes": 0}), ("judge", {"max_field_chars": 0}),
        ("judge", {"max_tokens": 0}), ("judge", {"temperature": -5}), ("judge", {"top_logprobs": -1}),
        ("judge", {"server": "claude"}), ("embedder", {"batch_size": 0}), ("embedder", {"threads": -1}),
        ("cache", {"max_entries": -5}),
    ],
)  # fmt: skip
def test_a_value_out_of_its_range_fails_at_the_start(part: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"medix\.scorer\.{part}\.{next(iter(wrong))}"):
        ScorerService({part: wrong})


def test_options_that_were_not_read_from_a_mapping_are_held_to_the_ranges_too() -> None:
    with pytest.raises(ConfigError, match=r"--model-url\.retries"):
        EndpointPool(EndpointOptions(urls=("http://h",), retries=-1), "--model-url")


@pytest.mark.parametrize("key", ["two\nlines", "a\x00b", "schlüssel"])
def test_a_key_that_would_break_the_request_is_refused_without_being_shown(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.environ", {"JUDGE_KEY": key})  # the real environment takes no NUL
    with pytest.raises(ConfigError, match="JUDGE_KEY") as refused:
        EndpointPool(EndpointOptions(urls=("http://h",), api_key_env="JUDGE_KEY"))
    assert key not in str(refused.value)
