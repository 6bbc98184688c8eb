"""Passwords and tokens: only digests are stored."""

import hashlib
import hmac
import secrets

# Low for a sample whose traffic signs in often; a product takes hundreds of thousands.
ROUNDS = 5_000


def digest(token: str) -> str:
    """The digest under which a token or key is stored."""
    return hashlib.sha256(token.encode()).hexdigest()


def new_token() -> str:
    """A fresh bearer token."""
    return secrets.token_urlsafe(32)


def hash_password(password: str, salt: str | None = None) -> str:
    """Return `salt$digest` for storage."""
    salt = salt or secrets.token_hex(8)
    derived = hashlib.pbkdf2_hmac("sha256", password.encode(), salt.encode(), ROUNDS)
    return f"{salt}${derived.hex()}"


def password_matches(password: str, stored: str) -> bool:
    """Compare in constant time."""
    salt = stored.partition("$")[0]
    return hmac.compare_digest(hash_password(password, salt), stored)
