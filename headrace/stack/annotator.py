"""Real annotator accounts on a Label Studio server: made by invitation, with a token of their own.

An administrator may post annotations in another's name, so `completed_by` proves something only when each annotator
alone holds the token. The demo and the tests label through such accounts.
"""

from collections.abc import Mapping

import httpx

from headrace.stack.errors import StackError

TIMEOUT_S = 60


def annotator(url: str, admin_token: str, email: str, password: str) -> str:
    """Make the account when it is not there yet; return its token."""
    invitation = _answer(
        httpx.get(f"{url}/api/invite", headers={"Authorization": f"Token {admin_token}"}, timeout=TIMEOUT_S)
    )
    with httpx.Client(base_url=url, timeout=TIMEOUT_S) as browser:
        if not _submit(browser, str(invitation["invite_url"]), email, password) and not _submit(
            browser, "/user/login/", email, password
        ):
            raise StackError(
                f"{email} could neither sign up nor log in at {url}: expected a new account, or the password of the "
                "one that is there.\nNext: use the password the account was made with, or another address."
            )
        return str(_answer(browser.get("/api/current-user/token"))["token"])


def _submit(browser: httpx.Client, page: str, email: str, password: str) -> bool:
    """Fill in a form as a browser does; the server answers a good one by sending us on."""
    browser.get(page)
    form = {"email": email, "password": password, "csrfmiddlewaretoken": browser.cookies.get("csrftoken", "")}
    answer = browser.post(page, data=form, headers={"Referer": str(browser.base_url)})
    return answer.status_code == httpx.codes.FOUND


def _answer(response: httpx.Response) -> Mapping[str, object]:
    """The object in an answer; Label Studio's own words when it refused."""
    if response.is_error:
        raise StackError(
            f"Label Studio refused {response.request.method} {response.request.url.path}: "
            f"{response.status_code} {response.text[:300]}\n"
            "Next: `headrace stack status`, and check the token in stack.env."
        )
    answer: Mapping[str, object] = response.json()
    return answer
