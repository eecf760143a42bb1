"""The long-running sidecar: schedule, work, window."""
