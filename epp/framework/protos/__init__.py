"""Messages of other services, generated from protos/ by `make protos`; loading them loads protobuf."""
