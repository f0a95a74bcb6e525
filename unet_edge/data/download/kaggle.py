"""The account that Kaggle wants to know."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

from unet_edge_runtime.errors import InputError

__all__ = ["kaggle_headers"]


def kaggle_headers() -> dict[str, str]:
    """What identifies a user to Kaggle's public API, as its own command line finds it.

    `KAGGLE_API_TOKEN`, or `KAGGLE_USERNAME` and `KAGGLE_KEY`, or kaggle.json in `KAGGLE_CONFIG_DIR` or ~/.kaggle.

    Raises:
        InputError: there is none, or the file is damaged.
    """
    if token := os.environ.get("KAGGLE_API_TOKEN"):
        return {"Authorization": f"Bearer {token}"}
    user, key = os.environ.get("KAGGLE_USERNAME"), os.environ.get("KAGGLE_KEY")
    if not (user and key):
        user, key = _from_file()
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{key}".encode()).decode("ascii")}


def _from_file() -> tuple[str, str]:
    folder = os.environ.get("KAGGLE_CONFIG_DIR") or os.path.expanduser("~/.kaggle")  # noqa: PTH111 - as in cache_folder
    path = Path(folder) / "kaggle.json"
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        return str(saved["username"]), str(saved["key"])
    except FileNotFoundError:
        raise InputError(
            "Kaggle wants an account: set KAGGLE_USERNAME and KAGGLE_KEY (kaggle.com, Settings, API), "
            f"or put kaggle.json into {folder}, or download the archives by hand and give them with --from"
        ) from None
    except (OSError, ValueError, TypeError, KeyError):
        raise InputError(f"{path}: holds no user name and key: fetch it anew from kaggle.com, Settings, API") from None
