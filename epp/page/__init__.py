"""The page for operators at ``/`` of the metrics port: files, the last minutes, a stream of events."""
