from pathlib import Path

from service.domain.states import UnitKind
from service.store import units
from service.store.folder_blobs import FolderBlobStore
from service.store.kept import KeptResults
from service.store.units import NewUnit, add_units


def test_what_a_finished_unit_left_is_found_by_its_key(database, tmp_path: Path):
    blobs = FolderBlobStore(tmp_path)
    kept = KeptResults(database, blobs)
    assert kept.find("k") is None
    kept.keep("k", b"curve")
    assert kept.find("k") is None  # no row names it yet
    with database.write() as session:
        add_units(session, [NewUnit(UnitKind.SELECT, "swp_1", "onnxruntime")])
        lease = units.claim(session, "onnxruntime", owner="w", lease_seconds=9)
        assert lease is not None
        units.finish(session, lease, result={}, result_sha256=kept.sha256, content_key=kept.key)
    assert KeptResults(database, blobs).find("k") == b"curve"
    assert KeptResults(database, blobs).find("other") is None
