"""Codes of authenticator apps (TOTP, RFC 6238): six digits, SHA-1, steps of 30 seconds, as every app has
them."""

import hmac

import pyotp
import segno

STEP = 30  # seconds
_DRIFT = (0, -1, 1)  # steps by which a phone's clock may differ


def new_secret() -> str:
    """160 random bits in base32, the length of the hash (RFC 4226, section 4)."""
    return pyotp.random_base32(32)


def step_of(secret: str, code: str, now: float) -> int | None:
    """The time step whose code this is, if it is near enough to `now` (Unix seconds)."""
    present, totp = int(now) // STEP, pyotp.TOTP(secret)
    matching = [
        present + drift for drift in _DRIFT if hmac.compare_digest(totp.generate_otp(present + drift), code)
    ]
    return matching[0] if matching else None


def is_code(text: str) -> bool:
    """Whether this looks like such a code, however it was typed."""
    digits = text.replace(" ", "")
    return len(digits) == 6 and digits.isascii() and digits.isdecimal()


def app_uri(secret: str, email: str, host: str) -> str:
    """What the QR code says (the Key Uri Format of authenticator apps)."""
    return pyotp.TOTP(secret).provisioning_uri(name=email, issuer_name=f"Lockgate {host}")


def qr_svg(text: str) -> str:
    """A QR code as an SVG element without style or script, dark on light in any colour scheme."""
    svg: str = segno.make(text, error="m", micro=False).svg_inline(
        scale=5,
        border=4,
        dark="#000",
        light="#fff",
        svgclass=None,
        lineclass=None,
        omitsize=False,
        title="QR code",
    )
    return svg


def readable(secret: str) -> str:
    """In groups of four, to be typed."""
    return " ".join(secret[at : at + 4] for at in range(0, len(secret), 4))
