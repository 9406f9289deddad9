"""Numbers, names and dates as people read them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime, timezone
from statistics import NormalDist

NOT_MEASURED = "not measured"

_NBSP = "\N{NO-BREAK SPACE}"
_PRECISIONS: Mapping[str, str] = {
    "fp32": "FP32",
    "fp16": "FP16",
    "int8": "INT8",
    "int8-fp16": "INT8 with FP16",
}
_BUDGET: Mapping[str, tuple[str, str]] = {
    "agreement": ("agreement with FP32", "at least "),
    "agreement_labelled": ("agreement with FP32 on known images", "at least "),
    "mean_kl": ("mean KL divergence from FP32", "at most "),
    "top1_drop": ("loss of top-1 accuracy", "at most "),
    "class_drop": ("loss of top-1 accuracy of the worst class", "at most "),
}
_MEANINGS: Mapping[str, str] = {
    "fp32": "The model in 32-bit floating point, as it was trained: the reference for the others.",
    "fp16": "The model in 16-bit floating point: half the size.",
    "int8": "Most of the arithmetic in 8-bit whole numbers, the rest in 32-bit floats.",
    "int8-fp16": "Most of the arithmetic in 8-bit whole numbers, the rest in 16-bit floats.",
}


def quoted(text: str) -> str:
    """Return `text` between typographic quotation marks."""
    return f"\N{LEFT DOUBLE QUOTATION MARK}{text}\N{RIGHT DOUBLE QUOTATION MARK}"


def finite(value: object) -> float | None:
    """Return `value` as a float, or None where it is no finite number (or a truth value)."""
    if value is None or isinstance(value, (bool, str, bytes)):
        return None
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def count(value: object) -> str:
    """Return a whole number with thousands separated: ``1,000``."""
    number = finite(value)
    return NOT_MEASURED if number is None else f"{round(number):,}"


def counted(value: int, one: str, many: str | None = None) -> str:
    """Return a number with its noun: ``1 image``, ``2,000 images``."""
    return f"{value:,} {one if value == 1 else many or one + 's'}"


def percent(share: object, digits: int = 1) -> str:
    """Return a share (0..1) as a percentage that never rounds up to all or down to nothing."""
    number = finite(share)
    if number is None:
        return NOT_MEASURED
    text = f"{100 * number:.{digits}f}"
    step = 10.0**-digits
    if number < 1 and float(text) >= 100:
        return f">{100 - step:.{digits}f}{_NBSP}%"
    if number > 0 and float(text) == 0:
        return f"<{step:.{digits}f}{_NBSP}%"
    return f"{text.rstrip('0').rstrip('.') if number in {0, 1} else text}{_NBSP}%"


def number(value: object) -> str:
    """Return a number with four significant digits."""
    known = finite(value)
    return NOT_MEASURED if known is None else f"{known:.4g}"


def divergence(value: object) -> str:
    """Return a divergence with five decimals, so that the numbers of a column can be compared."""
    known = finite(value)
    if known is None:
        return NOT_MEASURED
    return f"{known:.5f}" if known == 0 or abs(known) >= 1e-5 else "<0.00001"


def size(n_bytes: object) -> str:
    """Return a size in decimal units: ``3.4 MB``."""
    value = finite(n_bytes)
    if value is None:
        return NOT_MEASURED
    for unit in ("B", "kB", "MB", "GB"):
        if abs(value) < 1000 or unit == "GB":
            break
        value /= 1000
    digits = 0 if unit == "B" or value >= 100 else 1
    return f"{value:.{digits}f}{_NBSP}{unit}"


def seconds(value: object) -> str:
    """Return a time as ``12.3 s``; never as 0 where it took some."""
    known = finite(value)
    if known is None:
        return NOT_MEASURED
    return f"<0.1{_NBSP}s" if 0 < known < 0.1 else f"{known:.1f}{_NBSP}s"


def milliseconds(least_s: float, most_s: float) -> str:
    """Return a range of times with two significant digits: ``0.12 to 0.43 ms``."""
    least, most = (f"{float(f'{1000 * one:.2g}'):g}" for one in (least_s, most_s))
    return f"{least} to {most}{_NBSP}ms"


def library(name: str) -> str:
    """Return a library's name as it is written in a sentence: ``TensorRT-RTX``."""
    return name.replace("tensorrt", "TensorRT").replace("rtx", "RTX")


