"""The keys that sign versions and check signatures: elliptic curves in PEM files, and the package that uses them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from serving.errors import MissingDependencyError, UsageError

CURVES = ("secp256r1", "secp384r1", "secp521r1")
MAKE_KEYS = (
    "openssl ecparam -name prime256v1 -genkey -noout -out signing.key; "
    "openssl ec -in signing.key -pubout -out signing.pub"
)


def signing_package() -> Any:
    """``model_signing``.

    Raises:
        MissingDependencyError: with the command that installs it.
    """
    try:
        import model_signing
    except ImportError as exc:
        # Its release 1.1 imports pyOpenSSL without asking for it: the extra brings both.
        missing = "pyopenssl" if exc.name == "OpenSSL" else "model-signing"
        raise MissingDependencyError(missing, "sign", needed_for="to sign versions and to check signatures") from exc
    return model_signing


def check_private_key(path: Path) -> None:
    """Refuse a file that is not an elliptic-curve private key.

    Raises:
        UsageError: with what it is instead, and the command that makes one.
    """
    signing_package()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    data = _key_bytes(path, "private key")
    try:
        key: Any = serialization.load_pem_private_key(data, None)
    except TypeError as exc:  # what cryptography raises for a key that wants a password
        raise UsageError(
            "the private key is protected by a password",
            where=str(path),
            expected="a key that can be read without being asked",
            fix=f"openssl ec -in {path} -out plain.key, in a place that only you can read",
        ) from exc
    except Exception as exc:
        raise _key_error(path, "private key", data) from exc
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name not in CURVES:
        raise _key_error(path, "private key", data, _kind(key))


def check_public_key(path: Path) -> None:
    """Refuse a file that is not an elliptic-curve public key.

    Raises:
        UsageError: with what it is instead, and the command that makes one.
    """
    signing_package()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    data = _key_bytes(path, "public key")
    try:
        key: Any = serialization.load_pem_public_key(data)
    except Exception as exc:
        raise _key_error(path, "public key", data) from exc
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in CURVES:
        raise _key_error(path, "public key", data, _kind(key))


def _key_bytes(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise UsageError(
            f"the {what} cannot be read", where=str(path), got=exc.strerror or str(exc), fix=f"make a pair: {MAKE_KEYS}"
        ) from exc


def _key_error(path: Path, what: str, data: bytes, kind: str = "") -> UsageError:
    first = data[:80].decode("ascii", errors="replace").partition("\n")[0].strip()
    got = kind or (first if first.startswith("-----BEGIN") else "no PEM file")
    return UsageError(
        f"not an elliptic-curve {what}",
        where=str(path),
        expected=f"a {what} on the curve P-256, P-384 or P-521, in PEM form",
        got=got,
        fix=f"make a pair: {MAKE_KEYS}",
    )


def _kind(key: Any) -> str:
    curve = getattr(getattr(key, "curve", None), "name", "")
    return f"a key on the curve {curve}" if curve else f"{type(key).__name__.strip('_')}"
