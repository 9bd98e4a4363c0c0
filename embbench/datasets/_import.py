"""Import of single-cell screens from AnnData files: cached by content, written whole or not at all."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from embbench.cache.cells import H5Cells, open_cells
from embbench.cache.home import home
from embbench.cache.keys import REVISION, code_of, digest
from embbench.cache.screens import load_screen, register, save_screen, screen_folder
from embbench.cache.store import DamagedFileError, lock, set_aside
from embbench.core import PerturbationDataset, UserError
from embbench.datasets._compute import compute
from embbench.datasets._open import content_digest, open_anndata
from embbench.datasets._options import ImportOptions
from embbench.datasets._stream import Progress

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def import_h5ad(
    path: str | Path,
    name: str,
    perturbation_key: str,
    control: str | tuple[str, ...] | list[str] = (),
    *,
    progress: Progress | None = None,
    **options: Any,
) -> PerturbationDataset:
    """Import an `.h5ad` file, or a zarr store of AnnData, as a screen, under a name, into ``$EMBBENCH_HOME/data``.

    The file is read in row chunks, so memory does not grow with the number of cells. What was read, dropped and why is
    in ``meta["import_report"]`` (lines of text), ``["import_counts"]`` and ``["import_names"]``. The same file with the
    same options is not computed again.

    Parameters
    ----------
    path : the file; of a zarr store the folder, or a zip of what lies in it.
    name : letters, digits, ``.``, ``_`` and ``-``.
    perturbation_key, control, options : see `ImportOptions`.
    progress : called with a stage, a number done and their total.

    Raises
    ------
    UserError
        Anything wrong with file, options or values; nothing is left behind.

    Examples
    --------
    >>> import_h5ad("screen.h5ad", "my screen", "guide")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    embbench.core.screen.UserError: import: a dataset name has letters, digits, '.', '_' and '-' only, got ...
    """
    if not _NAME.fullmatch(name):
        raise UserError(
            f"import: a dataset name has letters, digits, '.', '_' and '-' only, got {name!r}; choose another"
        )
    data = cached_screen(Path(path), read_options(perturbation_key, control, options), progress)
    meta = data.meta
    facts = {k: meta[k] for k in ("digest", "import_key", "source")}
    register(name, {**facts, "conditions": len(data), "contexts": len(data.contexts), "genes": len(data.genes)})
    return replace(data, name=name)


def read_options(perturbation_key: str, control: Any, options: dict[str, Any]) -> ImportOptions:
    """Options from keywords; a keyword that does not exist is a `UserError` that lists those that do.

    Examples
    --------
    >>> read_options("guide", "NT", {"context_keys": "cell_line"}).context_keys
    ('cell_line',)
    """
    try:
        return ImportOptions(perturbation_key, control, **options)
    except TypeError as error:
        known = sorted(ImportOptions.__dataclass_fields__)
        raise UserError(f"import: {error}; options are {', '.join(known)}") from error


def cached_screen(path: Path, options: ImportOptions, progress: Progress | None = None) -> PerturbationDataset:
    """The screen of a file with these options, computed unless the store has it.

    Raises
    ------
    UserError
        See `import_h5ad`.
    """
    with open_anndata(path):
        sha = content_digest(path)
    return cached(Cells(path.name, {"file": sha}, lambda: open_anndata(path)), options, progress)


@dataclass(frozen=True)
class Cells:
    """Single cells that can be imported.

    Parameters
    ----------
    source : what tables call them, e.g. the file's name.
    facts : what their content depends on, JSON-able: ``file`` (sha256), and of published files how they were read.
    open : gives the opened AnnData, as `embbench.datasets._open.open_anndata` does.
    """

    source: str
    facts: dict[str, Any]
    open: Callable[[], contextlib.AbstractContextManager[Any]]


def cached(cells: Cells, options: ImportOptions, progress: Progress | None = None) -> PerturbationDataset:
    """The screen of these cells with these options, computed unless the store has it.

    Raises
    ------
    UserError
        See `import_h5ad`.
    """
    report = progress or (lambda stage, done, total: None)
    facts = {**cells.facts, "options": options.facts(), "code": code_of(__name__), "revision": REVISION}
    key = digest(facts)
    found = _stored(key)
    if found is not None:
        return found
    with _workspace(key) as folder:
        found = _stored(key)  # another process may have imported it meanwhile
        if found is not None:
            return found
        with cells.open() as file:
            source = {"source": cells.source, "source_sha256": facts["file"], "import_key": key}
            data = compute(file, options, folder, source, report)
        sha = save_screen(folder / "screen.h5", data)
        (folder / f"import-{key}.json").write_text(json.dumps(facts, indent=1, sort_keys=True), encoding="utf-8")
        _publish(folder, screen_folder(sha))
    stored = _stored(key)
    if stored is None:
        raise UserError(
            f"import of {cells.source}: {screen_folder(sha)} was removed while it was written; import again"
        )
    return stored


def _stored(key: str) -> PerturbationDataset | None:
    """The imported screen of that key, None when there is none or its files are damaged (they are set aside)."""
    for mark in sorted(home("data").glob(f"*/import-{key}.json")):
        screen, cells = mark.with_name("screen.h5"), mark.with_name("cells.h5")
        at = screen
        try:
            data = load_screen(screen)
            if data.meta.get("cells_digest"):
                at = cells
                if not cells.exists():
                    continue
                open_cells(cells).close()
        except DamagedFileError:
            set_aside(at)
        except FileNotFoundError:
            continue
        else:
            return replace(data, cells=H5Cells(cells, data.genes) if data.meta.get("cells_digest") else None)
    return None


@contextlib.contextmanager
def _workspace(key: str) -> Iterator[Path]:
    """A scratch folder beside the imported screens, one process per key; nothing stays behind when it fails."""
    root = home("data")
    locks = root / ".locks"
    made = [folder for folder in (locks, root, *root.parents) if not folder.exists()]
    done = False
    try:
        root.mkdir(parents=True, exist_ok=True)
        with lock(root / f"import-{key}"):
            for left in root.glob(f".import-{key}-*"):  # of an import that was killed
                shutil.rmtree(left, ignore_errors=True)
            folder = Path(tempfile.mkdtemp(prefix=f".import-{key}-", dir=root))
            try:
                yield folder
                done = True
            finally:
                shutil.rmtree(folder, ignore_errors=True)
                (locks / f"import-{key}.lock").unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"import into {root}: {error}; free some space or point EMBBENCH_HOME to another folder"
        ) from error
    finally:
        for folder in () if done else made:
            with contextlib.suppress(OSError):  # not empty: something was imported
                folder.rmdir()


def _publish(folder: Path, target: Path) -> None:
    """Move finished files to their place: at once when it is new, else one by one, the import mark last."""
    files = sorted(p for p in folder.iterdir() if p.is_file())
    if not target.exists():
        staged = folder / "staged"
        staged.mkdir()
        staged.chmod(0o755)
        for file in files:
            file.replace(staged / file.name)
        with contextlib.suppress(FileExistsError):
            staged.rename(target)
            return
        files = sorted(staged.iterdir())
    for file in sorted(files, key=lambda p: p.suffix == ".json"):
        file.replace(target / file.name)
