"""One certificate authority for each store, the client's pair, and a server's pair for each machine.

Everything is ECDSA on P-256: made in a fraction of a millisecond and spoken by every Docker there is. An authority that
Docker Machine made (RSA) is used as it is.

==========  ==========  =========================================================================
what        valid for   renewed
==========  ==========  =========================================================================
authority   10 years    under its old key and name, so that all it ever signed stays good
client      825 days    under its old key, so that the pair matches at every moment
server      825 days    by issuing a new one (``regenerate-certs``)
==========  ==========  =========================================================================

`Authority.ensure` renews when less than a third is left; an authority therefore outlives everything that it signs.
Files that the user placed elsewhere (``--tls-ca-cert`` and its like) are the user's: they are made where there are
none, and never replaced.
"""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from filelock import FileLock

from pytest_machine.support.folders import make_folder

from .errors import BadSpec, StoreError, damaged
from .store import write
from .support import clock, files, pems
from .support.text import shell_word

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.x509.oid import ObjectIdentifier

    Key: TypeAlias = EllipticCurvePrivateKey | RSAPrivateKey

AUTHORITY_DAYS = 3650
# The most that Apple's systems accept from a private authority.
PAIR_DAYS = 825
# A machine's clock may be behind ours: an emulated one by minutes, one that wakes from a snapshot by hours.
_SKEW = timedelta(days=1)
# What X.509 allows a common name to have.
_NAME_LENGTH = 64


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its private key, both PEM."""

    cert: bytes
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Places:
    """Where an authority and the client's pair lie."""

    directory: Path
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    """Usual name → path, of those that the user keeps in a place of their own."""

    def path(self, name: str) -> Path:
        """Return where the file of that usual name is."""
        return Path(self.elsewhere.get(name) or self.directory / name)

    @property
    def theirs(self) -> bool:
        """Whether the authority is the user's."""
        return not self.elsewhere.keys().isdisjoint(("ca.pem", "ca-key.pem"))

    @property
    def client(self) -> bool:
        """Whether there is a place for a client's pair of this authority, and not of the store's own alone."""
        return not self.theirs or not self.elsewhere.keys().isdisjoint(("cert.pem", "key.pem"))


