"""runspan: finished AI agent runs as OpenTelemetry traces."""
