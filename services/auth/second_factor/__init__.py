"""What people have beside their password, or instead of it.

domain.py          the words and the errors
totp.py            codes of authenticator apps
sealing.py         how their secrets are stored
factors.py         what an account has: adding, checking, removing
passkeys.py        WebAuthn
asking.py          what is asked for after the password
signing_in.py      the pages `/login/second-factor` and `/login/passkey`
security.py        the page `/account/security`
administration.py  what administrators see and remove
"""
