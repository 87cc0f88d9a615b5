"""Opens the store of files that the settings name."""

from service.domain.errors import InvalidInput
from service.domain.storage import S3Location, Storage
from service.settings import Settings
from service.store.blob_cache import BlobCache
from service.store.blobs import BlobStore
from service.store.folder_blobs import FolderBlobStore


def open_blobs(settings: Settings) -> BlobStore:
    """The store. Nothing is asked of a server yet; raises InvalidInput where its client is not installed."""
    storage: Storage = settings.storage
    if not isinstance(storage, S3Location):
        return FolderBlobStore(storage)
    try:
        from service.store.s3_blobs import S3BlobStore
    except ImportError as error:
        message = f"blob_url: {storage} needs the package {error.name}: pip install 'quantsieve[s3]'"
        raise InvalidInput(message, field="blob_url") from None
    return S3BlobStore(storage, BlobCache(settings.resolved_blob_cache_dir, settings.blob_cache_bytes))