@dataclass(frozen=True, slots=True)
class Authority:
    """Signs for one store. Safe to use from several threads."""

    places: Places
    ca: bytes = field(repr=False)
    """The authority's certificate, PEM."""
    _cert: x509.Certificate = field(repr=False, compare=False)
    _key: Key = field(repr=False, compare=False)

    @property
    def directory(self) -> Path:
        """The directory of what the user did not place elsewhere."""
        return self.places.directory

    @classmethod
    def ensure(cls, directory: Path, elsewhere: Mapping[str, str] | None = None) -> Authority:
        """Return the authority in `directory`, made or renewed if need be, and the client's pair with it.

        `elsewhere` are the user's own places for some of the files, by their usual names. However many ask at once, in
        however many processes, it is made once. Raises `StoreError` when what is there cannot be used.
        """
        places = Places(directory, dict(elsewhere or {}))
        make_folder(directory)
        with FileLock(directory / ".lock", is_singleton=True).acquire(poll_interval=0.01):
            cert, key = _ensure_authority(places)
            found = cls(places, _pem(cert), cert, key)
            if places.client:
                found._ensure_client()
        return found

    def issue_server(self, *, name: str, hosts: Sequence[str]) -> Pair:
        """Return a new server's pair, valid for `hosts` (addresses or names), ``localhost`` and ``127.0.0.1``.

        It is no client's: who breaks out into one machine cannot log in to the others with what lies there.
        """
        from cryptography import x509
        from cryptography.x509.oid import ExtendedKeyUsageOID

        # A dict, because it keeps the order and drops what is said twice.
        names = x509.SubjectAlternativeName(list(dict.fromkeys(map(_host, (*hosts, "localhost", "127.0.0.1")))))
        key = _new_key()
        return Pair(_pem(self._sign(key, name, ExtendedKeyUsageOID.SERVER_AUTH, names)), _key_pem(key))

    def copy_client(self, target: Path) -> None:
        """Write ``ca.pem``, ``cert.pem`` and ``key.pem`` into `target`, as ``DOCKER_CERT_PATH`` wants them."""
        pair = self._client()
        write(target / "ca.pem", self.ca, mode=0o644, durable=False)
        write(target / "key.pem", pair.key, durable=False)
        write(target / "cert.pem", pair.cert, mode=0o644, durable=False)

    def _client(self) -> Pair:
        if self.places.client:
            return Pair(_content(self.places.path("cert.pem")), _content(self.places.path("key.pem")))
        # The store's own pair is of the store's own authority: a machine of another has one for itself.
        key = _new_key()
        return Pair(self._sign_client(key), _key_pem(key))

    def _sign_client(self, key: Key) -> bytes:
        from cryptography.x509.oid import ExtendedKeyUsageOID

        return _pem(self._sign(key, "pytest-machine client", ExtendedKeyUsageOID.CLIENT_AUTH))

    def _ensure_client(self) -> None:
        cert_path, key_path = self.places.path("cert.pem"), self.places.path("key.pem")
        theirs = not self.places.elsewhere.keys().isdisjoint(("cert.pem", "key.pem"))
        key = _load_key(key_path) if key_path.exists() else None
        if key is None and theirs and cert_path.exists():
            raise _unusable(key_path, f"it is not there, and '{cert_path.name}' is", theirs=True)
        if key is not None and cert_path.exists():
            cert = _load_cert(cert_path)
            fault = self._fault(cert, key)
            if fault and theirs:
                raise _unusable(cert_path, fault, theirs=True)
            if not fault and (theirs or _fresh(cert)):
                return
        if key is None:
            key = _new_key()
            _make_room(key_path)
            write(key_path, _key_pem(key))
        _make_room(cert_path)
        write(cert_path, self._sign_client(key), mode=0o644)

    def _fault(self, cert: x509.Certificate, key: Key) -> str:
        """Return why a client's certificate is of no use here; empty when it is."""
        from cryptography.exceptions import InvalidSignature

        try:
            cert.verify_directly_issued_by(self._cert)
        except (InvalidSignature, ValueError):
            return f"the authority in '{self.places.path('ca.pem')}' did not sign it"
        return "" if cert.public_key() == key.public_key() else f"it does not belong to '{self.places.path('key.pem')}'"

    def _sign(
        self, key: Key, name: str, usage: ObjectIdentifier, names: x509.SubjectAlternativeName | None = None
    ) -> x509.Certificate:
        from cryptography import x509

        extensions = [
            (x509.BasicConstraints(ca=False, path_length=None), True),
            (_key_usage("digital_signature"), True),
            (x509.ExtendedKeyUsage([usage]), False),
            (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
            (x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(_subject_id(self._cert)), False),
            *([(names, False)] if names is not None else []),
        ]
        return _certificate(_name(name), self._cert.subject, key, self._key, days=PAIR_DAYS, extensions=extensions)


def lasts(path: Path) -> bool:
    """Return whether the certificate in a file is there and good for more than the last third of its time.

    Past that it is renewed at the next occasion, so that none ever ends in somebody's hands.
    """
    return path.exists() and _fresh(_machines(path))


def expires(path: Path) -> datetime:
    """Return when the (first) certificate in a PEM file ends, UTC; raises `StoreError` when there is none to read."""
    return _machines(path).not_valid_after_utc


def read(path: Path) -> bytes:
    """Return a PEM file of a machine; raises `StoreError` for a file that is not one, `OSError` where there is none."""
    try:
        return pems.read(path)
    except FileNotFoundError:
        raise
    except files.UNREADABLE as error:
        raise _damaged(path, error) from error


def _machines(path: Path) -> x509.Certificate:
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificate(pems.read(path))
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> StoreError:
    # A new file replaces any other, but not a directory.
    first = f"rm -r -- {shell_word(path)} && " if path.is_dir() else ""
    return damaged(path, files.reason(error), hint=f"{first}docker-machine regenerate-certs --force {path.parent.name}")


def _ensure_authority(places: Places) -> tuple[x509.Certificate, Key]:
    cert_path, key_path = places.path("ca.pem"), places.path("ca-key.pem")
    if cert_path.exists():
        cert, key = _load_cert(cert_path), _load_key(key_path)
        if cert.public_key() != key.public_key():
            raise _unusable(cert_path, f"it does not belong to '{key_path.name}'", theirs=places.theirs)
        if places.theirs or _fresh(cert):
            return cert, key
    elif key_path.exists():  # a crash came between the two
        cert, key = None, _load_key(key_path)
    else:
        cert, key = None, _new_key()
        _make_room(key_path)
        write(key_path, _key_pem(key))
    cert = _make_authority(key, cert)
    _make_room(cert_path)
    write(cert_path, _pem(cert), mode=0o644)
    return cert, key


def _make_room(path: Path) -> None:
    make_folder(path.parent)


def _make_authority(key: Key, old: x509.Certificate | None) -> x509.Certificate:
    from cryptography import x509

    # Unique, because clients look an issuer up by its name, and a merged bundle may hold several of ours.
    name = old.subject if old else _name(f"pytest-machine authority {secrets.token_hex(5)}")
    own_id = _subject_id(old) if old else x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    extensions = [
        (x509.BasicConstraints(ca=True, path_length=0), True),
        (_key_usage("key_cert_sign", "crl_sign"), True),
        (own_id, False),
        (x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own_id), False),
    ]
    return _certificate(name, name, key, key, days=AUTHORITY_DAYS, extensions=extensions)


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    key: Key,
    signer: Key,
    *,
    days: int,
    extensions: Sequence[tuple[x509.ExtensionType, bool]],
) -> x509.Certificate:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    now = clock.utc()
    with clock.real_datetime():
        builder = x509.CertificateBuilder(
            issuer_name=issuer,
            subject_name=subject,
            public_key=key.public_key(),
            serial_number=x509.random_serial_number(),
            not_valid_before=now - _SKEW,
            not_valid_after=now + timedelta(days=days),
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical=critical)
        return builder.sign(signer, hashes.SHA256())


