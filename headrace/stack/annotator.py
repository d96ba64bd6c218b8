"""Accounts of annotators on a Label Studio server, created by invitation, each with a token of its own.

An administrator may submit annotations in another user's name, so `completed_by` proves something only where the
annotator alone holds the token. The demo and the tests label through such accounts.
"""

from collections.abc import Mapping

import httpx

from headrace.stack.errors import StackError

TIMEOUT_S = 60


def create_annotator(url: str, admin_token: str, email: str, password: str) -> str:
    """Create the account unless it exists; its token.

    Raises:
        StackError: The server rejected a request, or the account exists with another password.
    """
    invitation = _content(
        httpx.get(f"{url}/api/invite", headers={"Authorization": f"Token {admin_token}"}, timeout=TIMEOUT_S)
    )
    with httpx.Client(base_url=url, timeout=TIMEOUT_S) as browser:
        if not _submit(browser, str(invitation["invite_url"]), email, password) and not _submit(
            browser, "/user/login/", email, password
        ):
            raise StackError(
                f"{email} could neither sign up nor log in at {url}: expected a new account, or the password of the "
                "existing one.\nNext: use the password that the account was created with, or another address."
            )
        return str(_content(browser.get("/api/current-user/token"))["token"])


def _submit(browser: httpx.Client, page: str, email: str, password: str) -> bool:
    """Submit a form as a browser does; the server redirects if it accepts it."""
    browser.get(page)
    form = {"email": email, "password": password, "csrfmiddlewaretoken": browser.cookies.get("csrftoken", "")}
    response = browser.post(page, data=form, headers={"Referer": str(browser.base_url)})
    return response.status_code == httpx.codes.FOUND


def _content(response: httpx.Response) -> Mapping[str, object]:
    if response.is_error:
        raise StackError(
            f"Label Studio rejected {response.request.method} {response.request.url.path}: "
            f"{response.status_code} {response.text[:300]}\n"
            "Next: `headrace stack status`, and check the token in stack.env."
        )
    content: Mapping[str, object] = response.json()
    return content
