"""Passkeys (WebAuthn Level 3): made in a browser, used as a second factor or instead of a password.

All of them are discoverable and used with user verification: what unlocks the authenticator (a fingerprint, a
PIN) together with having it are two factors. Attestation is not asked for: which make it is plays no part.
"""

import asyncio
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from webauthn import (
    base64url_to_bytes,
    generate_authentication_options,
    generate_registration_options,
    options_to_json,
    verify_authentication_response,
    verify_registration_response,
)
from webauthn.helpers import bytes_to_base64url, generate_challenge, parse_authentication_credential_json
from webauthn.helpers.exceptions import WebAuthnException
from webauthn.helpers.structs import (
    AuthenticationCredential,
    AuthenticatorSelectionCriteria,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from libs.common.journal import Journal
from services.auth.audit import auth_event
from services.auth.domain import User
from services.auth.second_factor.domain import PASSKEYS_EACH, BadPasskey, Passkey
from services.auth.second_factor.factors import Anyone
from services.auth.settings import AuthSettings
from services.auth.store import Store
from services.auth.store.database import unix_now

CREDENTIAL_LENGTH = 1023  # bytes of a credential id (section 4)
REQUIRED = UserVerificationRequirement.REQUIRED


def new_challenge() -> str:
    return bytes_to_base64url(generate_challenge())


@dataclass(frozen=True, slots=True)
class Passkeys:
    store: Store
    settings: AuthSettings
    journal: Journal

    @property
    def host(self) -> str:
        """The relying party id (section 5.1.2): passkeys are bound to the host of the public URL."""
        return urlsplit(self.settings.public_url).hostname or ""

    @property
    def possible(self) -> bool:
        """Browsers have passkeys for names only, never for addresses, and without https for localhost
        only."""
        try:
            ip_address(self.host)
        except ValueError:
            return self.settings.secure_cookies or self.host == "localhost"
        return False

    # -- registration -----------------------------------------------------------------------------

    def creation_options(self, user: Anyone, present: tuple[Passkey, ...], challenge: str) -> str:
        """What `navigator.credentials.create` takes, as JSON."""
        options = generate_registration_options(
            rp_id=self.host,
            rp_name="Lockgate",
            user_id=user.id.encode(),
            user_name=user.email,
            user_display_name=user.name or user.email,
            challenge=base64url_to_bytes(challenge),
            authenticator_selection=AuthenticatorSelectionCriteria(
                resident_key=ResidentKeyRequirement.REQUIRED, user_verification=REQUIRED
            ),
            exclude_credentials=_descriptors(present),
        )
        return options_to_json(options)

    async def add(self, user: Anyone, credential: str, challenge: str, name: str, address: str) -> Passkey:
        """Keep a new passkey. Raises `BadPasskey`."""
        try:
            made = verify_registration_response(
                credential=credential,
                expected_challenge=base64url_to_bytes(challenge),
                expected_rp_id=self.host,
                expected_origin=self.settings.public_url,
                require_user_verification=True,
            )
        except (WebAuthnException, ValueError, KeyError, TypeError) as error:
            raise BadPasskey("The browser’s answer is not that of a new passkey for this address.") from error
        passkey = Passkey(
            id=bytes_to_base64url(made.credential_id),
            user_id=user.id,
            public_key=bytes_to_base64url(made.credential_public_key),
            sign_count=made.sign_count,
            name=clean_name(name),
            created_at=unix_now(),
        )
        too_long = len(made.credential_id) > CREDENTIAL_LENGTH
        if too_long or not await asyncio.to_thread(
            self.store.second_factors.add_passkey, passkey, PASSKEYS_EACH
        ):
            raise BadPasskey(f"It is registered already, or you have {PASSKEYS_EACH} of them.")
        self.journal.append(auth_event("passkey_added", user=user, address=address, detail=passkey.name))
        return passkey

    # -- use --------------------------------------------------------------------------------------

    def request_options(self, challenge: str, passkeys: tuple[Passkey, ...] = ()) -> str:
        """What `navigator.credentials.get` takes, as JSON; without passkeys the browser offers what it
        has."""
        options = generate_authentication_options(
            rp_id=self.host,
            challenge=base64url_to_bytes(challenge),
            allow_credentials=_descriptors(passkeys),
            user_verification=REQUIRED,
        )
        return options_to_json(options)

    async def check(self, credential: str, challenge: str, owner: str = "") -> User:
        """The user whose passkey answered the challenge; only `owner`'s will do where that is known. Raises
        `BadPasskey`."""
        try:
            answer = parse_authentication_credential_json(credential)
            passkey = await asyncio.to_thread(self.store.second_factors.passkey, answer.id)
            if (
                passkey is None
                or (owner and passkey.user_id != owner)
                or not _names_user(answer, passkey, owner)
            ):
                raise BadPasskey("This passkey is not registered here any more, or for another account.")
            used = verify_authentication_response(
                credential=answer,
                expected_challenge=base64url_to_bytes(challenge),
                expected_rp_id=self.host,
                expected_origin=self.settings.public_url,
                credential_public_key=base64url_to_bytes(passkey.public_key),
                credential_current_sign_count=passkey.sign_count,
                require_user_verification=True,
            )
        except (WebAuthnException, ValueError, KeyError, TypeError) as error:
            raise BadPasskey("The browser’s answer does not prove that the passkey is here.") from error
        if not await asyncio.to_thread(self.store.second_factors.use_passkey, passkey, used.new_sign_count):
            raise BadPasskey("The passkey was used somewhere else at the same moment.")
        return await asyncio.to_thread(self.store.users.get, passkey.user_id)


def _names_user(answer: AuthenticationCredential, passkey: Passkey, owner: str) -> bool:
    """Whether the user handle is that of the passkey's user. It may be missing only where somebody has said
    before who they are (section 7.2, step 6)."""
    handle = answer.response.user_handle
    return bool(owner) if handle is None else handle == passkey.user_id.encode()


def _descriptors(passkeys: tuple[Passkey, ...]) -> list[PublicKeyCredentialDescriptor]:
    return [PublicKeyCredentialDescriptor(id=base64url_to_bytes(passkey.id)) for passkey in passkeys]


def clean_name(name: str) -> str:
    return "".join(c for c in name if c.isprintable()).strip()[:60] or "Passkey"
