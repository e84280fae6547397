"""Numbers in sentences and tables."""


def number_text(value: float) -> str:
    """Return a number with at least three digits, as in tables: ``"0.250"``, ``"12.0"``, ``"1,234.5"``."""
    return f"{value:,.1f}" if abs(value) >= 10 or not value else f"{value:#.3g}"


def counted(number: int, one: str, many: str = "") -> str:
    """Return a number and what it counts.

    Parameters
    ----------
    number
        How many.
    one
        What follows the number 1: ``"rank"``, or with a verb ``"image is"``.
    many
        What follows any other number; by default ``one`` with an s.

    Returns
    -------
    str
        E.g. ``"1 rank"``, ``"0 ranks"``, ``"12,936 images"``.
    """
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"
