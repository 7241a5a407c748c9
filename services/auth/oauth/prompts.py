"""The `prompt` parameter (OpenID Connect Core 1.0, section 3.1.2.1): what a client wants the person asked.

    none             nothing: but consent is asked for each time, so this always ends in an error
    login            the password, even of somebody who is signed in
    consent          consent, which is asked for anyway
    select_account   which account: the consent page names it and offers another, so likewise

Leaving `login` out of the request while the person signs in is what keeps them from being asked again. A
client gains nothing by leaving it out itself: it is for the client's own sake.
"""

from urllib.parse import urlencode

from authlib.oauth2.rfc6749 import InvalidRequestError

from services.auth.oauth.errors import ConsentRequired, LoginRequired

PROMPTS = ("none", "login", "consent", "select_account")


def prompts_of(asked: str) -> set[str]:
    """The values of a `prompt` parameter. Raises `InvalidRequestError`."""
    prompts = set(asked.split())
    if prompts - set(PROMPTS):
        raise InvalidRequestError("There is no such 'prompt'.")
    if "none" in prompts and len(prompts) > 1:
        raise InvalidRequestError("The 'prompt' none goes with no other.")
    return prompts


def silent(asked: str) -> bool:
    """Whether nobody may be asked anything."""
    return "none" in asked.split()


def check(asked: str, *, signed_in: bool) -> None:
    """Raises `InvalidRequestError`; `LoginRequired` or `ConsentRequired` when nobody may be asked."""
    if "none" not in prompts_of(asked):
        return
    if not signed_in:
        raise LoginRequired("Nobody is signed in.")
    raise ConsentRequired("Consent is asked for each time.")


def without_login(items: list[tuple[str, str]]) -> str:
    """The query of an authorization request, without the demand to sign in again."""
    kept = [(name, _others(value) if name == "prompt" else value) for name, value in items]
    return urlencode([(name, value) for name, value in kept if name != "prompt" or value])


def _others(prompt: str) -> str:
    return " ".join(value for value in prompt.split() if value != "login")
