"""``python -m photopic``: the command line, as `accelerate launch -m photopic` starts it."""

from photopic.cli.main import app

if __name__ == "__main__":
    app()
