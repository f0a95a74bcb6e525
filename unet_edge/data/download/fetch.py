"""One file over HTTPS: continued where it broke off, bounded, checked, whole or not there at all."""

from __future__ import annotations

import hashlib
import http.client
import json
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from unet_edge.data.looking import Progress
from unet_edge_runtime.errors import InputError
from unet_edge_runtime.files import write_json

__all__ = ["check_digest", "fetch"]

BLOCK = 1 << 20  # bytes
TIMEOUT = 60.0  # seconds without a byte
ATTEMPTS = 5  # in a row that brought nothing new
PAUSE = 1.0  # seconds before the second attempt; doubled before each further one
LOCAL = {"localhost", "127.0.0.1", "::1"}
PASSING = {408, 429, 500, 502, 503, 504}  # answers after which it is worth asking again


class _BrokenError(Exception):
    """The connection ended too early; what came is kept."""


def fetch(
    url: str,
    target: Path,
    *,
    limit: int,
    digest: str | None = None,
    headers: Mapping[str, str] | None = None,
    progress: Progress | None = None,
    pause: float = PAUSE,
) -> Path:
    """Download a file to `target`, or find it there.

    What has come is kept in `target` + ".part" and continued by a Range request, as long as the server's ETag or
    modification date is the same (If-Range, RFC 9110, 13.1.5); a server that knows no ranges starts again.

    Args:
        url: https, or http to this very machine.
        target: the file; it appears whole.
        limit: bytes that it has at most.
        digest: "md5:..." or "sha256:..." that it must have.
        headers: of the first server only: a redirect to another address does not get them.
        progress: draws a bar over MiB, such as `cli.common.track`.
        pause: seconds before the second attempt.

    Raises:
        InputError: the server cannot be reached or refuses, the file is too large or the wrong one, or the disk is
            full. What came is kept unless it is wrong.
    """
    if target.exists():
        check_digest(target, digest)
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    failures, reached = 0, _size(part)
    while True:
        try:
            _attempt(url, part, limit, headers or {}, progress, target.name)
            break
        except _BrokenError as error:
            # Where nothing can be continued, the part is often larger than before but not than ever.
            failures = failures + 1 if _size(part) <= reached else 0
            reached = max(reached, _size(part))
            if failures >= ATTEMPTS:
                raise InputError(f"{url}: {error}: try again later; {_size(part)} bytes are kept in {part}") from None
            time.sleep(pause * 2**failures)
    try:
        check_digest(part, digest)
    except InputError:
        _forget(part)
        raise
    part.replace(target)
    _forget(part)
    return target


def check_digest(path: Path, digest: str | None) -> None:
    """Compare a file with "md5:..." or "sha256:...". Raises `InputError` where it is another file."""
    if digest is None:
        return
    name, _, wanted = digest.partition(":")
    hasher = hashlib.new(name, usedforsecurity=False)
    with path.open("rb") as stream:
        while block := stream.read(BLOCK):
            hasher.update(block)
    if hasher.hexdigest() != wanted:
        raise InputError(
            f"{path}: has {name} {hasher.hexdigest()}, expected {wanted}: it is damaged or another file; "
            "delete it and try again"
        )


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        """Go only to addresses that `_check_address` allows."""
        _check_address(newurl)
        if urlsplit(req.full_url).scheme == "https" and urlsplit(newurl).scheme != "https":
            raise InputError(f"{req.full_url}: leads to {newurl}, which is not encrypted: download it by hand")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _attempt(
    url: str, part: Path, limit: int, headers: Mapping[str, str], progress: Progress | None, name: str
) -> None:
    """Bring `part` nearer to the whole file, or to it. Raises `_BrokenError` where more is to come."""
    state, have = _state(part, url), _size(part)
    request = _request(url, headers, have if state else 0, state)
    try:
        response = _open(request)
    except urllib.error.HTTPError as error:
        _refused(url, error, part)
        return
    with response:
        start, total = _range(response, have if state else 0)
        if total is not None and total > limit:
            raise InputError(f"{url}: has {total} bytes, more than the {limit} expected: not downloaded")
        _check_space(part, (total or limit) - start)
        if not start:
            part.unlink(missing_ok=True)  # else a kill right here would leave old bytes under the new validator
        write_json(_state_file(part), {"url": url, "validator": _validator(response.headers)})
        with part.open("ab" if start else "wb") as stream:
            _copy(response, stream, start, total, limit, url, progress, name)


