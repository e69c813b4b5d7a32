"""``python -m photopic``: the command line, as `accelerate launch -m photopic` starts it."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # Python puts the working directory first, where a user's folder `pandas/` would be taken for the library of that name
    if sys.path and Path(sys.path[0]).resolve() == Path.cwd():
        del sys.path[0]
    from photopic.cli.main import app

    app()
