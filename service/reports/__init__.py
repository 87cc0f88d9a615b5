"""One sweep as JSON, CSV and a page: pure functions from values to bytes."""
