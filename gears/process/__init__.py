"""What every process needs: settings, logs, signals, memory."""
