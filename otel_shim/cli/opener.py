"""HTTP without redirections: what is sent along may be a credential, and is for one host only."""

from __future__ import annotations

import ssl
import urllib.request
from typing import Any


class _Stay(urllib.request.HTTPRedirectHandler):
    """Lets a redirection be the answer that it is."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        """Do not follow."""


def opener(tls: ssl.SSLContext | None = None) -> urllib.request.OpenerDirector:
    """An opener that follows no redirection, and honours the proxies of the environment."""
    return urllib.request.build_opener(_Stay(), urllib.request.HTTPSHandler(context=tls))
