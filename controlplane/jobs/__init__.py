"""What ticks: periodic jobs that claim rows."""
