"""What ``photopic demo`` does and the page it writes."""
