"""How a model folder says that its hidden states become an embedding.

The file is that of sentence-transformers, ``1_Pooling/config.json``.
"""

from pathlib import Path

from talu.models.settings import Settings
from talu.types import Pooling

__all__ = ["read_pooling"]

MODES: dict[str, Pooling] = {  # switches of the file: names of talu
    "pooling_mode_cls_token": "first",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "last",
}


def read_pooling(folder: Path) -> Pooling | None:
    """``"first"``, ``"mean"`` or ``"last"``; None where nothing, or another way, is said.

    Raises:
        ModelError: the file is damaged.
    """
    path = folder / "1_Pooling" / "config.json"
    if not path.exists():
        return None
    settings = Settings.from_file(path)
    on = [key for key in settings.unread() if settings.value(key) is True]
    modes = [key for key in on if key.startswith("pooling_mode_")]
    return MODES.get(modes[0]) if len(modes) == 1 else None
