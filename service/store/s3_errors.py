"""What an S3 client's errors mean to an operator."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import boto3.exceptions
import botocore.exceptions
import s3transfer.exceptions

from service.store.blobs import StorageUnavailable, no_such_file

log = logging.getLogger(__name__)

NO_CREDENTIALS = (
    botocore.exceptions.NoCredentialsError,
    botocore.exceptions.PartialCredentialsError,
    botocore.exceptions.CredentialRetrievalError,
    botocore.exceptions.NoAuthTokenError,
    botocore.exceptions.UnauthorizedSSOTokenError,
    botocore.exceptions.TokenRetrievalError,
)
NETWORK = (
    botocore.exceptions.BotoCoreError,
    boto3.exceptions.Boto3Error,
    s3transfer.exceptions.RetriesExceededError,
    s3transfer.exceptions.S3DownloadFailedError,
    s3transfer.exceptions.TransferNotDoneError,
)
# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
MISSING_FILE = {"NoSuchKey"}
MISSING_BUCKET = {"NoSuchBucket"}
REFUSED = {
    "403",
    "AccessDenied",
    "AllAccessDisabled",
    "AuthorizationHeaderMalformed",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "Unauthorized",
}


@contextmanager
def told(sha256: str = "") -> Iterator[None]:
    """Turn the client's errors into StorageUnavailable (or FileNotFoundError of this file); the log has the details.

    The sentence names neither bucket nor address: strangers read it.
    """
    try:
        yield
    except botocore.exceptions.ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        if code in MISSING_FILE:
            raise no_such_file(sha256) from error
        raise _logged(_of_answer(code), error) from error
    except NO_CREDENTIALS as error:
        sentence = "the service has no credentials for the storage of its files (AWS_ACCESS_KEY_ID and others)"
        raise _logged(StorageUnavailable(sentence, code="storage-refused"), error) from error
    except NETWORK as error:
        raise _logged(StorageUnavailable("the storage of the files does not answer; try again"), error) from error


def _of_answer(code: str) -> StorageUnavailable:
    if code in MISSING_BUCKET:
        return StorageUnavailable("the bucket of the files does not exist", code="storage-bucket-missing")
    if code in REFUSED:
        return StorageUnavailable("the storage of the files refuses the service's credentials", code="storage-refused")
    return StorageUnavailable(f"the storage of the files answers {code or 'with an error'}; try again")


def _logged(told: StorageUnavailable, error: Exception) -> StorageUnavailable:
    log.error("%s: %s", told.message, error)
    return told
