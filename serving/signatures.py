"""Signatures of published versions: made with a private key, checked with the public one, offline.

A signature covers every other file of the version folder, so also the version's own ``config.pbtxt`` and its
``manifest.json``, which says whose version it is: a signed folder that is moved to another model, or to another
number, is refused. The format is that of the ``model-signing`` package (a Sigstore bundle with an elliptic-curve key),
so its own command line can check a version too::

    model_signing verify key MODEL/1 --signature MODEL/1/model.sig --public_key KEY.pub --ignore-paths MODEL/1/model.sig
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from serving.errors import Problem, SignatureError, SignaturesError
from serving.signing_keys import check_private_key, check_public_key, signing_package

SIGNATURE = "model.sig"
CONFIG = "config.pbtxt"
MANIFEST = "manifest.json"


def sign_version(version_dir: Path, private_key: Path) -> Path:
    """Sign a version folder; the last file that is written into it.

    Args:
        version_dir: the folder with everything the version needs; also one in staging, under any name.
        private_key: an elliptic-curve key (P-256, P-384, P-521) in PEM form, without a password.

    Returns:
        The signature's file.

    Raises:
        MissingDependencyError: model-signing is not installed.
        UsageError: the key cannot be used.
        SignatureError: the folder cannot be read or written, or holds a link.
    """
    package = signing_package()
    check_private_key(private_key)
    signature = version_dir / SIGNATURE
    config = package.signing.Config().use_elliptic_key_signer(private_key=private_key)
    try:
        config.set_hashing_config(_hashing(package)).sign(version_dir, signature)
    except (ValueError, OSError) as exc:
        raise SignatureError(
            "the version cannot be signed",
            where=str(version_dir),
            expected="a folder of plain files that can be read, and room for one more",
            got=_one_line(exc),
            fix="take links out of the folder, and see to its permissions and to free space; then build again",
        ) from exc
    return signature


def verify_version(version_dir: Path, public_key: Path) -> None:
    """Check a published version against its signature.

    Args:
        version_dir: ``<repository>/<model>/<version>``.
        public_key: the PEM file of the key that belongs to the private one.

    Raises:
        MissingDependencyError: model-signing is not installed.
        UsageError: the key cannot be used.
        SignatureError: the signature is missing, broken, made with another key or for another version, or a file was
            changed, added or taken away; says which.
    """
    package = signing_package()
    check_public_key(public_key)
    signature = version_dir / SIGNATURE
    if not signature.is_file():
        raise SignatureError(
            "the version is not signed",
            where=str(version_dir),
            expected=f"a file {SIGNATURE} in it",
            fix="build it with build-repo --sign KEY",
        )
    config = package.verifying.Config().use_elliptic_key_verifier(public_key=public_key)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # the package warns of old formats on stdout
            config.set_hashing_config(_hashing(package)).verify(version_dir, signature)
    except Exception as exc:  # it raises whatever its parser, the key's library or the file system raised
        raise _refusal(version_dir, public_key, exc) from exc
    _check_place(version_dir)


def verify_repository(repository: Path, public_key: Path) -> int:
    """Check every version of every model, and that each ``config.pbtxt`` in place is one that was signed.

    Args:
        repository: a model repository.
        public_key: as for :func:`verify_version`.

    Returns:
        How many versions were checked.

    Raises:
        MissingDependencyError, UsageError: as for :func:`verify_version`.
        SignaturesError: names everything that fails, model by model.
    """
    signing_package()
    check_public_key(public_key)
    problems: list[Problem] = []
    count = 0
    for model in sorted(entry for entry in repository.iterdir() if entry.is_dir()):
        versions = sorted((entry for entry in model.iterdir() if _is_version(entry)), key=lambda entry: int(entry.name))
        count += len(versions)
        problems += _model_problems(model, versions, public_key)
    if problems:
        raise SignaturesError(problems)
    return count


# -- what is wrong ----------------------------------------------------------------------------------------------------


def _model_problems(model: Path, versions: list[Path], public_key: Path) -> Iterator[Problem]:
    """Everything about one model that the key does not vouch for."""
    if not versions:
        yield Problem(
            f"{model.name} has no version, so nothing of it is signed",
            str(model),
            fix="build it with build-repo --sign KEY, or take the folder out of the repository",
        )
        return
    for version in versions:
        try:
            verify_version(version, public_key)
        except SignatureError as error:
            what = f"{model.name} {version.name}: {error.what}"
            yield Problem(what, error.where, error.expected, error.got, error.fix)
    config = model / CONFIG
    try:
        served = config.read_bytes()
    except OSError as exc:
        yield Problem(
            f"{model.name} has no {CONFIG} that can be read",
            str(config),
            expected=f"the {CONFIG} of one of its versions, byte for byte",
            got=exc.strerror or str(exc),
            fix=f"build-repo --rollback {model.name} {versions[-1].name} puts the signed one there",
        )
        return
    signed = [version.name for version in versions if _bytes_of(version / CONFIG) == served]
    if not signed:
        yield Problem(
            f"{model.name}: {CONFIG} is not the one that was signed",
            str(config),
            expected=f"the bytes of {CONFIG} in one of its version folders: {', '.join(v.name for v in versions)}",
            fix=f"build-repo --rollback {model.name} {versions[-1].name} puts the signed one back",
        )


def _check_place(version_dir: Path) -> None:
    """The manifest, whose bytes are signed, names the model and the version that it belongs to."""
    path = version_dir / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        signed = (str(manifest["model"]), str(manifest["version"]))
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise SignatureError(
            f"the version has no {MANIFEST} that says whose it is",
            where=str(path),
            expected="JSON with the model and the version, as build-repo writes it",
            got=_one_line(exc),
            fix="build a new version with build-repo --sign KEY: it signs what build-repo published, nothing else",
        ) from exc
    place = (version_dir.absolute().parent.name, version_dir.name)
    if signed != place:
        left = place[0] == f"{signed[0]}.candidate"
        raise SignatureError(
            "the signature was made for another place",
            where=str(version_dir),
            expected=f"version {signed[1]} of {signed[0]}, as its signed {MANIFEST} says",
            got=f"version {place[1]} of {place[0]}",
            fix="remove the model's folder: a build-repo --reload that was killed left it"
            if left
            else "put the folder back where it came from",
        )


def _refusal(version_dir: Path, public_key: Path, exc: Exception) -> SignatureError:
    """The package's reason in our words."""
    text = str(exc)
    where = str(version_dir)
    if text.startswith("Signature mismatch"):
        return SignatureError(
            "the files are not those that were signed",
            where=where,
            got="\n".join(_changes(version_dir)),
            fix="bring back the version as it was published, or build a new one with build-repo --sign KEY",
        )
    if text.startswith("Key mismatch") or type(exc).__name__ == "InvalidSignature":
        return SignatureError(
            "the signature was made with another key" if text else "the signature is forged or damaged",
            where=str(version_dir / SIGNATURE),
            expected=f"the private key that belongs to {public_key}",
            fix="name the public key of whoever published it, or build a new version with build-repo --sign KEY",
        )
    if "symlink" in text:
        return SignatureError(
            "the version holds a symbolic link, which cannot be signed",
            where=where,
            expected="plain files and folders only",
            got=text,
            fix="put the file that was signed in its place, or remove the link where there was none",
        )
    return SignatureError(
        "the signature cannot be read",
        where=str(version_dir / SIGNATURE),
        expected="a Sigstore bundle, as build-repo --sign writes it",
        got=_one_line(exc),
        fix="build a new version with build-repo --sign KEY",
    )


