"""Signatures of versions: what each kind of tampering is called, and that serve-repo starts on none of it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from serving import cli, signatures, terminal
from serving.errors import MissingDependencyError, SignatureError, SignaturesError, UsageError
from serving.signatures import SIGNATURE, sign_version, verify_repository, verify_version

crypto: Any = pytest.importorskip("cryptography.hazmat.primitives.asymmetric")


@dataclass(frozen=True)
class Keys:
    private: Path
    public: Path


def make_keys(folder: Path, name: str = "signing", key: Any = None, password: bytes | None = None) -> Keys:
    from cryptography.hazmat.primitives import serialization as s
    from cryptography.hazmat.primitives.asymmetric import ec

    key = key or ec.generate_private_key(ec.SECP256R1())
    keys = Keys(folder / f"{name}.key", folder / f"{name}.pub")
    locked = s.BestAvailableEncryption(password) if password else s.NoEncryption()
    keys.private.write_bytes(key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, locked))
    keys.public.write_bytes(key.public_key().public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo))
    return keys


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return make_keys(tmp_path_factory.mktemp("keys"))


def write_version(model: Path, number: int) -> Path:
    """A version folder as build-repo lays it out."""
    version = model / str(number)
    version.mkdir(parents=True)
    (version / "model.onnx").write_bytes(b"weights %d" % number)
    (version / "labels.txt").write_text("a\nb\n")
    (version / "config.pbtxt").write_text(f"# pinned to {number}\n")
    (version / "manifest.json").write_text(json.dumps({"model": model.name, "version": number}))
    shutil.copy(version / "config.pbtxt", model / "config.pbtxt")
    return version


@pytest.fixture
def repository(tmp_path: Path, keys: Keys) -> Path:
    """Two models, of which ``a`` has two versions and serves the older; all of it signed."""
    folder = tmp_path / "repository"
    for name, number in (("a", 1), ("a", 2), ("b", 1)):
        sign_version(write_version(folder / name, number), keys.private)
    shutil.copy(folder / "a/1/config.pbtxt", folder / "a/config.pbtxt")
    return folder


def test_what_was_signed_is_accepted(repository: Path, keys: Keys) -> None:
    verify_version(repository / "a/2", keys.public)
    assert verify_repository(repository, keys.public) == 3


def test_a_version_is_signed_in_staging_and_moved(tmp_path: Path, keys: Keys) -> None:
    staged = write_version(tmp_path / "m", 7)
    signature = sign_version(staged.rename(tmp_path / "staged"), keys.private)
    assert signature == tmp_path / "staged" / SIGNATURE
    (tmp_path / "staged").rename(tmp_path / "m/7")
    verify_version(tmp_path / "m/7", keys.public)


@pytest.mark.parametrize("curve", ["SECP384R1", "SECP521R1"])
def test_longer_curves(tmp_path: Path, curve: str) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec

    keys = make_keys(tmp_path, key=ec.generate_private_key(getattr(ec, curve)()))
    version = write_version(tmp_path / "m", 1)
    sign_version(version, keys.private)
    verify_version(version, keys.public)


def _write(name: str) -> Callable[[Path], object]:
    return lambda version: (version / name).write_text("other")


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (_write("model.onnx"), r"not those that were signed\n.*\n  got: +model\.onnx was changed"),
        (_write("config.pbtxt"), r"config\.pbtxt was changed"),
        (_write("manifest.json"), r"manifest\.json was changed"),
        (_write("model.py"), r"model\.py was added"),
        (_write(".gitignore"), r"\.gitignore was added"),
        (lambda version: (version / "labels.txt").unlink(), r"labels\.txt is gone"),
        (lambda version: (version / SIGNATURE).unlink(), r"not signed\n.*\n.*model\.sig.*\n  fix: .*--sign KEY"),
        (lambda version: (version / SIGNATURE).write_text("{"), "signature cannot be read"),
        (lambda version: (version / SIGNATURE).write_text("{}"), "signature cannot be read"),
        (lambda version: (version / "link").symlink_to("model.onnx"), r"symbolic link(?s:.*)fix: .*remove the link"),
    ],
)
def test_what_was_done_to_a_version(
    repository: Path, keys: Keys, tamper: Callable[[Path], object], message: str
) -> None:
    tamper(repository / "a/2")
    with pytest.raises(SignatureError, match=message) as caught:
        verify_version(repository / "a/2", keys.public)
    assert str(repository / "a/2") in str(caught.value)
    assert caught.value.exit_code == 1


def test_every_change_is_named(repository: Path, keys: Keys) -> None:
    version = repository / "a/2"
    for name in ("model.onnx", "config.pbtxt", "one", "two"):
        _write(name)(version)
    (version / "labels.txt").unlink()
    with pytest.raises(SignatureError) as caught:
        verify_version(version, keys.public)
    assert caught.value.got.splitlines() == [
        "config.pbtxt was changed",
        "labels.txt is gone",
        "model.onnx was changed",
        "one was added",
        "two was added",
    ]


def test_another_key(repository: Path, tmp_path: Path) -> None:
    other = make_keys(tmp_path, "other")
    with pytest.raises(SignatureError, match=r"made with another key\n(?s:.*)other\.pub"):
        verify_version(repository / "a/2", other.public)


def test_a_forged_signature(repository: Path, keys: Keys, tmp_path: Path) -> None:
    """One made with another key that claims to be of ours."""
    version = repository / "a/2"
    claim = json.loads((version / SIGNATURE).read_text())["verificationMaterial"]
    sign_version(version, make_keys(tmp_path, "other").private)
    forged = json.loads((version / SIGNATURE).read_text()) | {"verificationMaterial": claim}
    (version / SIGNATURE).write_text(json.dumps(forged))
    with pytest.raises(SignatureError, match="forged or damaged"):
        verify_version(version, keys.public)


@pytest.mark.parametrize("to", ["a/3", "b/2"])
def test_a_signed_version_in_another_place(repository: Path, keys: Keys, to: str) -> None:
    (repository / "a/2").rename(repository / to)
    with pytest.raises(SignatureError, match=r"made for another place\n(?s:.*)version 2 of a"):
        verify_version(repository / to, keys.public)


def test_what_a_killed_reload_left(repository: Path, keys: Keys) -> None:
    (repository / "a").rename(repository / "a.candidate")
    with pytest.raises(SignaturesError, match=r"made for another place\n(?s:.*)a build-repo --reload that was killed"):
        verify_repository(repository, keys.public)


def test_a_signed_folder_without_a_manifest(tmp_path: Path, keys: Keys) -> None:
    version = write_version(tmp_path / "m", 1)
    (version / "manifest.json").unlink()
    sign_version(version, keys.private)
    with pytest.raises(SignatureError, match=r"no manifest\.json that says whose it is(?s:.*)fix: .*--sign KEY"):
        verify_version(version, keys.public)


def test_everything_that_fails_is_in_one_message(repository: Path, keys: Keys) -> None:
    _write("model.onnx")(repository / "a/1")
    (repository / "b/config.pbtxt").write_text("edited")
    (repository / "c").mkdir()
    write_version(repository / "d", 1)
    (repository / "e/1").mkdir(parents=True)
    with pytest.raises(SignaturesError) as caught:
        verify_repository(repository, keys.public)
    text = str(caught.value)
    assert text.startswith("6 problems in the signatures")
    for part in (
        "a 1: the files are not those",
        "b: config.pbtxt is not the one that was signed",
        "build-repo --rollback b 1",
        "c has no version",
        "d 1: the version is not signed",
        "e 1: the version is not signed",
        "e has no config.pbtxt",
        "build-repo --rollback e 1",
    ):
        assert part in text
    assert "d: config.pbtxt" not in text  # it equals its version's own, and that one is refused above
    assert len(caught.value.as_dict()["problems"]) == 6
    assert caught.value.exit_code == 1


# -- keys -------------------------------------------------------------------------------------------------------------


def test_keys_that_cannot_be_used(tmp_path: Path, keys: Keys) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    version = write_version(tmp_path / "m", 1)
    edwards = make_keys(tmp_path, "edwards", ed25519.Ed25519PrivateKey.generate())
    koblitz = make_keys(tmp_path, "koblitz", ec.generate_private_key(ec.SECP256K1()))
    locked = make_keys(tmp_path, "locked", password=b"secret")
    (tmp_path / "text").write_text("no key")
    for path, message in (
        (tmp_path / "nothing.key", r"private key cannot be read\n(?s:.*)No such file(?s:.*)openssl ecparam"),
        (tmp_path / "text", "not an elliptic-curve private key\n(?s:.*)no PEM file(?s:.*)openssl ecparam"),
        (keys.public, "not an elliptic-curve private key\n(?s:.*)BEGIN PUBLIC KEY"),
        (edwards.private, "not an elliptic-curve private key\n(?s:.*)Ed25519"),
        (koblitz.private, "not an elliptic-curve private key\n(?s:.*)secp256k1"),
        (locked.private, "protected by a password\n(?s:.*)openssl ec -in"),
    ):
        with pytest.raises(UsageError, match=message):
            sign_version(version, path)
        assert not (version / SIGNATURE).exists()
    for path, message in (
        (tmp_path / "nothing.pub", "public key cannot be read"),
        (keys.private, "not an elliptic-curve public key\n(?s:.*)BEGIN PRIVATE KEY"),
        (edwards.public, "not an elliptic-curve public key\n(?s:.*)Ed25519"),
        (koblitz.public, "not an elliptic-curve public key\n(?s:.*)secp256k1"),
    ):
        with pytest.raises(UsageError, match=message):
            verify_version(version, path)


@pytest.mark.parametrize(("module", "named"), [("model_signing", "model-signing"), ("OpenSSL", "pyopenssl")])
def test_the_package_is_not_installed(tmp_path: Path, module: str, named: str) -> None:
    code = (
        f"import sys; sys.modules[{module!r}] = None\n"
        "from pathlib import Path\n"
        "from serving.signatures import sign_version, verify_repository\n"
        "for call in (sign_version, verify_repository):\n"
        "    try: call(Path('.'), Path('x.key'))\n"
        "    except Exception as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.count(f"{MissingDependencyError.__name__} {named} is not installed") == 2
    assert "pip install 'triton-repo[sign]'" in done.stdout


def test_a_repository_that_cannot_be_written(repository: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, *args: object, **options: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(SignatureError, match=r"cannot be signed\n(?s:.*)No space left(?s:.*)fix: .*free space"):
        sign_version(repository / "a/1", keys.private)


# -- serve-repo -------------------------------------------------------------------------------------------------------


def _serve(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str]:
    status = terminal.run(cli.app, list(map(str, args)))
    return status, capsys.readouterr().err


def test_nothing_is_started_on_what_fails(
    repository: Path, keys: Keys, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "Server", lambda *args, **options: pytest.fail("a server was started"))
    _write("model.onnx")(repository / "a/2")
    status, err = _serve(capsys, repository, "--require-signature", keys.public)
    assert status == 1
    assert "error: a 2: the files are not those that were signed" in err


def test_where_signatures_cannot_be_required(repository: Path, keys: Keys, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        (["--model-control-mode", "poll"], "would serve what arrives later"),
        (["--url", "http://localhost:1"], "--url starts none"),
    ):
        status, err = _serve(capsys, repository, "--require-signature", keys.public, *arguments)
        assert status == 2
        assert message in err


def test_the_server_starts_on_what_is_signed(
    repository: Path, keys: Keys, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Path] = []
    monkeypatch.setattr(cli, "Server", lambda folder, **options: started.append(folder))
    monkeypatch.setattr(cli, "_run", lambda server, voice: 0)
    mode = ["--model-control-mode", "explicit"]
    for more, said in (([], "3 versions"), (mode, "whoever may call the load API")):
        status, err = _serve(capsys, repository, "--require-signature", keys.public, *more)
        assert status == 0
        assert said in err
    assert started == [repository, repository]


@pytest.mark.parametrize("call", [sign_version, verify_version])
def test_the_name_of_the_signature_is_not_signed_itself(
    repository: Path, keys: Keys, call: Callable[[Path, Path], object]
) -> None:
    """Signing and checking twice changes nothing."""
    key = keys.private if call is sign_version else keys.public
    call(repository / "a/1", key)
    call(repository / "a/1", key)
    signatures.verify_version(repository / "a/1", keys.public)