def _request(url: str, headers: Mapping[str, str], have: int, validator: str) -> urllib.request.Request:
    _check_address(url)
    request = urllib.request.Request(url, headers={"User-Agent": "unet-edge", "Accept-Encoding": "identity"})
    for key, value in headers.items():
        request.add_unredirected_header(key, value)  # a password is for this server alone
    if have and validator:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", validator)
    return request


def _open(request: urllib.request.Request) -> Any:
    try:
        return urllib.request.build_opener(_SafeRedirects).open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError:
        raise
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise _BrokenError(f"cannot be reached ({reason})") from None


def _refused(url: str, error: urllib.error.HTTPError, part: Path) -> None:
    """What an answer other than success means; returns where the file is complete already."""
    error.close()
    if error.code == 416:  # the range begins at the end, or the file has become shorter
        complete = error.headers.get("Content-Range", "") == f"bytes */{_size(part)}"
        if complete:
            return
        _forget(part)
        raise _BrokenError("the file has changed") from None
    if error.code in PASSING:
        raise _BrokenError(f"the server answers {error.code} {error.reason}") from None
    hint = {401: "check your user name and key", 403: "accept the rules on its page first, with your account"}
    remedy = hint.get(error.code, "try again later, or download it by hand")
    raise InputError(f"{url}: the server answers {error.code} {error.reason}: {remedy}") from None


def _range(response: Any, have: int) -> tuple[int, int | None]:
    """(first byte, bytes of the whole file) of an answer."""
    length = response.headers.get("Content-Length", "")
    if response.status != 206:
        return 0, int(length) if length.isdecimal() else None
    unit, _, rest = response.headers.get("Content-Range", "").partition(" ")
    span, _, total = rest.partition("/")
    if unit != "bytes" or span.partition("-")[0] != str(have) or not total.isdecimal():
        raise _BrokenError(f"the server sent another part than asked for ({unit} {rest})")
    return have, int(total)


def _copy(
    response: Any, stream: IO[bytes], start: int, total: int | None, limit: int, url: str,
    progress: Progress | None, name: str,
) -> None:  # fmt: skip
    blocks = _blocks(response)
    came = start
    count = -(-((total or limit) - start) // BLOCK)
    for block in progress(blocks, name, count) if progress else blocks:
        came += len(block)
        if came > limit:
            raise InputError(f"{url}: sends more than the {limit} bytes expected: stopped")
        try:
            stream.write(block)
        except OSError as error:
            raise InputError(f"{stream.name}: {error.strerror or error}: make room and try again") from None
    if total is not None and came < total:
        raise _BrokenError(f"the connection ended after {came} of {total} bytes")


def _blocks(response: Any) -> Iterator[bytes]:
    try:
        while block := response.read(BLOCK):
            yield block
    except http.client.IncompleteRead as error:
        yield error.partial
        raise _BrokenError("the connection broke before the end") from None
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenError(f"the connection broke ({error})") from None


def _check_address(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOCAL):
        raise InputError(f"{url}: is not an https address: download it by hand")


def _check_space(part: Path, needed: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if needed > free:
        raise InputError(f"{part.parent}: {free >> 20} MiB are free, {needed >> 20} MiB more are needed: make room")


def _validator(headers: Any) -> str:
    """What If-Range compares: a strong ETag, or else the date."""
    tag = headers.get("ETag", "")
    return tag if tag.startswith('"') else headers.get("Last-Modified", "")


def _state(part: Path, url: str) -> str:
    """The validator of what `part` holds the beginning of; empty where that is unknown."""
    try:
        state = json.loads(_state_file(part).read_text(encoding="utf-8"))
        return str(state["validator"]) if state["url"] == url else ""
    except (OSError, ValueError, TypeError, KeyError):
        return ""


def _state_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _state_file(part).unlink(missing_ok=True)