def _changes(version_dir: Path) -> Iterator[str]:
    """``model.onnx was changed``: the folder against what its signature, which is genuine, says of each file."""
    bundle = json.loads((version_dir / SIGNATURE).read_text(encoding="utf-8"))
    statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    signed = {row["name"]: row["digest"] for row in statement["predicate"]["resources"]}
    hashed = _hashing(signing_package()).hash(version_dir)
    present = {row.identifier: row.digest.digest_hex for row in hashed.resource_descriptors()}
    for name in sorted(signed.keys() | present.keys()):
        if name not in present:
            yield f"{name} is gone"
        elif name not in signed:
            yield f"{name} was added"
        elif signed[name] != present[name]:
            yield f"{name} was changed"


# -- ground -----------------------------------------------------------------------------------------------------------


def _hashing(package: Any) -> Any:
    """Every file but the signature; by default the package would let files of git pass unsigned."""
    return package.hashing.Config().set_ignored_paths(paths=[SIGNATURE], ignore_git_paths=False)


def _is_version(entry: Path) -> bool:
    return entry.is_dir() and re.fullmatch("[0-9]+", entry.name) is not None


def _bytes_of(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _one_line(exc: BaseException) -> str:
    lines = f"{type(exc).__name__}: {exc}".splitlines()
    return lines[0][:300]
