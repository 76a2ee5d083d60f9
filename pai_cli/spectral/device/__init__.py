"""The engine on a torch device: a network's problems as one plan, in few launches and without waiting in between."""
