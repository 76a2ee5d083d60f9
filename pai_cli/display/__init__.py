"""Tables, progress and the screen."""
