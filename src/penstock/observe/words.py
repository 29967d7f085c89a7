"""Numbers as people read them: three digits and a unit. And names, which may hold anything, as a terminal can show them."""

from __future__ import annotations


def shown(text: str, *, keep: str = "") -> str:
    r"""``text`` with everything that is no letter, sign or plain space written out, as ``\n`` or ``\x1b``, apart from ``keep``.

    A byte that is not UTF-8 stands in a str as a lone surrogate, which no stream can write: it is shown as ``\xe9``.
    """
    if text.isprintable():
        return text
    return "".join([each if each.isprintable() or each in keep else _escaped(each) for each in text])


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def count(number: float) -> str:
    """``950``, ``12.4k``, ``3.05M``, ``1.20G``."""
    return _short(number, 1000, ("", "k", "M", "G", "T"), separator="")


def size(bytes_: float) -> str:
    """``950 B``, ``12.4 kB``, ``3.05 MB``: powers of 1024, as PostgreSQL's pg_size_pretty."""
    return _short(bytes_, 1024, ("B", "kB", "MB", "GB", "TB"), separator=" ")


def rate(per_second: float) -> str:
    """A rate; nothing at all reads as a dash, so that the eye finds the tables that move."""
    if per_second < 0.05:
        return "–"
    return f"{per_second:.1f}" if per_second < 10 else count(round(per_second))


def milliseconds(value: float | None) -> str:
    """``42 ms``, ``1.3 s``; a dash without a value."""
    if value is None:
        return "–"
    return f"{value:.0f} ms" if value < 1000 else duration(value / 1000)


def duration(seconds: float) -> str:
    """``0.3 s``, ``12 s``, ``3:05``, ``2 h 10 min``, ``4 days``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02}"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours < 48 else f"{hours // 24} days"


def _short(number: float, step: int, units: tuple[str, ...], *, separator: str) -> str:
    value = float(number)
    for unit in units:
        if abs(value) < 999.5 or unit == units[-1]:
            break
        value /= step
    digits = 0 if unit == units[0] else 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0
    return f"{value:.{digits}f}{separator}{unit}"