def large(value: object) -> str:
    """Return a large count in words: ``3.5 million``."""
    known = finite(value)
    if known is None:
        return NOT_MEASURED
    for scale, word in ((1e9, "billion"), (1e6, "million")):
        if known >= scale:
            return f"{known / scale:.3g}{_NBSP}{word}"
    return count(known)


def date(iso: str) -> str:
    """Return an ISO 8601 time as ``20 November 2026, 23:40 UTC``, or as it is where it is none."""
    try:
        moment = datetime.fromisoformat(iso.replace("Z", "+00:00"))
    except ValueError:
        return iso
    zone = ""
    if moment.tzinfo is not None:
        moment, zone = moment.astimezone(timezone.utc), " UTC"
    return f"{moment.day} {moment:%B %Y, %H:%M}{zone}"


def precision(name: str) -> str:
    """Return a variant's name as it is written in a sentence: ``INT8``."""
    return _PRECISIONS.get(name, name)


def meaning(name: str) -> str:
    """Return in one sentence what a variant is; empty for a name that is not known."""
    return _MEANINGS.get(name, "")


# What turns the direction of writing, and the line and paragraph separators.
_TURNING = frozenset({*range(0x2028, 0x202F), *range(0x2066, 0x206A)})


def xml_text(text: str) -> str:
    """Return `text` with what XML 1.0 forbids, and other control characters, replaced by U+FFFD.

    File names may hold control characters, and lone surrogates where they are not UTF-8; the
    result can be encoded as UTF-8 and stands in HTML, SVG and JSON.

    References
    ----------
    W3C, "Extensible Markup Language (XML) 1.0", fifth edition, section 2.2.
    """
    return "".join(
        character if _allowed(ord(character)) else "\N{REPLACEMENT CHARACTER}" for character in text
    )


def _allowed(code: int) -> bool:
    return (
        code in {0x9, 0xA, 0xD}
        or 0x20 <= code <= 0x7E
        or (0xA0 <= code <= 0xD7FF and code not in _TURNING)
        or 0xE000 <= code <= 0xFFFD
        or 0x10000 <= code <= 0x10FFFF
    )


def budget_term(key: str) -> str:
    """Return in words what a key of the budget limits; the key itself where it is not known."""
    return _BUDGET.get(key, (key, ""))[0]


def budget_limit(key: str, required: object) -> str:
    """Return a limit of the budget with its direction: ``at least 0.97``."""
    return _BUDGET.get(key, (key, ""))[1] + number(required)


def wilson_interval(successes: int, trials: int, looks: int = 1) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of a share, two numbers 0..1.

    Unlike the normal approximation it holds for few trials and for shares near 0 and 1. With
    several looks at the same trials it is that of 1 - 0.05 / looks (Bonferroni), so that the
    intervals of all looks hold together. Raises ValueError where there are no trials, or more
    successes than trials.

    References
    ----------
    E. B. Wilson, "Probable inference, the law of succession, and statistical inference",
    Journal of the American Statistical Association 22 (1927), 209-212.
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"no interval for {successes} successes in {trials} trials")
    z = NormalDist().inv_cdf(1 - 0.025 / looks)
    share = successes / trials
    weight = 1 + z * z / trials
    centre = (share + z * z / (2 * trials)) / weight
    spread = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials)) / weight
    lower = 0.0 if successes == 0 else max(0.0, centre - spread)
    upper = 1.0 if successes == trials else min(1.0, centre + spread)
    return lower, upper