def _fresh(cert: x509.Certificate) -> bool:
    begin, end = cert.not_valid_before_utc, cert.not_valid_after_utc
    return end - clock.utc() > (end - begin) / 3


def _name(text: str) -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:_NAME_LENGTH])])


def _host(host: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return x509.DNSName(host if host.isascii() else host.encode("idna").decode())
    except ValueError as error:  # UnicodeError is one
        raise BadSpec(
            f"A certificate cannot be for {host!r}.",
            facts={"reason": error},
            hint="give it an address, or a name as DNS has them, such as web.example",
        ) from error


def _key_usage(*allowed: str) -> x509.KeyUsage:
    from cryptography import x509

    every = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{each: each in allowed for each in every})


def _subject_id(cert: x509.Certificate) -> x509.SubjectKeyIdentifier:
    from cryptography import x509

    try:
        # As it is written there: how it is derived from the key differs from maker to maker.
        return cert.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.SubjectKeyIdentifier.from_public_key(cert.public_key())


def _new_key() -> Key:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


def _pem(cert: x509.Certificate) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return cert.public_bytes(Encoding.PEM)


def _key_pem(key: Key) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _load_cert(path: Path) -> x509.Certificate:
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificate(pems.read(path))
    except (OSError, ValueError) as error:
        raise _unusable(path, error) from error


def _content(path: Path) -> bytes:
    try:
        return pems.read(path)
    except files.UNREADABLE as error:
        raise _unusable(path, files.reason(error)) from error


def _load_key(path: Path) -> Key:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(pems.read(path), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:  # TypeError: it has a passphrase
        raise _unusable(path, error) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise _unusable(path, "it is neither an ECDSA nor an RSA key")
    return key


def _unusable(path: Path, reason: object, *, theirs: bool = False) -> StoreError:
    return StoreError(
        f"The file '{path.name}' of the certificate authority cannot be used.",
        facts={"path": path, "reason": reason},
        hint="name files that belong together: --tls-ca-cert, --tls-ca-key, --tls-client-cert, --tls-client-key"
        if theirs
        else f"mv -- {shell_word(path.parent)} {shell_word(f'{path.parent}.old')}"
        "; then a new authority is made, and machines of the old one have to be made again",
    )
