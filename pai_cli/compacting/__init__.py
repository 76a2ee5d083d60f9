"""Removing what a mask leaves without effect: channels that are dead, from a network that is then smaller."""
