"""Asking a running picker for its pages, and the flags that say which one and how."""

from __future__ import annotations

import argparse
import json
import os
import ssl
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from epp.errors import EppError

TIMEOUT_S = 30.0
TOKEN_VARIABLE = "EPP_TOKEN"


class PickerError(EppError):
    """The picker cannot be asked, or does not answer what was asked; the message says why."""


def add_picker_arguments(parser: argparse.ArgumentParser) -> None:
    """``--url`` and what authentication and TLS of the metrics port need."""
    parser.add_argument(
        "--url", type=_url, default="http://127.0.0.1:9090", help="the picker's metrics port (default: %(default)s)"
    )
    parser.add_argument("--token-file", type=Path, help=f"bearer token for the metrics port (default: ${TOKEN_VARIABLE})")
    parser.add_argument("--ca-file", help="certificate authority of an https URL")
    parser.add_argument("--cert-file", help="client certificate, where the metrics port demands one")
    parser.add_argument("--key-file", help="its key, if that is in another file")
    parser.add_argument("--insecure-skip-verify", action="store_true", help="do not verify its certificate")


def ask(options: argparse.Namespace, request: Request) -> tuple[int, Any]:
    """Status and JSON of the answer.

    Raises:
        PickerError: there is none.
    """
    try:
        token = options.token_file.read_text().strip() if options.token_file else os.environ.get(TOKEN_VARIABLE, "")
    except OSError as error:
        raise PickerError(f"--token-file: {error}") from error
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urlopen(request, timeout=TIMEOUT_S, context=_tls(options)) as response:
            return response.status, json.loads(response.read())
    except HTTPError as error:
        text = error.read().decode(errors="replace")
        try:
            return error.code, json.loads(text)
        except ValueError:
            return error.code, {"error": text.strip()}
    except (URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise PickerError(f"{options.url} does not answer: {reason}; --url names the picker's metrics port") from error


def _tls(options: argparse.Namespace) -> ssl.SSLContext | None:
    if not options.url.startswith("https:"):
        return None
    context = ssl.create_default_context(cafile=options.ca_file)
    if options.cert_file:
        context.load_cert_chain(options.cert_file, options.key_file)
    if options.insecure_skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def refusal(status: int, answer: Any) -> str:
    """What a picker said that did not answer."""
    told = answer.get("error", "") if isinstance(answer, dict) else ""
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return f"the picker refuses with {status} {told}; pass a token with --token-file or ${TOKEN_VARIABLE}"
    return f"the picker answered {status}: {told}"


def _url(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        text = f"http://{text}"
    return text
