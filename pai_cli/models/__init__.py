"""Architectures with the parameter names the ecosystem uses, and recognising a state dict."""
