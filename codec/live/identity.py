"""Who a receiver is: a certificate that it made itself, known by its fingerprint; and the token by
which it knows senders.

No authority signs anything: the fingerprint travels by hand from the one screen to the other, like
that of a host key of ssh.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from codec.errors import LinkError

__all__ = ["Identity", "fingerprint_of", "made_token"]

NAME = "lmc receive"
VALID = timedelta(days=3650)
SLACK = timedelta(days=1)
"""Clocks are not assumed equal: a certificate is valid from a day ago on."""
TOKEN_BYTES = 16
OWNER_ONLY = 0o600


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate, 64 hexadecimal digits."""
        return fingerprint_of(self.certificate)

    @classmethod
    def make(cls) -> Identity:
        """Make a new one."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - SLACK)
            .not_valid_after(now + VALID)
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, key)

    @classmethod
    def kept_in(cls, path: Path) -> Identity:
        """Read the identity of a PEM file; make one, and the file for its owner only, if there is
        none.

        Raises:
            LinkError: it holds something else.
            OSError: it can neither be read nor written.
        """
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY)
        except FileExistsError:
            return cls._read(path)
        made = cls.make()
        with os.fdopen(descriptor, "wb") as file:
            file.write(
                made.key.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.NoEncryption(),
                )
            )
            file.write(made.certificate.public_bytes(serialization.Encoding.PEM))
        return made

    @classmethod
    def _read(cls, path: Path) -> Identity:
        content = path.read_bytes()
        try:
            key = serialization.load_pem_private_key(content, None)
            certificate = x509.load_pem_x509_certificate(content)
        except (ValueError, TypeError) as error:
            raise LinkError(
                f"{path}: holds no key and certificate of a receiver; name a file that is not "
                "there, and one is made"
            ) from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or (
            certificate.public_key() != key.public_key()
        ):
            raise LinkError(f"{path}: its key is not that of its certificate")
        return cls(certificate, key)


def fingerprint_of(certificate: x509.Certificate) -> str:
    """Return the SHA-256 of a certificate, 64 hexadecimal digits."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def made_token() -> str:
    """Return a token that nobody guesses."""
    return secrets.token_hex(TOKEN_BYTES)
