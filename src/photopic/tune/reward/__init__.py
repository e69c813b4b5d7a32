"""Methods that tune a text-to-image model towards what a reward likes."""
