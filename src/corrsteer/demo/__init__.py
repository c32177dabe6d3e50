"""A run as a live web page: the same prompt with and without steering, side by side.

Changes when the demo is opened in another way. The page needs gradio (`corrsteer[demo]`); runs,
sessions and the making of a Space do not.
"""

from __future__ import annotations

from corrsteer.demo.exhibits import Exhibit, open_exhibits
from corrsteer.demo.session import (
    ArmReply,
    Frame,
    Session,
    Shelf,
    Wish,
    load_for,
)

__all__ = ["ArmReply", "Exhibit", "Frame", "Session", "Shelf", "Wish", "load_for", "open_exhibits"]
