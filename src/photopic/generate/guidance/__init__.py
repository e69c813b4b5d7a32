"""Controls that steer a picture while it is drawn, without touching weights."""
