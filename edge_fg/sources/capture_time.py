"""When images and videos were taken, as cameras write it."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import IO, Final

from PIL import Image

from edge_fg.image_formats import open_image

_TIME = re.compile(
    r"\s*(\d{4})[:/-](\d\d)[:/-](\d\d)[ T](\d\d):(\d\d):(\d\d)(?:\.(\d+))?"
    r"\s*(?:(Z)|([+-])(\d\d):?(\d\d))?[\s\0]*"
)
# Cameras that lost their clock write 1904, 1970 or 1980.
_FIRST_YEAR = 1990
# Tags of EXIF 2.32: when the image was taken, or else digitised; parts of a second; the zone.
_EXIF_IFD: Final = 0x8769
_EXIF_TIMES: Final = ((0x9003, 0x9291, 0x9011), (0x9004, 0x9292, 0x9012))


def parse_time(text: str) -> datetime | None:
    """Read a time as EXIF, QuickTime, Matroska and AVI state it; None where it is none.

    It has a zone only where the text states one: cameras mostly write their local time.
    """
    match = _TIME.fullmatch(text)
    if match is None or int(match[1]) < _FIRST_YEAR:
        return None
    zone = timezone.utc if match[8] else None
    if match[9]:
        offset = timedelta(hours=int(match[10]), minutes=int(match[11]))
        zone = timezone(-offset if match[9] == "-" else offset) if offset.days == 0 else None
    part = (match[7] or "0")[:6].ljust(6, "0")
    try:
        time = datetime.strptime(" ".join(match.groups()[:6]) + part, "%Y %m %d %H %M %S%f")
        return time.replace(tzinfo=zone)
    except ValueError:
        return None


def photo_time(file: Path | IO[bytes]) -> datetime | None:
    """Return when an image was taken by its EXIF data; None where it doesn't say."""
    try:
        with file.open("rb") if isinstance(file, Path) else file as stream:
            # Not the own method of a PNG, which decodes all of it.
            tags = Image.Image.getexif(open_image(stream)).get_ifd(_EXIF_IFD)
    # Damaged EXIF data can raise any error, and the image is good all the same.
    except Exception:  # noqa: BLE001
        return None
    for time_tag, part_tag, zone_tag in _EXIF_TIMES:
        second, part, zone = (
            str(tags.get(tag, "")).strip(" \0") for tag in (time_tag, part_tag, zone_tag)
        )
        stated = f"{second}.{part}" if part.isdigit() else second
        if found := parse_time(stated + zone) or parse_time(stated):
            return found
    return None
