"""Partitions that earlier releases hold: who returns to earlier code need not compute them again.

A workspace shows one version of a table, and `dvc.lock` records one. After two changes of the code, of which the second
takes back the first, neither has what the earlier code computed; the release before the first change does.

Which releases were made with the code of today is seen in git alone: their files have the same hashes. So other code,
which no release has, costs one command of git. Only tags that were fetched count.
"""

import hashlib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path

from headrace.engine.code_hash import hash_or_nothing
from headrace.engine.fingerprint import Fingerprint
from headrace.engine.stage import Stage
from headrace.errors import HeadraceError
from headrace.storage import git
from headrace.storage.dvc.cache import Cache
from headrace.storage.manifest import Manifest
from headrace.storage.pruned_releases import kept_releases
from headrace.storage.table_store import TableStore

log = logging.getLogger(__name__)

VALUES = ("params.yaml", "headrace.lock")
"""Files with the rest of a fingerprint: parameters, and versions of libraries."""

MOST_STATES = 32
"""Of parameters and libraries: the manifest of the newest release of each is read, which may be on the remote only."""

THREADS = 16


def find_earlier_manifests(stage: Stage, table_store: TableStore, fingerprint: Fingerprint) -> list[Manifest]:
    """The manifests of the stage's table in earlier releases that were made with this fingerprint, newest first.

    Of releases between which nothing of the code changed, the newest stands for all. Partitions whose bytes are in
    neither cache nor remote are left out.
    """
    found = []
    for release in _releases_with_code(table_store.root, stage.dataset, fingerprint.code):
        try:
            manifest = table_store.recorded_manifest(stage.table, release)
            if manifest and _made_with(manifest) == _values(fingerprint):
                found.append(_with_stored_partitions(manifest, table_store.cache))
        except HeadraceError as error:  # its objects are on a remote that does not answer, or were deleted
            log.debug("%s as in %s is not looked at: %s", stage.table, release, error)
    return found


def _made_with(manifest: Manifest) -> tuple[object, ...]:
    return dict(manifest.code), dict(manifest.params), dict(manifest.libraries), manifest.result_version


def _values(fingerprint: Fingerprint) -> tuple[object, ...]:
    return dict(fingerprint.code), dict(fingerprint.params), dict(fingerprint.libraries), fingerprint.result_version


def _releases_with_code(root: Path, dataset: str, code: Mapping[str, str]) -> list[str]:
    """The releases whose commits have this code (file → hash), newest first, one for each state of `VALUES`."""
    releases = kept_releases(root, dataset)[::-1]
    if not releases:
        return []
    names = [name for name in code if (root / name).is_file()]  # not those of packages elsewhere
    blobs = dict(zip(releases, _blobs(root, releases, [*names, *VALUES]), strict=True))
    same = {name: _blobs_with_hash(root, name, {found[name] for found in blobs.values()}, code[name]) for name in names}
    states: dict[tuple[str, ...], str] = {}
    for release, found in blobs.items():
        if all(found[name] in same[name] for name in names):
            states.setdefault(tuple(found[name] for name in VALUES), release)
    return [*states.values()][:MOST_STATES]


def _blobs(root: Path, revisions: Sequence[str], paths: Sequence[str]) -> Iterator[dict[str, str]]:
    """Path → blob at each of the revisions; empty where a file is not there. One process of git."""
    wanted = "".join(f"refs/tags/{revision}:{path}\n" for revision in revisions for path in paths)
    lines = git.git(root, "cat-file", "--batch-check=%(objectname)", given=wanted).splitlines()
    names = ["" if line.endswith(" missing") else line for line in lines]
    for start in range(0, len(names), len(paths)):
        yield dict(zip(paths, names[start : start + len(paths)], strict=True))


def _blobs_with_hash(root: Path, name: str, blobs: Iterable[str], wanted: str) -> set[str]:
    """Those of the versions of a file that have the hash `wanted` in a fingerprint."""
    contents = git.blobs(root, sorted(filter(None, blobs)))
    return {blob for blob, content in contents if _hash(name, content) == wanted}


def _hash(name: str, content: bytes) -> str:
    """What a fingerprint holds of a source file, or of a data file."""
    if not name.endswith(".py"):
        return hashlib.sha256(content).hexdigest()[:32]
    return hash_or_nothing(content, Path(name))


def _with_stored_partitions(manifest: Manifest, cache: Cache) -> Manifest:
    """The manifest less the partitions whose bytes are gone, as after a prune that this clone does not know of."""
    sizes = {file.md5: file.size for file in manifest.entries.files}
    missing = {md5 for md5, size in sizes.items() if cache.is_remote_only or not cache.has(md5, size)}
    missing -= _on_remote(cache, {md5: sizes[md5] for md5 in missing})
    if not missing:
        return manifest
    stored = [name for name, entry in manifest.partitions.items() if missing.isdisjoint(it.md5 for it in entry.files)]
    return manifest.with_partitions(manifest.entries.select(stored))


def _on_remote(cache: Cache, sizes: Mapping[str, int]) -> set[str]:
    """Those of the objects (md5 → bytes) that the remote has; none if it cannot be asked."""
    if not sizes:
        return set()

    def there(md5s: Sequence[str]) -> list[str]:
        found = cache.remote.stat_many(md5s)
        return [md5 for md5 in md5s if cache.remote.matches(md5, sizes[md5], found.get(md5))]

    groups = [list(group) for _, group in groupby(sorted(sizes), key=lambda md5: md5[:2])]
    try:
        with ThreadPoolExecutor(THREADS) as pool:
            return {md5 for group in pool.map(there, groups) for md5 in group}
    except HeadraceError:
        return set()
