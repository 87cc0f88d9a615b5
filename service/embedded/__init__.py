"""One machine: the API, a worker and a broker, started and stopped together. Import nothing heavy here."""
