"""What is in an access token."""

import base64
import json


def grant_of(access_token: str) -> str:
    """The id of the grant for which it was issued."""
    payload = access_token.split(".")[1]
    grant: str = json.loads(base64.urlsafe_b64decode(payload + "=="))["grant"]
    return grant
