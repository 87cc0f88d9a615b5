"""What lies in a folder of files by their hashes."""

from pathlib import Path


def stored_files(folder: Path) -> set[Path]:
    """Every file, finished or not, but the lock."""
    return {path for path in folder.rglob("*") if path.is_file() and path != folder / ".lock"}
