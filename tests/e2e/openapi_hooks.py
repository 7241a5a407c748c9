"""What schemathesis does around each request of tests/e2e/test_openapi.py: an administrator stays signed in.

Some of what it tries ends its own login, or all of them. Then it signs in again.
"""

import os
from typing import Any

import httpx2
import schemathesis

URL, EMAIL, PASSWORD, OWN_ID = (os.environ[f"FUZZ_{name}"] for name in ("URL", "EMAIL", "PASSWORD", "ID"))
SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}


class Login:
    """The console's cookie."""

    def __init__(self) -> None:
        self.cookie = ""
        self.begin()

    def begin(self) -> None:
        form = {"email": EMAIL, "password": PASSWORD, "next": "/account"}
        answer = httpx2.post(f"{URL}/login", data=form, headers=SAME_ORIGIN, timeout=30)
        assert answer.status_code == 303, answer.text
        self.cookie = answer.cookies["lockgate"]


login = Login()


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    case.headers.update(SAME_ORIGIN | {"Cookie": f"lockgate={login.cookie}"})
    if (case.path_parameters or {}).get("user_id") == OWN_ID:
        case.path_parameters["user_id"] = "somebody-else"  # not to deactivate or delete oneself


@schemathesis.hook
def after_call(context: Any, case: Any, response: Any) -> None:
    if response.status_code == 401:
        login.begin()
