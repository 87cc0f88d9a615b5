"""The decision of a sweep as files that other tools take."""
