"""Who a receiver is, and the token that lets senders in."""

from __future__ import annotations

import pytest

pytest.importorskip("aioquic")

from codec.errors import LinkError
from codec.live.identity import Identity, fingerprint_of, made_token


def test_an_identity_is_kept(tmp_path):
    path = tmp_path / "identity.pem"
    made = Identity.kept_in(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert Identity.kept_in(path).fingerprint == made.fingerprint
    assert made.fingerprint == fingerprint_of(made.certificate)
    assert len(made.fingerprint) == 64
    assert Identity.make().fingerprint != made.fingerprint
    path.write_text("something else")
    with pytest.raises(LinkError, match="holds no key and certificate of a receiver"):
        Identity.kept_in(path)
    assert made_token() != made_token()
