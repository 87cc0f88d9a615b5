"""The settings of an installation, read once at start-up from ``QUANTSIEVE_*`` environment variables."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from service.domain.storage import Storage, parse_storage
from service.domain.tenant import Limits
from service.logs import LogFormat

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})

LONGEST_LEASE_SECONDS = 3600.0


def _default_data_dir() -> Path:
    return Path.home() / ".local" / "share" / "quantsieve"


def _cut(value: Any) -> Any:
    return [each for each in value.split(os.pathsep) if each] if isinstance(value, str) else value


def _absolute(paths: tuple[Path, ...]) -> tuple[Path, ...]:
    for each in paths:
        if not each.is_absolute():  # a loader looks for a bare name in folders that nobody named here
            raise ValueError(f"{str(each)!r} is not an absolute path")
    return paths


Libraries = Annotated[tuple[Path, ...], NoDecode, BeforeValidator(_cut), AfterValidator(_absolute)]
"""Absolute paths of shared libraries; in the environment separated like those of PATH."""


class Settings(BaseSettings):
    """Everything an operator can set. Sizes in bytes, times in seconds."""

    model_config = SettingsConfigDict(env_prefix="QUANTSIEVE_", frozen=True)

    data_dir: Annotated[Path, AfterValidator(Path.expanduser)] = Field(
        default_factory=_default_data_dir, description="Folder of the embedded database and files."
    )
    database_url: str | None = Field(default=None, description="SQLAlchemy URL; default: SQLite in data_dir.")
    broker_url: str | None = Field(default=None, description="Celery broker URL; default: a folder in data_dir.")
    blob_url: str | None = Field(
        default=None,
        description="Folder of uploaded and produced files, or s3://bucket/prefix; default: a folder in data_dir.",
    )
    blob_cache_dir: Path | None = Field(
        default=None, description="Folder of this machine's copies of files in S3; default: in data_dir."
    )
    blob_cache_bytes: Annotated[
        int, Field(gt=0, description="Bytes that the copies may take; those unused longest go.")
    ] = 100 * 2**30
    host: str = Field(default="127.0.0.1", description="Address that the API listens on.")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(default=8080, description="Port of the API; 0: any free one.")
    require_keys: bool | None = Field(
        default=None,
        description=(
            "Whether requests need an API key of the database. Default: a loopback host takes the key in data_dir/key "
            "too, any other host does not start; false: everybody who reaches the address may do everything."
        ),
    )
    key_pepper: Annotated[SecretStr, Field(min_length=16)] | None = Field(
        default=None,
        description="Secret that HMACs of API keys are made with, the same for every API; default: data_dir/pepper.",
    )
    rate_limit_per_second: Annotated[float, Field(gt=0, description="Requests that an API key gains per second.")] = 50
    rate_limit_burst: Annotated[int, Field(ge=1, description="Requests that an API key can save up.")] = 200
    max_event_streams: Annotated[
        int, Field(ge=1, description="Event streams that an API key may have open at one API.")
    ] = 32
    max_open_sweeps: Annotated[int, Field(ge=0, description="Sweeps of a project that have not ended.")] = 1000
    max_queued_units: Annotated[
        int, Field(ge=0, description="Work units of a project that wait or run; beyond, no work is taken on.")
    ] = 100_000
    max_stored_bytes: Annotated[int, Field(ge=0, description="Bytes of all files of a project.")] = 2**40
    max_model_bytes: Annotated[int, Field(gt=0, description="The largest model that is taken.")] = 8 * 2**30
    max_dataset_bytes: Annotated[int, Field(gt=0, description="The largest evaluation set that is taken.")] = 64 * 2**30
    max_calibration_bytes: Annotated[int, Field(gt=0, description="The largest calibration cache that is taken.")] = (
        16 * 2**20
    )
    allow_pt2: bool | None = Field(
        default=None,
        description="Accept torch.export archives (they can run code), from every caller that may submit; default: "
        "where keys are required those with the scope admin, else everybody on a loopback host and nobody on another.",
    )
    lease_seconds: Annotated[
        float, Field(gt=0, le=LONGEST_LEASE_SECONDS, description="A worker that is silent for so long loses its unit.")
    ] = 60.0
    heartbeat_seconds: Annotated[float, Field(gt=0, description="How often a worker says that it lives.")] = 5.0
    reconcile_seconds: Annotated[float, Field(gt=0, description="How often a worker looks for what was lost.")] = 5.0
    max_attempts: Annotated[int, Field(ge=1, description="So many times a unit is tried.")] = 5
    device: str = Field(default="auto", description="Device of this worker: auto, cpu or cuda:<index>.")
    custom_op_libraries: Libraries = Field(
        default=(), description="ONNX Runtime custom-op libraries, for operators outside the standard domains."
    )
    tensorrt_plugin_libraries: Libraries = Field(
        default=(), description="TensorRT plugin libraries with the same operators, for the TensorRT backend."
    )
    onnxruntime_provider: Literal["cuda", "tensorrt"] = Field(
        default="cuda", description="Execution provider of ONNX Runtime where this worker's device is a GPU."
    )
    sandbox: Literal["auto", "required"] = Field(
        default="auto",
        description="Processes that open uploaded files: confined as far as the host permits, or not without.",
    )
    sandbox_memory_bytes: Annotated[int, Field(gt=0)] | None = Field(
        default=None, description="Memory of one such process; default: 80 % of the machine's or the container's."
    )
    sandbox_file_bytes: Annotated[int, Field(gt=0)] = Field(
        default=64 * 2**30, description="Largest file that such a process may write to its temporary folder."
    )
    sandbox_open_seconds: Annotated[float, Field(gt=0)] = Field(
        default=900.0, description="Time until a file is open; one that takes longer is rejected."
    )
    sandbox_silent_seconds: Annotated[float, Field(gt=0)] = Field(
        default=3600.0, description="Time between two answers of such a process; then it is ended."
    )

    log_format: LogFormat = Field(
        default="text", description="Lines of the logs: for people, or one JSON object a line."
    )
    public_metrics: bool = Field(
        default=False, description="Whether GET /metrics needs no key; it names projects. Default: a key with admin."
    )
    retention_days: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="Sweeps that ended so long ago are deleted with their files; default: they are kept."
    )
    collect_seconds: Annotated[float, Field(gt=0)] = Field(
        default=3600.0, description="How often the workers, one for all, remove what is left over or too old."
    )

    @property
    def resolved_database_url(self) -> str:
        """The database URL in force."""
        return self.database_url or f"sqlite:///{self.data_dir / 'quantsieve.db'}"

    @property
    def resolved_broker_url(self) -> str:
        """The broker URL in force."""
        return self.broker_url or "filesystem://"

    @field_validator("blob_url")
    @classmethod
    def _storage_is_known(cls, value: str | None) -> str | None:
        if value is not None:
            parse_storage(value)
        return value

    @property
    def storage(self) -> Storage:
        """Where files are kept: a folder, or a place in a bucket."""
        return self.data_dir / "blobs" if self.blob_url is None else parse_storage(self.blob_url)

    @property
    def resolved_blob_cache_dir(self) -> Path:
        """The folder of the copies in force."""
        return self.blob_cache_dir or self.data_dir / "blob-cache"

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine reaches the API."""
        return self.host in LOOPBACK

    @property
    def key_file(self) -> Path:
        """Where the key of an API on a loopback address lies, for its owner alone."""
        return self.data_dir / "key"

    @property
    def limits(self) -> Limits:
        """What a project may have that has no limits of its own."""
        return Limits(self.max_open_sweeps, self.max_queued_units, self.max_stored_bytes)
