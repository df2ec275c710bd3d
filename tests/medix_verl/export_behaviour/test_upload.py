"""Uploads against a fake hub on the loopback interface: visibility, resuming, and a token that shows nowhere."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from typer.testing import CliRunner

from medix.errors import ExportError
from medix_verl.cli import app
from medix_verl.export.upload import push, refuse_what_cannot_be_pushed
from tests.medix_verl.export_behaviour.fake_hub import FakeHub

TOKEN = "hf_" + "S3cret" * 5
REPO = "someone/model"


def weights(name: str) -> bytes:
    """A safetensors file of one tensor, 2 x int32."""
    header = json.dumps({name: {"dtype": "I32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    return struct.pack("<Q", len(header)) + header + struct.pack("<2i", 1, 2)


def digest(*names: str) -> str:
    """Over each tensor's [name, dtype, shape] and bytes, as docs/export.md's `weights` proof says."""
    content = b"".join(json.dumps([name, "int32", [2]]).encode() + struct.pack("<2i", 1, 2) for name in names)
    return hashlib.sha256(content).hexdigest()


FILES = {
    "model-00001-of-00002.safetensors": weights("a"),
    "model-00002-of-00002.safetensors": weights("b"),
    "config.json": b"{}",
    "README.md": b"# card",
    "export.json": json.dumps({"weights": {"digest": digest("a", "b")}}).encode(),
}


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    fake = FakeHub()
    yield fake
    fake.close()


@pytest.fixture(autouse=True)
def client(monkeypatch: pytest.MonkeyPatch, hub: FakeHub) -> None:
    """The real client, pointed at the fake hub. Its own settings are read once, at import."""
    from huggingface_hub import constants

    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # its storage protocol is beyond a fake


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    folder = tmp_path / "my-model"
    folder.mkdir()
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    return folder


def test_a_repository_is_private_unless_public_is_asked_for(hub: FakeHub, exported: Path) -> None:
    pushed = push(exported, REPO, public=False)
    assert hub.private is True
    assert pushed.private is True
    assert hub.files == FILES
    assert hub.tokens == {TOKEN}  # it did come from the environment


def test_public_is_a_choice(hub: FakeHub, exported: Path) -> None:
    assert push(exported, REPO, public=True).private is False
    assert hub.private is False


def test_an_existing_public_repository_gets_nothing_without_public(hub: FakeHub, exported: Path) -> None:
    hub.private = False
    with pytest.raises(ExportError, match="a private repository someone/model; found one that exists and is public"):
        push(exported, REPO, public=False)
    assert hub.files == {}


def test_all_is_shown_in_one_commit(hub: FakeHub, exported: Path) -> None:
    push(exported, REPO, public=False)
    assert [sorted(names) for names in hub.commits] == [sorted(FILES)]


def test_a_failed_upload_shows_nothing_and_goes_on_where_it_ended(hub: FakeHub, exported: Path) -> None:
    hub.allowed_uploads = 1
    with pytest.raises(ExportError, match=r"medix export .*my-model --push someone/model` again") as failure:
        push(exported, REPO, public=False)
    assert hub.files == {}
    assert TOKEN not in str(failure.value)
    hub.allowed_uploads = 10
    seen: list[tuple[str, bool]] = []
    pushed = push(exported, REPO, public=False, sent=lambda name, kept: seen.append((name, kept)))
    assert len(hub.uploads) == 2  # each large file once, in all
    assert hub.files == FILES
    assert dict(seen) == dict.fromkeys(FILES, False)
    assert push(exported, REPO, public=False).kept == pushed.sent
    assert len(hub.commits) == 1


class TestASecondModel:
    """Another export under the name of an earlier one: never a mix of the two."""

    STALE: ClassVar = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]

    @pytest.fixture
    def second(self, tmp_path: Path) -> Path:
        """One weight file instead of two and their index, a template inside JSON instead of a file."""
        folder = tmp_path / "second"
        folder.mkdir()
        for name in ("model.safetensors", "config.json", "README.md", "export.json"):
            (folder / name).write_bytes(b"{ }")
        return folder

    def test_the_first_ones_files_go_in_the_same_commit(self, hub: FakeHub, exported: Path, second: Path) -> None:
        beside = ["adapter_config.json", "chat_template.jinja", "model.safetensors.index.json"]
        for name in beside:
            (exported / name).write_text("{}")
        push(exported, REPO, public=False)
        hub.files |= {"LICENSE": b"mine", "examples/tiny.safetensors": b"mine"}
        pushed = push(second, REPO, public=False)
        assert pushed.removed == sorted([*beside, *self.STALE])
        assert sorted(hub.files) == sorted(
            [*(path.name for path in second.iterdir()), "LICENSE", "examples/tiny.safetensors"]
        )
        assert len(hub.commits) == 2

    def test_one_that_fails_leaves_the_first_as_it_was(self, hub: FakeHub, exported: Path, tmp_path: Path) -> None:
        push(exported, REPO, public=False)
        for name in self.STALE:
            (exported / name).write_bytes(b"other " + name.encode())
        hub.allowed_uploads = len(hub.uploads) + 1
        with pytest.raises(ExportError):
            push(exported, REPO, public=False)
        assert hub.files == FILES


def test_a_changed_file_is_sent_again(hub: FakeHub, exported: Path) -> None:
    push(exported, REPO, public=False)
    (exported / "README.md").write_bytes(b"# Card")  # the same size
    assert push(exported, REPO, public=False).sent == ["README.md"]
    assert hub.files["README.md"] == b"# Card"


def test_a_hub_that_repeats_the_token_is_not_quoted(hub: FakeHub, exported: Path) -> None:
    hub.allowed_uploads, hub.echo_token = 0, True
    with pytest.raises(ExportError) as failure:
        push(exported, REPO, public=False)
    shown = "".join(traceback.format_exception(failure.value))
    assert "403" in str(failure.value)
    assert TOKEN not in shown
    assert failure.value.__cause__ is None


def test_an_unreachable_hub_is_one_message(monkeypatch: pytest.MonkeyPatch, exported: Path) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ExportError, match="the hub to take my-model as someone/model; found ConnectError"):
        push(exported, REPO, public=False)


@pytest.mark.parametrize("name", ["model", "a/b/c", "../secret", "a/..", "a b/c", "", "a/b--c", "a/" + "x" * 200])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ExportError, match="--push USER/REPO"):
        refuse_what_cannot_be_pushed(name)


def test_no_token_is_known_before_the_export(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(ExportError, match="a token of the hub, for --push; found none"):
        refuse_what_cannot_be_pushed(REPO)


def test_offline_is_known_before_the_export(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ExportError, match="unset HF_HUB_OFFLINE"):
        refuse_what_cannot_be_pushed(REPO)


def test_only_what_an_export_writes_is_sent(hub: FakeHub, exported: Path) -> None:
    """A remote of git may hold a token, and notes are nobody's business."""
    (exported / ".git").mkdir()
    for name in (".env", ".git/config", "notes.txt", "model.py", ".lock"):
        (exported / name).write_text("TOKEN=x")
    push(exported, REPO, public=False)
    assert hub.files == FILES


