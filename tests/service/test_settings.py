"""What an operator sets in the environment, and what a worker of the same server is given of it."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from service.embedded.server import worker_environment
from service.settings import Settings

NAMES = ("CUSTOM_OP_LIBRARIES", "TENSORRT_PLUGIN_LIBRARIES")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("text", "paths"),
    [("", ()), ("/a/b.so", ("/a/b.so",)), ("/a/b.so:/c d/e.so:", ("/a/b.so", "/c d/e.so"))],
    ids=["none", "one", "several"],
)
def test_libraries_are_separated_like_the_folders_of_path(
    name: str, text: str, paths: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"QUANTSIEVE_{name}", text)
    assert getattr(Settings(), name.lower()) == tuple(map(Path, paths))


def test_a_library_is_an_absolute_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTSIEVE_CUSTOM_OP_LIBRARIES", "/a/b.so:libops.so")
    with pytest.raises(ValidationError, match=r"'libops\.so' is not an absolute path"):
        Settings()


def test_the_worker_of_a_server_gets_the_same_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTSIEVE_TENSORRT_PLUGIN_LIBRARIES", "/elsewhere.so")
    paths = (Path("/a/b.so"), Path("/c d/e.so"))
    settings = Settings(custom_op_libraries=paths, tensorrt_plugin_libraries=())
    for name, value in worker_environment(settings).items():
        monkeypatch.setenv(name, value)
    assert Settings().custom_op_libraries == paths
    assert Settings().tensorrt_plugin_libraries == ()


def test_everything_of_one_data_folder_lies_in_one_place_where_it_is_named_by_a_tilde(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    settings = Settings(data_dir=Path("~/q"))
    assert settings.key_file == tmp_path / "q" / "key"
    assert settings.storage == tmp_path / "q" / "blobs"
    assert settings.resolved_database_url == f"sqlite:///{tmp_path}/q/quantsieve.db"
