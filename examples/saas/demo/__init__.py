"""The demo: start everything, send traffic, find it by who, check what was found."""