@pytest.mark.parametrize("name", ["README.md", "merges.txt", "model-00001-of-00002.safetensors"])
def test_a_link_is_not_followed(name: str, hub: FakeHub, exported: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hf_secret")
    (exported / name).unlink(missing_ok=True)
    (exported / name).symlink_to(tmp_path / "secret")
    with pytest.raises(ExportError, match=f"{name}, a link to"):
        push(exported, REPO, public=False)
    assert hub.private is None  # not even a repository


def medix(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    program = "from medix_verl.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=100,
    )


def test_a_dry_run_lists_and_asks_no_network(exported: Path) -> None:
    found = medix("export", str(exported), "--push", REPO, "--dry-run", HF_ENDPOINT="http://127.0.0.1:9", HF_TOKEN="")
    assert found.returncode == 0, found.stderr
    assert "visibility: private" in found.stdout
    for name, content in FILES.items():
        assert f"{len(content):>15,}  {name}" in found.stdout
    public = medix("export", str(exported), "--push", REPO, "--public", "--dry-run")
    assert "visibility: public" in public.stdout


@pytest.mark.slow
def test_the_token_is_in_no_output_of_the_command(hub: FakeHub, exported: Path) -> None:
    settings = {"HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0", "HF_HUB_VERBOSITY": "debug"}
    hub.allowed_uploads, hub.echo_token = 1, True
    failed = medix("export", str(exported), "--push", REPO, **settings)
    assert failed.returncode == 2
    hub.allowed_uploads = 10
    worked = medix("export", str(exported), "--push", REPO, **settings)
    assert worked.returncode == 0, worked.stderr
    assert f"{hub.url}/someone/model is private" in worked.stdout
    assert "sent  model-00001-of-00002.safetensors" in worked.stdout
    assert len(hub.uploads) == 2
    for output in (failed, worked):
        assert TOKEN not in output.stdout + output.stderr
    assert hub.files == FILES


CHANGED = {
    "another value": lambda data: data[:-1] + b"\1",
    "another name": lambda data: data.replace(b'"a"', b'"c"'),
    "cut off": lambda data: data[:20],
    "nothing": lambda data: b"",
}


@pytest.mark.parametrize("case", CHANGED)
def test_weights_that_changed_since_the_proof_are_not_pushed(case: str, hub: FakeHub, exported: Path) -> None:
    path = exported / "model-00001-of-00002.safetensors"
    path.write_bytes(CHANGED[case](FILES[path.name]))
    result = CliRunner().invoke(app, ["export", str(exported), "--push", REPO])
    assert isinstance(result.exception, ExportError)
    assert "export again" in result.exception.fix
    assert hub.private is None
