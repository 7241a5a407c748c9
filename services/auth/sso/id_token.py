"""What an ID token must say (OpenID Connect Core 1.0, section 3.1.3.7). Its signature is checked
elsewhere."""

from typing import Any

from joserfc.jwt import JWTClaimsRegistry

ALGORITHMS = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"}
)
LEEWAY = 60  # seconds by which the provider's clock may differ


def check_claims(claims: dict[str, Any], *, issuer: str, client_id: str, nonce: str) -> dict[str, Any]:
    """`claims`, if they are those of a token of `issuer` for us, now, and for this sign-in. Raises
    `ClaimError` of joserfc or `ValueError`."""
    JWTClaimsRegistry(
        leeway=LEEWAY,
        iss={"essential": True, "value": issuer},
        sub={"essential": True},
        aud={"essential": True, "value": client_id},
        exp={"essential": True},
        iat={"essential": True},
        nonce={"essential": True},
    ).validate(claims)
    if claims["nonce"] != nonce:
        raise ValueError("it belongs to another sign-in (nonce)")
    audience, party = claims["aud"], claims.get("azp")
    if isinstance(audience, list) and len(audience) > 1 and party is None:
        raise ValueError("it is for several clients and does not say which of them asked (azp)")
    if party is not None and party != client_id:
        raise ValueError("another client asked for it (azp)")
    if not isinstance(claims["sub"], str) or not 0 < len(claims["sub"]) <= 255:
        raise ValueError("its subject is not a text of up to 255 characters")
    return claims
