"""Rules of thumb about a handwritten digit on a grid of 8 x 8 cells: each votes for one digit, or abstains.

They are weak, as such rules are: how good each one is, is measured on answers that people gave without a suggestion.
"""

from collections.abc import Iterator, Mapping
from typing import Any

SIDE = 8
INKED, EMPTY = 90, 40
Grid = tuple[tuple[int, ...], ...]
Cell = tuple[int, int]


def ring(row: Mapping[str, Any]) -> str | None:
    """One hole, and nothing in the middle: 0."""
    grid = grid_of(row)
    middle = max(grid[y][x] for y in (3, 4) for x in (3, 4))
    return "0" if len(holes(grid)) == 1 and middle < EMPTY else None


def two_rings(row: Mapping[str, Any]) -> str | None:
    """Two holes: 8."""
    return "8" if len(holes(grid_of(row))) == 2 else None  # noqa: PLR2004  what an 8 is


def ring_below(row: Mapping[str, Any]) -> str | None:
    """One hole, in the lower half: 6."""
    found = holes(grid_of(row))
    return "6" if len(found) == 1 and _centre(found[0]) > 4 else None  # noqa: PLR2004  rows of the grid


def ring_above(row: Mapping[str, Any]) -> str | None:
    """One hole, in the upper half: 9."""
    found = holes(grid_of(row))
    return "9" if len(found) == 1 and _centre(found[0]) < 3 else None  # noqa: PLR2004  rows of the grid


def stick(row: Mapping[str, Any]) -> str | None:
    """No hole, and little ink right and left of the middle: 1."""
    grid = grid_of(row)
    side_ink = sum(line[x] for line in grid for x in (0, 1, 6, 7))
    return "1" if not holes(grid) and side_ink < _ink(grid) / 12 else None


def foot(row: Mapping[str, Any]) -> str | None:
    """No hole, and a broad last line that the lines above lean towards from the right: 2."""
    grid = grid_of(row)
    broad = sum(cell > INKED for cell in grid[7]) >= 4  # noqa: PLR2004  half the grid
    return "2" if not holes(grid) and broad and sum(grid[2][4:]) > sum(grid[2][:4]) else None


def flag(row: Mapping[str, Any]) -> str | None:
    """No hole, a broad first line, and a foot left of it: 7."""
    grid = grid_of(row)
    broad = sum(cell > INKED for cell in grid[0]) >= 3  # noqa: PLR2004  cells of a stroke
    left = sum(grid[7][:4]) > sum(grid[7][4:]) and sum(grid[7][5:]) < EMPTY
    return "7" if not holes(grid) and broad and left else None


FUNCTIONS = (ring, two_rings, ring_below, ring_above, stick, foot, flag)


def grid_of(row: Mapping[str, Any]) -> Grid:
    """The ink of each cell, 0 to 255, line by line."""
    cells = bytes.fromhex(row["cells"])
    return tuple(tuple(cells[start : start + SIDE]) for start in range(0, SIDE * SIDE, SIDE))


def holes(grid: Grid) -> list[set[Cell]]:
    """Connected areas of empty cells that ink encloses: all but the area around the digit."""
    unvisited = {(y, x) for y in range(-1, SIDE + 1) for x in range(-1, SIDE + 1) if not _inked(grid, y, x)}
    areas = []
    while unvisited:
        areas.append(_flood_fill(unvisited, min(unvisited)))
        unvisited -= areas[-1]
    return areas[1:]


def _flood_fill(empty: set[Cell], start: Cell) -> set[Cell]:
    reached, waiting = {start}, [start]
    while waiting:
        new = {cell for cell in _neighbours(waiting.pop()) if cell in empty} - reached
        reached |= new
        waiting += new
    return reached


def _neighbours(cell: Cell) -> Iterator[Cell]:
    y, x = cell
    yield from ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1))


def _inked(grid: Grid, y: int, x: int) -> bool:
    return 0 <= y < SIDE and 0 <= x < SIDE and grid[y][x] > INKED


def _centre(area: set[Cell]) -> float:
    return sum(y for y, _ in area) / len(area)


def _ink(grid: Grid) -> int:
    return sum(map(sum, grid))
