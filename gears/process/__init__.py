"""What every process needs: settings, logs, failpoints, memory."""
