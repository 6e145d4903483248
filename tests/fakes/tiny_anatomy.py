"""The tiny study the other way: from images to labels, with the tumour laid over."""

from __future__ import annotations

from tiny_cohorts import tiny_text

from fedphantom.common.study import Study, parse_study


def anatomy_text(overlay: str = '["tumour"]', text: str | None = None) -> str:
    network = f'maps = "images-to-labels"\noverlay = {overlay}\npreset'
    return (text or tiny_text()).replace("preset", network, 1)


def anatomy_study(overlay: str = '["tumour"]', text: str | None = None) -> Study:
    return parse_study(anatomy_text(overlay, text))
